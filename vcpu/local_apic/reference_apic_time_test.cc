#include "vcpu/local_apic/reference_apic_time.h"

#include <cstdint>
#include <optional>

#include <gtest/gtest.h>

#include "devices/hyperv/fake_reference_clock.h"
#include "devices/hyperv/hv_host.h"
#include "devices/hyperv/hv_types.h"

namespace vmm {
namespace {

class Deadline final : public DeadlineTimer {
 public:
  void Set(HvTicks at) noexcept override { deadline = at; }
  void Cancel() noexcept override { deadline.reset(); }
  std::optional<HvTicks> deadline;
};

__extension__ using Uint128 = unsigned __int128;

// 10 MHz in 2.1 GHz.
constexpr uint64_t kScale = static_cast<uint64_t>((Uint128{10'000'000} << 64) / 2'100'000'000);

struct ReferenceApicTimeTest : testing::Test {
  FakeReferenceClock clock;
  Deadline deadline;
};

TEST_F(ReferenceApicTimeTest, TicksAreTwoHundredMegahertz) {
  clock.now = HvTicks(7);
  ReferenceApicTime time(clock, deadline);
  EXPECT_EQ(ReferenceApicTime::kFrequency, 200'000'000u);
  EXPECT_EQ(time.Ticks(), 140u);
}

TEST_F(ReferenceApicTimeTest, TickDeadlineIsRoundedUp) {
  ReferenceApicTime time(clock, deadline);
  time.SetTicks(140);
  EXPECT_EQ(deadline.deadline, HvTicks(7));
  time.SetTicks(141);
  EXPECT_EQ(deadline.deadline, HvTicks(8));
  time.SetTicks(~uint64_t{0});
  EXPECT_EQ(deadline.deadline, HvTicks(~uint64_t{0} / 20 + 1));
  time.Cancel();
  EXPECT_EQ(deadline.deadline, std::nullopt);
}

TEST_F(ReferenceApicTimeTest, WithoutParametersThereIsNoTsc) {
  ReferenceApicTime time(clock, deadline);
  EXPECT_FALSE(time.has_tsc());
  EXPECT_EQ(time.Tsc(), 0u);
  time.SetTsc(5);
  EXPECT_EQ(deadline.deadline, std::nullopt);
}

// By the page's formula the guest's TSC is at least Tsc() at every moment, and when the deadline passes Tsc() has reached it.
TEST_F(ReferenceApicTimeTest, TscDeadlineIsNeitherEarlyNorMissed) {
  for (const uint64_t offset : {uint64_t{0}, uint64_t{12345}, 0 - uint64_t{777}}) {
    clock.parameters = ReferenceTscParameters{.scale = kScale, .offset = offset};
    ReferenceApicTime time(clock, deadline);
    ASSERT_TRUE(time.has_tsc());
    for (uint64_t tsc = 1'000'000; tsc < 1'002'000; tsc += 7) {
      time.SetTsc(tsc);
      ASSERT_TRUE(deadline.deadline.has_value());
      clock.now = *deadline.deadline;
      EXPECT_GE(time.Tsc(), tsc);
      clock.now = *deadline.deadline - HvTicks(1);
      EXPECT_LT(time.Tsc(), tsc);
      const auto now = HvTicks(static_cast<uint64_t>(Uint128{time.Tsc()} * kScale >> 64) + offset);
      EXPECT_EQ(now, clock.now);
    }
  }
}

TEST_F(ReferenceApicTimeTest, TscDeadlineBeforeTheStartPassesAtOnce) {
  clock.parameters = ReferenceTscParameters{.scale = kScale, .offset = 0 - uint64_t{1000}};
  ReferenceApicTime time(clock, deadline);
  time.SetTsc(5);
  EXPECT_EQ(deadline.deadline, HvTicks(0));
}

TEST_F(ReferenceApicTimeTest, TscDeadlineBeyondReferenceTimeDoesNotCome) {
  clock.parameters = ReferenceTscParameters{.scale = ~uint64_t{0}, .offset = 1000};
  ReferenceApicTime time(clock, deadline);
  time.SetTsc(~uint64_t{0});
  EXPECT_EQ(deadline.deadline, HvTicks(~uint64_t{0}));
}

}  // namespace
}  // namespace vmm
