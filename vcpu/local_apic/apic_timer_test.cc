#include "vcpu/local_apic/apic_timer.h"

#include <cstdint>
#include <optional>

#include <gtest/gtest.h>

#include "vcpu/local_apic/fake_apic_host.h"

namespace vmm {
namespace {

class ApicTimerTest : public testing::Test {
 protected:
  static constexpr uint32_t kDivideBy1 = 0xb;
  static constexpr uint32_t kDivideBy4 = 0x1;

  // At tick `start`, the fake clock's, with divisor 1.
  void Start(ApicTimer& timer, ApicTimer::Mode mode, uint32_t count) {
    timer.Configure(mode, /*masked=*/false);
    timer.WriteDivide(kDivideBy1);
    timer.WriteInitialCount(count);
  }
  bool FiresAt(ApicTimer& timer, uint64_t ticks) {
    clock.ticks = ticks;
    return timer.TakeFired();
  }

  FakeApicClock clock;  // at tick 1000, TSC 50000
  FakeApicDeadline deadline;
  ApicTimer timer{clock, deadline, /*minimum_period_ticks=*/0};
};

TEST_F(ApicTimerTest, OneShotFiresOnceWhenTheCountIsZero) {
  Start(timer, ApicTimer::Mode::kOneShot, 500);
  EXPECT_EQ(deadline.ticks, 1500u);
  EXPECT_FALSE(FiresAt(timer, 1499));
  EXPECT_EQ(timer.ReadCurrentCount(), 1u);
  EXPECT_TRUE(FiresAt(timer, 1500));
  EXPECT_EQ(timer.ReadCurrentCount(), 0u);
  EXPECT_EQ(timer.initial_count(), 500u);
  EXPECT_FALSE(FiresAt(timer, 5000));
  EXPECT_FALSE(deadline.is_set());
  EXPECT_FALSE(timer.is_running());
}

TEST_F(ApicTimerTest, EveryDivideValueDividesAsTheManualSays) {
  constexpr struct {
    uint32_t value;
    uint64_t divisor;
  } kValues[] = {{0x0, 2}, {0x1, 4}, {0x2, 8}, {0x3, 16}, {0x8, 32}, {0x9, 64}, {0xa, 128}, {0xb, 1}};
  for (const auto& [value, divisor] : kValues) {
    timer.Configure(ApicTimer::Mode::kOneShot, false);
    timer.WriteDivide(value);
    clock.ticks = 1000;
    timer.WriteInitialCount(100);
    EXPECT_EQ(deadline.ticks, 1000 + 100 * divisor) << value;
    clock.ticks = 1000 + 10 * divisor - 1;
    EXPECT_EQ(timer.ReadCurrentCount(), 91u) << value;
    clock.ticks = 1000 + 10 * divisor;
    EXPECT_EQ(timer.ReadCurrentCount(), 90u) << value;
    EXPECT_EQ(timer.divide(), value);
  }
}

TEST_F(ApicTimerTest, LargestCountAndDivisorDoNotWrap) {
  timer.Configure(ApicTimer::Mode::kOneShot, false);
  timer.WriteDivide(0xa);
  timer.WriteInitialCount(0xffff'ffff);
  EXPECT_EQ(deadline.ticks, 1000 + 0xffff'ffffull * 128);
  EXPECT_EQ(timer.ReadCurrentCount(), 0xffff'ffffu);
}

TEST_F(ApicTimerTest, CountOfZeroStops) {
  Start(timer, ApicTimer::Mode::kPeriodic, 500);
  timer.WriteInitialCount(0);
  EXPECT_FALSE(deadline.is_set());
  EXPECT_FALSE(FiresAt(timer, 9000));
  EXPECT_EQ(timer.ReadCurrentCount(), 0u);
}

TEST_F(ApicTimerTest, NewCountStartsAnew) {
  Start(timer, ApicTimer::Mode::kOneShot, 500);
  clock.ticks = 1400;
  timer.WriteInitialCount(500);
  EXPECT_EQ(deadline.ticks, 1900u);
  EXPECT_EQ(timer.ReadCurrentCount(), 500u);
}

TEST_F(ApicTimerTest, PeriodicKeepsToItsGridAndSkipsWhatWasMissed) {
  Start(timer, ApicTimer::Mode::kPeriodic, 100);
  EXPECT_EQ(deadline.ticks, 1100u);
  EXPECT_TRUE(FiresAt(timer, 1130));
  EXPECT_EQ(deadline.ticks, 1200u);
  EXPECT_FALSE(FiresAt(timer, 1199));
  EXPECT_TRUE(FiresAt(timer, 1750));
  EXPECT_EQ(deadline.ticks, 1800u);
  EXPECT_FALSE(timer.TakeFired());
}

TEST_F(ApicTimerTest, PeriodicAtTheEndOfItsPeriodWaitsForTheNext) {
  Start(timer, ApicTimer::Mode::kPeriodic, 100);
  EXPECT_TRUE(FiresAt(timer, 1100));
  EXPECT_EQ(deadline.ticks, 1200u);
  EXPECT_EQ(timer.ReadCurrentCount(), 100u);
  clock.ticks = 1150;
  EXPECT_EQ(timer.ReadCurrentCount(), 50u);
}

TEST_F(ApicTimerTest, ShortPeriodFiresOnceInTheMinimumAndCountsAtItsRate) {
  ApicTimer limited(clock, deadline, /*minimum_period_ticks=*/1000);
  Start(limited, ApicTimer::Mode::kPeriodic, 30);
  EXPECT_EQ(deadline.ticks, 1030u);
  EXPECT_TRUE(FiresAt(limited, 1030));
  EXPECT_EQ(deadline.ticks, 2050u);  // 1030 + 1000, up to the grid
  EXPECT_FALSE(FiresAt(limited, 2049));
  EXPECT_EQ(limited.ReadCurrentCount(), 1u);
  EXPECT_TRUE(FiresAt(limited, 2050));
}

TEST_F(ApicTimerTest, MaskedTimerRunsWithoutADeadlineAndLosesItsEnd) {
  Start(timer, ApicTimer::Mode::kOneShot, 500);
  timer.Configure(ApicTimer::Mode::kOneShot, /*masked=*/true);
  EXPECT_FALSE(deadline.is_set());
  clock.ticks = 1300;
  EXPECT_EQ(timer.ReadCurrentCount(), 200u);
  timer.Configure(ApicTimer::Mode::kOneShot, /*masked=*/false);
  EXPECT_EQ(deadline.ticks, 1500u);
  timer.Configure(ApicTimer::Mode::kOneShot, /*masked=*/true);
  EXPECT_TRUE(FiresAt(timer, 1600)) << "the caller knows of the mask";
  timer.Configure(ApicTimer::Mode::kOneShot, /*masked=*/false);
  EXPECT_FALSE(timer.TakeFired());
  EXPECT_FALSE(deadline.is_set());
}

TEST_F(ApicTimerTest, NewDivideValueKeepsTheCount) {
  Start(timer, ApicTimer::Mode::kOneShot, 500);
  clock.ticks = 1300;
  timer.WriteDivide(kDivideBy4);
  EXPECT_EQ(timer.ReadCurrentCount(), 200u);
  EXPECT_EQ(deadline.ticks, 1300 + 200 * 4u);
  clock.ticks += 40;
  EXPECT_EQ(timer.ReadCurrentCount(), 190u);
}

TEST_F(ApicTimerTest, NewDivideValueEarlyInTheClocksLife) {
  clock.ticks = 10;
  Start(timer, ApicTimer::Mode::kPeriodic, 1000);
  clock.ticks = 500;
  timer.WriteDivide(0xa);  // as if it had counted since before tick 0
  EXPECT_EQ(timer.ReadCurrentCount(), 510u);
  EXPECT_EQ(deadline.ticks, 500 + 510 * 128u);
  EXPECT_TRUE(FiresAt(timer, 500 + 510 * 128));
  EXPECT_EQ(deadline.ticks, 500 + 510 * 128 + 1000 * 128u);
}

TEST_F(ApicTimerTest, OneShotAndPeriodicChangeWhileRunning) {
  Start(timer, ApicTimer::Mode::kOneShot, 100);
  clock.ticks = 1050;
  timer.Configure(ApicTimer::Mode::kPeriodic, false);
  EXPECT_EQ(deadline.ticks, 1100u);
  EXPECT_TRUE(FiresAt(timer, 1110));
  timer.Configure(ApicTimer::Mode::kOneShot, false);
  EXPECT_EQ(deadline.ticks, 1200u);
  EXPECT_EQ(timer.ReadCurrentCount(), 90u);
  EXPECT_TRUE(FiresAt(timer, 1200));
  EXPECT_FALSE(FiresAt(timer, 1300));
}

TEST_F(ApicTimerTest, TscDeadlineFiresOnceAndReadsZeroThen) {
  timer.Configure(ApicTimer::Mode::kTscDeadline, false);
  timer.WriteTscDeadline(60'000);
  EXPECT_EQ(deadline.tsc, 60'000u);
  EXPECT_EQ(timer.tsc_deadline(), 60'000u);
  clock.tsc = 59'999;
  EXPECT_FALSE(timer.TakeFired());
  clock.tsc = 60'000;
  EXPECT_TRUE(timer.TakeFired());
  EXPECT_EQ(timer.tsc_deadline(), 0u);
  EXPECT_FALSE(deadline.is_set());
  EXPECT_FALSE(timer.TakeFired());
}

TEST_F(ApicTimerTest, TscDeadlineOfZeroDisarms) {
  timer.Configure(ApicTimer::Mode::kTscDeadline, false);
  timer.WriteTscDeadline(60'000);
  timer.WriteTscDeadline(0);
  EXPECT_FALSE(deadline.is_set());
  clock.tsc = 70'000;
  EXPECT_FALSE(timer.TakeFired());
}

TEST_F(ApicTimerTest, RegistersOfTheOtherModeAreDropped) {
  Start(timer, ApicTimer::Mode::kOneShot, 100);
  timer.WriteTscDeadline(60'000);
  EXPECT_EQ(timer.tsc_deadline(), 0u);
  EXPECT_EQ(deadline.ticks, 1100u);
  timer.Configure(ApicTimer::Mode::kTscDeadline, false);
  timer.WriteInitialCount(100);
  EXPECT_EQ(timer.initial_count(), 0u);
  EXPECT_EQ(timer.ReadCurrentCount(), 0u);
  EXPECT_FALSE(deadline.is_set());
}

TEST_F(ApicTimerTest, ChangeToAndFromTscDeadlineModeDisarms) {
  Start(timer, ApicTimer::Mode::kPeriodic, 100);
  timer.Configure(ApicTimer::Mode::kTscDeadline, false);
  EXPECT_FALSE(deadline.is_set());
  timer.WriteTscDeadline(60'000);
  timer.Configure(ApicTimer::Mode::kPeriodic, false);
  EXPECT_FALSE(deadline.is_set());
  EXPECT_EQ(timer.tsc_deadline(), 0u);
  clock.tsc = 70'000;
  EXPECT_FALSE(FiresAt(timer, 9000));
}

TEST_F(ApicTimerTest, ReservedModeDoesNotFire) {
  Start(timer, ApicTimer::Mode::kReserved, 100);
  EXPECT_FALSE(deadline.is_set());
  EXPECT_FALSE(FiresAt(timer, 1200));
}

TEST_F(ApicTimerTest, EarlyWakeUpSetsTheDeadlineAgain) {
  Start(timer, ApicTimer::Mode::kOneShot, 500);
  deadline.ticks.reset();  // it has passed, for the host
  clock.ticks = 1498;
  timer.ForgetDeadline();
  EXPECT_FALSE(timer.TakeFired());
  EXPECT_EQ(deadline.ticks, 1500u);

  timer.Configure(ApicTimer::Mode::kTscDeadline, false);
  timer.WriteTscDeadline(60'000);
  deadline.tsc.reset();
  timer.ForgetDeadline();
  EXPECT_FALSE(timer.TakeFired());
  EXPECT_EQ(deadline.tsc, 60'000u);
}

TEST_F(ApicTimerTest, UnchangedDeadlineIsNotSetTwice) {
  Start(timer, ApicTimer::Mode::kOneShot, 500);
  const int sets = deadline.sets;
  timer.Configure(ApicTimer::Mode::kOneShot, false);
  EXPECT_FALSE(timer.TakeFired());
  EXPECT_EQ(deadline.sets, sets);
}

TEST_F(ApicTimerTest, ResetStopsAndClears) {
  Start(timer, ApicTimer::Mode::kPeriodic, 500);
  timer.Reset();
  EXPECT_FALSE(deadline.is_set());
  EXPECT_EQ(timer.initial_count(), 0u);
  EXPECT_EQ(timer.divide(), 0u);
  EXPECT_FALSE(timer.is_running());
}

}  // namespace
}  // namespace vmm
