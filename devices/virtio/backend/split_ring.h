// A split virtqueue's ring: what backend_queue.h promises, for this form.
//
// Threads  confined.
// Source   Virtual I/O Device (VIRTIO) Version 1.2, "Split Virtqueues".
#ifndef VMM_DEVICES_VIRTIO_BACKEND_SPLIT_RING_H_
#define VMM_DEVICES_VIRTIO_BACKEND_SPLIT_RING_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/event_fd.h"
#include "devices/virtio/backend/backend_memory.h"
#include "devices/virtio/backend/inflight_record.h"
#include "devices/virtio/backend/queue_chain.h"
#include "devices/virtio/backend/ring.h"
#include "devices/virtio/virtio_layout.h"

namespace vmm {

class SplitRing final {
 public:
  [[nodiscard]] QueueFault Start(const RingStart& start);
  [[nodiscard]] uint32_t Stop() noexcept;
  [[nodiscard]] QueueFault Pop(QueueChain& chain, bool& empty) noexcept;
  void Unpop(const QueueChain& chain) noexcept;
  void Push(std::span<const UsedChain> used) noexcept;
  [[nodiscard]] bool WantsInterrupt() noexcept;

 private:
  struct Table {
    const std::byte* descriptors;
    uint32_t count;
  };
  [[nodiscard]] static virtio::Descriptor LoadDescriptor(const Table& table, uint32_t index) noexcept;
  [[nodiscard]] QueueFault Walk(uint16_t head, QueueChain& chain) const noexcept;

  RingPlaces places_;
  const BackendMemory* memory_ = nullptr;
  bool event_index_ = false;
  bool indirect_ = false;
  uint16_t next_available_ = 0;
  uint16_t next_used_ = 0;
  uint16_t notified_used_ = 0;
  SplitInflight inflight_;
  // What another process had taken comes first.
  std::vector<uint16_t> again_;
  size_t next_again_ = 0;
};

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_BACKEND_SPLIT_RING_H_
