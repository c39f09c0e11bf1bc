// Event flags from inside: SignalEvent through the hypercall page, the flags of every source, interrupts only for what was clear.
#include "tests/guests/hyperv/synic_driver.h"
#include "tests/guests/runtime/apic.h"
#include "tests/guests/runtime/interrupts.h"
#include "tests/guests/runtime/test.h"
#include "tests/guests/runtime/wait.h"

namespace guest {
namespace {

using vmm::kHvSintAutoEoi;
using vmm::kHvSintMasked;
using vmm::kHvSintPolling;

constexpr uint8_t kVector = 0x71;
constexpr uint8_t kVectors = 0x50;  // of each source
constexpr uint32_t kSint = 9;
constexpr uint32_t kId = 0x2b;  // and so the flag

// Bits set in the whole event page of `cpu`.
uint32_t CountFlags(uint32_t cpu) {
  uint32_t count = 0;
  const auto* const words = reinterpret_cast<const volatile uint64_t*>(EventPage(cpu));
  for (uint32_t i = 0; i < kPageBytes / 8; ++i) {
    for (uint64_t word = words[i]; word != 0; word &= word - 1) ++count;
  }
  return count;
}

TEST(FlagIsSetOnceAndInterruptsOnlyWhenItWasClear) {
  Fresh();
  CountInterrupts(kVector, Eoi::kApic);
  Tally tally;
  OnEachCpu([&] {
    const uint32_t cpu = ThisCpuNumber();
    SetSint(kSint, kVector);
    const Connection connection(Connection::kEvents, kId, cpu, kSint);
    const uint64_t before = InterruptCount(kVector);
    const auto has_interrupts = [&](uint64_t count) {
      return WaitFor([&] { return InterruptCount(kVector) == before + count; });
    };
    tally.Equal(static_cast<uint64_t>(SignalEvent(kId)), 0, "signal");
    tally.True(IsFlagSet(cpu, kSint, kId), "the flag is the connection's");
    tally.Equal(CountFlags(cpu), 1, "and no other");
    tally.True(has_interrupts(1), "interrupt");
    tally.Equal(static_cast<uint64_t>(SignalEvent(kId)), 0, "signal again");
    tally.Equal(static_cast<uint64_t>(SignalEventSlowly(kId)), 0, "and again, from memory");
    SpinTicks(kQuietTicks);
    tally.True(has_interrupts(1), "no interrupt for a flag that is set");
    tally.True(ClearFlag(cpu, kSint, kId), "set until it is cleared");
    tally.Equal(CountFlags(cpu), 0, "flags");
    tally.Equal(static_cast<uint64_t>(SignalEventSlowly(kId)), 0, "signal");
    tally.True(IsFlagSet(cpu, kSint, kId), "set anew");
    tally.True(has_interrupts(2), "interrupt");
    tally.True(ClearFlag(cpu, kSint, kId), "clear");
  });
  EXPECT_TRUE(tally.ok());
}

TEST(EverySourceOfEveryProcessorHasFlagsOfItsOwn) {
  Fresh();
  for (uint32_t sint = 0; sint < kSints; ++sint) CountInterrupts(static_cast<uint8_t>(kVectors + sint), Eoi::kApic);
  OnEachCpu([] {
    for (uint32_t sint = 0; sint < kSints; ++sint) SetSint(sint, kVectors + sint);
  });
  Tally tally;
  for (uint32_t cpu = 0; cpu < CpuCount(); ++cpu) {
    for (uint32_t sint = 0; sint < kSints; ++sint) {
      const auto vector = static_cast<uint8_t>(kVectors + sint);
      const uint64_t before = InterruptCountOf(cpu, vector);
      const Connection connection(Connection::kEvents, kId, cpu, sint);
      tally.Equal(static_cast<uint64_t>(SignalEvent(kId)), 0, "signal");
      tally.Equal(CountFlags(cpu), 1, "one flag");
      tally.True(ClearFlag(cpu, sint, kId), "which is this source's");
      tally.True(WaitFor([&] { return InterruptCountOf(cpu, vector) == before + 1; }), "interrupt");
      tally.Equal(SlotType(cpu, sint), 0, "no message");
    }
  }
  EXPECT_TRUE(tally.ok());
}

TEST(FlagsOfConnectionsDoNotTouchEachOther) {
  Fresh();
  CountInterrupts(kVector, Eoi::kApic);
  SetSint(kSint, kVector);
  const uint32_t ids[] = {0, 1, 7, 8, 31, 32, 63, 64, 127, 128, 200, 255};
  const uint64_t before = InterruptCount(kVector);
  Tally tally;
  for (const uint32_t id : ids) TellDevice(DeviceCommand::kCreateEventConnection, id, 0, kSint);
  uint32_t set = 0;
  for (const uint32_t id : ids) {
    tally.Equal(static_cast<uint64_t>(SignalEvent(id)), 0, "signal");
    tally.True(IsFlagSet(0, kSint, id), "flag");
    tally.Equal(CountFlags(0), ++set, "flags");
    tally.True(WaitFor([&] { return InterruptCount(kVector) == before + set; }), "an interrupt each");
  }
  for (const uint32_t id : ids) {
    tally.True(ClearFlag(0, kSint, id), "clear");
    TellDevice(DeviceCommand::kDestroyEventConnection, id, 0, kSint);
    tally.Equal(static_cast<uint64_t>(SignalEvent(id)), static_cast<uint64_t>(HvStatus::kInvalidConnectionId), "destroyed");
  }
  tally.Equal(CountFlags(0), 0, "flags");
  EXPECT_TRUE(tally.ok());
}

TEST(SignalsThatNameNothingAreRefused) {
  Fresh();
  const Connection connection(Connection::kEvents, kId, 0, kSint);
  const Connection messages(Connection::kMessages, kId + 1, 0, kSint);
  const Connection nobody(Connection::kEvents, kId + 2, CpuCount(), kSint);
  SetSint(kSint, kVector);
  EXPECT_EQ(SignalEvent(kId + 3), HvStatus::kInvalidConnectionId);
  EXPECT_EQ(SignalEvent(0xffff'ffff), HvStatus::kInvalidConnectionId);
  EXPECT_EQ(SignalEvent(kId + 1), HvStatus::kInvalidPortId);
  EXPECT_EQ(SignalEvent(kId + 2), HvStatus::kInvalidVpIndex);
  // The device's connections have one flag.
  EXPECT_EQ(SignalEvent(kId, 1), HvStatus::kInvalidParameter);
  EXPECT_EQ(SignalEvent(kId, 0xffff), HvStatus::kInvalidParameter);
  EXPECT_EQ(CountFlags(0), 0u);
}

TEST(DisabledOrMaskedSourcesRefuseEvents) {
  Fresh();
  CountInterrupts(kVector, Eoi::kApic);
  Tally tally;
  OnEachCpu([&] {
    const uint32_t cpu = ThisCpuNumber();
    const Connection connection(Connection::kEvents, kId, cpu, kSint);
    const uint64_t before = InterruptCount(kVector);
    const auto signal = [&](HvStatus want, const char* what) {
      tally.Equal(static_cast<uint64_t>(SignalEvent(kId)), static_cast<uint64_t>(want), what);
    };
    signal(HvStatus::kInvalidSynicState, "masked");
    SetSint(kSint, kVector);
    SetEventPage(nullptr);
    signal(HvStatus::kInvalidSynicState, "SIEFP is off");
    SetEventPage(EventPage(cpu));
    WriteMsr(vmm::kHvMsrScontrol, 0);
    signal(HvStatus::kInvalidSynicState, "SCONTROL is off");
    WriteMsr(vmm::kHvMsrScontrol, vmm::kHvScontrolEnable);
    tally.Equal(CountFlags(cpu), 0, "flags");
    SetMessagePage(nullptr);
    signal(HvStatus::kSuccess, "SIMP is not its business");
    SetMessagePage(MessagePage(cpu));
    tally.True(WaitFor([&] { return InterruptCount(kVector) == before + 1; }), "interrupt");
    tally.True(ClearFlag(cpu, kSint, kId), "flag");
    // Polling: the flag alone.
    SetSint(kSint, kVector | kHvSintPolling);
    signal(HvStatus::kSuccess, "polling");
    tally.True(IsFlagSet(cpu, kSint, kId), "flag");
    SpinTicks(kQuietTicks);
    tally.Equal(InterruptCount(kVector), before + 1, "no interrupt");
  });
  EXPECT_TRUE(tally.ok());
}

TEST(EventPageMovesWithItsFlags) {
  Fresh();
  SetSint(kSint, kVector | kHvSintPolling);
  const Connection connection(Connection::kEvents, kId, 0, kSint);
  EXPECT_EQ(SignalEvent(kId), HvStatus::kSuccess);
  auto* const other = static_cast<uint8_t*>(AllocatePages(1));
  memset(other, 0x3c, kPageBytes);
  SetEventPage(other);
  const uint32_t at = kSint * 256 + kId / 8;
  EXPECT_EQ(Load<uint8_t>(GpaOf(other + at)), 1u << kId % 8);
  EXPECT_EQ(Load<uint8_t>(GpaOf(other)), 0);
  EXPECT_EQ(Load<uint8_t>(GpaOf(EventPage(0))), 0x5a);  // what lies below
  SetEventPage(EventPage(0));
  EXPECT_EQ(Load<uint8_t>(GpaOf(other + at)), 0x3c);
  EXPECT_TRUE(ClearFlag(0, kSint, kId));
}

// --- Many at once -------------------------------------------------------------------------------------------------------

constexpr uint32_t kRounds = 40;
Atomic<uint32_t> g_cleared[kMaxSynicCpus];

// Every processor signals a flag of its own at one source of processor 0 again as soon as it has been cleared there: each signal
// finds its flag clear, so none may be lost.
void TestSignalsFromAll(uint64_t sint_bits) {
  Fresh();
  for (auto& count : g_cleared) count.Store(0);
  if ((sint_bits & kHvSintAutoEoi) != 0) {
    SetInterruptHandler(kVector, [](InterruptFrame&) {
      for (uint32_t cpu = 0; cpu < CpuCount(); ++cpu) g_cleared[cpu].Add(ClearFlag(0, kSint, kId + cpu) ? 1 : 0);
    });
  } else {
    SetInterruptHandler(kVector, [](InterruptFrame&) {
      for (uint32_t cpu = 0; cpu < CpuCount(); ++cpu) g_cleared[cpu].Add(ClearFlag(0, kSint, kId + cpu) ? 1 : 0);
      SignalEoi();
    });
  }
  SetSint(kSint, kVector | sint_bits);
  for (uint32_t cpu = 0; cpu < CpuCount(); ++cpu) TellDevice(DeviceCommand::kCreateEventConnection, kId + cpu, 0, kSint);
  Tally tally;
  OnAllCpus([&] {
    const uint32_t me = ThisCpuNumber();
    for (uint32_t round = 0; round < kRounds; ++round) {
      tally.Equal(static_cast<uint64_t>(SignalEvent(kId + me)), 0, "signal");
      tally.True(WaitFor([&] { return g_cleared[me].Load() == round + 1; }), "heard of, once");
    }
  });
  tally.Equal(CountFlags(0), 0, "flags");
  for (uint32_t cpu = 0; cpu < CpuCount(); ++cpu) TellDevice(DeviceCommand::kDestroyEventConnection, kId + cpu, 0, kSint);
  EXPECT_TRUE(tally.ok());
}

TEST(NoSignalOfAnyProcessorIsLost) { TestSignalsFromAll(0); }

TEST(NoSignalOfAnyProcessorIsLostWithAutoEoi) { TestSignalsFromAll(kHvSintAutoEoi); }

TEST(HaltedProcessorIsWokenByAnEvent) {
  if (CpuCount() < 2) SKIP("needs two processors");
  Fresh();
  CountInterrupts(kVector, Eoi::kApic);
  const uint32_t cpu = CpuCount() - 1;
  OnCpu(cpu, [] { SetSint(kSint, kVector); });
  const Connection connection(Connection::kEvents, kId, cpu, kSint);
  Tally tally;
  for (uint32_t round = 0; round < 8; ++round) {
    const uint64_t before = InterruptCountOf(cpu, kVector);
    tally.Equal(static_cast<uint64_t>(SignalEvent(kId)), 0, "signal");
    tally.True(WaitFor([&] { return InterruptCountOf(cpu, kVector) == before + 1; }), "it wakes");
    tally.True(ClearFlag(cpu, kSint, kId), "flag");
  }
  EXPECT_TRUE(tally.ok());
}

}  // namespace
}  // namespace guest
