// Interrupts across levels: VTL1's stop VTL0 at once, VTL0's wait while VTL1 runs, and VINA tells VTL1 of them.
#include "tests/guests/hyperv/vsm_level.h"
#include "tests/guests/runtime/apic.h"
#include "tests/guests/runtime/interrupts.h"
#include "tests/guests/runtime/per_cpu.h"
#include "tests/guests/runtime/tally.h"
#include "tests/guests/runtime/test.h"
#include "tests/guests/runtime/wait.h"

namespace guest {
namespace {

constexpr uint8_t kTimer = 0x41;   // of VTL1
constexpr uint8_t kIpi = 0x42;     // of VTL1
constexpr uint8_t kVina = 0x61;    // of VTL1
constexpr uint8_t kLow = 0x51;     // of VTL0
constexpr uint8_t kWakeUp = 0x52;  // of VTL0
constexpr uint64_t kSoon = 20'000;  // 2 ms in ticks of 100 ns
constexpr uint32_t kRounds = 10;

void SetHandlers() {
  EnableVtl1();
  CountInterrupts(kLow, Eoi::kApic);
  CountInterrupts(kWakeUp, Eoi::kApic);
  InVtl1([] {
    CountInterrupts(kTimer, Eoi::kApic);
    CountInterrupts(kIpi, Eoi::kApic);
    CountInterrupts(kVina, Eoi::kApic);
  });
}

// One shot of a synthetic timer of VTL1, to `kTimer` directly.
void ArmTimer(uint64_t ticks) {
  WriteMsr(vmm::kHvMsrStimer0Config, vmm::kHvStimerDirect | vmm::kHvStimerAutoEnable | uint64_t{kTimer} << vmm::kHvStimerVectorShift);
  WriteMsr(vmm::kHvMsrStimer0Config + 1, ReadMsr(vmm::kHvMsrTimeRefCount) + ticks);
}
uint64_t Taken(uint8_t vector) { return SecureInterruptCount(ThisCpuNumber(), vector); }
uint64_t Entries() { return CountsOf(ThisCpuNumber()).interrupts.Load(); }

TEST(ItsTimersStopVtl0WhateverVtl0sFlagsSay) {
  SetHandlers();
  Tally tally;
  OnEachCpu([&] {
    const uint64_t entries = Entries();
    for (const bool enabled : {true, false, true, false}) {
      const uint64_t before = Taken(kTimer);
      InVtl1([] { ArmTimer(kSoon); });
      if (!enabled) DisableInterrupts();
      tally.True(WaitFor([&] { return Taken(kTimer) == before + 1; }), "the timer");
      tally.Equal(InterruptsEnabled(), enabled, "flags of VTL0");
      EnableInterrupts();
    }
    // On a slow machine one may come before VTL1 has returned; not all.
    tally.True(Entries() > entries && Entries() <= entries + 4, "entered because of an interrupt");
  });
  EXPECT_TRUE(tally.ok());
}

TEST(ItsLocalApicsTimerToo) {
  Tally tally;
  OnEachCpu([&] {
    const uint64_t before = Taken(kTimer);
    InVtl1([] {
      WriteApic(kApicTimerDivide, 0xb);
      WriteApic(kApicLvtTimer, kTimer);
      WriteApic(kApicTimerInitial, 1'000'000);
    });
    tally.True(WaitFor([&] { return Taken(kTimer) == before + 1; }), "the timer");
    InVtl1([] { WriteApic(kApicLvtTimer, 1 << 16); });
  });
  EXPECT_TRUE(tally.ok());
}

// Whatever VTL0 has in its registers at any instruction stays: a checksum over many of them that are used all the time.
TEST(WhoIsStoppedDoesNotNotice) {
  Tally tally;
  OnAllCpus([&] {
    const uint64_t before = Taken(kTimer);
    for (uint32_t round = 0; round < kRounds; ++round) {
      InVtl1([] { ArmTimer(kSoon / 10); });
      const uint64_t until = before + round + 1;
      uint64_t spins = 0, sum = 0;
      while (Taken(kTimer) != until && spins < 1'000'000'000) {
        uint64_t a = spins, b = spins * 3, c = ~spins;
        asm volatile(
            "mov %0, %%r8; mov %1, %%r9; mov %2, %%r10; mov %0, %%r11; pushq %1; movq %0, %%xmm1; .rept 16; pause; .endr;"
            "popq %%r12; xor %%r8, %%r11; xor %%r9, %%r12; movq %%xmm1, %%r13; xor %0, %%r13; or %%r11, %%r12; or %%r13, %%r12;"
            "xor %2, %%r10; or %%r10, %%r12; mov %%r12, %0"
            : "+r"(a)
            : "r"(b), "r"(c)
            : "r8", "r9", "r10", "r11", "r12", "r13", "cc", "memory");
        sum |= a;
        ++spins;
      }
      tally.Equal(sum, 0, "registers of VTL0");
    }
    tally.Equal(Taken(kTimer), before + kRounds, "each timer once");
  });
  EXPECT_TRUE(tally.ok());
}

TEST(AHaltedVtl0IsStoppedAndStaysHalted) {
  Tally tally;
  OnEachCpu([&] {
    const uint64_t before = Taken(kTimer), woken = InterruptCount(kWakeUp);
    InVtl1([] {
      // The third tick wakes VTL0, with an interrupt of its own.
      static Atomic<uint32_t> ticks[kMaxVsmCpus];
      ticks[ThisCpuNumber()].Store(0);
      SetInterruptHandler(kTimer, [](InterruptFrame&) {
        SignalEoi();
        if (ticks[ThisCpuNumber()].Add(1) < 2) return ArmTimer(kSoon);
        (void)SendIpiByHypercall(kWakeUp, uint64_t{1} << ThisCpuNumber(), OfVtl(0));
      });
      ArmTimer(kSoon);
    });
    DisableInterrupts();
    // A level may go on behind its HLT when it has been stopped: then it halts again.
    for (uint32_t i = 0; i < 100 && InterruptCount(kWakeUp) == woken; ++i) {
      EnableInterruptsAndHalt();
      DisableInterrupts();
    }
    EnableInterrupts();
    tally.Equal(Taken(kTimer), before + 3, "ticks of VTL1");
    tally.Equal(InterruptCount(kWakeUp), woken + 1, "and VTL0's own interrupt is not lost");
  });
  InVtl1([] { CountInterrupts(kTimer, Eoi::kApic); });
  EXPECT_TRUE(tally.ok());
}

TEST(OtherProcessorsVtl1StopsVtl0) {
  if (CpuCount() < 2) SKIP("needs two processors");
  Tally tally;
  for (uint32_t cpu = 1; cpu < CpuCount(); ++cpu) {
    for (const bool by_apic : {true, false}) {
      const uint64_t before = SecureInterruptCount(cpu, kIpi), low = InterruptCountOf(cpu, kIpi);
      InVtl1([&] {
        if (by_apic) {
          SendIpi(cpu, kIpi);
        } else {
          tally.Equal(SendIpiByHypercall(kIpi, uint64_t{1} << cpu), Success(), "hypercall");
        }
      });
      tally.True(WaitFor([&] { return SecureInterruptCount(cpu, kIpi) == before + 1; }), "taken by VTL1 of the other");
      tally.Equal(InterruptCountOf(cpu, kIpi), low, "and not by its VTL0");
    }
  }
  EXPECT_TRUE(tally.ok());
}

TEST(Vtl0CannotInterruptVtl1) {
  EXPECT_EQ(SendIpiByHypercall(kIpi, 1, OfVtl(1)), Answer(HvStatus::kAccessDenied));
  EXPECT_EQ(SendIpiByHypercall(kIpi, 1, OfVtl(2)), Answer(HvStatus::kAccessDenied));
  EXPECT_EQ(SendIpiByHypercall(kIpi, 1, 0x20), Answer(HvStatus::kInvalidParameter));
  EXPECT_EQ(AssertInterrupt(1, vmm::kHvInterruptFixed, kIpi, 0), Answer(HvStatus::kAccessDenied));
  const uint64_t before = Taken(kIpi);
  CountInterrupts(kIpi, Eoi::kApic);
  SendIpi(0, kIpi);  // its own
  EXPECT_TRUE(WaitFor([] { return InterruptCount(kIpi) > 0; }));
  EXPECT_EQ(Taken(kIpi), before);
}

TEST(Vtl0sInterruptsWaitWhileVtl1Runs) {
  Tally tally;
  OnEachCpu([&] {
    const uint32_t cpu = ThisCpuNumber();
    const uint64_t before = InterruptCount(kLow);
    InVtl1([&] {
      tally.Equal(SendIpiByHypercall(kLow, uint64_t{1} << cpu, OfVtl(0)), Success(), "an interrupt for VTL0");
      SpinTicks(3'000'000);
      tally.Equal(g_cpus[cpu].interrupts[kLow].Load(), before, "waits");
    });
    tally.True(WaitFor([&] { return InterruptCount(kLow) == before + 1; }), "is taken afterwards");
    InVtl1([&] { tally.Equal(AssertInterrupt(0, vmm::kHvInterruptFixed, kLow, cpu), Success(), "the other way"); });
    tally.True(WaitFor([&] { return InterruptCount(kLow) == before + 2; }), "taken too");
  });
  EXPECT_TRUE(tally.ok());
}

TEST(AnNmiForVtl0IsAsserted) {
  static Atomic<uint32_t> nmis;
  SetInterruptHandler(kNmi, [](InterruptFrame&) { nmis.Add(1); });
  uint64_t answer = 0;
  InVtl1([&] { answer = AssertInterrupt(0, vmm::kHvInterruptNmi, 0, 0); });
  ASSERT_EQ(answer, Success());
  EXPECT_TRUE(WaitFor([] { return nmis.Load() == 1; }));
  InVtl1([] {
    EXPECT_EQ(AssertInterrupt(0, vmm::kHvInterruptFixed, 0xf, 0), Answer(HvStatus::kInvalidParameter));
    EXPECT_EQ(AssertInterrupt(0, 5, 0x40, 0), Answer(HvStatus::kInvalidParameter));
    EXPECT_EQ(AssertInterrupt(1, vmm::kHvInterruptFixed, 0x40, 0), Answer(HvStatus::kAccessDenied));
  });
}

TEST(AnNmiForVtl1StopsVtl0) {
  constexpr uint32_t kIcrNmi = 4 << 8;
  Tally tally;
  InVtl1([] { CountInterrupts(kNmi, Eoi::kNone); });
  for (uint32_t cpu = 0; cpu < CpuCount(); ++cpu) {
    const uint64_t before = SecureInterruptCount(cpu, kNmi), low = InterruptCountOf(cpu, kNmi);
    InVtl1([&] { WriteIcr(cpu, kIcrNmi); });
    tally.True(WaitFor([&] { return SecureInterruptCount(cpu, kNmi) != before; }), "taken by VTL1");
    tally.Equal(SecureInterruptCount(cpu, kNmi), before + 1, "once");
    tally.Equal(InterruptCountOf(cpu, kNmi), low, "and not by VTL0");
  }
  EXPECT_TRUE(tally.ok());
}

// VTL1 leaves with its interrupts off and one pending: it is entered again before VTL0 has done an instruction.
TEST(WhatIsPendingAtAReturnEntersAgain) {
  const uint64_t before = Taken(kIpi), entries = Entries();
  InVtl1([] {
    DisableInterrupts();
    SendIpi(ThisCpuNumber(), kIpi);
  });
  EXPECT_EQ(Taken(kIpi), before + 1);
  EXPECT_EQ(Entries(), entries + 1);
}

TEST(ItsTaskPriorityHoldsEntriesBack) {
  const uint64_t before = Taken(kIpi), entries = Entries();
  InVtl1([] {
    DisableInterrupts();
    WriteCr8(0xf);
    SendIpi(ThisCpuNumber(), kIpi);
  });
  SpinTicks(3'000'000);
  EXPECT_EQ(Taken(kIpi), before);
  EXPECT_EQ(Entries(), entries);
  InVtl1([] { WriteCr8(0); });
  EXPECT_EQ(Taken(kIpi), before + 1);
}

TEST(Vtl1MayHalt) {
  const uint64_t before = Taken(kTimer);
  InVtl1([&] {
    ArmTimer(kSoon);
    for (uint32_t i = 0; i < 100 && Taken(kTimer) == before; ++i) EnableInterruptsAndHalt();
  });
  EXPECT_EQ(Taken(kTimer), before + 1);
}

// --- VINA ---------------------------------------------------------------------------------------------------------------

uint64_t SetVina(uint64_t value) { return SetRegister(HvRegisterName::kVsmVina, {value, 0}); }

TEST(VinaTellsOfVtl0sInterrupts) {
  Tally tally;
  OnEachCpu([&] {
    const uint32_t cpu = ThisCpuNumber();
    const uint64_t low = InterruptCount(kLow), vina = Taken(kVina);
    InVtl1([&] {
      tally.Equal(SetVina(kVina | vmm::kHvVinaEnabled | vmm::kHvVinaAutoReset), Success(1), "on");
      tally.Equal(RegisterValue(HvRegisterName::kVsmVina), kVina | vmm::kHvVinaEnabled | vmm::kHvVinaAutoReset, "is read back");
      (void)SendIpiByHypercall(kLow, uint64_t{1} << cpu, OfVtl(0));
      tally.True(WaitFor([&] { return Taken(kVina) == vina + 1; }), "one notification");
      tally.Equal(AssistPage(cpu).vina_status, vmm::kHvVinaAsserted, "asserted");
      (void)SendIpiByHypercall(kLow, uint64_t{1} << cpu, OfVtl(0));
      SpinTicks(2'000'000);
      tally.Equal(Taken(kVina), vina + 1, "no second one while it is");
    });
    tally.True(WaitFor([&] { return InterruptCount(kLow) > low; }), "VTL0's is not lost");
    InVtl1([&] {
      tally.Equal(AssistPage(cpu).vina_status, 0, "reset by the return");
      tally.Equal(SetVina(0), Success(1), "off");
      (void)SendIpiByHypercall(kLow, uint64_t{1} << cpu, OfVtl(0));
      SpinTicks(2'000'000);
      tally.Equal(Taken(kVina), vina + 1, "none when it is off");
    });
  });
  EXPECT_TRUE(tally.ok());
}

TEST(VinaHonoursVtl0sFlags) {
  const uint64_t vina = Taken(kVina);
  DisableInterrupts();
  InVtl1([&] {
    (void)SetVina(kVina | vmm::kHvVinaEnabled);
    (void)SendIpiByHypercall(kLow, 1, OfVtl(0));
    SpinTicks(2'000'000);
    EXPECT_EQ(Taken(kVina), vina);  // VTL0 would not take it
    (void)SetVina(0);
    AssistPage(0).vina_status = 0;
  });
  EnableInterrupts();
  EXPECT_EQ(SetVina(0), Answer(HvStatus::kInvalidParameter));  // VTL0 has none
  InVtl1([] { EXPECT_EQ(SetVina(1 << 11), Answer(HvStatus::kInvalidParameter)); });
}

// --- All at once --------------------------------------------------------------------------------------------------------

TEST(NothingIsLostBetweenProcessors) {
  if (CpuCount() < 2) SKIP("needs two processors");
  uint64_t before[kMaxVsmCpus];
  for (uint32_t cpu = 0; cpu < CpuCount(); ++cpu) before[cpu] = SecureInterruptCount(cpu, kIpi);
  Tally tally;
  // Each sends to the next, and again once that one has taken it, while VTL0 of all runs.
  OnAllCpus([&] {
    const uint32_t next = (ThisCpuNumber() + 1) % CpuCount();
    for (uint32_t round = 0; round < 5 * kRounds; ++round) {
      InVtl1([&] { SendIpi(next, kIpi); });
      tally.True(WaitFor([&] { return SecureInterruptCount(next, kIpi) == before[next] + round + 1; }), "taken, once");
    }
  });
  EXPECT_TRUE(tally.ok());
}

}  // namespace
}  // namespace guest
