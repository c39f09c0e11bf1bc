#include "devices/virtio/backend/split_ring.h"

#include <atomic>

namespace vmm {

namespace v = virtio;

QueueFault SplitRing::Start(const RingStart& start) {
  places_ = start.places;
  memory_ = &start.memory;
  event_index_ = (start.features & v::kFeatureEventIdx) != 0;
  indirect_ = (start.features & v::kFeatureIndirectDesc) != 0;
  next_available_ = static_cast<uint16_t>(start.base);
  // Ours to write, the guest's to scribble over: after that only its own requests are lost.
  next_used_ = notified_used_ = RingWord<uint16_t>(places_.used + v::kRingIndex).load(std::memory_order_relaxed);
  if (!inflight_.Attach(start.inflight, places_.size, next_used_, again_)) return QueueFault::kInflight;
  if (!start.inflight.empty()) next_available_ = static_cast<uint16_t>(next_used_ + again_.size());
  next_again_ = 0;
  return QueueFault::kNone;
}

uint32_t SplitRing::Stop() noexcept {
  inflight_.Detach();
  places_ = RingPlaces{};
  again_.clear();
  return next_available_;
}

QueueFault SplitRing::Pop(QueueChain& chain, bool& empty) noexcept {
  if (next_again_ != again_.size()) {
    const QueueFault fault = Walk(again_[next_again_++], chain);
    chain.again = true;
    return fault;
  }
  // acquire: pairs with the driver's release of the index, so the entry and the descriptors it names are visible.
  uint16_t index = RingWord<uint16_t>(places_.available + v::kRingIndex).load(std::memory_order_acquire);
  if (index == next_available_ && event_index_) {
    // "Tell me of the next one." seq_cst twice: we store the event, then load the index; the driver does the reverse. Weaker, each can
    // miss the other, and the queue sleeps with a request in it.
    RingWord<uint16_t>(places_.used + v::kRingEntries + 8 * uint64_t{places_.size}).store(next_available_, std::memory_order_seq_cst);
    index = RingWord<uint16_t>(places_.available + v::kRingIndex).load(std::memory_order_seq_cst);
  }
  empty = index == next_available_;
  if (empty) return QueueFault::kNone;
  if (static_cast<uint16_t>(index - next_available_) > places_.size) return QueueFault::kAvailableIndex;
  const uint16_t slot = next_available_ % places_.size;
  const uint16_t head = RingWord<uint16_t>(places_.available + v::kRingEntries + 2 * uint64_t{slot}).load(std::memory_order_relaxed);
  if (head >= places_.size) return QueueFault::kHead;
  if (const QueueFault fault = Walk(head, chain); fault != QueueFault::kNone) return fault;
  inflight_.Taken(head);
  ++next_available_;
  return QueueFault::kNone;
}

void SplitRing::Unpop(const QueueChain& chain) noexcept {
  if (chain.again) {
    --next_again_;
    return;
  }
  inflight_.Untaken(chain.head);
  --next_available_;
}

v::Descriptor SplitRing::LoadDescriptor(const Table& table, uint32_t index) noexcept {
  const std::byte* const at = table.descriptors + sizeof(v::Descriptor) * uint64_t{index};
  // One load each, relaxed: the index has been acquired, and the driver may write what it likes meanwhile.
  return {RingWord<uint64_t>(at).load(std::memory_order_relaxed), RingWord<uint32_t>(at + 8).load(std::memory_order_relaxed),
          RingWord<uint16_t>(at + 12).load(std::memory_order_relaxed), RingWord<uint16_t>(at + 14).load(std::memory_order_relaxed)};
}

QueueFault SplitRing::Walk(uint16_t head, QueueChain& chain) const noexcept {
  chain.Clear();
  chain.head = head;
  Table table{places_.descriptors, places_.size};
  bool inside = false;  // an indirect table
  uint32_t index = head;
  // A table that links in a circle is a chain longer than itself.
  uint32_t left = table.count;
  size_t segments = 0;
  while (true) {
    if (left-- == 0 || ++segments > QueueChain::kMaxSegments) return QueueFault::kTooLong;
    const v::Descriptor descriptor = LoadDescriptor(table, index);
    if ((descriptor.flags & v::kDescriptorIndirect) != 0) {
      if (!indirect_ || inside || (descriptor.flags & v::kDescriptorNext) != 0) return QueueFault::kIndirect;
      const QueueFault fault = FindIndirectTable(*memory_, descriptor.address, descriptor.bytes, table.descriptors);
      if (fault != QueueFault::kNone) return fault;
      table.count = static_cast<uint32_t>(descriptor.bytes / sizeof(v::Descriptor));
      inside = true;
      index = 0;
      left = table.count;
      continue;
    }
    const QueueFault fault = chain.Append(*memory_, descriptor.address, descriptor.bytes, (descriptor.flags & v::kDescriptorWrite) != 0);
    if (fault != QueueFault::kNone) return fault;
    if ((descriptor.flags & v::kDescriptorNext) == 0) return QueueFault::kNone;
    index = descriptor.next;
    if (index >= table.count) return QueueFault::kNext;
  }
}

void SplitRing::Push(std::span<const UsedChain> used) noexcept {
  for (const auto& [chain, written] : used) {
    std::byte* const element = places_.used + v::kRingEntries + 8 * uint64_t{static_cast<uint16_t>(next_used_++ % places_.size)};
    RingWord<uint32_t>(element).store(chain->head, std::memory_order_relaxed);
    RingWord<uint32_t>(element + 4).store(written, std::memory_order_relaxed);
    inflight_.Completing(chain->head);
  }
  // release: the driver that sees the index sees the elements, and the data in front of them. Never read back: next_used_ is ours.
  RingWord<uint16_t>(places_.used + v::kRingIndex).store(next_used_, std::memory_order_release);
  inflight_.Completed(used, next_used_);
}

bool SplitRing::WantsInterrupt() noexcept {
  if (next_used_ == notified_used_) return false;
  const uint16_t before = notified_used_;
  notified_used_ = next_used_;
  // seq_cst twice: we store the used index (once more), then load what the driver waits for; the driver does the reverse. Weaker, each
  // can miss the other, and the driver waits for an interrupt that does not come.
  RingWord<uint16_t>(places_.used + v::kRingIndex).store(next_used_, std::memory_order_seq_cst);
  if (event_index_) {
    const uint16_t event = RingWord<uint16_t>(places_.available + v::kRingEntries + 2 * uint64_t{places_.size}).load(std::memory_order_seq_cst);
    return v::PassedEvent(event, next_used_, before);
  }
  return (RingWord<uint16_t>(places_.available).load(std::memory_order_seq_cst) & v::kAvailNoInterrupt) == 0;
}

}  // namespace vmm
