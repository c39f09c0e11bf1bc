// VTL1's own local APIC and SynIC: their registers, their timers, their messages, with VTL0's beside them left alone.
#include "tests/guests/hyperv/vsm_level.h"
#include "tests/guests/runtime/apic.h"
#include "tests/guests/runtime/interrupts.h"
#include "tests/guests/runtime/tally.h"
#include "tests/guests/runtime/test.h"
#include "tests/guests/runtime/wait.h"

namespace guest {
namespace {

constexpr uint8_t kVector = 0x45, kLower = 0x35;
constexpr uint32_t kSint = 4;
constexpr uint32_t kMasked = 1 << 16, kPeriodic = 1 << 17, kTscDeadline = 2 << 17;
constexpr uint32_t kMsrTscDeadline = 0x6e0;

uint64_t Taken(uint8_t vector) { return SecureInterruptCount(ThisCpuNumber(), vector); }

TEST(ItIsThereAndLikeVtl0s) {
  EnableVtl1();
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    const uint32_t id = ReadApic(kApicId);
    InVtl1([id] {
      EXPECT_FALSE(InX2ApicMode());
      EXPECT_EQ(ReadApic(kApicId), id);
      EXPECT_EQ(ReadApic(kApicVersion) & 0xf0, 0x10u);
      EXPECT_EQ(ReadApic(kApicLvtTimer), kMasked);
      EXPECT_EQ(ReadApic(kApicTpr), 0u);
      EXPECT_EQ(ReadMsr(kMsrApicBase) & 0xfff, ThisCpuNumber() == 0 ? 0x900u : 0x800u);
    });
  });
}

TEST(ItsRegistersAreItsOwn) {
  WriteApic(kApicLvtTimer, kMasked | 0x99);
  InVtl1([] {
    EXPECT_EQ(ReadApic(kApicLvtTimer), kMasked);
    WriteApic(kApicLvtTimer, kMasked | 0x66);
    WriteApic(kApicTpr, 0x50);
  });
  EXPECT_EQ(ReadApic(kApicLvtTimer), kMasked | 0x99);
  EXPECT_EQ(ReadApic(kApicTpr), 0u);
  InVtl1([] {
    EXPECT_EQ(ReadApic(kApicLvtTimer), kMasked | 0x66);
    EXPECT_EQ(ReadCr8(), 5u);
    WriteApic(kApicTpr, 0);
    WriteApic(kApicLvtTimer, kMasked);
  });
  WriteApic(kApicLvtTimer, kMasked);
}

TEST(PrioritiesRequestsAndService) {
  static uint32_t nested;
  nested = 0;
  InVtl1([] {
    CountInterrupts(kLower, Eoi::kApic);
    SetInterruptHandler(kVector, [](InterruptFrame&) {
      if (IsInService(kVector) && !IsRequested(kVector)) ++nested;
      SendIpi(ThisCpuNumber(), kLower);  // lower: waits until this one is over
      if (IsRequested(kLower) && Taken(kLower) == 0) ++nested;
      SignalEoi();
      if (!IsInService(kVector)) ++nested;
    });
    SendIpi(ThisCpuNumber(), kVector);
    (void)WaitFor([] { return Taken(kLower) == 1; });
  });
  EXPECT_EQ(nested, 3u);
  InVtl1([] { CountInterrupts(kVector, Eoi::kApic); });
}

TEST(ItsTimerInItsModes) {
  const uint64_t before = Taken(kVector);
  InVtl1([&] {
    WriteApic(kApicTimerDivide, 0xb);
    WriteApic(kApicLvtTimer, kVector | kPeriodic);
    WriteApic(kApicTimerInitial, 1'000'000);
  });
  // In VTL0: each tick stops it.
  EXPECT_TRUE(WaitFor([&] { return Taken(kVector) >= before + 3; }));
  InVtl1([] {
    EXPECT_GT(ReadApic(kApicTimerInitial), 0u);
    EXPECT_LE(ReadApic(kApicTimerCurrent), 1'000'000u);
    WriteApic(kApicTimerInitial, 0);
    WriteApic(kApicLvtTimer, kMasked);
  });
  const uint64_t stopped = Taken(kVector);
  SpinTicks(5'000'000);
  EXPECT_EQ(Taken(kVector), stopped);
  if ((Cpuid(1).ecx >> 24 & 1) == 0) return;
  InVtl1([] {
    WriteApic(kApicLvtTimer, kVector | kTscDeadline);
    // Read back where it cannot pass meanwhile, however slow the machine is; then one that passes.
    const uint64_t far = ReadTsc() + (uint64_t{1} << 45);
    WriteMsr(kMsrTscDeadline, far);
    EXPECT_EQ(ReadMsr(kMsrTscDeadline), far);
    WriteMsr(kMsrTscDeadline, ReadTsc() + 3'000'000);
  });
  EXPECT_TRUE(WaitFor([&] { return Taken(kVector) == stopped + 1; }));
  InVtl1([] {
    EXPECT_EQ(ReadMsr(kMsrTscDeadline), 0u);
    WriteApic(kApicLvtTimer, kMasked);
  });
}

// --- Its SynIC ----------------------------------------------------------------------------------------------------------------

void ArmMessage(uint64_t ticks) {
  WriteMsr(vmm::kHvMsrStimer0Config, vmm::kHvStimerAutoEnable | uint64_t{kSint} << vmm::kHvStimerSintShift);
  WriteMsr(vmm::kHvMsrStimer0Config + 1, ReadMsr(vmm::kHvMsrTimeRefCount) + ticks);
}

TEST(ItsTimersMessagesAreInItsPage) {
  Tally tally;
  OnEachCpu([&] {
    const uint64_t before = Taken(kVector);
    const uint32_t cpu = ThisCpuNumber();
    InVtl1([] {
      WriteMsr(vmm::kHvMsrSint0 + kSint, kVector);
      ArmMessage(10'000);
    });
    tally.True(WaitFor([&] { return Taken(kVector) == before + 1; }), "its interrupt");
    const vmm::HvMessage& slot = SecureMessagePage(cpu)[kSint];
    InVtl1([&] {  // the page lies over VTL1's memory alone
      tally.Equal(static_cast<uint64_t>(slot.header.type), static_cast<uint64_t>(vmm::HvMessageType::kTimerExpired), "type");
      tally.Equal(slot.header.payload_size, 24, "size");
      const auto& payload = *reinterpret_cast<const vmm::HvTimerMessagePayload*>(slot.payload);
      tally.Equal(payload.timer_index, 0, "timer");
      tally.True(payload.delivery_time >= payload.expiration_time, "not early");
      // A second one while the slot is full waits for it.
      ArmMessage(0);
      tally.True(WaitFor([&] { return (*const_cast<const volatile uint8_t*>(&slot.header.flags) & 1) != 0; }), "pending");
      volatile auto& type = *reinterpret_cast<volatile uint32_t*>(&SecureMessagePage(ThisCpuNumber())[kSint]);
      type = 0;
      WriteMsr(vmm::kHvMsrEom, 0);
      tally.True(WaitFor([&] { return type != 0; }), "comes when it is free");
      type = 0;
      WriteMsr(vmm::kHvMsrSint0 + kSint, vmm::kHvSintReset);
    });
    tally.Equal(Taken(kVector), before + 2, "interrupts");
  });
  EXPECT_TRUE(tally.ok());
}

TEST(TheMessagePageIsVtl1sAlone) {
  const uint64_t page = GpaOf(SecureMessagePage(0));
  InVtl1([page] { Store<uint64_t>(page + 0x800, 0x1234); });
  EXPECT_EQ(Load<uint64_t>(page + 0x800), 0u);  // what lies below it
  Store<uint64_t>(page + 0x800, 0x5678);
  uint64_t value = 0;
  InVtl1([&] { value = Load<uint64_t>(page + 0x800); });
  EXPECT_EQ(value, 0x1234u);
}

TEST(X2ApicIsALevelsOwnMode) {
  Tally tally;
  OnEachCpu([&] {
    const uint64_t before = Taken(kVector);
    InVtl1([&] {
      tally.True(EnableX2Apic(), "x2APIC");
      tally.Equal(ReadApic(kApicId), ThisCpuNumber(), "its id");
      SendIpi(ThisCpuNumber(), kVector);
      tally.True(WaitFor([&] { return Taken(kVector) == before + 1; }), "an interrupt to itself");
      WriteMsr(0x83f, kVector);  // the self IPI register
      tally.True(WaitFor([&] { return Taken(kVector) == before + 2; }), "another");
      tally.Equal(Catch([] { (void)ReadMsr(0x80e); }).vector, kGeneralProtection, "no such register");
    });
    tally.Equal(ReadMsr(kMsrApicBase) >> 10 & 1, 0, "VTL0's mode");
    tally.Equal(ReadApic(kApicId) >> 24, ThisCpuNumber(), "VTL0's APIC");
  });
  EXPECT_TRUE(tally.ok());
}

}  // namespace
}  // namespace guest
