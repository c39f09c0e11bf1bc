// A ring of messages from one producer that is not trusted, a device process: memory of its own, shared with nobody else.
//
// Invariants
//   1. Only the producer moves the tail, only the consumer moves the head; the consumer's own head is private, and the one in
//      the region is never read back. 0 <= tail - head <= capacity, or the lane is closed.
//   2. A message is in the lane from the one exchange that moves the tail. A producer that dies before it has sent nothing; one
//      that dies after it has sent the message and perhaps not the kick: whoever hears of the death calls Notify of the queue.
//   3. kArmed and the tail are one word: the consumer arms only the tail that it knows, so a post either is seen by Arm or
//      sees kArmed. An Arm yields one kick.
//   4. The consumer copies, then checks the copy. It does a bounded amount of work a call, whatever the region holds: the worst
//      a producer can do is to close its own lane.
//
// Shapes   LaneHeader, then `capacity` messages; the capacity, a power of two, comes from the configuration, not the region.
// Units    indices count messages and wrap at 2^32.
// Threads  LaneProducer: confined to one thread of the device. LaneConsumer: confined to who holds the consumer's role.
// Trust    the region is the producer's to scribble on. Messages that claim to be the hypervisor's close the lane, and the
//          sender's identity is not taken from the message: the consumer's owner stamps it.
// Errors   Create, Attach: Status. TryPost: PostResult, no allocation; kFull is normal. A fault closes the lane for good.
// Source   Hyper-V TLFS, "Inter-Partition Communication", for the message; the ring is ours.
#ifndef VMM_DEVICES_HYPERV_SYNIC_MESSAGE_LANE_H_
#define VMM_DEVICES_HYPERV_SYNIC_MESSAGE_LANE_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/statusor.h"
#include "devices/hyperv/synic/doorbell.h"
#include "devices/hyperv/synic/hv_message_layout.h"
#include "devices/hyperv/synic/post_result.h"

namespace vmm {

struct LaneHeader {
  // Bits 31:0 the tail: messages ever posted; bit 63 kLaneArmed. Written by both, see invariant 3.
  alignas(kCacheLineBytes) uint64_t tail;
  // Messages ever taken. Written by the consumer.
  alignas(kCacheLineBytes) uint32_t head;
};
inline constexpr uint64_t kLaneArmed = uint64_t{1} << 63;
inline constexpr uint32_t kMaxLaneCapacity = 1u << 16;
static_assert(sizeof(LaneHeader) == 128 && offsetof(LaneHeader, head) == 64);

// The device's side.
class LaneProducer final {
 public:
  static constexpr size_t RegionBytes(uint32_t capacity) noexcept {
    return sizeof(LaneHeader) + size_t{capacity} * sizeof(HvMessage);
  }
  // A region that a LaneConsumer made, new or left by an earlier producer. It outlives this.
  static absl::StatusOr<LaneProducer> Attach(std::span<std::byte> region, uint32_t capacity);
  // kPostedKick: write the kick descriptor.
  [[nodiscard]] PostResult TryPost(const HvMessage& message) noexcept;

 private:
  LaneProducer(LaneHeader& header, HvMessage* slots, uint32_t capacity, uint32_t tail, uint32_t head) noexcept
      : header_(&header), slots_(slots), capacity_(capacity), tail_(tail), head_(head) {}

  LaneHeader* header_;
  HvMessage* slots_;
  uint32_t capacity_;
  uint32_t tail_;  // the truth; the region has a copy
  uint32_t head_;  // as last read
};

enum class LanePeek : uint8_t { kEmpty, kMessage, kClosed };

// The monitor's side.
class LaneConsumer final {
 public:
  // Formats the region, which outlives this; the lane starts armed. `origination_id` is stamped on each message.
  static absl::StatusOr<LaneConsumer> Create(std::span<std::byte> region, uint32_t capacity, uint64_t origination_id);

  // kMessage: a checked copy is in `message`; Pop before the next Peek. kEmpty: armed, the next post kicks.
  [[nodiscard]] LanePeek Peek(HvMessage& message) noexcept;
  void Pop() noexcept;
  // Whether more waits behind the one that Peek gave: a guess, and the producer's to fake.
  [[nodiscard]] bool HasMore() const noexcept;
  // No more is read. What was not taken is lost: for a device that is gone for good.
  void Close() noexcept { closed_ = true; }
  [[nodiscard]] bool is_closed() const noexcept { return closed_; }

 private:
  LaneConsumer(LaneHeader& header, const HvMessage* slots, uint32_t capacity, uint64_t origination_id) noexcept
      : header_(&header), slots_(slots), origination_id_(origination_id), capacity_(capacity) {}
  [[nodiscard]] LanePeek Fault() noexcept;
  [[nodiscard]] LanePeek Copy(HvMessage& message) noexcept;

  LaneHeader* header_;
  const HvMessage* slots_;
  uint64_t origination_id_;
  uint32_t capacity_;
  uint32_t head_ = 0;
  uint32_t known_tail_ = 0;  // checked: at most capacity_ ahead of head_
  bool closed_ = false;
};

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_SYNIC_MESSAGE_LANE_H_
