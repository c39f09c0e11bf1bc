// What a transport drives: one virtio device, wherever it is. The vhost-user front end is one.
//
// Shapes   queues 0 to queue_count - 1; a kick eventfd and a call eventfd each, for the endpoint's whole life.
// Threads  the transport calls under its own lock, from VP threads. Calls may wait for the device as long as the endpoint says
//          (vhost_user_frontend.h: a documented bound), never longer.
// Trust    features and queues that are started have been checked by the transport, as far as the specification has rules for them;
//          the addresses are the guest's. Configuration offsets are the guest's too.
// Errors   false: the device is lost or refused; the transport sets DEVICE_NEEDS_RESET. Configuration that cannot be had reads ones.
#ifndef VMM_DEVICES_VIRTIO_VIRTIO_ENDPOINT_H_
#define VMM_DEVICES_VIRTIO_VIRTIO_ENDPOINT_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "devices/virtio/virtio_layout.h"
#include "memory/gpa.h"

namespace vmm {

struct VirtioQueueSetup {
  uint16_t index = 0;
  uint16_t size = 0;
  Gpa descriptors, driver, device;  // table, available ring, used ring; their packed counterparts
};

// Called by the endpoint, from any thread, with no lock held that the transport's calls take.
class VirtioEvents {
 public:
  virtual ~VirtioEvents() = default;
  virtual void OnConfigChanged() noexcept = 0;
  // The device can go on only after a reset.
  virtual void OnNeedsReset() noexcept = 0;
};

class VirtioEndpoint {
 public:
  virtual ~VirtioEndpoint() = default;

  // Constant.
  [[nodiscard]] virtual virtio::DeviceId device_id() const noexcept = 0;
  [[nodiscard]] virtual uint64_t features() const noexcept = 0;
  [[nodiscard]] virtual uint16_t queue_count() const noexcept = 0;
  [[nodiscard]] virtual uint16_t max_queue_size() const noexcept = 0;
  [[nodiscard]] virtual uint32_t config_bytes() const noexcept = 0;
  [[nodiscard]] virtual int kick_fd(uint16_t queue) const noexcept = 0;
  [[nodiscard]] virtual int call_fd(uint16_t queue) const noexcept = 0;
  // Signals the device by the eventfd; for a notification that was not taken by KVM.
  virtual void Kick(uint16_t queue) noexcept = 0;

  // Once, before anything else.
  virtual void SetEvents(VirtioEvents* events) noexcept = 0;
  virtual void ReadConfig(uint32_t offset, std::span<std::byte> data) noexcept = 0;
  virtual void WriteConfig(uint32_t offset, std::span<const std::byte> data) noexcept = 0;
  [[nodiscard]] virtual bool Start(uint64_t features, std::span<const VirtioQueueSetup> queues) noexcept = 0;
  // One queue of a started device: VIRTIO_F_RING_RESET.
  [[nodiscard]] virtual bool StartQueue(const VirtioQueueSetup& queue) noexcept = 0;
  [[nodiscard]] virtual bool StopQueue(uint16_t queue) noexcept = 0;
  // From its return on the device touches no guest memory and raises no interrupt, or is gone.
  virtual void Stop() noexcept = 0;
};

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_VIRTIO_ENDPOINT_H_
