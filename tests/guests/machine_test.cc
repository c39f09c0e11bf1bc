// The test machine itself: what machine: TEST promises a freestanding kernel, and what this runtime stands on.
#include "tests/guests/runtime/apic.h"
#include "tests/guests/runtime/atomic.h"
#include "tests/guests/runtime/cpu.h"
#include "tests/guests/runtime/interrupts.h"
#include "tests/guests/runtime/machine.h"
#include "tests/guests/runtime/memory.h"
#include "tests/guests/runtime/modes.h"
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

TEST(UserModeIsEnteredAndLeft) {
  OnEachCpu([] {
    uint64_t selector = 0;
    EXPECT_FALSE(InUserMode([&] { asm volatile("movq %%cs, %0" : "=r"(selector)); }).raised());
    EXPECT_EQ(selector & 3, 3u);
    EXPECT_EQ(InUserMode([] { (void)ReadCr0(); }).vector, kGeneralProtection);
    EXPECT_EQ(InUserMode([] { (void)In8(0x3fd); }).vector, kGeneralProtection);
    EXPECT_FALSE(InUserMode([] { (void)In8(0x3fd); }, kFlagsIopl3).raised());
    EXPECT_EQ(InUserMode([] { asm volatile("ud2"); }).vector, kUndefinedOpcode);
    EXPECT_TRUE(InterruptsEnabled());
  });
  // Interrupted meanwhile.
  CountInterrupts(kVector, Eoi::kApic);
  const uint64_t before = InterruptCount(kVector);
  SendIpi(0, kVector);
  EXPECT_FALSE(InUserMode([before] { (void)WaitFor([before] { return InterruptCount(kVector) != before; }); }).raised());
  EXPECT_EQ(InterruptCount(kVector), before + 1);
}

// dec eax; nop; xchg eax, ecx; ret. In 64-bit code the first byte would be a prefix, and EAX keep its value.
constexpr uint8_t kCode32[] = {0x48, 0x90, 0x91, 0xc3};

TEST(Code32RunsWithItsRegisters) {
  OnEachCpu([] {
    Registers32 registers{.eax = 0x8000'0001, .ebx = 2, .ecx = 3, .edx = 4, .esi = 5, .edi = 6};
    EXPECT_FALSE(CallIn32BitMode(GpaOf(kCode32), registers).raised());
    EXPECT_EQ(registers.eax, 3u);
    EXPECT_EQ(registers.ecx, 0x8000'0000u);
    EXPECT_EQ(registers.ebx, 2u);
    EXPECT_EQ(registers.edx, 4u);
    EXPECT_EQ(registers.esi, 5u);
    EXPECT_EQ(registers.edi, 6u);
    static constexpr uint8_t kUndefined[] = {0x0f, 0x0b};
    const Fault fault = CallIn32BitMode(GpaOf(kUndefined), registers);
    EXPECT_EQ(fault.vector, kUndefinedOpcode);
    EXPECT_EQ(fault.rip, GpaOf(kUndefined));
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

// --- pc-testdev's registers. QEMU's differ in what no kernel asks for: unaligned words, lines from 16 on, a level set twice.

constexpr uint16_t kScratch = 0xe0;
constexpr uint16_t kRemap = 0xe4;
constexpr uint16_t kScratchBytes = 0xe8;
constexpr uint16_t kLines = 0x2000;
constexpr uint32_t kLineCount = 24;
constexpr uint64_t kStorage = 0xff00'0000;
constexpr uint64_t kStorageBytes = 0x1'0000;

// What starts our machine says which backing it has.
bool InOurMachine() { return Argument("backing") != nullptr; }

TEST(ScratchRegisterHoldsBytesWordsAndLongs) {
  if (!InOurMachine()) SKIP("not our TEST machine");
  Out32(kScratch, 0x4433'2211);
  EXPECT_EQ(In32(kScratch), 0x4433'2211u);
  EXPECT_EQ(In8(kScratch + 2), 0x33);
  EXPECT_EQ(In16(kScratch + 1), 0x3322);
  Out8(kScratch + 3, 0xaa);
  Out16(kScratch, 0xbbcc);
  EXPECT_EQ(In32(kScratch), 0xaa33'bbccu);
  EXPECT_EQ(In32(kScratchBytes), 0xaa33'bbccu);
  Out8(kScratchBytes + 1, 0x77);
  EXPECT_EQ(In32(kScratch), 0xaa33'77ccu);
}

TEST(StorageHoldsWhatIsWrittenAtItsEnds) {
  if (!InOurMachine()) SKIP("not our TEST machine");
  for (const uint64_t at : {kStorage, kStorage + 0x7ffc, kStorage + kStorageBytes - 8}) {
    const Context context("at", at);
    Store<uint64_t>(at, 0x0123'4567'89ab'cdef);
    EXPECT_EQ(Load<uint64_t>(at), uint64_t{0x0123'4567'89ab'cdef});
    EXPECT_EQ(Load<uint8_t>(at + 1), 0xcd);
    Store<uint8_t>(at + 7, 0xff);
    EXPECT_EQ(Load<uint32_t>(at + 4), 0xff23'4567u);
  }
  const auto sum = [] { return Load<uint32_t>(kStorage) + 1; };
  OnEachCpu([&] { Store<uint32_t>(kStorage, sum()); });
  EXPECT_EQ(Load<uint32_t>(kStorage), 0x89ab'cdefu + CpuCount());
}

TEST(RemappingAPageKeepsItsContents) {
  if (!InOurMachine()) SKIP("not our TEST machine");
  auto* const page = static_cast<volatile uint64_t*>(AllocatePages(1));
  for (uint64_t i = 0; i < kPageBytes / 8; ++i) page[i] = i * 0x0101'0101;
  for (int round = 0; round < 3; ++round) {
    Out32(kRemap, static_cast<uint32_t>(GpaOf(page)) + 0x123);
    uint64_t wrong = 0;
    for (uint64_t i = 0; i < kPageBytes / 8; ++i) wrong += page[i] != i * 0x0101'0101 + static_cast<uint64_t>(round);
    EXPECT_EQ(wrong, 0u);
    for (uint64_t i = 0; i < kPageBytes / 8; ++i) page[i] = page[i] + 1;
  }
  // The page that this very code is on, and addresses without RAM.
  Out32(kRemap, static_cast<uint32_t>(reinterpret_cast<uint64_t>(&InOurMachine)));
  Out32(kRemap, 0xfee0'0000);
  Out32(kRemap, 0xffff'ffff);
  EXPECT_TRUE(InOurMachine());
}

TEST(EdgesOfALineAreInterruptsOnTheProcessorThatIsNamed) {
  if (!InOurMachine()) SKIP("not our TEST machine");
  constexpr uint8_t kLineVector = 0x51;
  CountInterrupts(kLineVector, Eoi::kApic);
  for (uint32_t line = 0; line < kLineCount; ++line) {
    const uint32_t cpu = line % CpuCount();
    const Context context("line", line);
    RouteIoApic(line, kLineVector, cpu, Trigger::kEdge);
    const uint64_t before = InterruptCountOf(cpu, kLineVector);
    Out8(static_cast<uint16_t>(kLines + line), 1);
    EXPECT_TRUE(WaitFor([&] { return InterruptCountOf(cpu, kLineVector) == before + 1; }));
    Out8(static_cast<uint16_t>(kLines + line), 1);  // no edge
    Out8(static_cast<uint16_t>(kLines + line), 0);
    MaskIoApic(line);
    EXPECT_EQ(InterruptCountOf(cpu, kLineVector), before + 1);
  }
}

constexpr uint32_t kLevelLine = 9;
constexpr uint8_t kLevelVector = 0x52;
Atomic<uint32_t> g_level_interrupts;

TEST(AHighLevelInterruptsUntilItIsLowered) {
  if (!InOurMachine()) SKIP("not our TEST machine");
  g_level_interrupts.Store(0);
  SetInterruptHandler(kLevelVector, [](InterruptFrame&) {
    // High until the third time.
    if (g_level_interrupts.Add(1) == 2) Out8(kLines + kLevelLine, 0);
    SignalEoi();
  });
  RouteIoApic(kLevelLine, kLevelVector, 0, Trigger::kLevel);
  Out8(kLines + kLevelLine, 0x80);
  EXPECT_TRUE(WaitFor([] { return g_level_interrupts.Load() == 3; }));
  MaskIoApic(kLevelLine);
  EXPECT_EQ(g_level_interrupts.Load(), 3u);
}

TEST(ArgumentsAreOnTheCommandLine) {
  EXPECT_EQ(Argument("no-such-argument"), static_cast<const char*>(nullptr));
  if (!InOurMachine()) SKIP("not our TEST machine");
  const char* const backing = Argument("backing");
  EXPECT_TRUE(strcmp(backing, "kernel") == 0 || strcmp(backing, "own") == 0);
}

// The runner starts this one again, alone, for each way to end.
TEST(TheMachineEndsAsTheCommandLineSays) {
  const bool ours = InOurMachine();  // asked first: the text of an argument lasts until the next is asked for
  const char* const end = Argument("end");
  EXPECT_TRUE(end == nullptr || ours);
  if (end == nullptr) return;
  if (strcmp(end, "byte") == 0) Out8(kDebugExitPort, 0x7f);
  if (strcmp(end, "word") == 0) Out16(kDebugExitPort + 2, 0x0102);
  if (strcmp(end, "long") == 0) Out32(kDebugExitPort, 0x8000'0003);
  if (strcmp(end, "shutdown") == 0) {
    for (const char* c = "Shutdown"; *c != '\0'; ++c) Out8(0x8900, static_cast<uint8_t>(*c));
  }
  if (strcmp(end, "triple") == 0) {
    const struct [[gnu::packed]] {
      uint16_t limit;
      uint64_t base;
    } nothing{0, 0};
    asm volatile("lidt %0; ud2" : : "m"(nothing));
  }
  while (true) asm volatile("cli; hlt");
}

}  // namespace
}  // namespace guest
