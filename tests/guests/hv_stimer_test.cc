// Synthetic timers from inside: every mode, and messages that meet a slot which is not free. Where KVM's own timers (backing
// KERNEL) differ from ours, the test says so.
#include "tests/guests/hyperv/synic_driver.h"
#include "tests/guests/runtime/apic.h"
#include "tests/guests/runtime/interrupts.h"
#include "tests/guests/runtime/test.h"
#include "tests/guests/runtime/wait.h"

namespace guest {
namespace {

using vmm::kHvSintAutoEoi;
using vmm::kHvSintMasked;
using vmm::kHvStimerAutoEnable;
using vmm::kHvStimerCount;
using vmm::kHvStimerEnable;
using vmm::kHvStimerLazy;
using vmm::kHvStimerPeriodic;

constexpr uint8_t kVector = 0x71;
constexpr uint8_t kManualVector = 0x72;
constexpr uint8_t kDirectVector = 0x73;
constexpr uint32_t kSint = 3;
constexpr uint32_t kId = 0x2c;
constexpr uint64_t kPeriod = 3 * kMillisecond;

uint64_t Config(uint32_t timer) { return ReadMsr(TimerConfigMsr(timer)); }
bool IsEnabled(uint32_t timer) { return (Config(timer) & kHvStimerEnable) != 0; }
void Stop(uint32_t timer) { WriteMsr(TimerConfigMsr(timer), 0); }
void PassTime(uint64_t ticks) {
  const uint64_t end = ReferenceTime() + ticks;
  while (ReferenceTime() < end) SpinTicks(100'000);
}

// The timer message in this processor's slot, when it is there; checks all that does not depend on the test.
vmm::HvTimerMessagePayload Await(Tally& tally, bool* more = nullptr, uint32_t sint = kSint) {
  const uint32_t cpu = ThisCpuNumber();
  tally.True(WaitFor([&] { return SlotType(cpu, sint) != 0; }), "a message");
  const uint64_t now = ReferenceTime();
  HvMessage message;
  bool pending = false;
  vmm::HvTimerMessagePayload payload{};
  if (!Take(cpu, sint, message, pending)) return payload;
  if (more != nullptr) *more = pending;
  tally.Equal(static_cast<uint32_t>(message.header.type), kTimerExpired, "type");
  tally.Equal(message.header.payload_size, sizeof(payload), "size");
  tally.Equal(message.header.origination_id, 0, "origination");
  memcpy(&payload, message.payload, sizeof(payload));
  tally.Equal(payload.reserved, 0, "reserved");
  tally.True(payload.expiration_time <= payload.delivery_time, "not early by its own times");
  tally.True(payload.delivery_time <= now, "nor by the partition's");
  return payload;
}

TEST(RegistersAreZeroAtFirstAndKeepWhatIsWritten) {
  Fresh();
  Tally tally;
  OnEachCpu([&] {
    for (uint32_t timer = 0; timer < kHvStimerCount; ++timer) {
      tally.Equal(Config(timer), 0, "CONFIG");
      tally.Equal(ReadMsr(TimerCountMsr(timer)), 0, "COUNT");
      const uint64_t config = kHvStimerPeriodic | kHvStimerLazy | OnSint(timer + 5) | OnVector(0x40 + timer);
      SetTimer(timer, config, 0x1234'5678'9abc + timer);
      tally.Equal(Config(timer), config, "CONFIG");
      tally.Equal(ReadMsr(TimerCountMsr(timer)), 0x1234'5678'9abc + timer, "COUNT");
    }
  });
  EXPECT_TRUE(tally.ok());
}

TEST(EnableFollowsItsRules) {
  Fresh();
  Tally tally;
  OnEachCpu([&] {
    const uint64_t far = ReferenceTime() + 3600 * 1000 * kMillisecond;
    SetTimer(0, kHvStimerEnable | OnSint(kSint), far);
    tally.True(IsEnabled(0), "enabled");
    WriteMsr(TimerCountMsr(0), 0);
    tally.True(!IsEnabled(0), "COUNT = 0 disables");
    WriteMsr(TimerCountMsr(0), far);
    tally.True(!IsEnabled(0), "COUNT alone does not enable");
    SetTimer(0, kHvStimerAutoEnable | OnSint(kSint), 0);
    tally.True(!IsEnabled(0), "nor does AutoEnable alone");
    WriteMsr(TimerCountMsr(0), far);
    tally.True(IsEnabled(0), "both do");
    WriteMsr(TimerCountMsr(0), 0);
    tally.Equal(Config(0), kHvStimerAutoEnable | OnSint(kSint), "COUNT = 0 disables whatever AutoEnable says");
    SetTimer(0, kHvStimerEnable | OnSint(kSint), 0);
    tally.True(IsEnabled(0), "Enable without COUNT is kept");
    // SINT0 takes no timer messages.
    SetTimer(1, kHvStimerEnable, far);
    tally.Equal(Config(1), 0, "Enable with SINT0");
    SetTimer(1, kHvStimerEnable | OnSint(kSint), far);
    WriteMsr(TimerConfigMsr(1), kHvStimerEnable | kHvStimerPeriodic);
    tally.Equal(Config(1), kHvStimerPeriodic, "changed to SINT0 while enabled");
    for (uint32_t sint = 0; sint < kSints; ++sint) tally.Equal(SlotType(ThisCpuNumber(), sint), 0, "nothing has expired");
  });
  EXPECT_TRUE(tally.ok());
}

TEST(OneShotExpiresOnceAndNeverEarly) {
  Fresh();
  CountInterrupts(kVector, Eoi::kApic);
  Tally tally;
  OnEachCpu([&] {
    for (uint32_t timer = 0; timer < kHvStimerCount; ++timer) {
      const uint32_t sint = kSint + timer;
      SetSint(sint, kVector);
      const uint64_t before = InterruptCount(kVector);
      const uint64_t due = ReferenceTime() + 2 * kMillisecond;
      SetTimer(timer, kHvStimerEnable | OnSint(sint), due);
      const auto payload = Await(tally, nullptr, sint);
      tally.Equal(payload.timer_index, timer, "timer");
      tally.Equal(payload.expiration_time, due, "expiration");
      tally.True(WaitFor([&] { return InterruptCount(kVector) == before + 1; }), "interrupt");
      tally.Equal(Config(timer), OnSint(sint), "Enable is cleared");
      tally.Equal(ReadMsr(TimerCountMsr(timer)), due, "COUNT is kept");
      SpinTicks(kQuietTicks);
      tally.Equal(SlotType(ThisCpuNumber(), sint), 0, "once");
    }
  });
  EXPECT_TRUE(tally.ok());
}

TEST(TimeInThePastExpiresAtOnce) {
  Fresh();
  Tally tally;
  OnEachCpu([&] {
    SetSint(kSint, kVector);
    CountInterrupts(kVector, Eoi::kApic);
    const uint64_t now = ReferenceTime();
    for (const uint64_t due : {uint64_t{1}, now - 1, now}) {
      SetTimer(2, kHvStimerEnable | OnSint(kSint), due);
      tally.Equal(Await(tally).expiration_time, due, "expiration");
      tally.True(!IsEnabled(2), "Enable is cleared");
    }
    // By AutoEnable: a tick handler that writes COUNT alone.
    SetTimer(2, kHvStimerAutoEnable | OnSint(kSint), 0);
    for (uint32_t round = 0; round < 3; ++round) {
      const uint64_t due = ReferenceTime() + kMillisecond / 2;
      WriteMsr(TimerCountMsr(2), due);
      tally.Equal(Await(tally).expiration_time, due, "expiration");
      tally.Equal(Config(2), kHvStimerAutoEnable | OnSint(kSint), "Enable is cleared");
    }
  });
  EXPECT_TRUE(tally.ok());
}

void TestPeriodic(uint64_t config_bits) {
  Fresh();
  CountInterrupts(kVector, Eoi::kApic);
  Tally tally;
  OnEachCpu([&] {
    SetSint(kSint, kVector);
    WriteMsr(TimerCountMsr(1), kPeriod);
    const uint64_t before = ReferenceTime();
    SetTimer(1, kHvStimerEnable | kHvStimerPeriodic | config_bits | OnSint(kSint), kPeriod);
    const uint64_t after = ReferenceTime();
    uint64_t last = 0;
    for (uint32_t tick = 0; tick < 4; ++tick) {
      bool more = false;
      const auto payload = Await(tally, &more);
      if (more) WriteEom();
      tally.Equal(payload.timer_index, 1, "timer");
      if (tick == 0) {
        // A tick for the rounding of KVM's clock and ours.
        tally.True(payload.expiration_time + 1 >= before + kPeriod, "the first period begins when it is enabled");
        tally.True(payload.expiration_time <= after + kPeriod, "and not later");
      } else {
        tally.True(payload.expiration_time > last, "later than the last");
        tally.Equal((payload.expiration_time - last) % kPeriod, 0, "on the grid");
      }
      last = payload.expiration_time;
      tally.True(IsEnabled(1), "stays enabled");
    }
    Stop(1);
    // A tick that was on its way still comes.
    for (uint32_t round = 0; round < 2; ++round) {
      HvMessage message;
      bool more;
      (void)Take(ThisCpuNumber(), kSint, message, more);
      WriteEom();
    }
    PassTime(2 * kPeriod);
    tally.Equal(SlotType(ThisCpuNumber(), kSint), 0, "stopped");
  });
  EXPECT_TRUE(tally.ok());
}

TEST(PeriodicKeepsToItsGrid) { TestPeriodic(0); }

TEST(LazyPeriodicKeepsToItsGrid) { TestPeriodic(kHvStimerLazy); }

TEST(DirectModeRaisesItsVectorAndWritesNothing) {
  if ((Cpuid(0x4000'0003).edx >> 19 & 1) == 0) SKIP("no direct mode");
  Fresh();
  CountInterrupts(kDirectVector, Eoi::kApic);
  Tally tally;
  OnEachCpu([&] {
    const uint32_t cpu = ThisCpuNumber();
    const uint64_t before = InterruptCount(kDirectVector);
    const auto count = [&] { return InterruptCount(kDirectVector) - before; };
    // Without a message page, and with the SINT of the reset value.
    SetMessagePage(nullptr);
    const uint64_t due = ReferenceTime() + 2 * kMillisecond;
    SetTimer(0, kHvStimerEnable | OnVector(kDirectVector), due);
    tally.True(WaitFor([&] { return count() == 1; }), "interrupt");
    tally.True(ReferenceTime() >= due, "not early");
    tally.Equal(Config(0), OnVector(kDirectVector), "Enable is cleared");
    SetMessagePage(MessagePage(cpu));
    SetTimer(0, kHvStimerEnable | OnVector(kDirectVector) | OnSint(kSint), 1);
    tally.True(WaitFor([&] { return count() == 2; }), "a time in the past");
    SetTimer(0, kHvStimerEnable | kHvStimerPeriodic | OnVector(kDirectVector) | OnSint(kSint), kPeriod);
    tally.True(WaitFor([&] { return count() >= 5; }), "periodic");
    tally.True(IsEnabled(0), "stays enabled");
    Stop(0);
    PassTime(kMillisecond);
    const uint64_t stopped = count();
    PassTime(2 * kPeriod);
    tally.Equal(count(), stopped, "stopped");
    for (uint32_t sint = 0; sint < kSints; ++sint) tally.Equal(SlotType(cpu, sint), 0, "no message");
  });
  EXPECT_TRUE(tally.ok());
}

TEST(WritingCountOrConfigStartsAnew) {
  Fresh();
  Tally tally;
  OnEachCpu([&] {
    // Not so soon that it could expire before it is changed, on a slow machine.
    const uint64_t soon = ReferenceTime() + 100 * kMillisecond;
    SetTimer(0, kHvStimerEnable | OnSint(kSint), soon);
    Stop(0);
    SetTimer(1, kHvStimerEnable | OnSint(kSint), soon);
    WriteMsr(TimerCountMsr(1), soon + 2 * kMillisecond);
    const auto payload = Await(tally);
    tally.Equal(payload.timer_index, 1, "the one that was stopped does not come");
    tally.Equal(payload.expiration_time, soon + 2 * kMillisecond, "the other by its new time");
    SpinTicks(kQuietTicks);
    tally.Equal(SlotType(ThisCpuNumber(), kSint), 0, "and once");
  });
  EXPECT_TRUE(tally.ok());
}

TEST(TimesFarAwayDoNotExpire) {
  Fresh();
  Tally tally;
  SetTimer(0, kHvStimerEnable | OnSint(kSint), ReferenceTime() + 24 * 3600 * 1000 * kMillisecond);
  SetTimer(1, kHvStimerEnable | kHvStimerPeriodic | OnSint(kSint), 24 * 3600 * 1000 * kMillisecond);
  SetTimer(2, kHvStimerEnable | OnSint(kSint), ~uint64_t{0});
  SetTimer(3, kHvStimerEnable | kHvStimerPeriodic | OnSint(kSint), ~uint64_t{0});
  PassTime(2 * kMillisecond);
  tally.Equal(SlotType(0, kSint), 0, "message");
  for (uint32_t timer = 0; timer < kHvStimerCount; ++timer) tally.True(IsEnabled(timer), "enabled");
  EXPECT_TRUE(tally.ok());
}

// --- A slot that is not free --------------------------------------------------------------------------------------------

enum class FreedBy { kEom, kEoi, kEomWithAutoEoi };

// A posted message is in the slot when the timer expires, and the guest reads that later.
void TestBusySlot(FreedBy freed_by) {
  Fresh();
  CountInterrupts(kManualVector, Eoi::kNone);
  Tally tally;
  OnEachCpu([&] {
    const uint32_t cpu = ThisCpuNumber();
    const bool auto_eoi = freed_by == FreedBy::kEomWithAutoEoi;
    SetSint(kSint, kManualVector | (auto_eoi ? kHvSintAutoEoi : 0));
    const Connection connection(Connection::kMessages, kId, cpu, kSint);
    const uint64_t before = InterruptCount(kManualVector);
    const auto has_interrupts = [&](uint64_t count) {
      return WaitFor([&] { return InterruptCount(kManualVector) == before + count; });
    };
    tally.Equal(static_cast<uint64_t>(PostMarked(kId, 1, 2)), 0, "post");
    tally.True(has_interrupts(1), "interrupt");
    if (freed_by == FreedBy::kEom) SignalEoi();
    const uint64_t due = ReferenceTime() + kMillisecond;
    SetTimer(3, kHvStimerEnable | OnSint(kSint), due);
    PassTime(3 * kMillisecond);
    tally.True(WaitFor([&] { return IsPending(cpu, kSint); }), "MessagePending");
    tally.True(IsEnabled(3), "Enable until the message is in the slot");
    HvMessage message;
    bool more = false;
    tally.True(Take(cpu, kSint, message, more), "the posted message is still there");
    uint32_t producer = 0, sequence = 0;
    tally.True(ReadMark(message, producer, sequence) && producer == 1 && sequence == 2, "and whole");
    tally.True(more, "more");
    // KVM may look again sooner, at any end of interrupt or message that it is told of; the specification does not mind.
    if (!TimersAreKernels()) {
      SpinTicks(kQuietTicks);
      tally.Equal(SlotType(cpu, kSint), 0, "nothing before EOM or EOI");
    }
    if (freed_by == FreedBy::kEoi) {
      SignalEoi();
    } else {
      WriteEom();
    }
    const auto payload = Await(tally);
    tally.Equal(payload.expiration_time, due, "expiration");
    tally.True(payload.delivery_time >= due + 2 * kMillisecond, "delivered later");
    tally.True(has_interrupts(2), "its interrupt");
    tally.True(!IsEnabled(3), "Enable is cleared");
    if (!auto_eoi) SignalEoi();
  });
  EXPECT_TRUE(tally.ok());
}

TEST(BusySlotWaitsForEom) { TestBusySlot(FreedBy::kEom); }
TEST(BusySlotWaitsForEoi) { TestBusySlot(FreedBy::kEoi); }
TEST(BusySlotOfAnAutoEoiSourceWaitsForEom) { TestBusySlot(FreedBy::kEomWithAutoEoi); }

TEST(PeriodicTimerNeverHasTwoMessages) {
  Fresh();
  CountInterrupts(kVector, Eoi::kApic);
  Tally tally;
  OnEachCpu([&] {
    const uint32_t cpu = ThisCpuNumber();
    SetSint(kSint, kVector);
    const Connection connection(Connection::kMessages, kId, cpu, kSint);
    tally.Equal(static_cast<uint64_t>(PostMarked(kId, 0, 0)), 0, "post");
    SetTimer(1, kHvStimerEnable | kHvStimerPeriodic | OnSint(kSint), kPeriod);
    const uint64_t started = ReferenceTime();
    PassTime(5 * kPeriod);
    HvMessage message;
    bool more;
    tally.True(Take(cpu, kSint, message, more), "the posted message");
    const uint64_t freed = ReferenceTime();
    WriteEom();
    const auto first = Await(tally);
    WriteEom();
    const auto second = Await(tally);
    // KVM drops the ticks that find the slot taken, so that on its timers this may be any tick.
    if (!TimersAreKernels()) {
      tally.True(first.expiration_time <= started + kPeriod, "the first tick, late");
      tally.True(second.expiration_time > freed, "and those missed are skipped");
    }
    tally.True(second.expiration_time > first.expiration_time, "one after the other");
    tally.Equal((second.expiration_time - first.expiration_time) % kPeriod, 0, "on the grid");
    Stop(1);
  });
  EXPECT_TRUE(tally.ok());
}

TEST(MaskedSourceIsWrittenWithoutAnInterrupt) {
  Fresh();
  CountInterrupts(kVector, Eoi::kApic);
  Tally tally;
  OnEachCpu([&] {
    SetSint(kSint, kVector | kHvSintMasked);
    const uint64_t before = InterruptCount(kVector);
    const uint64_t due = ReferenceTime() + kMillisecond;
    SetTimer(0, kHvStimerEnable | OnSint(kSint), due);
    tally.Equal(Await(tally).expiration_time, due, "expiration");
    tally.Equal(InterruptCount(kVector), before, "no interrupt");
    // KVM takes a masked source for a failure: the timer stays enabled, and sends its message again at the next EOM.
    tally.Equal(IsEnabled(0), TimersAreKernels(), "Enable");
    WriteEom();
    if (TimersAreKernels()) {
      tally.Equal(Await(tally).expiration_time, due, "again");
    } else {
      SpinTicks(kQuietTicks);
      tally.Equal(SlotType(ThisCpuNumber(), kSint), 0, "once");
    }
    Stop(0);
  });
  EXPECT_TRUE(tally.ok());
}

TEST(MessageWaitsForTheMessagePage) {
  Fresh();
  CountInterrupts(kVector, Eoi::kApic);
  Tally tally;
  OnEachCpu([&] {
    SetSint(kSint, kVector);
    SetMessagePage(nullptr);
    const uint64_t due = ReferenceTime() + kMillisecond;
    SetTimer(0, kHvStimerEnable | OnSint(kSint), due);
    PassTime(3 * kMillisecond);
    tally.True(IsEnabled(0), "waits");
    SetMessagePage(MessagePage(ThisCpuNumber()));
    tally.Equal(Await(tally).expiration_time, due, "expiration");
    tally.True(!IsEnabled(0), "Enable is cleared");
  });
  EXPECT_TRUE(tally.ok());
}

// --- Many timers --------------------------------------------------------------------------------------------------------

TEST(TwoTimersOfOneSourceBothArrive) {
  Fresh();
  CollectOn(kVector);
  Tally tally;
  OnEachCpu([&] {
    for (const uint64_t bits : {uint64_t{0}, kHvSintAutoEoi}) {
      g_collection.Reset(ThisCpuNumber(), kSint, bits != 0);
      SetSint(kSint, kVector | bits);
      const uint64_t due = ReferenceTime() + 2 * kMillisecond;
      for (uint32_t timer = 0; timer < kHvStimerCount; ++timer) SetTimer(timer, kHvStimerEnable | OnSint(kSint), due);
      tally.True(WaitFor([] { return g_collection.timer_messages.Load() == kHvStimerCount; }), "all arrive");
      tally.Equal(g_collection.wrong_timers.Load() + g_collection.wrong.Load(), 0, "wrong");
      for (uint32_t timer = 0; timer < kHvStimerCount; ++timer) {
        tally.Equal(g_collection.last_expiration[timer], due, "expiration");
        tally.True(!IsEnabled(timer), "Enable is cleared");
      }
    }
  });
  EXPECT_TRUE(tally.ok());
}

Atomic<uint32_t> g_ticks[kMaxSynicCpus][kHvStimerCount];

// Slots and vectors of their own, all processors at once: some of them halt meanwhile.
TEST(AllTimersOfAllProcessorsTick) {
  Fresh();
  for (auto& cpu : g_ticks) {
    for (auto& ticks : cpu) ticks.Store(0);
  }
  SetInterruptHandler(kVector, [](InterruptFrame&) {
    const uint32_t cpu = ThisCpuNumber();
    for (uint32_t timer = 0; timer < kHvStimerCount; ++timer) {
      HvMessage message;
      bool more;
      if (!Take(cpu, kSint + timer, message, more)) continue;
      if (message.header.type == HvMessageType::kTimerExpired && message.payload[0] == timer) g_ticks[cpu][timer].Add(1);
      if (more) WriteEom();
    }
    SignalEoi();
  });
  const auto all_have = [](uint32_t cpu, uint32_t ticks) {
    for (uint32_t timer = 0; timer < kHvStimerCount; ++timer) {
      if (g_ticks[cpu][timer].Load() < ticks) return false;
    }
    return true;
  };
  OnEachCpu([] {
    for (uint32_t timer = 0; timer < kHvStimerCount; ++timer) {
      SetSint(kSint + timer, kVector);
      SetTimer(timer, kHvStimerEnable | kHvStimerPeriodic | OnSint(kSint + timer), (timer + 4) * kMillisecond);
    }
  });
  Tally tally;
  for (uint32_t cpu = 0; cpu < CpuCount(); ++cpu) tally.True(WaitFor([&] { return all_have(cpu, 3); }), "ticks");
  OnEachCpu([] {
    for (uint32_t timer = 0; timer < kHvStimerCount; ++timer) Stop(timer);
  });
  EXPECT_TRUE(tally.ok());
}

TEST(HaltedProcessorIsWokenByItsTimer) {
  Fresh();
  const uint32_t cpu = CpuCount() - 1;
  CountInterrupts(kVector, Eoi::kApic);
  Tally tally;
  for (uint32_t round = 0; round < 3; ++round) {
    const uint64_t before = InterruptCountOf(cpu, kVector);
    OnCpu(cpu, [] {
      SetSint(kSint, kVector);
      SetTimer(0, kHvStimerEnable | OnSint(kSint), ReferenceTime() + 2 * kMillisecond);
    });
    if (cpu == 0) {
      DisableInterrupts();
      while (InterruptCount(kVector) == before) {
        EnableInterruptsAndHalt();
        DisableInterrupts();
      }
      EnableInterrupts();
    }
    tally.True(WaitFor([&] { return InterruptCountOf(cpu, kVector) == before + 1; }), "interrupt");
    HvMessage message;
    bool more;
    tally.True(Take(cpu, kSint, message, more), "message");
  }
  EXPECT_TRUE(tally.ok());
}

}  // namespace
}  // namespace guest
