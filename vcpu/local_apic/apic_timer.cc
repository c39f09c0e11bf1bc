#include "vcpu/local_apic/apic_timer.h"

#include "vcpu/local_apic/apic_layout.h"

namespace vmm {

uint64_t ApicTimer::divisor() const noexcept {
  const uint32_t exponent = (divide_ & 3) | (divide_ & 8) >> 1;
  return exponent == 7 ? 1 : uint64_t{2} << exponent;
}

uint64_t ApicTimer::NextEnd(uint64_t ticks) const noexcept {
  const uint64_t periods = (ticks - start_ + period() - 1) / period();
  return start_ + (periods == 0 ? 1 : periods) * period();
}

bool ApicTimer::TakeFired() noexcept {
  if (tsc_deadline_ != 0 && clock_.Tsc() >= tsc_deadline_) {
    tsc_deadline_ = 0;
    Arm();
    return true;
  }
  const uint64_t now = running_ ? clock_.Ticks() : 0;
  if (!running_ || now < next_) {
    Arm();  // again, after ForgetDeadline
    return false;
  }
  if (mode_ == Mode::kPeriodic) {
    // After `now`, and not before the minimum.
    next_ = NextEnd(now + (minimum_period_ > 1 ? minimum_period_ : 1));
  } else {
    running_ = false;
  }
  Arm();
  return counts();
}

void ApicTimer::Configure(Mode mode, bool masked) noexcept {
  if ((mode == Mode::kTscDeadline) != (mode_ == Mode::kTscDeadline)) {
    initial_count_ = 0;
    running_ = false;
    tsc_deadline_ = 0;
  }
  // A one-shot that is past stays so. From periodic to one-shot, the period that runs is the last.
  if (running_ && mode != mode_) next_ = NextEnd(clock_.Ticks() + 1);
  mode_ = mode;
  masked_ = masked;
  Arm();
}

void ApicTimer::Reset() noexcept {
  mode_ = Mode::kOneShot;
  masked_ = true;
  initial_count_ = 0;
  divide_ = 0;
  running_ = false;
  tsc_deadline_ = 0;
  Arm();
}

void ApicTimer::WriteInitialCount(uint32_t count) noexcept {
  if (mode_ == Mode::kTscDeadline) return;
  initial_count_ = count;
  running_ = count != 0;
  if (running_) {
    start_ = clock_.Ticks();
    next_ = start_ + period();
  }
  Arm();
}

uint32_t ApicTimer::ReadCurrentCount() const noexcept {
  if (!running_) return 0;
  const uint64_t now = clock_.Ticks();
  if (mode_ != Mode::kPeriodic && now >= next_) return 0;
  // A one-shot that was periodic has start_ some periods back.
  return initial_count_ - static_cast<uint32_t>((now - start_) % period() / divisor());
}

void ApicTimer::WriteDivide(uint32_t value) noexcept {
  const uint32_t count = ReadCurrentCount();
  divide_ = value & kDivideWritable;
  if (running_) {
    const uint64_t now = clock_.Ticks();
    // As if it had counted at this rate all along; modulo 2^64.
    start_ = now - (initial_count_ - count) * divisor();
    next_ = start_ + period();
  }
  Arm();
}

void ApicTimer::WriteTscDeadline(uint64_t tsc) noexcept {
  if (mode_ != Mode::kTscDeadline) return;
  tsc_deadline_ = tsc;
  Arm();
}

void ApicTimer::Arm() noexcept {
  std::optional<Armed> wanted;
  if (!masked_ && tsc_deadline_ != 0) wanted = Armed{true, tsc_deadline_};
  if (!masked_ && running_ && counts()) wanted = Armed{false, next_};
  if (wanted == armed_) return;
  if (!wanted) {
    deadline_.Cancel();
  } else if (wanted->is_tsc) {
    deadline_.SetTsc(wanted->at);
  } else {
    deadline_.SetTicks(wanted->at);
  }
  armed_ = wanted;
}

}  // namespace vmm
