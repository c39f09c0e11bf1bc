// One virtqueue as a device has it: takes descriptor chains, gives them back, and tells the driver when it wants to be told.
//
// Shapes   split or packed, as the driver accepted VIRTIO_F_RING_PACKED or did not; indirect descriptors; event indices.
// Threads  confined. The driver runs meanwhile, on other processors, in another process.
// Trust    every index, length, address and flag is the guest's: each is loaded once, checked, and the copy used. A chain has at most
//          kMaxSegments segments, whatever it links to; no descriptor is followed twice as often.
// Errors   Pop: kBroken once and from then on, until Start: the driver broke the rules, and fault() says how. Nothing is written to a
//          broken queue.
// Source   Virtual I/O Device (VIRTIO) Version 1.2, "Split Virtqueues", "Packed Virtqueues".
//
// Chains may be pushed in any order. With an in-flight region a process that is killed at any moment can be followed by another, which
// finds in Pop first what was in flight, oldest first, and nothing of what the driver can see as used (inflight_record.h). Without one the
// next process begins at the used index: that is right only for a device that pushes in the order of Pop, and for a split ring.
#ifndef VMM_DEVICES_VIRTIO_BACKEND_BACKEND_QUEUE_H_
#define VMM_DEVICES_VIRTIO_BACKEND_BACKEND_QUEUE_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/event_fd.h"
#include "devices/virtio/backend/backend_memory.h"
#include "devices/virtio/backend/packed_ring.h"
#include "devices/virtio/backend/queue_chain.h"
#include "devices/virtio/backend/ring.h"
#include "devices/virtio/backend/split_ring.h"
#include "devices/virtio/virtio_layout.h"
#include "memory/gpa.h"

namespace vmm {

class BackendQueue final {
 public:
  static constexpr size_t kMaxSegments = QueueChain::kMaxSegments;

  enum class PopResult : uint8_t { kChain, kEmpty, kBroken };
  using Fault = QueueFault;
  using Rings = RingPlaces;

  BackendQueue() = default;
  BackendQueue(const BackendQueue&) = delete;
  BackendQueue& operator=(const BackendQueue&) = delete;

  // `base` and `inflight`: ring.h. The region outlives the queue's running, as `memory` and `call` do. A region or a base that makes no
  // sense is a fault, which the first Pop tells.
  void Start(const Rings& rings, uint32_t base, uint64_t features, const BackendMemory& memory, EventFd* call,
             std::span<std::byte> inflight = {});
  // Nothing is in flight. The base to start again from.
  uint32_t Stop() noexcept;
  [[nodiscard]] bool running() const noexcept { return running_; }
  // 0 where it does not run.
  [[nodiscard]] uint16_t size() const noexcept { return size_; }

  [[nodiscard]] PopResult Pop(QueueChain& chain) noexcept;
  // Undoes the last Pop, whose chain has not been pushed, nor another since; again: the one before.
  void Unpop(const QueueChain& chain) noexcept;
  // `written`: bytes of the writable part, from its start, that now hold something.
  void Push(const QueueChain& chain, uint32_t written) noexcept;
  // The same for several, at most as many as the queue has entries: the driver sees all of them or none, as does who starts after a kill.
  using Used = UsedChain;
  void PushTogether(std::span<const Used> used) noexcept;
  // Interrupts the driver if it wants to know of what was pushed since the last call.
  void Notify() noexcept;

  // All of [gpa, gpa + bytes), for an address that stands inside a request; nullptr: not memory of this device.
  [[nodiscard]] std::byte* Find(Gpa gpa, uint64_t bytes) const noexcept { return memory_ != nullptr ? memory_->Find(gpa, bytes) : nullptr; }

  [[nodiscard]] Fault fault() const noexcept { return fault_; }

 private:
  const BackendMemory* memory_ = nullptr;
  EventFd* call_ = nullptr;
  bool running_ = false;
  uint16_t size_ = 0;
  bool packed_ = false;
  SplitRing split_ring_;
  PackedRing packed_ring_;
  Fault fault_ = Fault::kNone;
};

[[nodiscard]] const char* QueueFaultText(QueueFault fault);

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_BACKEND_BACKEND_QUEUE_H_
