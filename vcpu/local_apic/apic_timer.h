// The timer of a local APIC: it counts down once or again and again, or waits for a TSC value.
//
// Rules, where the manuals leave room
//   - The count follows from the clock; nothing ticks. A period's ends lie on the grid of its start: no drift, and what was
//     missed is one.
//   - Periodic, it fires at most once in minimum_period, on the grid; the count that the guest reads runs at the full rate.
//   - A new divide value keeps the count and changes its rate.
//   - One-shot and periodic change into each other while they run; to or from TSC-deadline mode stops the timer and clears its
//     registers. In the reserved mode (3) it does not fire.
//   - Masked, it runs all the same, and what it reaches then is lost.
//
// Units    ticks of the timer's input clock before the divider; guest TSC values.
// Threads  confined to the VP's thread.
// Trust    counts and deadlines are the guest's, any number.
// Errors   none.
// Source   Intel SDM volume 3, "APIC Timer"; AMD APM volume 2, "APIC Timer Interrupt".
#ifndef VMM_VCPU_LOCAL_APIC_APIC_TIMER_H_
#define VMM_VCPU_LOCAL_APIC_APIC_TIMER_H_

#include <cstdint>
#include <optional>

namespace vmm {

// Time as the guest's APIC timer knows it.
class ApicClock {
 public:
  virtual ~ApicClock() = default;
  // The timer's input clock, what the guest is told as the APIC frequency. Does not go back.
  [[nodiscard]] virtual uint64_t Ticks() noexcept = 0;
  [[nodiscard]] virtual uint64_t Tsc() noexcept = 0;
};

// One deadline. When it passes, the VP is kicked and LocalApic::OnDeadline called.
class ApicDeadline {
 public:
  virtual ~ApicDeadline() = default;
  // The VP's thread. Replaces the one before; one in the past passes at once.
  virtual void SetTicks(uint64_t ticks) noexcept = 0;
  virtual void SetTsc(uint64_t tsc) noexcept = 0;
  virtual void Cancel() noexcept = 0;
};

class ApicTimer final {
 public:
  enum class Mode : uint8_t { kOneShot, kPeriodic, kTscDeadline, kReserved };

  // Both outlive this.
  ApicTimer(ApicClock& clock, ApicDeadline& deadline, uint64_t minimum_period_ticks) noexcept
      : clock_(clock), deadline_(deadline), minimum_period_(minimum_period_ticks) {}
  ApicTimer(const ApicTimer&) = delete;
  ApicTimer& operator=(const ApicTimer&) = delete;

  // True: it has fired since the last call, once or more often. To be called before any change, so that what was reached before
  // counts as before, and when the deadline has passed.
  [[nodiscard]] bool TakeFired() noexcept;
  // The deadline has passed, or something near: it is set anew if it still stands.
  void ForgetDeadline() noexcept { armed_.reset(); }

  void Configure(Mode mode, bool masked) noexcept;
  void Reset() noexcept;  // one-shot, masked, stopped, divided by two

  // In TSC-deadline mode counts are dropped and read as 0, otherwise deadlines are.
  void WriteInitialCount(uint32_t count) noexcept;
  [[nodiscard]] uint32_t initial_count() const noexcept { return initial_count_; }
  [[nodiscard]] uint32_t ReadCurrentCount() const noexcept;
  void WriteDivide(uint32_t value) noexcept;
  [[nodiscard]] uint32_t divide() const noexcept { return divide_; }
  void WriteTscDeadline(uint64_t tsc) noexcept;
  [[nodiscard]] uint64_t tsc_deadline() const noexcept { return tsc_deadline_; }

  // What it waits for, masked or not.
  [[nodiscard]] bool is_running() const noexcept { return running_ || tsc_deadline_ != 0; }

 private:
  struct Armed {
    bool is_tsc;
    uint64_t at;
    bool operator==(const Armed&) const = default;
  };
  [[nodiscard]] bool counts() const noexcept { return mode_ == Mode::kOneShot || mode_ == Mode::kPeriodic; }
  [[nodiscard]] uint64_t divisor() const noexcept;
  [[nodiscard]] uint64_t period() const noexcept { return initial_count_ * divisor(); }
  // The first end of a period at or after `ticks`, and after start_.
  [[nodiscard]] uint64_t NextEnd(uint64_t ticks) const noexcept;
  void Arm() noexcept;

  ApicClock& clock_;
  ApicDeadline& deadline_;
  const uint64_t minimum_period_;
  Mode mode_ = Mode::kOneShot;
  bool masked_ = true;
  uint32_t initial_count_ = 0;
  uint32_t divide_ = 0;
  bool running_ = false;     // counting down; requires initial_count_ != 0
  uint64_t start_ = 0;       // ticks at which the count was, or would have been, the initial one
  uint64_t next_ = 0;        // ticks at which it fires, while running
  uint64_t tsc_deadline_ = 0;
  std::optional<Armed> armed_;  // what deadline_ is set to
};

}  // namespace vmm

#endif  // VMM_VCPU_LOCAL_APIC_APIC_TIMER_H_
