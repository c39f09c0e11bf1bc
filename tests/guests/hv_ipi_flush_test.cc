// Interrupts to other processors and TLB flushes by hypercall, as they really arrive.
#include "tests/guests/hypercalls.h"
#include "tests/guests/runtime/apic.h"
#include "tests/guests/runtime/atomic.h"
#include "tests/guests/runtime/interrupts.h"
#include "tests/guests/runtime/memory.h"
#include "tests/guests/runtime/print.h"
#include "tests/guests/runtime/test.h"
#include "tests/guests/runtime/wait.h"

extern "C" uint64_t page_map[512];

namespace guest {
namespace {

using vmm::HvFlushExInput;
using vmm::HvFlushInput;
using vmm::HvSendIpiExInput;
using vmm::HvSendIpiInput;
using vmm::kHvFlushAllProcessors;
using vmm::kHvVpSetAll;
using vmm::kHvVpSetSparse4k;

constexpr uint8_t kVector = 0x61;
constexpr Control kIpi{.code = HypercallCode::kSendSyntheticClusterIpi};
constexpr Control kIpiEx{.code = HypercallCode::kSendSyntheticClusterIpiEx};

uint64_t AllMask() { return (uint64_t{1} << CpuCount()) - 1; }

uint64_t SendMask(uint32_t vector, uint64_t mask, uint8_t input_vtl = 0) {
  Block().Put(HvSendIpiInput{.vector = vector, .target_vtl = input_vtl, .reserved = {}, .processor_mask = mask});
  return CallMemory(kIpi);
}
uint64_t SendSet(uint32_t vector, uint64_t format, uint64_t valid_banks, std::initializer_list<uint64_t> banks,
                 uint8_t input_vtl = 0) {
  Block block;
  block.Put(HvSendIpiExInput{.vector = vector, .target_vtl = input_vtl, .reserved = {}, .processors = {format, valid_banks}});
  for (const uint64_t bank : banks) block.Put(bank);
  Control control = kIpiEx;
  control.variable = static_cast<uint16_t>(banks.size());
  return CallMemory(control);
}

struct Counts {
  uint64_t of[kMaxCpus];
};
Counts Now() {
  Counts counts{};
  for (uint32_t cpu = 0; cpu < CpuCount(); ++cpu) counts.of[cpu] = InterruptCountOf(cpu, kVector);
  return counts;
}
// Those of `mask` have one more than `before`, and the others none. An interrupt to oneself is there already.
bool OneMoreOn(const Counts& before, uint64_t mask) {
  const bool come = WaitFor([&] {
    for (uint32_t cpu = 0; cpu < CpuCount(); ++cpu) {
      if ((mask >> cpu & 1) != 0 && InterruptCountOf(cpu, kVector) == before.of[cpu]) return false;
    }
    return true;
  });
  bool exact = come;
  for (uint32_t cpu = 0; cpu < CpuCount(); ++cpu) exact &= InterruptCountOf(cpu, kVector) == before.of[cpu] + (mask >> cpu & 1);
  return exact;
}

// --- Interrupts

TEST(EveryMaskReachesItsProcessors) {
  EnableHypercalls();
  CountInterrupts(kVector, Eoi::kApic);
  for (uint64_t mask = 0; mask <= AllMask(); ++mask) {
    const Context context("mask", mask);
    Counts before = Now();
    EXPECT_EQ(SendMask(kVector, mask), Success());
    EXPECT_TRUE(OneMoreOn(before, mask));
    before = Now();
    EXPECT_EQ(CallFast(kIpi, kVector, mask), Success());
    EXPECT_TRUE(OneMoreOn(before, mask));
    before = Now();
    EXPECT_EQ(SendSet(kVector, kHvVpSetSparse4k, 1, {mask}), Success());
    EXPECT_TRUE(OneMoreOn(before, mask));
  }
}

TEST(EveryProcessorMaySend) {
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    Counts before = Now();
    EXPECT_EQ(SendMask(kVector, AllMask()), Success());
    EXPECT_TRUE(OneMoreOn(before, AllMask()));
  });
}

TEST(AnInterruptToOneselfIsThereAtOnce) {
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    const uint64_t before = InterruptCount(kVector);
    EXPECT_EQ(CallFast(kIpi, kVector, uint64_t{1} << ThisCpuNumber()), Success());
    EXPECT_EQ(InterruptCount(kVector), before + 1);
    const InterruptsOff off;
    EXPECT_EQ(CallFast(kIpi, kVector, uint64_t{1} << ThisCpuNumber()), Success());
    EXPECT_TRUE(IsRequested(kVector));
    EXPECT_EQ(InterruptCount(kVector), before + 1);
  });
}

TEST(SparseSetsAndAll) {
  Counts before = Now();
  EXPECT_EQ(SendSet(kVector, kHvVpSetAll, 0, {}), Success());
  EXPECT_TRUE(OneMoreOn(before, AllMask()));
  // Banks in ascending order; processors that are not there are skipped.
  before = Now();
  EXPECT_EQ(SendSet(kVector, kHvVpSetSparse4k, uint64_t{1} << 63 | 1, {1, ~uint64_t{0}}), Success());
  EXPECT_TRUE(OneMoreOn(before, 1));
  before = Now();
  EXPECT_EQ(SendSet(kVector, kHvVpSetSparse4k, 1, {~uint64_t{0}}), Success());
  EXPECT_TRUE(OneMoreOn(before, AllMask()));
  before = Now();
  EXPECT_EQ(SendMask(kVector, ~uint64_t{0}), Success());
  EXPECT_TRUE(OneMoreOn(before, AllMask()));
  before = Now();
  EXPECT_EQ(SendSet(kVector, kHvVpSetSparse4k, 2, {~uint64_t{0}}), Success());
  EXPECT_EQ(SendSet(kVector, kHvVpSetSparse4k, 0, {}), Success());
  EXPECT_TRUE(OneMoreOn(before, 0));
}

// The set begins in R8, and its banks in XMM0's upper half.
TEST(SetsInRegisters) {
  uint64_t words[kFastWords] = {kVector, kHvVpSetSparse4k, 1, AllMask()};
  const Counts before = Now();
  EXPECT_EQ(CallInRegisters({.code = HypercallCode::kSendSyntheticClusterIpiEx, .variable = 1}, words), Success());
  EXPECT_TRUE(OneMoreOn(before, AllMask()));
  EXPECT_EQ(words[0], kVector);
  EXPECT_EQ(words[3], AllMask());
}

TEST(BadVectorsAreRefused) {
  const Counts before = Now();
  for (const uint32_t vector : {0u, 1u, 15u, 256u, 0x8000'0061u, 0xffff'ffffu}) {
    const Context context("vector", vector);
    EXPECT_EQ(SendMask(vector, AllMask()), Answer(HvStatus::kInvalidParameter));
    EXPECT_EQ(SendSet(vector, kHvVpSetAll, 0, {}), Answer(HvStatus::kInvalidParameter));
  }
  EXPECT_TRUE(OneMoreOn(before, 0));
}

TEST(TargetLevelsAreChecked) {
  Counts before = Now();
  EXPECT_EQ(SendMask(kVector, 1, 0x10), Success());  // level 0, by name
  EXPECT_TRUE(OneMoreOn(before, 1));
  before = Now();
  EXPECT_EQ(SendMask(kVector, 1, 0x11), Answer(HvStatus::kAccessDenied));
  EXPECT_EQ(SendMask(kVector, 1, 0x12), Answer(HvStatus::kAccessDenied));
  EXPECT_EQ(SendMask(kVector, 1, 0x13), Answer(HvStatus::kInvalidParameter));
  EXPECT_EQ(SendMask(kVector, 1, 0x20), Answer(HvStatus::kInvalidParameter));
  EXPECT_EQ(SendSet(kVector, kHvVpSetAll, 0, {}, 0x11), Answer(HvStatus::kAccessDenied));
  Block().Put(HvSendIpiInput{.vector = kVector, .target_vtl = 0, .reserved = {0, 0, 1}, .processor_mask = 1});
  EXPECT_EQ(CallMemory(kIpi), Answer(HvStatus::kInvalidParameter));
  EXPECT_TRUE(OneMoreOn(before, 0));
}

TEST(SetsThatDoNotAddUpAreRefused) {
  const Counts before = Now();
  EXPECT_EQ(SendSet(kVector, kHvVpSetSparse4k, 3, {1}), Answer(HvStatus::kInvalidHypercallInput));
  EXPECT_EQ(SendSet(kVector, kHvVpSetSparse4k, 1, {1, 1}), Answer(HvStatus::kInvalidHypercallInput));
  EXPECT_EQ(SendSet(kVector, kHvVpSetAll, 1, {}), Answer(HvStatus::kInvalidHypercallInput));
  EXPECT_EQ(SendSet(kVector, 2, 0, {}), Answer(HvStatus::kInvalidParameter));
  EXPECT_EQ(SendSet(kVector, ~uint64_t{0}, 1, {1}), Answer(HvStatus::kInvalidParameter));
  EXPECT_TRUE(OneMoreOn(before, 0));
}

// --- TLB flushes

// A page of addresses of its own, behind what the runtime maps.
constexpr uint64_t kAddress = uint64_t{1} << 39;
constexpr uint64_t kPresentWritable = 3;
volatile uint64_t* g_entry;  // the page table's, for kAddress
uint64_t g_pages[2];         // each holds its number
uint64_t g_now;              // that is mapped

void MapAddress() {
  if (g_entry != nullptr) return;
  auto* const upper = static_cast<uint64_t*>(AllocatePages(1));
  auto* const directory = static_cast<uint64_t*>(AllocatePages(1));
  auto* const table = static_cast<uint64_t*>(AllocatePages(1));
  for (uint64_t i = 0; i < 2; ++i) {
    g_pages[i] = GpaOf(AllocatePages(1));
    Store<uint64_t>(g_pages[i], i);
  }
  g_entry = table;
  table[0] = g_pages[0] | kPresentWritable;
  directory[0] = GpaOf(table) | kPresentWritable;
  upper[0] = GpaOf(directory) | kPresentWritable;
  static_cast<volatile uint64_t*>(page_map)[1] = GpaOf(upper) | kPresentWritable;
}

// Changes the translation in memory, and nothing else.
void MapOther() {
  g_now ^= 1;
  *g_entry = g_pages[g_now] | kPresentWritable;
}

enum class Form : uint32_t { kSpaceMemory, kSpaceFast, kListMemory, kListFast, kSpaceEx, kListEx, kSpaceExAll };
constexpr uint32_t kForms = 7;

uint64_t Flush(Form form, uint64_t mask) {
  const uint64_t space = ReadCr3();
  const HvFlushInput plain{.address_space = space, .flags = 0, .processor_mask = mask};
  const HvFlushExInput ex{.address_space = space, .flags = 0, .processors = {kHvVpSetSparse4k, 1}};
  Block block;
  switch (form) {
    case Form::kSpaceMemory:
      block.Put(plain);
      return CallMemory({.code = HypercallCode::kFlushVirtualAddressSpace});
    case Form::kSpaceFast:
      block.Put(plain);
      return CallBlockInRegisters({.code = HypercallCode::kFlushVirtualAddressSpace});
    case Form::kListMemory:
      block.Put(plain).Put(kAddress);
      return CallMemory({.code = HypercallCode::kFlushVirtualAddressList, .reps = 1});
    case Form::kListFast:
      block.Put(plain).Put(kAddress);
      return CallBlockInRegisters({.code = HypercallCode::kFlushVirtualAddressList, .reps = 1});
    case Form::kSpaceEx:
      block.Put(ex).Put(mask);
      return CallMemory({.code = HypercallCode::kFlushVirtualAddressSpaceEx, .variable = 1});
    case Form::kListEx:
      block.Put(ex).Put(mask).Put(kAddress);
      return CallMemory({.code = HypercallCode::kFlushVirtualAddressListEx, .reps = 1, .variable = 1});
    case Form::kSpaceExAll:
      block.Put(HvFlushExInput{.address_space = space, .flags = 0, .processors = {kHvVpSetAll, 0}});
      return CallMemory({.code = HypercallCode::kFlushVirtualAddressSpaceEx});
  }
  return 0;
}
uint64_t FlushSuccess(Form form) {
  const bool list = form == Form::kListMemory || form == Form::kListFast || form == Form::kListEx;
  return Success(list ? 1 : 0);
}

TEST(OwnTranslationsAreGoneAfterEachForm) {
  EnableHypercalls();
  MapAddress();
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    uint64_t stale = 0;
    for (int i = 0; i < 100; ++i) {
      stale += Load<uint64_t>(kAddress) != g_now;
      MapOther();
      stale += Load<uint64_t>(kAddress) != g_now;
      WriteCr3(ReadCr3());
    }
    if (ThisCpuNumber() == 0) Note("readings without a flush, of 100 that could be stale; stale are", stale);
    for (uint32_t form = 0; form < kForms; ++form) {
      const Context which("form", form);
      WriteCr3(ReadCr3());
      EXPECT_EQ(Load<uint64_t>(kAddress), g_now);
      MapOther();
      EXPECT_EQ(Flush(static_cast<Form>(form), uint64_t{1} << ThisCpuNumber()), FlushSuccess(static_cast<Form>(form)));
      EXPECT_EQ(Load<uint64_t>(kAddress), g_now);
    }
  });
}

// Others have the translation and run without leaving the guest: each round they read, say so, and read again when they are
// told to.
Atomic<uint64_t> g_told;   // the round whose reading is due
Atomic<uint64_t> g_cached; // answers of this round, before
Atomic<uint64_t> g_again;  // and after
Atomic<uint64_t> g_stale;

void ReadRounds(uint64_t rounds, bool yield) {
  const InterruptsOff off;
  for (uint64_t round = 1; round <= rounds; ++round) {
    (void)Load<uint64_t>(kAddress);
    g_cached.Add(1);
    // yield: they wait with an exit each, so that KVM enters the guest again.
    while (g_told.Load() < round) {
      (void)Load<uint64_t>(kAddress);
      if (yield) (void)In8(0x80);
    }
    if (Load<uint64_t>(kAddress) != g_now) g_stale.Add(1);
    g_again.Add(1);
    while (g_again.Load() < round * (CpuCount() - 1)) {
      if (yield) (void)In8(0x80);
    }
    asm volatile("invlpg %0" : : "m"(*reinterpret_cast<volatile uint64_t*>(kAddress)) : "memory");
  }
}

// The count of stale readings on the other processors.
template <typename F>
uint64_t CountStale(uint64_t rounds, bool yield, F flush) {
  g_told.Store(0);
  g_cached.Store(0);
  g_again.Store(0);
  g_stale.Store(0);
  const auto read = [rounds, yield] { ReadRounds(rounds, yield); };
  for (uint32_t cpu = 1; cpu < CpuCount(); ++cpu) StartOnCpu(cpu, read);
  const uint64_t others = CpuCount() - 1;
  bool all = true;
  for (uint64_t round = 1; round <= rounds; ++round) {
    all &= WaitFor([&] { return g_cached.Load() == round * others; });
    MapOther();
    flush(round);
    g_told.Store(round);
    all &= WaitFor([&] { return g_again.Load() == round * others; });
  }
  EXPECT_TRUE(all);
  for (uint32_t cpu = 1; cpu < CpuCount(); ++cpu) WaitForCpu(cpu);
  return g_stale.Load();
}

TEST(TranslationsOfRunningProcessorsAreGone) {
  if (CpuCount() == 1) SKIP("one processor");
  MapAddress();
  constexpr uint64_t kRounds = 4 * kForms;
  // Without a flush it is the processor's own affair: under emulation it shows how much the rest of this test can.
  Note("stale readings on others without a flush", CountStale(kRounds, false, [](uint64_t) {}));
  uint64_t failed = 0;
  const auto flush = [&](uint64_t round) {
    const auto form = static_cast<Form>(round % kForms);
    failed += Flush(form, AllMask() & ~uint64_t{1}) != FlushSuccess(form);
  };
  EXPECT_EQ(CountStale(kRounds, false, flush), 0u);
  EXPECT_EQ(CountStale(kForms, true, flush), 0u);
  EXPECT_EQ(failed, 0u);
}

TEST(TranslationsOfHaltedProcessorsAreGone) {
  MapAddress();
  for (uint32_t form = 0; form < kForms; ++form) {
    const Context context("form", form);
    OnEachCpu([] { (void)Load<uint64_t>(kAddress); });
    MapOther();
    EXPECT_EQ(Flush(static_cast<Form>(form), AllMask()), FlushSuccess(static_cast<Form>(form)));
    OnEachCpu([] { EXPECT_EQ(Load<uint64_t>(kAddress), g_now); });
  }
}

// Everybody flushes everybody, and changes what is everybody's own.
TEST(AllFlushAtOnce) {
  Atomic<uint64_t> failed;
  OnAllCpus([&] {
    for (uint32_t round = 0; round < 2 * kForms; ++round) {
      const auto form = static_cast<Form>((round + ThisCpuNumber()) % kForms);
      failed.Add(Flush(form, AllMask()) != FlushSuccess(form));
    }
  });
  EXPECT_EQ(failed.Load(), 0u);
  // The hypercall page, which each flush takes away for a moment, is as it was.
  OnAllCpus([&] { failed.Add(CallFast({.code = HypercallCode::kNotifyLongSpinWait}) != Success()); });
  EXPECT_EQ(failed.Load(), 0u);
}

TEST(FlushesThatMeanNobodyAreRefused) {
  for (const uint64_t flags : {uint64_t{0}, vmm::kHvFlushAllAddressSpaces}) {
    Block().Put(HvFlushInput{.address_space = 0, .flags = flags, .processor_mask = 0});
    EXPECT_EQ(CallMemory({.code = HypercallCode::kFlushVirtualAddressSpace}), Answer(HvStatus::kInvalidParameter));
    EXPECT_EQ(CallMemory({.code = HypercallCode::kFlushVirtualAddressList, .reps = 1}), Answer(HvStatus::kInvalidParameter));
  }
  Block().Put(HvFlushExInput{.address_space = 0, .flags = 0, .processors = {kHvVpSetSparse4k, 0}});
  EXPECT_EQ(CallMemory({.code = HypercallCode::kFlushVirtualAddressSpaceEx}), Answer(HvStatus::kInvalidParameter));
  Block().Put(HvFlushExInput{.address_space = 0, .flags = 0, .processors = {kHvVpSetSparse4k, 1}}).Put(uint64_t{0});
  EXPECT_EQ(CallMemory({.code = HypercallCode::kFlushVirtualAddressSpaceEx, .variable = 1}), Answer(HvStatus::kInvalidParameter));
}

TEST(FlagsOfFlushes) {
  const auto space = [](uint64_t flags) {
    Block().Put(HvFlushInput{.address_space = 0, .flags = flags, .processor_mask = 0}).Put(kAddress);
    return CallMemory({.code = HypercallCode::kFlushVirtualAddressSpace});
  };
  const auto list = [](uint64_t flags, uint64_t range = kAddress) {
    Block().Put(HvFlushInput{.address_space = 0, .flags = flags, .processor_mask = 0}).Put(range);
    return CallMemory({.code = HypercallCode::kFlushVirtualAddressList, .reps = 1});
  };
  EXPECT_EQ(space(kHvFlushAllProcessors), Success());
  EXPECT_EQ(space(kHvFlushAllProcessors | vmm::kHvFlushAllAddressSpaces | vmm::kHvFlushNonGlobalOnly), Success());
  EXPECT_EQ(space(kHvFlushAllProcessors | vmm::kHvFlushExtendedRanges), Answer(HvStatus::kInvalidParameter));
  EXPECT_EQ(space(kHvFlushAllProcessors | 0x10), Answer(HvStatus::kInvalidParameter));
  EXPECT_EQ(space(kHvFlushAllProcessors | uint64_t{1} << 63), Answer(HvStatus::kInvalidParameter));
  EXPECT_EQ(list(kHvFlushAllProcessors), Success(1));
  EXPECT_EQ(list(kHvFlushAllProcessors | vmm::kHvFlushNonGlobalOnly), Answer(HvStatus::kInvalidParameter));
  // Large ranges have reserved bits, and only where ranges are extended.
  EXPECT_EQ(list(kHvFlushAllProcessors, vmm::kHvGvaRangeLarge | 1 << 13), Success(1));
  EXPECT_EQ(list(kHvFlushAllProcessors | vmm::kHvFlushExtendedRanges, vmm::kHvGvaRangeLarge), Success(1));
  EXPECT_EQ(list(kHvFlushAllProcessors | vmm::kHvFlushExtendedRanges, vmm::kHvGvaRangeLarge | 1 << 13),
            Answer(HvStatus::kInvalidParameter));
}

TEST(AListEndsAtItsFirstBadRange) {
  Block block;
  block.Put(HvFlushInput{.address_space = 0, .flags = kHvFlushAllProcessors | vmm::kHvFlushExtendedRanges, .processor_mask = 0});
  for (uint64_t i = 0; i < 500; ++i) block.Put(i == 300 ? vmm::kHvGvaRangeLarge | 1 << 13 : kAddress + i * kPageBytes);
  EXPECT_EQ(CallMemory({.code = HypercallCode::kFlushVirtualAddressList, .reps = 500}), Answer(HvStatus::kInvalidParameter, 300));
  EXPECT_EQ(CallMemory({.code = HypercallCode::kFlushVirtualAddressList, .reps = 500, .start = 301}), Success(500));
  EXPECT_EQ(CallMemory({.code = HypercallCode::kFlushVirtualAddressList, .reps = 300}), Success(300));
}

}  // namespace
}  // namespace guest
