// The entropy device: fills what the driver asks for from the host's generator.
//
// Threads  confined to its process's loop.
// Trust    a guest may ask without end: 64 KiB a request, kQuantum requests before others have their turn.
// Source   Virtual I/O Device (VIRTIO) Version 1.2, "Entropy Device".
#ifndef VMM_DEVICES_VIRTIO_RNG_RNG_DEVICE_H_
#define VMM_DEVICES_VIRTIO_RNG_RNG_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "devices/virtio/backend/backend_device.h"
#include "devices/virtio/backend/backend_queue.h"

namespace vmm {

class RngDevice final : public BackendDevice {
 public:
  static constexpr size_t kMaxBytes = 64 * 1024;
  static constexpr int kQuantum = 32;

  // Fills all of it; false: there is nothing to be had.
  using Source = std::function<bool(std::span<std::byte>)>;
  explicit RngDevice(Source source) : source_(std::move(source)) {}

  [[nodiscard]] uint64_t features() const noexcept override { return 0; }
  [[nodiscard]] uint16_t queue_count() const noexcept override { return 1; }
  [[nodiscard]] bool Process(uint16_t index, BackendQueue& queue) noexcept override;

 private:
  const Source source_;
  QueueChain chain_;
};

// `vmm device rng [--socket PATH | --fd N]`; argv as main has it.
int RunRngDevice(int argc, char** argv);

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_RNG_RNG_DEVICE_H_
