// The test machine itself: what machine: TEST promises a freestanding kernel, and what this runtime stands on.
#include "tests/guests/runtime/apic.h"
#include "tests/guests/runtime/atomic.h"
#include "tests/guests/runtime/cpu.h"
#include "tests/guests/runtime/interrupts.h"
#include "tests/guests/runtime/machine.h"
#include "tests/guests/runtime/memory.h"
#include "tests/guests/runtime/smp.h"
#include "tests/guests/runtime/test.h"
#include "tests/guests/runtime/wait.h"

namespace guest {
namespace {

constexpr uint8_t kVector = 0x41;
constexpr uint64_t kMiB = 1 << 20;

TEST(BootInformationIsMultiboot) {
  const BootInfo& info = GetBootInfo();
  EXPECT_EQ(info.magic, 0x2bad'b002u);
  EXPECT_EQ(info.flags & 0x45, 0x45u);  // memory, command line, memory map
  EXPECT_GE(info.upper_kib, 14u * 1024);
  EXPECT_NE(info.command_line[0], '\0');
}

TEST(MemoryMapHoldsTheImageAndAgreesWithFwCfg) {
  const BootInfo& info = GetBootInfo();
  const uint64_t image = 4 * kMiB;
  uint64_t ram = 0;
  bool holds_image = false;
  for (uint32_t i = 0; i < info.memory_map_count; ++i) {
    const MemoryMapEntry& entry = info.memory_map[i];
    if (entry.type != 1) continue;
    ram += entry.bytes;
    holds_image |= entry.start <= image && image < entry.start + entry.bytes;
  }
  EXPECT_TRUE(holds_image);
  const uint64_t said = ReadFwCfg(kFwCfgRamBytes, 8);
  EXPECT_EQ(said % kMiB, 0u);
  EXPECT_LE(ram, said);
  EXPECT_GT(ram, said - kMiB);  // but for what a PC reserves below 1 MiB
}

TEST(FwCfgAnswersTheKeysOfKernels) {
  EXPECT_EQ(ReadFwCfg(kFwCfgSignature, 4), 0x554d'4551u);  // "QEMU"
  EXPECT_EQ(ReadFwCfg(kFwCfgCpus, 2), CpuCount());
  EXPECT_GE(ReadFwCfg(kFwCfgMaxCpus, 2), CpuCount());
  EXPECT_EQ(ReadFwCfg(0x7fff, 8), 0u);
}

TEST(AllProcessorsRunWork) {
  OnEachCpu([] { EXPECT_EQ(Cpuid(1).ebx >> 24, ThisCpuNumber()); });
  Atomic<uint64_t> sum;
  OnAllCpus([&] { sum.Add(ThisCpuNumber() + 1); });
  EXPECT_EQ(sum.Load(), uint64_t{CpuCount()} * (CpuCount() + 1) / 2);
}

TEST(FaultsAreCaught) {
  EXPECT_FAULT(kUndefinedOpcode, asm volatile("ud2"));
  EXPECT_FAULT(kDivideError, asm volatile("divl %0" : : "r"(0), "a"(1), "d"(0)));
  EXPECT_FAULT(kGeneralProtection, Store<uint8_t>(uint64_t{1} << 63, 1));
  EXPECT_NO_FAULT(ReadMsr(kMsrApicBase));
  const Fault fault = Catch([] { Store<uint8_t>(uint64_t{5} << 30, 1); });
  EXPECT_EQ(fault.vector, kPageFault);
  EXPECT_EQ(fault.address, uint64_t{5} << 30);
  EXPECT_EQ(fault.error_code, 2u);
  // Inside another, on every processor, with interrupts as they were.
  OnEachCpu([] {
    const Fault outer = Catch([] {
      EXPECT_FAULT(kUndefinedOpcode, asm volatile("ud2"));
      asm volatile("ud2");
    });
    EXPECT_EQ(outer.vector, kUndefinedOpcode);
    EXPECT_TRUE(InterruptsEnabled());
  });
}

TEST(ProcessorsInterruptEachOther) {
  CountInterrupts(kVector, Eoi::kApic);
  for (uint32_t cpu = 0; cpu < CpuCount(); ++cpu) {
    const Context context("cpu", cpu);
    const uint64_t before = InterruptCountOf(cpu, kVector);
    SendIpi(cpu, kVector);
    EXPECT_TRUE(WaitFor([&] { return InterruptCountOf(cpu, kVector) == before + 1; }));
  }
  const InterruptsOff off;
  SendIpi(0, kVector);
  EXPECT_TRUE(WaitFor([] { return IsRequested(kVector); }));
  EXPECT_FALSE(IsInService(kVector));
}

TEST(X2ApicWorksOnEveryProcessor) {
  if ((Cpuid(1).ecx >> 21 & 1) == 0) SKIP("no x2APIC");
  CountInterrupts(kVector, Eoi::kApic);
  OnEachCpu([] {
    ASSERT_TRUE(EnableX2Apic());
    EXPECT_EQ(ReadApic(kApicId), ThisCpuNumber());
  });
  for (uint32_t cpu = 0; cpu < CpuCount(); ++cpu) {
    const Context context("cpu", cpu);
    const uint64_t before = InterruptCountOf(cpu, kVector);
    SendIpi(cpu, kVector);
    EXPECT_TRUE(WaitFor([&] { return InterruptCountOf(cpu, kVector) == before + 1; }));
  }
}

}  // namespace
}  // namespace guest
