// The wake-up of one consumer, a virtual processor's thread: who has something for it, and whether it must be kicked.
//
// Invariants, all of one word, so that its modification order is the whole proof:
//   1. The word is 0 (awake, nothing told), kAsleep alone, or a set of source bits. kAsleep and a bit never stand together.
//   2. kAsleep comes only from 0, by Arm: a consumer does not fall asleep over a bit.
//   3. kAsleep goes away once per Arm: by the one Ring that answers true, or by Take. So an Arm yields at most one kick, and
//      a kick that comes late, after the consumer woke for another reason, costs one look and does no harm.
//   4. No wake-up is lost: a Ring that finds its bit set relies on a Take still to come, and what was published before that
//      Ring is visible after that Take.
//
// Shapes   a word on a cache line of its own, in memory shared by the consumer and all who ring; 63 sources.
// Units    none.
// Threads  Ring: any, never blocks; lock-free. Take, Arm, is_pending: the consumer.
// Trust    whoever can write the word can wake or stun the consumer: trusted threads only. A device process has the word of
//          its lane (message_lane.h), and a trusted thread rings for it.
// Errors   none.
#ifndef VMM_DEVICES_HYPERV_SYNIC_DOORBELL_H_
#define VMM_DEVICES_HYPERV_SYNIC_DOORBELL_H_

#include <atomic>
#include <cstdint>

namespace vmm {

inline constexpr uint32_t kCacheLineBytes = 64;

// All zero is a doorbell whose consumer is awake.
struct alignas(kCacheLineBytes) DoorbellLine {
  uint64_t word = 0;
};
static_assert(sizeof(DoorbellLine) == kCacheLineBytes);

// A reference to the line, which outlives it.
class Doorbell final {
 public:
  static constexpr unsigned kSources = 63;
  explicit Doorbell(DoorbellLine& line) noexcept : line_(&line) {}

  // After publishing. True: the consumer sleeps, and this caller is the one to kick it.
  [[nodiscard]] bool Ring(unsigned source) noexcept {
    const uint64_t bit = uint64_t{1} << source;
    // seq_cst four times: we publish, then load; the consumer takes the word, then looks at what is published. Weaker, the load
    // could see a bit that Take is about to clear while the consumer misses what we published.
    uint64_t word = Word().load(std::memory_order_seq_cst);
    do {
      if ((word & bit) != 0) return false;
    } while (!Word().compare_exchange_weak(word, (word & ~kAsleep) | bit, std::memory_order_seq_cst));
    return (word & kAsleep) != 0;
  }

  // The sources that rang since the last Take. To be called after waking, and before looking at any source.
  [[nodiscard]] uint64_t Take() noexcept {
    // The load spares the common case, nothing told, a locked access; what it misses, Arm does not. The exchange is the
    // partner of Ring.
    if (Word().load(std::memory_order_relaxed) == 0) return 0;
    return Word().exchange(0, std::memory_order_seq_cst) & ~kAsleep;
  }

  // True: from here on the next Ring kicks; sleep. False: something was told meanwhile, or this is armed already.
  [[nodiscard]] bool Arm() noexcept {
    uint64_t awake = 0;
    // One word, one order: either this sees a Ring's bit, or that Ring sees kAsleep. release: what this consumer wrote before
    // is visible to the thread that kicks it.
    return Word().compare_exchange_strong(awake, kAsleep, std::memory_order_seq_cst);
  }

  // A guess for statistics, and a cheap look before entering the guest.
  [[nodiscard]] bool is_pending() const noexcept { return (Word().load(std::memory_order_relaxed) & ~kAsleep) != 0; }

 private:
  static constexpr uint64_t kAsleep = uint64_t{1} << 63;
  [[nodiscard]] std::atomic_ref<uint64_t> Word() const noexcept { return std::atomic_ref<uint64_t>(line_->word); }

  DoorbellLine* line_;
};

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_SYNIC_DOORBELL_H_
