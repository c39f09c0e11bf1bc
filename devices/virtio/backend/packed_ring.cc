#include "devices/virtio/backend/packed_ring.h"

#include <atomic>
#include <utility>

namespace vmm {

namespace v = virtio;

PackedRing::Position PackedRing::Advanced(Position from, uint32_t by) const noexcept {
  const uint32_t index = from.index + by;  // `by` is at most the ring's size
  return index < places_.size ? Position{static_cast<uint16_t>(index), from.wrap} : Position{static_cast<uint16_t>(index - places_.size), !from.wrap};
}

QueueFault PackedRing::Start(const RingStart& start) {
  places_ = start.places;
  memory_ = &start.memory;
  event_index_ = (start.features & v::kFeatureEventIdx) != 0;
  indirect_ = (start.features & v::kFeatureIndirectDesc) != 0;
  in_flight_ = unnotified_ = 0;
  next_again_ = 0;
  available_ = {static_cast<uint16_t>(start.base & 0x7fff), (start.base & v::kPackedWrap) != 0};
  used_ = {static_cast<uint16_t>(start.base >> 16 & 0x7fff), (start.base >> 31) != 0};
  if (available_.index >= places_.size || used_.index >= places_.size) return QueueFault::kAvailableIndex;
  if (!inflight_.Attach(start.inflight, places_.size, places_.descriptors, used_, again_)) return QueueFault::kInflight;
  if (!start.inflight.empty()) {
    for (const PackedInflight::Chain& chain : again_) in_flight_ += static_cast<uint32_t>(chain.descriptors.size());
    available_ = Advanced(used_, in_flight_);
  } else if (available_ != used_) {
    // Something is in flight, and nobody knows what: an orderly predecessor leaves nothing.
    return QueueFault::kAvailableIndex;
  }
  RingWord<uint32_t>(places_.used).store(uint32_t{v::kPackedEventEnable} << 16, std::memory_order_relaxed);
  return QueueFault::kNone;
}

uint32_t PackedRing::Stop() noexcept {
  inflight_.Detach();
  places_ = RingPlaces{};
  again_.clear();
  return available_.index | (available_.wrap ? v::kPackedWrap : 0u) | (used_.index | (used_.wrap ? v::kPackedWrap : 0u)) << 16;
}

v::PackedDescriptor PackedRing::LoadDescriptor(const std::byte* at) const noexcept {
  // One load each, relaxed: the first one's flags have been acquired, and the driver may write what it likes meanwhile.
  return {RingWord<uint64_t>(at).load(std::memory_order_relaxed), RingWord<uint32_t>(at + 8).load(std::memory_order_relaxed),
          RingWord<uint16_t>(at + 12).load(std::memory_order_relaxed), RingWord<uint16_t>(at + 14).load(std::memory_order_relaxed)};
}

QueueFault PackedRing::Pop(QueueChain& chain, bool& empty) noexcept {
  if (next_again_ != again_.size()) {
    const PackedInflight::Chain& taken = again_[next_again_++];
    const QueueFault fault = Gather(taken.descriptors, chain);
    chain.record = taken.record;
    chain.again = true;
    return fault;
  }
  // All of the ring is in flight: what lies there is what we have taken already.
  empty = in_flight_ == places_.size;
  if (empty) return QueueFault::kNone;
  if (!v::PackedIsAvailable(v::LoadPackedFlags(places_.descriptors, available_.index), available_.wrap)) {
    if (event_index_) {
      // "Tell me of this one." seq_cst twice: we store the event, then load the flags; the driver does the reverse. Weaker, each can miss
      // the other, and the queue sleeps with a request in it.
      const uint32_t at = available_.index | (available_.wrap ? v::kPackedWrap : 0u);
      RingWord<uint32_t>(places_.used).store(at | uint32_t{v::kPackedEventDescriptor} << 16, std::memory_order_seq_cst);
    }
    const std::byte* const flags = places_.descriptors + sizeof(v::PackedDescriptor) * uint64_t{available_.index} + 14;
    empty = !v::PackedIsAvailable(RingWord<uint16_t>(flags).load(std::memory_order_seq_cst), available_.wrap);
    if (empty) return QueueFault::kNone;
  }
  taken_.clear();
  Position at = available_;
  while (true) {
    if (in_flight_ + taken_.size() == places_.size || taken_.size() == QueueChain::kMaxSegments) return QueueFault::kTooLong;
    taken_.push_back(LoadDescriptor(places_.descriptors + sizeof(v::PackedDescriptor) * uint64_t{at.index}));
    at = Advanced(at, 1);
    if ((taken_.back().flags & v::kDescriptorNext) == 0) break;
  }
  if (const QueueFault fault = Gather(taken_, chain); fault != QueueFault::kNone) return fault;
  chain.record = inflight_.Taken(taken_);
  in_flight_ += static_cast<uint32_t>(taken_.size());
  available_ = at;
  return QueueFault::kNone;
}

QueueFault PackedRing::Gather(std::span<const v::PackedDescriptor> descriptors, QueueChain& chain) const noexcept {
  chain.Clear();
  chain.head = descriptors.back().id;
  chain.entries = static_cast<uint16_t>(descriptors.size());
  for (const v::PackedDescriptor& descriptor : descriptors) {
    if ((descriptor.flags & v::kDescriptorIndirect) == 0) {
      const QueueFault fault = chain.Append(*memory_, descriptor.address, descriptor.bytes, (descriptor.flags & v::kDescriptorWrite) != 0);
      if (fault != QueueFault::kNone) return fault;
      continue;
    }
    // Alone in its chain.
    if (!indirect_ || descriptors.size() != 1) return QueueFault::kIndirect;
    const std::byte* table = nullptr;
    if (const QueueFault fault = FindIndirectTable(*memory_, descriptor.address, descriptor.bytes, table); fault != QueueFault::kNone) return fault;
    const size_t count = descriptor.bytes / sizeof(v::PackedDescriptor);
    if (count > QueueChain::kMaxSegments) return QueueFault::kTooLong;
    for (size_t i = 0; i < count; ++i) {
      const v::PackedDescriptor inner = LoadDescriptor(table + sizeof(v::PackedDescriptor) * i);
      if ((inner.flags & v::kDescriptorIndirect) != 0) return QueueFault::kIndirect;
      const QueueFault fault = chain.Append(*memory_, inner.address, inner.bytes, (inner.flags & v::kDescriptorWrite) != 0);
      if (fault != QueueFault::kNone) return fault;
    }
  }
  return QueueFault::kNone;
}

void PackedRing::Unpop(const QueueChain& chain) noexcept {
  if (chain.again) {
    --next_again_;
    return;
  }
  inflight_.Untaken(chain.record);
  in_flight_ -= chain.entries;
  const uint32_t back = available_.index + uint32_t{places_.size} - chain.entries;
  available_ = back >= places_.size ? Position{static_cast<uint16_t>(back - places_.size), available_.wrap}
                                    : Position{static_cast<uint16_t>(back), !available_.wrap};
}

void PackedRing::Push(std::span<const UsedChain> used) noexcept {
  Position end = used_;
  for (const auto& [chain, written] : used) {
    end = Advanced(end, chain->entries);
    inflight_.Completing(chain->record);
  }
  inflight_.CompletingUpTo(end);
  uint16_t first_flags = 0;
  Position at = used_;
  for (size_t i = 0; i < used.size(); ++i) {
    const auto& [chain, written] = used[i];
    std::byte* const descriptor = places_.descriptors + sizeof(v::PackedDescriptor) * uint64_t{at.index};
    RingWord<uint32_t>(descriptor + 8).store(written, std::memory_order_relaxed);
    RingWord<uint16_t>(descriptor + 12).store(chain->head, std::memory_order_relaxed);
    const auto flags = static_cast<uint16_t>((at.wrap ? v::kPackedAvail | v::kPackedUsed : 0) | (written != 0 ? v::kDescriptorWrite : 0));
    // The driver takes them in order: the first one's, which come last, show all of them.
    if (i == 0) {
      first_flags = flags;
    } else {
      RingWord<uint16_t>(descriptor + 14).store(flags, std::memory_order_release);
    }
    at = Advanced(at, chain->entries);
    in_flight_ -= chain->entries;
    unnotified_ += chain->entries;
  }
  // release: the driver that sees the flags sees the rest, and the data in front of it. seq_cst: for WantsInterrupt, which cannot store
  // them once more: the driver may have taken the descriptor by then.
  RingWord<uint16_t>(places_.descriptors + sizeof(v::PackedDescriptor) * uint64_t{used_.index} + 14).store(first_flags, std::memory_order_seq_cst);
  inflight_.Completed(used, end);
  used_ = end;
}

bool PackedRing::WantsInterrupt() noexcept {
  if (unnotified_ == 0) return false;
  const uint32_t passed = std::exchange(unnotified_, 0);
  // seq_cst: pairs with the driver's store of the event before it looks at the flags that Push stores.
  const uint32_t event = RingWord<uint32_t>(places_.available).load(std::memory_order_seq_cst);
  const uint32_t kind = event >> 16 & 3;
  if (kind == v::kPackedEventDisable) return false;
  // A lap or more has passed every event; a kind that is not defined or was not accepted is an interrupt too many, not one too few.
  if (kind != v::kPackedEventDescriptor || !event_index_ || passed >= places_.size) return true;
  const bool same_lap = ((event & v::kPackedWrap) != 0) == used_.wrap;
  const auto at = static_cast<uint16_t>((event & 0x7fff) - (same_lap ? 0 : places_.size));
  return v::PassedEvent(at, used_.index, static_cast<uint16_t>(used_.index - passed));
}

}  // namespace vmm
