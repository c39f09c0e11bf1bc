#include "devices/hyperv/synic/message_queue.h"

#include <bit>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "devices/hyperv/synic/message_copy.h"

namespace vmm {
namespace {
constexpr ptrdiff_t kPrefetchSlots = 6;  // a guess: a miss between cores is about that many steps
}  // namespace

absl::StatusOr<QueueMap> QueueMap::Of(std::span<std::byte> region, QueueShape shape) {
  if (!std::has_single_bit(shape.capacity) || shape.producers == 0 ||
      (uint64_t{shape.capacity} + 1) * shape.producers > kMaxQueueSlots) {
    return absl::InvalidArgumentError(absl::StrCat("map queue: ", shape.producers, " producers of capacity ", shape.capacity,
                                                   ": not a power of two, or not 1 to ", kMaxQueueSlots, " slots"));
  }
  if (region.size() < RegionBytes(shape)) {
    return absl::InvalidArgumentError(absl::StrCat("map queue: ", region.size(), " bytes are fewer than ", RegionBytes(shape)));
  }
  if (reinterpret_cast<uintptr_t>(region.data()) % kCacheLineBytes != 0) {
    return absl::InvalidArgumentError("map queue: the region does not start on a cache line");
  }
  std::byte* const lines = region.data() + sizeof(QueueHeader);
  std::byte* const slots = lines + shape.producers * sizeof(QueueProducerLine);
  return QueueMap{.shape = shape,
                  .header = reinterpret_cast<QueueHeader*>(region.data()),
                  .lines = reinterpret_cast<QueueProducerLine*>(lines),
                  .slots = reinterpret_cast<HvMessage*>(slots)};
}

// --- Producer -----------------------------------------------------------------------------------------------------------

MessageProducer::MessageProducer(const QueueMap& map, uint32_t producer, Doorbell doorbell, unsigned source) noexcept
    : header_(map.header),
      line_(&map.lines[producer]),
      slots_(map.slots),
      first_slot_(producer * map.shape.capacity),
      intercept_slot_(map.shape.producers * map.shape.capacity + producer),
      capacity_(map.shape.capacity),
      doorbell_(doorbell),
      source_(source) {}

absl::StatusOr<MessageProducer> MessageProducer::Attach(std::span<std::byte> region, QueueShape shape, uint32_t producer,
                                                        Doorbell doorbell, unsigned source) {
  absl::StatusOr<QueueMap> map = QueueMap::Of(region, shape);
  if (!map.ok()) return map.status();
  if (producer >= shape.producers || source >= Doorbell::kSources) {
    return absl::InvalidArgumentError(absl::StrCat("attach producer ", producer, " of ", shape.producers, ", source ", source));
  }
  return MessageProducer(*map, producer, doorbell, source);
}

inline void MessageProducer::Publish(uint32_t slot, const HvMessage& message) noexcept {
  HvMessage& target = slots_[slot];
  CopyUsed(target, message);
  target.header.flags = 0;
  std::atomic_ref<uint32_t> newest(header_->newest);
  // relaxed: the compare-and-swap checks it. A value that is out of date costs a round.
  uint32_t top = newest.load(std::memory_order_relaxed);
  do {
    target.header.reserved = static_cast<uint16_t>(top);
    // seq_cst: its release pairs with the acquire of TakeList; all later posts continue that release, being read-modify-writes.
    // And it stands before Ring's load in the one order in which the consumer takes the doorbell before the list.
  } while (!newest.compare_exchange_weak(top, slot + 1, std::memory_order_seq_cst, std::memory_order_relaxed));
}

PostResult MessageProducer::TryPostQuietly(const HvMessage& message) noexcept {
  if (!IsWellFormed(message.header)) return PostResult::kMalformed;
  if (posted_ - freed_ >= capacity_) {
    // acquire: pairs with PopFront's release, so that our writes to the slot come after the consumer's reads.
    freed_ = std::atomic_ref<uint32_t>(line_->freed).load(std::memory_order_acquire);
    if (posted_ - freed_ >= capacity_) return PostResult::kFull;
  }
  // The consumer frees in the order of posting: the slot of this turn is the oldest, and free.
  Publish(first_slot_ + (posted_ & (capacity_ - 1)), message);
  ++posted_;
  return PostResult::kPosted;
}

PostResult MessageProducer::TryPostInterceptQuietly(const HvMessage& message) noexcept {
  if (!IsWellFormed(message.header)) return PostResult::kMalformed;
  // acquire: as above.
  const uint32_t freed = std::atomic_ref<uint32_t>(line_->freed_intercepts).load(std::memory_order_acquire);
  if (freed != intercepts_) return PostResult::kFull;
  Publish(intercept_slot_, message);
  ++intercepts_;
  return PostResult::kPosted;
}

// --- Consumer -----------------------------------------------------------------------------------------------------------

MessageQueue::MessageQueue(const QueueMap& map, Doorbell doorbell, unsigned source)
    : map_(map),
      slot_count_((map.shape.capacity + 1) * map.shape.producers),
      capacity_shift_(static_cast<uint32_t>(std::countr_zero(map.shape.capacity))),
      source_(source),
      doorbell_(doorbell),
      taken_(std::make_unique<uint16_t[]>(slot_count_)),
      freed_(std::make_unique<QueueProducerLine[]>(map.shape.producers)) {}

absl::StatusOr<std::unique_ptr<MessageQueue>> MessageQueue::Create(std::span<std::byte> region, QueueShape shape,
                                                                   Doorbell doorbell, unsigned source) {
  absl::StatusOr<QueueMap> map = QueueMap::Of(region, shape);
  if (!map.ok()) return map.status();
  if (source >= Doorbell::kSources) return absl::InvalidArgumentError(absl::StrCat("create queue: doorbell source ", source));
  for (uint32_t producer = 0; producer < shape.producers; ++producer) {
    std::atomic_ref<uint32_t>(map->lines[producer].freed).store(0, std::memory_order_relaxed);
    std::atomic_ref<uint32_t>(map->lines[producer].freed_intercepts).store(0, std::memory_order_relaxed);
  }
  // relaxed thrice: whatever hands the region to the producers orders them after this.
  std::atomic_ref<uint32_t>(map->header->newest).store(0, std::memory_order_relaxed);
  return std::unique_ptr<MessageQueue>(new MessageQueue(*map, doorbell, source));
}

absl::StatusOr<uint32_t> MessageQueue::AttachLane(LaneConsumer lane) {
  if (lanes_.size() == kMaxLanes) return absl::ResourceExhaustedError(absl::StrCat("attach lane: there are ", kMaxLanes));
  lanes_.push_back(lane);
  list_only_ = false;
  return static_cast<uint32_t>(lanes_.size() - 1);
}

bool MessageQueue::Notify(uint32_t lane) noexcept {
  if (lane >= lanes_.size()) return false;
  // seq_cst: with Ring, as a post: mark, then ring; the consumer takes the doorbell, then looks at the marks.
  notified_lanes_.fetch_or(uint64_t{1} << lane, std::memory_order_seq_cst);
  return doorbell_.Ring(source_);
}

void MessageQueue::TakeList() noexcept {
  std::atomic_ref<uint32_t> newest(map_.header->newest);
  // The load spares an empty list the locked access. seq_cst: after the doorbell's Take in the order that Ring relies on.
  if (newest.load(std::memory_order_seq_cst) == 0) return;
  // acquire: pairs with Publish, all of them, see there. The slots of the list are ours from here on.
  uint32_t link = newest.exchange(0, std::memory_order_seq_cst);
  while (link != 0) {
    if (link > slot_count_ || taken_count_ == slot_count_) {
      ++faults_;
      return;
    }
    const HvMessage& slot = map_.slots[link - 1];
    taken_[taken_count_++] = static_cast<uint16_t>(link - 1);
    // A producer's slots follow each other, so the one before is likely to be next: the walk is a chain of cache misses
    // otherwise.
    __builtin_prefetch(&slot - kPrefetchSlots);
    link = slot.header.reserved;
  }
}

bool MessageQueue::FrontOfLanes() noexcept {
  // The load spares the exchange. A mark made just now comes with a ring of its own.
  if (notified_lanes_.load(std::memory_order_seq_cst) != 0) {
    ready_lanes_ |= notified_lanes_.exchange(0, std::memory_order_seq_cst);
  }
  while (ready_lanes_ != 0) {
    // Round robin: the first ready one behind the last one served. Each turn of the loop serves one or makes it not ready.
    const uint64_t behind = lane_ == 63 ? 0 : ready_lanes_ & (~uint64_t{0} << (lane_ + 1));
    const auto lane = static_cast<uint32_t>(std::countr_zero(behind != 0 ? behind : ready_lanes_));
    lane_ = lane;
    if (lanes_[lane].Peek(lane_message_) == LanePeek::kMessage) return true;
    ready_lanes_ &= ~(uint64_t{1} << lane);
  }
  return false;
}

const HvMessage* MessageQueue::FindFront() noexcept {
  if (taken_count_ == 0) TakeList();
  if (restored_taken_ < restored_.size()) return SetFront(Source::kRestored, restored_[restored_taken_]);
  if (!lanes_.empty() && (lane_is_next_ || taken_count_ == 0) && FrontOfLanes()) return SetFront(Source::kLane, lane_message_);
  if (taken_count_ != 0) return SetFront(Source::kList, map_.slots[taken_[taken_count_ - 1]]);
  return nullptr;
}

void MessageQueue::PopOther() noexcept {
  front_ = nullptr;
  if (front_source_ == Source::kLane) {
    lanes_[lane_].Pop();
    lane_is_next_ = false;
  } else {
    ++restored_taken_;
    list_only_ = lanes_.empty() && restored_taken_ == restored_.size();
  }
}

bool MessageQueue::HasMore() const noexcept {
  const size_t known = taken_count_ + (restored_.size() - restored_taken_);
  const bool is_lane = front_source_ == Source::kLane;
  const size_t front = is_lane ? 0 : 1;
  // relaxed: a post that this misses is told by its own ring or its own TryDeliver.
  const uint64_t front_lane = is_lane ? uint64_t{1} << lane_ : 0;
  return known > front || (ready_lanes_ & ~front_lane) != 0 || (front_lane != 0 && lanes_[lane_].HasMore()) ||
         std::atomic_ref<uint32_t>(map_.header->newest).load(std::memory_order_relaxed) != 0 ||
         notified_lanes_.load(std::memory_order_relaxed) != 0;
}

std::vector<HvMessage> MessageQueue::TakeAll() {
  std::vector<HvMessage> all;
  while (const HvMessage* message = Front()) {
    HvMessage& copy = all.emplace_back();
    CopyUsed(copy, *message);
    copy.header.reserved = 0;
    PopFront();
  }
  return all;
}

bool MessageQueue::Restore(std::vector<HvMessage> messages) {
  restored_ = std::move(messages);
  restored_taken_ = 0;
  list_only_ = lanes_.empty() && restored_.empty();
  front_ = nullptr;
  return doorbell_.Ring(source_);
}

}  // namespace vmm
