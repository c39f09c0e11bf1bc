// The messages that wait for one synthetic interrupt source of one virtual processor at one trust level (VTL).
//
// Every trusted producer (VP thread, event loop) has slots of its own, and all of them share one word, `newest`: the top of a
// list that goes from the newest message to the oldest. A post writes a slot that nobody else looks at and links it with one
// compare-and-swap. The consumer takes the whole list with one exchange and reads it backwards.
//
// Invariants
//   1. A slot is its producer's from the moment the consumer frees it, in the order of posting, until the compare-and-swap that
//      links it; then the consumer's. No slot has two owners, so nothing is torn, lost or delivered twice.
//   2. The compare-and-swap is the post: before it nothing is visible, after it everything. There is no reserved and unfinished
//      slot that could hold up the messages behind it, whenever a producer is stopped or dies.
//   3. Only the consumer unlinks, and it unlinks all: a `newest` that changed to another value and back still is the message
//      to link to, so there is no ABA.
//   4. Each producer has one more slot for an intercept. A VP has at most one intercept outstanding, so the slot is free
//      when it is needed: intercepts are never refused, however full the rest is. They queue in the same list.
//   5. The doorbell is rung after the post and taken before the list (doorbell.h), so no message waits for a wake-up.
//
// Order    One order for all trusted producers, that of the compare-and-swaps: a post that returned before another began is
//          ahead of it, on whatever thread; intercepts included. A lane keeps its own order; between lanes, and between a lane
//          and the rest, none is promised, but they take turns. Restored messages come before all others.
//
// Shapes   QueueHeader, one line a producer, `capacity` messages a producer, one intercept a producer; offsets only, so each
//          process may map the region where it likes. Lanes (message_lane.h) are regions of their own.
// Units    capacity: messages a producer, without its intercept; a power of two. Counts wrap at 2^32.
// Threads  MessageProducer: confined to its thread. Notify: any trusted thread. The rest of MessageQueue: confined to who
//          has the consumer's role, which MessageSlot hands from thread to thread.
// Trust    the region is for trusted threads of trusted processes: who can write it can forge messages. Even so an index is
//          checked before it is used, and a list is followed no further than there are slots. Device processes get lanes.
// Errors   Create, Attach: Status. TryPost: PostResult, no allocation; kFull is normal.
// Source   Hyper-V TLFS, "Inter-Partition Communication", for message and order; the list is Treiber's stack, taken whole.
#ifndef VMM_DEVICES_HYPERV_SYNIC_MESSAGE_QUEUE_H_
#define VMM_DEVICES_HYPERV_SYNIC_MESSAGE_QUEUE_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "devices/hyperv/synic/doorbell.h"
#include "devices/hyperv/synic/hv_message_layout.h"
#include "devices/hyperv/synic/message_lane.h"
#include "devices/hyperv/synic/post_result.h"

namespace vmm {

struct QueueShape {
  uint32_t producers;
  uint32_t capacity;
};

// A link is a slot's number + 1, or 0 for none. It travels in the reserved bytes of the message's header.
struct QueueHeader {
  alignas(kCacheLineBytes) uint32_t newest;
};
static_assert(sizeof(QueueHeader) == kCacheLineBytes);
static_assert(sizeof(HvMessageHeader::reserved) == 2);
inline constexpr uint32_t kMaxQueueSlots = 65535;

// Written by the consumer alone: how many of the producer's messages it has freed.
struct alignas(kCacheLineBytes) QueueProducerLine {
  uint32_t freed;
  uint32_t freed_intercepts;
};
static_assert(sizeof(QueueProducerLine) == kCacheLineBytes);

// Where things are in a region; made from a checked shape and never from the region.
struct QueueMap {
  static constexpr size_t RegionBytes(QueueShape shape) noexcept {
    return sizeof(QueueHeader) + size_t{shape.producers} * sizeof(QueueProducerLine) +
           size_t{shape.producers} * (size_t{shape.capacity} + 1) * sizeof(HvMessage);
  }
  static absl::StatusOr<QueueMap> Of(std::span<std::byte> region, QueueShape shape);

  QueueShape shape;
  QueueHeader* header;
  QueueProducerLine* lines;
  HvMessage* slots;
};

// One producer's side. On lines of its own: it is written at each post.
class alignas(kCacheLineBytes) MessageProducer final {
 public:
  // Once for each `producer` of a formatted region, which outlives this; `doorbell` is the consumer's and `source` its bit.
  static absl::StatusOr<MessageProducer> Attach(std::span<std::byte> region, QueueShape shape, uint32_t producer,
                                                Doorbell doorbell, unsigned source);

  // kPostedKick: kick the consumer.
  [[nodiscard]] PostResult TryPost(const HvMessage& message) noexcept {
    const PostResult result = TryPostQuietly(message);
    return result == PostResult::kPosted && doorbell_.Ring(source_) ? PostResult::kPostedKick : result;
  }
  // The same for a VP's intercept; kFull says that the VP has one outstanding already, which is the caller's fault.
  [[nodiscard]] PostResult TryPostIntercept(const HvMessage& message) noexcept {
    const PostResult result = TryPostInterceptQuietly(message);
    return result == PostResult::kPosted && doorbell_.Ring(source_) ? PostResult::kPostedKick : result;
  }
  // Without the doorbell: the caller goes on to MessageSlot::TryDeliver, and rings where that says so.
  [[nodiscard]] PostResult TryPostQuietly(const HvMessage& message) noexcept;
  [[nodiscard]] PostResult TryPostInterceptQuietly(const HvMessage& message) noexcept;
  [[nodiscard]] bool Ring() noexcept { return doorbell_.Ring(source_); }

 private:
  MessageProducer(const QueueMap& map, uint32_t producer, Doorbell doorbell, unsigned source) noexcept;
  void Publish(uint32_t slot, const HvMessage& message) noexcept;

  QueueHeader* header_;
  QueueProducerLine* line_;
  HvMessage* slots_;  // of all
  uint32_t first_slot_;
  uint32_t intercept_slot_;
  uint32_t capacity_;
  uint32_t posted_ = 0;
  uint32_t freed_ = 0;  // as last read
  uint32_t intercepts_ = 0;
  Doorbell doorbell_;
  unsigned source_;
};

class MessageQueue final {
 public:
  static constexpr uint32_t kMaxLanes = 63;
  // Formats the region, which outlives this. `doorbell` and `source`: where Notify and Restore ring.
  static absl::StatusOr<std::unique_ptr<MessageQueue>> Create(std::span<std::byte> region, QueueShape shape,
                                                              Doorbell doorbell, unsigned source);
  MessageQueue(const MessageQueue&) = delete;
  MessageQueue& operator=(const MessageQueue&) = delete;

  // Before anything is consumed. Returns the lane's number.
  absl::StatusOr<uint32_t> AttachLane(LaneConsumer lane);
  // The lane's device has kicked, or has died. True: kick the consumer. A number that is no lane's is ignored.
  [[nodiscard]] bool Notify(uint32_t lane) noexcept;

  // The next message, the same until PopFront, or null. Bounded work.
  [[nodiscard]] const HvMessage* Front() noexcept { return front_ != nullptr ? front_ : FindFront(); }
  // Requires: Front was not null.
  void PopFront() noexcept;
  // Another waits behind Front, which was not null, for all that is known here. A lane that lately was empty is not asked
  // again.
  [[nodiscard]] bool HasMore() const noexcept;

  // Everything that waits, taken out: the state to save. Not for the hot path.
  std::vector<HvMessage> TakeAll();
  // What an earlier queue had, ahead of all else. True: kick the consumer.
  [[nodiscard]] bool Restore(std::vector<HvMessage> messages);

  // Broken links found in the region: 0 unless a trusted producer is not worth the name.
  [[nodiscard]] uint64_t faults() const noexcept { return faults_; }
  [[nodiscard]] bool is_lane_closed(uint32_t lane) const noexcept { return lanes_[lane].is_closed(); }

 private:
  enum class Source : uint8_t { kRestored, kList, kLane };
  MessageQueue(const QueueMap& map, Doorbell doorbell, unsigned source);
  [[nodiscard]] const HvMessage* FindFront() noexcept;
  [[nodiscard]] const HvMessage* SetFront(Source source, const HvMessage& message) noexcept {
    front_source_ = source;
    return front_ = &message;
  }
  void PopOther() noexcept;
  void TakeList() noexcept;
  [[nodiscard]] bool FrontOfLanes() noexcept;

  const QueueMap map_;
  const uint32_t slot_count_;
  const uint32_t capacity_shift_;
  const unsigned source_;
  Doorbell doorbell_;
  const std::unique_ptr<uint16_t[]> taken_;  // slots taken from the list, newest first: slot_count_ of them fit
  uint32_t taken_count_ = 0;
  const std::unique_ptr<QueueProducerLine[]> freed_;  // the truth; the region's lines are copies
  const HvMessage* front_ = nullptr;  // null: not looked for since the last PopFront
  Source front_source_ = Source::kList;
  bool list_only_ = true;  // no lanes, nothing restored: the next one is known
  bool lane_is_next_ = false;
  uint32_t lane_ = 0;             // of Front, or the last one
  uint64_t ready_lanes_ = 0;      // not known to be empty and armed
  uint64_t faults_ = 0;
  std::vector<LaneConsumer> lanes_;
  HvMessage lane_message_;  // the checked copy
  std::vector<HvMessage> restored_;
  size_t restored_taken_ = 0;
  // Lanes told of since the consumer last looked. Written by any trusted thread.
  alignas(kCacheLineBytes) std::atomic<uint64_t> notified_lanes_{0};
};

inline void MessageQueue::PopFront() noexcept {
  if (front_source_ != Source::kList) return PopOther();
  const uint32_t slot = taken_[--taken_count_];
  const uint32_t producer = slot >> capacity_shift_;
  // release, both: pair with the producer's acquire, so that its next write to the slot comes after our reads.
  if (producer < map_.shape.producers) {
    std::atomic_ref<uint32_t>(map_.lines[producer].freed).store(++freed_[producer].freed, std::memory_order_release);
  } else {
    const uint32_t sender = slot - (map_.shape.producers << capacity_shift_);
    std::atomic_ref<uint32_t>(map_.lines[sender].freed_intercepts)
        .store(++freed_[sender].freed_intercepts, std::memory_order_release);
  }
  lane_is_next_ = true;
  // The messages after the next are on another core's lines.
  if (taken_count_ > 3) __builtin_prefetch(&map_.slots[taken_[taken_count_ - 4]]);
  front_ = list_only_ && taken_count_ != 0 ? &map_.slots[taken_[taken_count_ - 1]] : nullptr;
}

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_SYNIC_MESSAGE_QUEUE_H_
