// What other threads have for the local APIC of one virtual processor: the interrupt request register (IRR), its trigger modes,
// events that are no vectors, and whether telling of one means a kick.
//
// The consumer is awake, or armed with a threshold: the priority class above which an interrupt is worth a kick (its processor
// priority). It arms itself before it enters the guest, at whatever level, or sleeps; a poster that disarms it kicks it.
//
// Invariants
//   1. A bit of the IRR and an event are set by posters, and cleared by the consumer alone, in one step that also tells whether
//      they were set. So each post leads to an interrupt taken after it; several before that are one.
//   2. armed_ is 0 (awake), or kArmed and a threshold. Only Arm makes it so. It goes away by the one post that answers true, or
//      by the consumer. So an Arm yields at most one kick, and a kick that comes late costs one look.
//   3. No wake-up is lost. A poster sets its bit, then loads armed_; Arm stores armed_, then loads the bits; all four are
//      sequentially consistent. So the poster sees that store or a later one, or Arm sees the bit and answers false. Of later
//      ones: another poster's disarming is followed by that one's kick, and the next Arm comes after this poster's load, so it
//      sees the bit; the consumer's own disarming is followed by its next Arm, likewise; and a new threshold was followed by
//      a look of its own.
//   4. No kick is needless while armed: one follows from an event, or from a class above the threshold, which is deliverable as
//      long as the consumer's priority is what it armed with. (It rises without an exit where the guest raises CR8; a kick then
//      is one look too many.) A vector that is not deliverable waits for what the consumer does itself: EOI, TPR, Arm again.
//   5. What a poster wrote before its post is visible to the consumer once it has taken the bit, also where the bit was set
//      already: each post is a release and the taking an acquire, on one word.
//
// Shapes   256 vectors; 7 events and a SIPI's vector in one word.
// Units    a priority class is vector / 16.
// Threads  posters: any, never blocks, lock-free. Consumer: the VP's thread.
// Trust    vectors are checked by who posts: none below 16.
// Errors   none.
#ifndef VMM_VCPU_LOCAL_APIC_INTERRUPT_INBOX_H_
#define VMM_VCPU_LOCAL_APIC_INTERRUPT_INBOX_H_

#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <optional>

namespace vmm {

class InterruptInbox final {
 public:
  enum Event : uint32_t {
    kNmi = 1u << 0,
    kSmi = 1u << 1,
    kInit = 1u << 2,
    kStartup = 1u << 3,  // bits 15:8 hold its vector
    kExtInt = 1u << 4,
    kLint0 = 1u << 5,
    kLint1 = 1u << 6,
    kError = 1u << 7,
  };
  static constexpr uint8_t kOnlyEvents = 15;  // a threshold that no vector is above

  InterruptInbox() = default;
  InterruptInbox(const InterruptInbox&) = delete;
  InterruptInbox& operator=(const InterruptInbox&) = delete;

  // --- posters: true, the caller is the one to kick ---

  [[nodiscard]] bool Post(uint8_t vector, bool level) noexcept {
    SetPending(vector, level);
    return Ring(vector >> 4);
  }
  // Any but kInit and kStartup.
  [[nodiscard]] bool PostEvent(Event event) noexcept {
    events_.fetch_or(event, std::memory_order_seq_cst);
    return Ring(kEventClass);
  }
  // A SIPI that waits is of before the INIT, and goes with it.
  [[nodiscard]] bool PostInit() noexcept {
    uint32_t events = events_.load(std::memory_order_relaxed);
    while (!events_.compare_exchange_weak(events, (events & ~kStartupMask) | kInit, std::memory_order_seq_cst)) {
    }
    return Ring(kEventClass);
  }
  // The first of several counts: a processor that it has started ignores the others.
  [[nodiscard]] bool PostStartup(uint8_t vector) noexcept {
    uint32_t events = events_.load(std::memory_order_relaxed);
    uint32_t posted;
    do {
      posted = (events & kStartup) != 0 ? events : events | kStartup | uint32_t{vector} << kStartupShift;
    } while (!events_.compare_exchange_weak(events, posted, std::memory_order_seq_cst));
    return Ring(kEventClass);
  }

  // --- any thread: a look, true of some moment ---

  // The highest vector in a class above `threshold`.
  [[nodiscard]] std::optional<uint8_t> HighestAbove(uint8_t threshold) const noexcept {
    for (unsigned n = kWords; n-- > 0;) {
      // seq_cst for Arm, where it is the partner of SetPending; also an acquire.
      const uint64_t word = irr_[n].load(std::memory_order_seq_cst);
      if (word == 0) continue;
      const unsigned vector = 64 * n + 63 - static_cast<unsigned>(std::countl_zero(word));
      if (vector >> 4 <= threshold) return std::nullopt;
      return static_cast<uint8_t>(vector);
    }
    return std::nullopt;
  }
  [[nodiscard]] uint32_t events() const noexcept { return events_.load(std::memory_order_seq_cst) & ~kStartupVectorMask; }

  // --- the consumer ---

  // As Post, of the consumer itself, which looks again before it enters.
  void SetPending(uint8_t vector, bool level) noexcept {
    const uint64_t bit = uint64_t{1} << vector % 64;
    std::atomic<uint64_t>& trigger = tmr_[vector / 64];
    // relaxed: published by the IRR's bit.
    if (level) {
      trigger.fetch_or(bit, std::memory_order_relaxed);
    } else if ((trigger.load(std::memory_order_relaxed) & bit) != 0) {
      trigger.fetch_and(~bit, std::memory_order_relaxed);
    }
    irr_[vector / 64].fetch_or(bit, std::memory_order_seq_cst);
  }
  // True: it was pending.
  bool TakeVector(uint8_t vector) noexcept {
    const uint64_t bit = uint64_t{1} << vector % 64;
    return (irr_[vector / 64].fetch_and(~bit, std::memory_order_seq_cst) & bit) != 0;
  }
  // Of `events`, those that were there.
  uint32_t TakeEvents(uint32_t events) noexcept {
    if ((events_.load(std::memory_order_relaxed) & events) == 0) return 0;  // what this misses, Arm does not
    return events_.fetch_and(~events, std::memory_order_seq_cst) & events;
  }
  [[nodiscard]] std::optional<uint8_t> TakeStartup() noexcept {
    if ((events_.load(std::memory_order_relaxed) & kStartup) == 0) return std::nullopt;
    const uint32_t events = events_.fetch_and(~kStartupMask, std::memory_order_seq_cst);
    if ((events & kStartup) == 0) return std::nullopt;  // an INIT came between
    return static_cast<uint8_t>(events >> kStartupShift);
  }
  [[nodiscard]] uint32_t IrrPart(unsigned n) const noexcept { return Part(irr_, n); }
  [[nodiscard]] uint32_t TmrPart(unsigned n) const noexcept { return Part(tmr_, n); }
  [[nodiscard]] bool IsLevel(uint8_t vector) const noexcept {
    return (tmr_[vector / 64].load(std::memory_order_relaxed) >> vector % 64 & 1) != 0;
  }
  void ClearVectors() noexcept {
    for (auto& word : irr_) word.exchange(0, std::memory_order_seq_cst);
    for (auto& word : tmr_) word.store(0, std::memory_order_relaxed);
  }

  // True: from here on the next event, or vector above `threshold`, kicks. False: there is one, look at it first.
  [[nodiscard]] bool Arm(uint8_t threshold) noexcept {
    armed_.store(kArmed | threshold, std::memory_order_seq_cst);
    if (events_.load(std::memory_order_seq_cst) == 0 && !HighestAbove(threshold)) return true;
    Disarm();
    return false;
  }
  // The consumer is awake for another reason.
  void Disarm() noexcept {
    if (armed_.load(std::memory_order_relaxed) != 0) armed_.store(0, std::memory_order_seq_cst);
  }

 private:
  static constexpr unsigned kWords = 4;
  static constexpr uint32_t kArmed = 0x100;
  static constexpr uint8_t kEventClass = 16;
  static constexpr unsigned kStartupShift = 8;
  static constexpr uint32_t kStartupVectorMask = 0xffu << kStartupShift;
  static constexpr uint32_t kStartupMask = kStartup | kStartupVectorMask;
  using Words = std::array<std::atomic<uint64_t>, kWords>;

  [[nodiscard]] bool Ring(uint8_t priority_class) noexcept {
    uint32_t armed = armed_.load(std::memory_order_seq_cst);
    while (armed != 0 && priority_class > (armed & ~kArmed)) {
      if (armed_.compare_exchange_weak(armed, 0, std::memory_order_seq_cst)) return true;
    }
    return false;
  }
  [[nodiscard]] static uint32_t Part(const Words& words, unsigned n) noexcept {
    return static_cast<uint32_t>(words[n / 2].load(std::memory_order_acquire) >> n % 2 * 32);
  }

  // A line of vectors, and one of what each post looks at besides.
  alignas(64) Words irr_{};
  Words tmr_{};
  alignas(64) std::atomic<uint32_t> armed_{0};
  std::atomic<uint32_t> events_{0};
};

}  // namespace vmm

#endif  // VMM_VCPU_LOCAL_APIC_INTERRUPT_INBOX_H_
