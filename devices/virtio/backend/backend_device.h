// What a device is to the backend library: features, configuration, and what to do when the driver has put something into a queue.
//
// Threads  confined to the server's loop.
// Trust    chains are checked spans of guest memory, whose contents may change while they are looked at: copy, then check the copy.
// Errors   none: a request that makes no sense is answered as its device type's specification says.
#ifndef VMM_DEVICES_VIRTIO_BACKEND_BACKEND_DEVICE_H_
#define VMM_DEVICES_VIRTIO_BACKEND_BACKEND_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "devices/virtio/backend/backend_queue.h"

namespace vmm {

// What the library offers a device in return, on the same thread.
class BackendHost {
 public:
  virtual ~BackendHost() = default;
  // config() has changed.
  virtual void ConfigChanged() = 0;
  // Process(queue), as if the driver had kicked: something has come that the queue was waiting for. Nothing where it does not run.
  virtual void Wake(uint16_t queue) = 0;
};

class BackendDevice {
 public:
  virtual ~BackendDevice() = default;
  // Once, before anything else; it outlives all other calls.
  virtual void OnHost(BackendHost& /*host*/) {}
  // Of the device type; rings' features are the library's. Constant, as is the number of queues.
  [[nodiscard]] virtual uint64_t features() const noexcept = 0;
  [[nodiscard]] virtual uint16_t queue_count() const noexcept = 0;
  // At most 256 bytes; empty: no configuration space.
  [[nodiscard]] virtual std::span<const std::byte> config() const noexcept { return {}; }
  // False: not a field that a driver may write.
  [[nodiscard]] virtual bool WriteConfig(uint32_t /*offset*/, std::span<const std::byte> /*data*/) noexcept { return false; }

  // What the driver accepted, before the first queue starts.
  virtual void OnFeatures(uint64_t /*features*/) noexcept {}
  // The driver put something in, or the queue has just started. True: there is more, call again soon (others come first). The library
  // notifies afterwards; a device that takes its time notifies in between.
  [[nodiscard]] virtual bool Process(uint16_t index, BackendQueue& queue) noexcept = 0;
  // The driver has reset the device; all queues are stopped.
  virtual void OnReset() noexcept {}
  // No chain of this queue may be kept beyond it.
  virtual void OnQueueStopped(uint16_t /*index*/) noexcept {}
};

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_BACKEND_BACKEND_DEVICE_H_
