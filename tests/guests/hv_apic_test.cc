// The Hyper-V MSRs of the local APIC: EOI, ICR and TPR are the same registers by another name.
#include "devices/hyperv/hv_msr_layout.h"
#include "tests/guests/runtime/apic.h"
#include "tests/guests/runtime/atomic.h"
#include "tests/guests/runtime/cpu.h"
#include "tests/guests/runtime/interrupts.h"
#include "tests/guests/runtime/machine.h"
#include "tests/guests/runtime/smp.h"
#include "tests/guests/runtime/test.h"
#include "tests/guests/runtime/wait.h"

namespace guest {
namespace {

using namespace vmm;

constexpr uint8_t kVector = 0x41;
constexpr uint8_t kHighVector = 0x62;
constexpr uint64_t kSelf = 1 << 18;  // destination shorthand
constexpr uint64_t kLogical = 1 << 11;
constexpr unsigned kXApicDestination = 56;
constexpr unsigned kX2ApicDestination = 32;

bool WaitForCount(uint32_t cpu, uint8_t vector, uint64_t count) {
  return WaitFor([&] { return InterruptCountOf(cpu, vector) == count; });
}

TEST(EoiEndsTheInterruptInService) {
  CountInterrupts(kVector, Eoi::kNone);
  CountInterrupts(kHighVector, Eoi::kNone);
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    const uint64_t before = InterruptCount(kVector);
    SendIpi(ThisCpuNumber(), kVector);
    ASSERT_TRUE(WaitForCount(ThisCpuNumber(), kVector, before + 1));
    EXPECT_TRUE(IsInService(kVector));
    SendIpi(ThisCpuNumber(), kHighVector);
    EXPECT_TRUE(WaitFor([] { return IsInService(kHighVector); }));
    // The highest first, as with the register.
    WriteMsr(kHvMsrEoi, 0);
    EXPECT_FALSE(IsInService(kHighVector));
    EXPECT_TRUE(IsInService(kVector));
    WriteMsr(kHvMsrEoi, 0);
    EXPECT_FALSE(IsInService(kVector));
    EXPECT_NO_FAULT(WriteMsr(kHvMsrEoi, 0));  // with nothing in service
  });
}

TEST(EoiRefusesReadsAndReservedBits) {
  CountInterrupts(kVector, Eoi::kNone);
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    SendIpi(ThisCpuNumber(), kVector);
    ASSERT_TRUE(WaitFor([] { return IsInService(kVector); }));
    EXPECT_FAULT(kGeneralProtection, ReadMsr(kHvMsrEoi));
    EXPECT_FAULT(kGeneralProtection, WriteMsr(kHvMsrEoi, uint64_t{1} << 32));
    EXPECT_TRUE(IsInService(kVector));
    WriteMsr(kHvMsrEoi, 0);
    EXPECT_FALSE(IsInService(kVector));
  });
}

TEST(EoiHoldsBackNothingOnOtherProcessors) {
  if (CpuCount() < 2) SKIP("one processor");
  CountInterrupts(kVector, Eoi::kNone);
  OnCpu(1, [] {
    SendIpi(1, kVector);
    EXPECT_TRUE(WaitFor([] { return IsInService(kVector); }));
  });
  WriteMsr(kHvMsrEoi, 0);
  OnCpu(1, [] {
    EXPECT_TRUE(IsInService(kVector));
    WriteMsr(kHvMsrEoi, 0);
    EXPECT_FALSE(IsInService(kVector));
  });
}

// Where the I/O APIC hears of an end of interrupt.
constexpr uint16_t kLines = 0x2000;
constexpr uint32_t kLevelLine = 9;
constexpr uint8_t kLevelVector = 0x52;
Atomic<uint32_t> g_level_interrupts;

TEST(EoiEndsLevelInterruptsToo) {
  if (Argument("backing") == nullptr) SKIP("not our TEST machine");
  g_level_interrupts.Store(0);
  SetInterruptHandler(kLevelVector, [](InterruptFrame&) {
    // High until the third time.
    if (g_level_interrupts.Add(1) == 2) Out8(kLines + kLevelLine, 0);
    WriteMsr(kHvMsrEoi, 0);
  });
  RouteIoApic(kLevelLine, kLevelVector, CpuCount() - 1, Trigger::kLevel);
  Out8(kLines + kLevelLine, 1);
  EXPECT_TRUE(WaitFor([] { return g_level_interrupts.Load() == 3; }));
  MaskIoApic(kLevelLine);
  EXPECT_EQ(g_level_interrupts.Load(), 3u);
}

// The low half, the sub-class, is not looked at: on AMD KVM takes TPR from the hardware's CR8 at each exit, which has none. It
// decides nothing about interrupts.
TEST(TprIsTheApicsAndCr8) {
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    for (const uint64_t tpr : {0x50, 0x20, 0xe0, 0}) {
      WriteMsr(kHvMsrTpr, tpr);
      EXPECT_EQ(ReadMsr(kHvMsrTpr), tpr);
      EXPECT_EQ(ReadApic(kApicTpr), tpr);
      EXPECT_EQ(ReadCr8(), tpr >> 4);
    }
    WriteCr8(3);
    EXPECT_EQ(ReadMsr(kHvMsrTpr), 0x30u);
    WriteApic(kApicTpr, 0x45);
    EXPECT_EQ(ReadMsr(kHvMsrTpr) & 0xf0, 0x40u);
    WriteMsr(kHvMsrTpr, 0);
  });
}

TEST(TprIsTheProcessorsOwnAndRefusesReservedBits) {
  OnAllCpus([] { WriteMsr(kHvMsrTpr, 0x10 * (ThisCpuNumber() + 1)); });
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    EXPECT_EQ(ReadMsr(kHvMsrTpr), 0x10u * (ThisCpuNumber() + 1));
    EXPECT_FAULT(kGeneralProtection, WriteMsr(kHvMsrTpr, uint64_t{1} << 32));
    EXPECT_FAULT(kGeneralProtection, WriteMsr(kHvMsrTpr, uint64_t{1} << 63));
    EXPECT_EQ(ReadMsr(kHvMsrTpr), 0x10u * (ThisCpuNumber() + 1));
    WriteMsr(kHvMsrTpr, 0);
  });
}

TEST(TprHoldsBackWhatIsNotAboveIt) {
  CountInterrupts(kVector, Eoi::kApic);
  CountInterrupts(kHighVector, Eoi::kApic);
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    const uint64_t before = InterruptCount(kVector);
    const uint64_t high = InterruptCount(kHighVector);
    WriteMsr(kHvMsrTpr, 0x50);
    SendIpi(ThisCpuNumber(), kVector);
    SendIpi(ThisCpuNumber(), kHighVector);
    EXPECT_TRUE(WaitForCount(ThisCpuNumber(), kHighVector, high + 1));
    EXPECT_TRUE(IsRequested(kVector));
    EXPECT_EQ(InterruptCount(kVector), before);
    WriteMsr(kHvMsrTpr, 0x30);
    EXPECT_TRUE(WaitForCount(ThisCpuNumber(), kVector, before + 1));
    WriteMsr(kHvMsrTpr, 0);
  });
}

TEST(IcrSendsToTheProcessorThatItNames) {
  CountInterrupts(kVector, Eoi::kApic);
  ASSERT_TRUE(!InX2ApicMode());
  OnEachCpu([] {
    const uint32_t from = ThisCpuNumber();
    const Context context("from", from);
    for (uint32_t to = 0; to < CpuCount(); ++to) {
      const Context of("to", to);
      const uint64_t before = InterruptCountOf(to, kVector);
      const uint64_t icr = uint64_t{to} << kXApicDestination | kVector;
      WriteMsr(kHvMsrIcr, icr);
      EXPECT_TRUE(WaitForCount(to, kVector, before + 1));
      EXPECT_EQ(ReadMsr(kHvMsrIcr), icr);
      EXPECT_EQ(ReadApic(kApicIcr), kVector);
    }
  });
}

TEST(IcrKnowsShorthandsAndLogicalDestinations) {
  CountInterrupts(kVector, Eoi::kApic);
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    uint64_t before[8];
    for (uint32_t cpu = 0; cpu < CpuCount(); ++cpu) before[cpu] = InterruptCountOf(cpu, kVector);
    WriteMsr(kHvMsrIcr, kSelf | kVector);
    EXPECT_TRUE(WaitForCount(ThisCpuNumber(), kVector, before[ThisCpuNumber()] + 1));
    WriteMsr(kHvMsrIcr, 2 << 18 | kVector);  // all
    WriteMsr(kHvMsrIcr, 3 << 18 | kHighVector);  // all others
    for (uint32_t cpu = 0; cpu < CpuCount(); ++cpu) {
      const Context of("cpu", cpu);
      EXPECT_TRUE(WaitForCount(cpu, kVector, before[cpu] + 1 + (cpu == ThisCpuNumber())));
    }
    // Flat: a bit a processor.
    constexpr uint32_t kLdr = 0xd0;
    if (ThisCpuNumber() >= 8) return;
    WriteApic(kLdr, 1u << (24 + ThisCpuNumber()));
    const uint64_t last = InterruptCount(kVector);
    WriteMsr(kHvMsrIcr, uint64_t{1} << ThisCpuNumber() << kXApicDestination | kLogical | kVector);
    EXPECT_TRUE(WaitForCount(ThisCpuNumber(), kVector, last + 1));
  });
}

TEST(IcrOfManyProcessorsAtOnceLosesNothing) {
  CountInterrupts(kVector, Eoi::kApic);
  constexpr uint32_t kRounds = 50;
  Atomic<uint32_t> came;
  OnAllCpus([&] {
    const uint32_t next = (ThisCpuNumber() + 1) % CpuCount();
    for (uint32_t i = 0; i < kRounds; ++i) {
      // Only this processor sends to that one.
      const uint64_t before = InterruptCountOf(next, kVector);
      WriteMsr(kHvMsrIcr, uint64_t{next} << kXApicDestination | kVector);
      if (!WaitForCount(next, kVector, before + 1)) return;
      came.Add(1);
    }
  });
  EXPECT_EQ(came.Load(), kRounds * CpuCount());
}

// Last: the way back leads through INIT.
TEST(IcrTakesLongDestinationsInX2ApicMode) {
  if ((Cpuid(1).ecx >> 21 & 1) == 0) SKIP("no x2APIC");
  CountInterrupts(kVector, Eoi::kApic);
  OnEachCpu([] { ASSERT_TRUE(EnableX2Apic()); });
  OnEachCpu([] {
    const Context context("from", ThisCpuNumber());
    for (uint32_t to = 0; to < CpuCount(); ++to) {
      const Context of("to", to);
      const uint64_t before = InterruptCountOf(to, kVector);
      const uint64_t icr = uint64_t{to} << kX2ApicDestination | kVector;
      WriteMsr(kHvMsrIcr, icr);
      EXPECT_TRUE(WaitForCount(to, kVector, before + 1));
      EXPECT_EQ(ReadMsr(kHvMsrIcr), icr);
    }
    WriteMsr(kHvMsrTpr, 0x20);
    EXPECT_EQ(ReadApic(kApicTpr), 0x20u);
    WriteMsr(kHvMsrTpr, 0);
    // And EOI.
    CountInterrupts(kHighVector, Eoi::kNone);
    SendIpi(ThisCpuNumber(), kHighVector);
    EXPECT_TRUE(WaitFor([] { return IsInService(kHighVector); }));
    WriteMsr(kHvMsrEoi, 0);
    EXPECT_FALSE(IsInService(kHighVector));
  });
}

}  // namespace
}  // namespace guest
