// A packed virtqueue's ring: what backend_queue.h promises, for this form.
//
// Shapes   one ring of descriptors that both sides write, and a word of event suppression for each side.
// Threads  confined.
// Trust    a descriptor of the ring is loaded once, its flags first. Which are ours is counted here; the driver is believed in nothing but
//          what lies in the descriptor that it made available.
// Source   Virtual I/O Device (VIRTIO) Version 1.2, "Packed Virtqueues".
#ifndef VMM_DEVICES_VIRTIO_BACKEND_PACKED_RING_H_
#define VMM_DEVICES_VIRTIO_BACKEND_PACKED_RING_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "devices/virtio/backend/backend_memory.h"
#include "devices/virtio/backend/inflight_record.h"
#include "devices/virtio/backend/queue_chain.h"
#include "devices/virtio/backend/ring.h"
#include "devices/virtio/virtio_layout.h"

namespace vmm {

class PackedRing final {
 public:
  [[nodiscard]] QueueFault Start(const RingStart& start);
  [[nodiscard]] uint32_t Stop() noexcept;
  [[nodiscard]] QueueFault Pop(QueueChain& chain, bool& empty) noexcept;
  void Unpop(const QueueChain& chain) noexcept;
  void Push(std::span<const UsedChain> used) noexcept;
  [[nodiscard]] bool WantsInterrupt() noexcept;

 private:
  using Position = PackedInflight::Position;
  [[nodiscard]] Position Advanced(Position from, uint32_t by) const noexcept;
  [[nodiscard]] virtio::PackedDescriptor LoadDescriptor(const std::byte* at) const noexcept;
  [[nodiscard]] QueueFault Gather(std::span<const virtio::PackedDescriptor> descriptors, QueueChain& chain) const noexcept;

  RingPlaces places_;
  const BackendMemory* memory_ = nullptr;
  bool event_index_ = false;
  bool indirect_ = false;
  Position available_;
  Position used_;
  uint32_t in_flight_ = 0;   // descriptors
  uint32_t unnotified_ = 0;  // likewise
  PackedInflight inflight_;
  std::vector<virtio::PackedDescriptor> taken_;  // scratch
  std::vector<PackedInflight::Chain> again_;     // what another process had taken comes first
  size_t next_again_ = 0;
};

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_BACKEND_PACKED_RING_H_
