// Four timers with their SynIC, time in the test's hands.
#include "devices/hyperv/timers/synthetic_timers.h"

#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

#include <gtest/gtest.h>

#include "base/status_matchers.h"
#include "devices/hyperv/hv_msr_layout.h"
#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/synic/hv_message_layout.h"
#include "devices/hyperv/synic/message_for_test.h"
#include "devices/hyperv/synic/synic.h"
#include "devices/hyperv/synic/synic_for_test.h"
#include "devices/hyperv/timers/fake_timer_host.h"

namespace vmm {
namespace {

constexpr Sint kSint = Sint::Of<2>();
constexpr uint64_t kMessageMode = uint64_t{2} << kHvStimerSintShift;
constexpr uint64_t kVector = 0x61;
constexpr uint64_t kDirectMode = kHvStimerDirect | kVector << kHvStimerVectorShift;
constexpr uint64_t kStart = 100'000;
constexpr uint64_t kEnd = ~uint64_t{0};

struct Machine {
  explicit Machine(bool offers_direct = true) : timers(*synic, synic.clock, deadline, vectors, offers_direct) {
    synic.clock.now = HvTicks(kStart);
  }
  SynicForTest synic;
  FakeDeadlineTimer deadline;
  FakeVectorInterrupts vectors;
  SyntheticTimers timers;
};

class SyntheticTimersTest : public testing::Test, protected Machine {
 protected:
  SyntheticTimersTest() { synic.Enable(kSint); }

  static uint32_t ConfigMsr(uint32_t timer) { return kHvMsrStimer0Config + 2 * timer; }
  static uint32_t CountMsr(uint32_t timer) { return ConfigMsr(timer) + 1; }
  bool WriteConfig(uint64_t value, uint32_t timer = 0) { return timers.WriteMsr(ConfigMsr(timer), value); }
  bool WriteCount(uint64_t value, uint32_t timer = 0) { return timers.WriteMsr(CountMsr(timer), value); }
  uint64_t Config(uint32_t timer = 0) { return Read(ConfigMsr(timer)); }
  uint64_t Count(uint32_t timer = 0) { return Read(CountMsr(timer)); }
  uint64_t Read(uint32_t msr) {
    uint64_t value = 0xbad;
    EXPECT_TRUE(timers.ReadMsr(msr, value));
    return value;
  }
  // As the deadline would: only when it has passed.
  bool AdvanceTo(uint64_t ticks) {
    synic.clock.now = HvTicks(ticks);
    if (!deadline.deadline || *deadline.deadline > synic.clock.now) return false;
    deadline.deadline.reset();
    timers.RunExpired();
    return true;
  }
  std::optional<uint64_t> Deadline() const {
    return deadline.deadline ? std::optional(deadline.deadline->raw()) : std::nullopt;
  }
  std::optional<HvTimerMessagePayload> GuestReads(Sint sint = kSint) {
    const auto read = synic.guest(sint).TakeMessage();
    if (!read) return std::nullopt;
    eom = read->eom;
    EXPECT_EQ(read->message.header.type, HvMessageType::kTimerExpired);
    HvTimerMessagePayload payload;
    std::memcpy(&payload, read->message.payload, sizeof(payload));
    return payload;
  }
  // A message of somebody else's that the guest has not read.
  void FillSlot() {
    ASSERT_EQ(synic->Post(Poster::OfVp(VpIndex(1)), kSint, MakeMessage(1, 0)), HvStatus::kSuccess);
  }
  void EmptySlot() {
    ASSERT_EQ(synic.guest(kSint).Type(), HvMessageType::kVmBus);
    static_cast<void>(synic.guest(kSint).TakeMessage());
  }
  int edges() { return synic.interrupts.edges[kSint.raw()]; }

  bool eom = false;
};

// --- Registers ----------------------------------------------------------------------------------------------------------

TEST_F(SyntheticTimersTest, RegistersAreZeroAtFirstAndReadBackAsWritten) {
  for (uint32_t n = 0; n < kHvStimerCount; ++n) {
    EXPECT_EQ(Config(n), 0u);
    EXPECT_EQ(Count(n), 0u);
  }
  const uint64_t value = ~kHvStimerEnable;
  EXPECT_TRUE(WriteConfig(value, 3));
  EXPECT_TRUE(WriteCount(0x1234'5678'9abc'def0, 2));
  EXPECT_EQ(Config(3), value);
  EXPECT_EQ(Count(2), 0x1234'5678'9abc'def0u);
  EXPECT_EQ(Config(2), 0u);
  EXPECT_EQ(Count(3), 0u);
}

TEST_F(SyntheticTimersTest, OtherMsrsAreNotTheirs) {
  uint64_t value = 0;
  for (const uint32_t msr : {0x4000'00afu, 0x4000'00b8u, 0x4000'0080u}) {
    EXPECT_FALSE(SyntheticTimers::Has(msr));
    EXPECT_FALSE(timers.ReadMsr(msr, value));
    EXPECT_FALSE(timers.WriteMsr(msr, 0));
  }
}

TEST(SyntheticTimersOfferTest, DirectModeThatIsNotOfferedIsRefused) {
  Machine machine(/*offers_direct=*/false);
  EXPECT_FALSE(machine.timers.WriteMsr(kHvMsrStimer0Config, kDirectMode));
  EXPECT_TRUE(machine.timers.WriteMsr(kHvMsrStimer0Config, kMessageMode));
  uint64_t value = 0;
  EXPECT_TRUE(machine.timers.ReadMsr(kHvMsrStimer0Config, value));
  EXPECT_EQ(value, kMessageMode);
}

TEST_F(SyntheticTimersTest, ReservedBitsAreKeptAndMeanNothing) {
  EXPECT_TRUE(WriteCount(kStart + 50));
  EXPECT_TRUE(WriteConfig(kHvStimerReserved | kDirectMode | kHvStimerEnable));
  EXPECT_EQ(Config(), kHvStimerReserved | kDirectMode | kHvStimerEnable);
  EXPECT_TRUE(AdvanceTo(kStart + 50));
  EXPECT_EQ(vectors.vectors, std::vector<uint8_t>{kVector});
  EXPECT_EQ(Config(), kHvStimerReserved | kDirectMode);
}

TEST_F(SyntheticTimersTest, Sint0IsRefusedInMessageModeOnly) {
  WriteCount(kStart + 10);
  EXPECT_TRUE(WriteConfig(kHvStimerEnable | kHvStimerPeriodic));
  EXPECT_EQ(Config(), kHvStimerPeriodic);
  EXPECT_EQ(Deadline(), std::nullopt);
  EXPECT_TRUE(WriteConfig(kHvStimerAutoEnable));
  EXPECT_TRUE(WriteCount(kStart + 10));
  EXPECT_EQ(Config(), kHvStimerAutoEnable);
  EXPECT_TRUE(WriteConfig(kHvStimerEnable | kHvStimerDirect | kVector << kHvStimerVectorShift));
  EXPECT_EQ(Deadline(), kStart + 10);
}

TEST_F(SyntheticTimersTest, AutoEnableStartsOnACountThatIsNotZero) {
  WriteConfig(kMessageMode | kHvStimerAutoEnable);
  EXPECT_EQ(Deadline(), std::nullopt);
  WriteCount(kStart + 100);
  EXPECT_EQ(Config(), kMessageMode | kHvStimerAutoEnable | kHvStimerEnable);
  EXPECT_EQ(Deadline(), kStart + 100);
  WriteCount(0);
  EXPECT_EQ(Config(), kMessageMode | kHvStimerAutoEnable);
  EXPECT_EQ(Deadline(), std::nullopt);
}

TEST_F(SyntheticTimersTest, CountZeroStopsWhateverAutoEnableSays) {
  for (const uint64_t mode : {uint64_t{0}, kHvStimerPeriodic, kHvStimerAutoEnable, kHvStimerPeriodic | kHvStimerAutoEnable}) {
    WriteCount(kStart + 100);
    WriteConfig(kDirectMode | kHvStimerEnable | mode);
    EXPECT_TRUE(Deadline().has_value());
    WriteCount(0);
    EXPECT_EQ(Config(), kDirectMode | mode);
    EXPECT_EQ(Deadline(), std::nullopt);
  }
  EXPECT_TRUE(vectors.vectors.empty());
}

TEST_F(SyntheticTimersTest, EnableWithoutCountIsKeptAndStartsWithTheCount) {
  WriteConfig(kDirectMode | kHvStimerEnable);
  EXPECT_EQ(Config(), kDirectMode | kHvStimerEnable);
  EXPECT_EQ(Deadline(), std::nullopt);
  WriteCount(kStart + 7);
  EXPECT_EQ(Deadline(), kStart + 7);
}

TEST_F(SyntheticTimersTest, CountWithoutEnableDoesNothing) {
  WriteConfig(kDirectMode);
  WriteCount(1);
  EXPECT_EQ(Deadline(), std::nullopt);
  EXPECT_TRUE(vectors.vectors.empty());
}

// --- One-shot -----------------------------------------------------------------------------------------------------------

TEST_F(SyntheticTimersTest, OneShotExpiresAtItsTimeAndNotBefore) {
  WriteCount(kStart + 1000);
  WriteConfig(kMessageMode | kHvStimerEnable);
  EXPECT_FALSE(AdvanceTo(kStart + 999));
  timers.RunExpired();  // a deadline that is early
  EXPECT_EQ(edges(), 0);
  EXPECT_EQ(Config(), kMessageMode | kHvStimerEnable);
  EXPECT_EQ(Deadline(), kStart + 1000);
  EXPECT_TRUE(AdvanceTo(kStart + 1003));
  EXPECT_EQ(edges(), 1);
  EXPECT_EQ(Config(), kMessageMode);
  EXPECT_EQ(Count(), kStart + 1000);
  const auto payload = GuestReads();
  ASSERT_TRUE(payload.has_value());
  EXPECT_EQ(payload->timer_index, 0u);
  EXPECT_EQ(payload->expiration_time, kStart + 1000);
  EXPECT_EQ(payload->delivery_time, kStart + 1003);
  EXPECT_EQ(Deadline(), std::nullopt);
}

TEST_F(SyntheticTimersTest, OneShotInThePastExpiresAtOnce) {
  WriteConfig(kDirectMode | kHvStimerAutoEnable);
  WriteCount(1);
  EXPECT_EQ(vectors.vectors, std::vector<uint8_t>{kVector});
  EXPECT_EQ(Config(), kDirectMode | kHvStimerAutoEnable);
  WriteCount(kStart);
  EXPECT_EQ(vectors.vectors.size(), 2u);
  EXPECT_EQ(deadline.sets, 0);
}

TEST_F(SyntheticTimersTest, OneShotAtTheEndOfTheClockNeverComes) {
  WriteCount(kEnd);
  WriteConfig(kDirectMode | kHvStimerEnable);
  EXPECT_EQ(Deadline(), std::nullopt);
  EXPECT_EQ(Config(), kDirectMode | kHvStimerEnable);
  synic.clock.now = HvTicks(kEnd);
  timers.RunExpired();
  EXPECT_TRUE(vectors.vectors.empty());
}

TEST_F(SyntheticTimersTest, OneShotKeepsEnableUntilItsMessageIsInTheSlot) {
  FillSlot();
  WriteCount(kStart + 10);
  WriteConfig(kMessageMode | kHvStimerEnable);
  EXPECT_TRUE(AdvanceTo(kStart + 10));
  EXPECT_EQ(Config(), kMessageMode | kHvStimerEnable);
  EXPECT_EQ(Deadline(), std::nullopt);  // nothing polls
  EXPECT_TRUE(synic.interrupts.watched[kSint.raw()]);
  EXPECT_NE(synic.guest(kSint).Flags() & kHvMessagePending, 0);
  EmptySlot();
  synic.clock.now = HvTicks(kStart + 500);
  synic.Write(kHvMsrEom, 0);
  EXPECT_EQ(Config(), kMessageMode);
  const auto payload = GuestReads();
  ASSERT_TRUE(payload.has_value());
  EXPECT_EQ(payload->expiration_time, kStart + 10);
  EXPECT_EQ(payload->delivery_time, kStart + 500);
  EXPECT_FALSE(eom);
}

TEST_F(SyntheticTimersTest, OneShotWaitsForADisabledSynic) {
  synic.Write(kHvMsrSimp, 0);
  WriteCount(kStart);
  WriteConfig(kMessageMode | kHvStimerEnable);
  EXPECT_EQ(Config(), kMessageMode | kHvStimerEnable);
  EXPECT_EQ(Deadline(), std::nullopt);
  synic.Enable(kSint);
  EXPECT_EQ(Config(), kMessageMode);
  EXPECT_TRUE(GuestReads().has_value());
}

TEST_F(SyntheticTimersTest, MaskedSourceGetsTheMessageAndNoInterrupt) {
  synic.WriteSint(kSint, 0x50 | kHvSintMasked);
  WriteCount(kStart);
  WriteConfig(kMessageMode | kHvStimerEnable);
  EXPECT_EQ(edges(), 0);
  EXPECT_TRUE(GuestReads().has_value());
  EXPECT_EQ(Config(), kMessageMode);
}

TEST_F(SyntheticTimersTest, RearmedWhileItsMessageWaitsItHasNeverTwo) {
  FillSlot();
  WriteConfig(kMessageMode | kHvStimerAutoEnable);
  WriteCount(kStart);
  WriteCount(kStart + 20);
  WriteCount(kStart + 10);
  synic.clock.now = HvTicks(kStart + 50);
  timers.RunExpired();
  EXPECT_EQ(timers.stats().messages, 1u);
  EmptySlot();
  synic->OnEom();
  // The old one; the timer that now runs is still to tell.
  EXPECT_EQ(timers.stats().messages, 2u);
  EXPECT_EQ(Config(), kMessageMode | kHvStimerAutoEnable | kHvStimerEnable);
  EXPECT_EQ(GuestReads()->expiration_time, kStart);
  EXPECT_TRUE(eom);
  synic->OnEom();
  EXPECT_EQ(Config(), kMessageMode | kHvStimerAutoEnable);
  EXPECT_EQ(GuestReads()->expiration_time, kStart + 10);
  EXPECT_FALSE(eom);
}

TEST_F(SyntheticTimersTest, StoppedWhileItsMessageWaitsItStaysStopped) {
  FillSlot();
  WriteConfig(kMessageMode | kHvStimerAutoEnable);
  WriteCount(kStart);
  WriteCount(0);
  EmptySlot();
  synic->OnEom();
  EXPECT_TRUE(GuestReads().has_value());
  EXPECT_EQ(Config(), kMessageMode | kHvStimerAutoEnable);
  EXPECT_EQ(Deadline(), std::nullopt);
}

TEST_F(SyntheticTimersTest, TurnedDirectWhileItsMessageWaits) {
  FillSlot();
  WriteCount(kStart);
  WriteConfig(kMessageMode | kHvStimerEnable);
  WriteConfig(kDirectMode | kHvStimerEnable);
  EXPECT_EQ(vectors.vectors.size(), 1u);
  EXPECT_EQ(Config(), kDirectMode);
  EmptySlot();
  synic->OnEom();
  EXPECT_TRUE(GuestReads().has_value());
  EXPECT_EQ(Config(), kDirectMode);
}

TEST_F(SyntheticTimersTest, WrittenByAnotherThreadsPostItIsKnownAtTheNextLook) {
  FillSlot();
  WriteCount(kStart);
  WriteConfig(kMessageMode | kHvStimerEnable);
  synic->RunPending();
  EmptySlot();
  // The poster finds the slot free, and writes what is first: the timer's.
  FillSlot();
  EXPECT_EQ(synic.guest(kSint).Type(), HvMessageType::kTimerExpired);
  EXPECT_EQ(synic.kick.kicks, 1);
  synic->RunPending();
  EXPECT_EQ(timers.SaveState().timers[0].queued, false);
  EXPECT_EQ(Config(), kMessageMode);
}

TEST_F(SyntheticTimersTest, GuestThatReadsConfigAfterTheMessageFindsEnableClear) {
  FillSlot();
  WriteCount(kStart);
  WriteConfig(kMessageMode | kHvStimerEnable);
  EmptySlot();
  FillSlot();  // on another thread, and the VP has not entered since
  EXPECT_TRUE(GuestReads().has_value());
  EXPECT_EQ(Config(), kMessageMode);
}

// --- Periodic -----------------------------------------------------------------------------------------------------------

TEST_F(SyntheticTimersTest, PeriodicKeepsToItsGrid) {
  for (const uint64_t mode : {kHvStimerPeriodic, kHvStimerPeriodic | kHvStimerLazy}) {
    synic.clock.now = HvTicks(kStart);
    vectors.vectors.clear();
    WriteCount(5000);
    WriteConfig(kDirectMode | kHvStimerEnable | mode);
    EXPECT_EQ(Deadline(), kStart + 5000);
    EXPECT_TRUE(AdvanceTo(kStart + 5400));  // late, and the next is not
    EXPECT_EQ(Deadline(), kStart + 10000);
    EXPECT_TRUE(AdvanceTo(kStart + 10000));
    EXPECT_EQ(Deadline(), kStart + 15000);
    EXPECT_TRUE(AdvanceTo(kStart + 41234));  // five are missed, and skipped
    EXPECT_EQ(Deadline(), kStart + 45000);
    EXPECT_EQ(vectors.vectors.size(), 3u);
    EXPECT_EQ(Config(), kDirectMode | kHvStimerEnable | mode);
  }
}

TEST_F(SyntheticTimersTest, PeriodicLateByExactlyAPeriodDoesNotRepeat) {
  WriteCount(5000);
  WriteConfig(kDirectMode | kHvStimerEnable | kHvStimerPeriodic);
  EXPECT_TRUE(AdvanceTo(kStart + 10000));
  EXPECT_EQ(vectors.vectors.size(), 1u);
  EXPECT_EQ(Deadline(), kStart + 15000);
}

TEST_F(SyntheticTimersTest, PeriodicNeverQueuesTwoAndSleepsWhileItsMessageWaits) {
  WriteCount(5000);
  WriteConfig(kMessageMode | kHvStimerEnable | kHvStimerPeriodic);
  EXPECT_TRUE(AdvanceTo(kStart + 5000));
  EXPECT_EQ(Deadline(), kStart + 10000);
  EXPECT_TRUE(AdvanceTo(kStart + 10000));  // the guest has not read the first
  EXPECT_EQ(Deadline(), std::nullopt);
  EXPECT_FALSE(AdvanceTo(kStart + 33000));
  EXPECT_EQ(timers.stats().messages, 2u);
  EXPECT_EQ(GuestReads()->expiration_time, kStart + 5000);
  EXPECT_TRUE(eom);
  synic->OnEom();
  EXPECT_EQ(Deadline(), kStart + 35000);
  const auto payload = GuestReads();
  EXPECT_EQ(payload->expiration_time, kStart + 10000);
  EXPECT_EQ(payload->delivery_time, kStart + 33000);
  EXPECT_FALSE(eom);
  EXPECT_TRUE(AdvanceTo(kStart + 35000));
  EXPECT_EQ(GuestReads()->expiration_time, kStart + 35000);
  EXPECT_EQ(Config(), kMessageMode | kHvStimerEnable | kHvStimerPeriodic);
}

TEST_F(SyntheticTimersTest, TinyPeriodsAreBounded) {
  for (const uint64_t period : {1u, 3u, 999u}) {
    synic.clock.now = HvTicks(kStart);
    vectors.vectors.clear();
    WriteCount(period);
    WriteConfig(kDirectMode | kHvStimerEnable | kHvStimerPeriodic);
    const uint64_t end = kStart + 100 * SyntheticTimers::kMinimumPeriod.raw();
    while (*Deadline() <= end) {
      EXPECT_EQ((*Deadline() - kStart) % period, 0u);
      EXPECT_TRUE(AdvanceTo(*Deadline()));
    }
    EXPECT_LE(vectors.vectors.size(), 101u) << period;
    EXPECT_GE(vectors.vectors.size(), 50u) << period;
    EXPECT_EQ(Count(), period);
  }
}

TEST_F(SyntheticTimersTest, PeriodBeyondTheEndOfTheClockNeverComes) {
  for (const uint64_t period : {kEnd, kEnd - kStart, kEnd - kStart + 1}) {
    WriteCount(period);
    WriteConfig(kDirectMode | kHvStimerEnable | kHvStimerPeriodic);
    EXPECT_EQ(Deadline(), std::nullopt) << period;
  }
  WriteCount(kEnd - kStart - 1);
  EXPECT_EQ(Deadline(), kEnd - 1);
  EXPECT_TRUE(AdvanceTo(kEnd - 1));
  EXPECT_EQ(Deadline(), std::nullopt);
  EXPECT_EQ(vectors.vectors.size(), 1u);
}

// --- Four of them -------------------------------------------------------------------------------------------------------

TEST_F(SyntheticTimersTest, OneDeadlineForTheEarliestOfFour) {
  for (uint32_t n = 0; n < kHvStimerCount; ++n) {
    WriteCount(kStart + 4000 - 1000 * n, n);
    WriteConfig(kHvStimerDirect | (0x70 + n) << kHvStimerVectorShift | kHvStimerEnable, n);
  }
  EXPECT_EQ(Deadline(), kStart + 1000);
  EXPECT_TRUE(AdvanceTo(kStart + 2500));
  EXPECT_EQ(vectors.vectors, (std::vector<uint8_t>{0x72, 0x73}));
  EXPECT_EQ(Deadline(), kStart + 3000);
  WriteCount(0, 1);
  EXPECT_EQ(Deadline(), kStart + 4000);
  const int sets = deadline.sets;
  WriteCount(0, 3);
  EXPECT_EQ(deadline.sets, sets);
  EXPECT_TRUE(AdvanceTo(kStart + 4000));
  EXPECT_EQ(vectors.vectors.back(), 0x70);
  EXPECT_EQ(timers.stats().direct, 3u);
}

TEST_F(SyntheticTimersTest, FourMessagesOfOneTimeShareASlotInTurn) {
  for (uint32_t n = 0; n < kHvStimerCount; ++n) {
    WriteCount(kStart + 10, n);
    WriteConfig(kMessageMode | kHvStimerEnable, n);
  }
  EXPECT_TRUE(AdvanceTo(kStart + 10));
  for (uint32_t n = 0; n < kHvStimerCount; ++n) {
    EXPECT_EQ(GuestReads()->timer_index, n);
    EXPECT_EQ(Config(n), kMessageMode);
    EXPECT_EQ(eom, n < 3);
    if (n < 3) {
      EXPECT_NE(Config(n + 1) & kHvStimerEnable, 0u) << n;
    }
    synic->OnEom();
  }
  EXPECT_FALSE(GuestReads().has_value());
}

// --- State --------------------------------------------------------------------------------------------------------------

TEST_F(SyntheticTimersTest, StateIsRestoredWithItsWaitingMessage) {
  FillSlot();
  WriteCount(kStart, 0);
  WriteConfig(kMessageMode | kHvStimerEnable, 0);
  WriteCount(7000, 1);
  WriteConfig(kDirectMode | kHvStimerEnable | kHvStimerPeriodic, 1);
  synic->SetPaused(true);
  const SyntheticTimersState timers_state = timers.SaveState();
  const SynicState synic_state = synic->SaveState();

  Machine restored;
  restored.synic.clock.now = HvTicks(kStart + 8000);
  restored.timers.RestoreState(timers_state);
  ASSERT_OK(restored.synic->RestoreState(synic_state));
  EXPECT_EQ(restored.vectors.vectors, std::vector<uint8_t>{kVector});
  EXPECT_EQ(restored.deadline.deadline, HvTicks(kStart + 14000));
  uint64_t config = 0;
  EXPECT_TRUE(restored.timers.ReadMsr(kHvMsrStimer0Config, config));
  EXPECT_EQ(config, kMessageMode | kHvStimerEnable);
  EXPECT_TRUE(restored.synic.guest(kSint).TakeMessage()->eom);
  restored.synic->OnEom();
  EXPECT_EQ(restored.synic.guest(kSint).Type(), HvMessageType::kTimerExpired);
  EXPECT_TRUE(restored.timers.ReadMsr(kHvMsrStimer0Config, config));
  EXPECT_EQ(config, kMessageMode);
}

TEST_F(SyntheticTimersTest, StateThatNoTimerCouldHaveIsHarmless) {
  SyntheticTimersState state;
  state.timers[0] = {.config = kDirectMode | kHvStimerEnable | kHvStimerPeriodic, .count = 0, .due = HvTicks(1), .running = true};
  timers.RestoreState(state);
  EXPECT_TRUE(vectors.vectors.empty());
  EXPECT_EQ(Deadline(), std::nullopt);
}

}  // namespace
}  // namespace vmm
