#include "devices/hyperv/timers/synthetic_timers.h"

#include <limits>

namespace vmm {
namespace {

constexpr HvTicks kNever{std::numeric_limits<uint64_t>::max()};

constexpr HvTicks SaturatingAdd(HvTicks time, uint64_t ticks) noexcept {
  return ticks <= kNever.raw() - time.raw() ? time + HvTicks(ticks) : kNever;
}

constexpr bool IsPeriodic(const SyntheticTimersState::Timer& timer) noexcept { return (timer.config & kHvStimerPeriodic) != 0; }

constexpr Sint SintOf(uint64_t config) noexcept { return *Sint::From((config >> kHvStimerSintShift) & 0xf); }

// The next of the grid that is not past.
HvTicks NextOnGrid(HvTicks due, uint64_t period, HvTicks now) noexcept {
  const HvTicks earliest =
      SaturatingAdd(now, period < SyntheticTimers::kMinimumPeriod.raw() ? SyntheticTimers::kMinimumPeriod.raw() : 1);
  if (earliest <= due) return SaturatingAdd(due, period);
  const uint64_t late = (earliest - due).raw();
  const uint64_t periods = late / period + (late % period != 0 ? 1 : 0);
  // The clock ends before the product does: due + late <= kNever, and one period more is checked.
  return SaturatingAdd(due + HvTicks((periods - 1) * period), period);
}

}  // namespace

SyntheticTimers::SyntheticTimers(Synic& synic, ReferenceClock& clock, DeadlineTimer& deadline, VectorInterrupts& vectors,
                                 bool offers_direct) noexcept
    : synic_(synic), clock_(clock), deadline_(deadline), vectors_(vectors), offers_direct_(offers_direct) {
  synic_.AttachTimers(*this);
}

bool SyntheticTimers::ReadMsr(uint32_t msr, uint64_t& value) noexcept {
  if (!Has(msr)) return false;
  // A message that has just been written by another thread has cleared Enable.
  OnTimerMessagesWritten();
  const uint32_t n = msr - kHvMsrStimer0Config;
  value = n % 2 == 0 ? timers_[n / 2].config : timers_[n / 2].count;
  return true;
}

bool SyntheticTimers::WriteMsr(uint32_t msr, uint64_t value) noexcept {
  if (!Has(msr)) return false;
  const uint32_t n = msr - kHvMsrStimer0Config;
  Timer& timer = timers_[n / 2];
  if (n % 2 == 0 && (value & kHvStimerDirect) != 0 && !offers_direct_) return false;
  // What was written up to now belongs to the old setting.
  static_cast<void>(TakeWritten(clock_.Now()));
  if (n % 2 == 0) {
    timer.config = value;
  } else {
    timer.count = value;
    if (value == 0) {
      timer.config &= ~kHvStimerEnable;
    } else if ((timer.config & kHvStimerAutoEnable) != 0) {
      timer.config |= kHvStimerEnable;
    }
  }
  if ((timer.config & kHvStimerDirect) == 0 && SintOf(timer.config).raw() == 0) timer.config &= ~kHvStimerEnable;
  timer.stale = timer.queued;
  Start(timer);
  Run();
  return true;
}

void SyntheticTimers::Start(Timer& timer) noexcept {
  timer.running = (timer.config & kHvStimerEnable) != 0 && timer.count != 0;
  timer.due = IsPeriodic(timer) ? SaturatingAdd(clock_.Now(), timer.count) : HvTicks(timer.count);
}

void SyntheticTimers::RunExpired() noexcept {
  armed_.reset();
  Run();
}

void SyntheticTimers::OnTimerMessagesWritten() noexcept {
  if (TakeWritten(clock_.Now())) Run();
}

bool SyntheticTimers::TakeWritten(HvTicks now) noexcept {
  const uint32_t written = synic_.TakeWrittenTimers();
  for (uint32_t n = 0; n < kHvStimerCount; ++n) {
    Timer& timer = timers_[n];
    if (((written >> n) & 1) == 0 || !timer.queued) continue;
    timer.queued = false;
    if (timer.stale) {
      timer.stale = false;
    } else if (timer.running) {  // periodic
      timer.due = NextOnGrid(timer.due, timer.count, now);
    } else {
      timer.config &= ~kHvStimerEnable;
    }
  }
  return written != 0;
}

void SyntheticTimers::Run() noexcept {
  HvTicks now;
  // A second round only after a message went straight into its slot; its timer's next time is later than `now`.
  do {
    now = clock_.Now();
    for (uint32_t n = 0; n < kHvStimerCount; ++n) {
      const Timer& timer = timers_[n];
      if (timer.running && timer.due != kNever && now >= timer.due) Expire(n, now);
    }
  } while (TakeWritten(now));
  Arm();
}

void SyntheticTimers::Expire(uint32_t index, HvTicks now) noexcept {
  Timer& timer = timers_[index];
  if ((timer.config & kHvStimerDirect) != 0) {
    vectors_.RaiseVector(static_cast<uint8_t>(timer.config >> kHvStimerVectorShift));
    ++stats_.direct;
    if (IsPeriodic(timer)) {
      timer.due = NextOnGrid(timer.due, timer.count, now);
    } else {
      timer.running = false;
      timer.config &= ~kHvStimerEnable;
    }
    return;
  }
  if (timer.queued) {
    ++stats_.waited;
    return;
  }
  timer.queued = true;
  timer.stale = false;
  if (!IsPeriodic(timer)) timer.running = false;
  ++stats_.messages;
  synic_.PostTimer(index, SintOf(timer.config), timer.due);
}

void SyntheticTimers::Arm() noexcept {
  HvTicks earliest = kNever;
  for (const Timer& timer : timers_) {
    // One that waits for its message is brought on by that.
    const bool waits = timer.queued && (timer.config & kHvStimerDirect) == 0;
    if (timer.running && !waits && timer.due < earliest) earliest = timer.due;
  }
  if (earliest == kNever) {
    if (armed_) deadline_.Cancel();
    armed_.reset();
  } else if (armed_ != earliest) {
    deadline_.Set(earliest);
    armed_ = earliest;
  }
}

SyntheticTimersState SyntheticTimers::SaveState() noexcept {
  OnTimerMessagesWritten();
  return {timers_};
}

void SyntheticTimers::RestoreState(const SyntheticTimersState& state) noexcept {
  timers_ = state.timers;
  // What Start would not have made.
  for (Timer& timer : timers_) timer.running = timer.running && timer.count != 0;
  RunExpired();
}

}  // namespace vmm
