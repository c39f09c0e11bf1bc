#include "devices/hyperv/synic/message_lane.h"

#include <atomic>
#include <bit>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "devices/hyperv/synic/message_copy.h"

namespace vmm {
namespace {

absl::Status CheckRegion(std::span<std::byte> region, uint32_t capacity) {
  if (!std::has_single_bit(capacity) || capacity > kMaxLaneCapacity) {
    return absl::InvalidArgumentError(
        absl::StrCat("map lane: capacity ", capacity, " is not a power of two up to ", kMaxLaneCapacity));
  }
  if (region.size() < LaneProducer::RegionBytes(capacity)) {
    return absl::InvalidArgumentError(
        absl::StrCat("map lane: ", region.size(), " bytes are too few for ", capacity, " messages"));
  }
  if (reinterpret_cast<uintptr_t>(region.data()) % kCacheLineBytes != 0) {
    return absl::InvalidArgumentError("map lane: the region does not start on a cache line");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<LaneProducer> LaneProducer::Attach(std::span<std::byte> region, uint32_t capacity) {
  if (absl::Status status = CheckRegion(region, capacity); !status.ok()) return status;
  auto* const header = reinterpret_cast<LaneHeader*>(region.data());
  // relaxed: our own word; an earlier producer of this lane is dead, and who told us so ordered us after it.
  const auto tail = static_cast<uint32_t>(std::atomic_ref<uint64_t>(header->tail).load(std::memory_order_relaxed));
  // acquire: pairs with Pop, so that the slots it gave back may be written.
  const uint32_t head = std::atomic_ref<uint32_t>(header->head).load(std::memory_order_acquire);
  if (tail - head > capacity) {
    return absl::FailedPreconditionError(absl::StrCat("attach lane: tail ", tail, " and head ", head, " do not fit together"));
  }
  return LaneProducer(*header, reinterpret_cast<HvMessage*>(region.data() + sizeof(LaneHeader)), capacity, tail, head);
}

PostResult LaneProducer::TryPost(const HvMessage& message) noexcept {
  if (!IsWellFormed(message.header) || IsHypervisorMessage(message.header.type)) return PostResult::kMalformed;
  if (tail_ - head_ >= capacity_) {
    // acquire: pairs with the release of Pop, so that our writes to the slot come after the consumer's reads.
    head_ = std::atomic_ref<uint32_t>(header_->head).load(std::memory_order_acquire);
    if (tail_ - head_ >= capacity_) return PostResult::kFull;
  }
  CopyUsed(slots_[tail_ & (capacity_ - 1)], message);
  ++tail_;
  // release: pairs with the acquire of Peek, which then sees the message. acquire: what the consumer wrote before it armed is
  // visible to the kick. One exchange publishes, disarms and asks: there is nothing between for a wake-up to be lost in.
  const uint64_t before = std::atomic_ref<uint64_t>(header_->tail).exchange(tail_, std::memory_order_acq_rel);
  return (before & kLaneArmed) != 0 ? PostResult::kPostedKick : PostResult::kPosted;
}

absl::StatusOr<LaneConsumer> LaneConsumer::Create(std::span<std::byte> region, uint32_t capacity,
                                                  uint64_t origination_id) {
  if (absl::Status status = CheckRegion(region, capacity); !status.ok()) return status;
  auto* const header = reinterpret_cast<LaneHeader*>(region.data());
  std::atomic_ref<uint32_t>(header->head).store(0, std::memory_order_relaxed);
  // release: pairs with whatever hands the region to the producer.
  std::atomic_ref<uint64_t>(header->tail).store(kLaneArmed, std::memory_order_release);
  const auto* const slots = reinterpret_cast<const HvMessage*>(region.data() + sizeof(LaneHeader));
  return LaneConsumer(*header, slots, capacity, origination_id);
}

LanePeek LaneConsumer::Fault() noexcept {
  closed_ = true;
  return LanePeek::kClosed;
}

LanePeek LaneConsumer::Copy(HvMessage& message) noexcept {
  CopyFromHostile(message, slots_[head_ & (capacity_ - 1)]);
  if (!IsWellFormed(message.header) || IsHypervisorMessage(message.header.type)) return Fault();
  message.header.flags = 0;
  message.header.reserved = 0;
  message.header.origination_id = origination_id_;
  return LanePeek::kMessage;
}

LanePeek LaneConsumer::Peek(HvMessage& message) noexcept {
  if (closed_) return LanePeek::kClosed;
  // As long as something is known to wait, the producer's line is left in peace.
  if (head_ != known_tail_) return Copy(message);
  std::atomic_ref<uint64_t> word(header_->tail);
  // acquire: pairs with the exchange of TryPost. One load: the producer may change the word between two.
  uint64_t tail = word.load(std::memory_order_acquire);
  // An honest producer changes the word under our arming only by posting, so the second look finds a message.
  for (int look = 0; look < 2; ++look) {
    if ((tail & ~kLaneArmed) > UINT32_MAX || static_cast<uint32_t>(tail) - head_ > capacity_) return Fault();
    known_tail_ = static_cast<uint32_t>(tail);
    if (head_ != known_tail_) return Copy(message);
    if ((tail & kLaneArmed) != 0) return LanePeek::kEmpty;
    // acq_rel and acquire: as TryPost, and as the load above.
    if (word.compare_exchange_strong(tail, tail | kLaneArmed, std::memory_order_acq_rel, std::memory_order_acquire)) {
      return LanePeek::kEmpty;
    }
  }
  return Fault();
}

void LaneConsumer::Pop() noexcept {
  ++head_;
  // release: pairs with TryPost's acquire of the head: our reads of the slot come before the producer's writes.
  std::atomic_ref<uint32_t>(header_->head).store(head_, std::memory_order_release);
}

bool LaneConsumer::HasMore() const noexcept {
  if (!closed_ && known_tail_ != head_ + 1) return true;
  // relaxed: nothing is read on the strength of it.
  const uint64_t tail = std::atomic_ref<uint64_t>(header_->tail).load(std::memory_order_relaxed);
  return !closed_ && static_cast<uint32_t>(tail) != head_ + 1;
}

}  // namespace vmm
