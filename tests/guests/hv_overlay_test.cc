// Overlay pages: the hypervisor's own pages over pages of RAM, which come back as they were.
#include "devices/hyperv/hv_msr_layout.h"
#include "devices/hyperv/hv_status.h"
#include "tests/guests/runtime/atomic.h"
#include "tests/guests/runtime/cpu.h"
#include "tests/guests/runtime/interrupts.h"
#include "tests/guests/runtime/memory.h"
#include "tests/guests/runtime/smp.h"
#include "tests/guests/runtime/test.h"
#include "tests/guests/runtime/wait.h"

namespace guest {
namespace {

using namespace vmm;

constexpr uint64_t kLinuxId = uint64_t{0x8100} << 48;
constexpr uint64_t kWords = kPageBytes / 8;
constexpr uint64_t kRamBytes = 64 << 20;  // guests_test.py's
constexpr uint64_t kNotRam[] = {kRamBytes, 0xfee0'0000, 0xffff'f000, uint64_t{1} << 40, ~uint64_t{0xfff}};
constexpr uint32_t kReadWrite[] = {kHvMsrVpAssistPage, kHvMsrSiefp, kHvMsrSimp};
constexpr uint32_t kReadOnly[] = {kHvMsrHypercall, kHvMsrReferenceTsc};
constexpr uint32_t kAll[] = {kHvMsrHypercall, kHvMsrReferenceTsc, kHvMsrVpAssistPage, kHvMsrSiefp, kHvMsrSimp};

// The hypercall page needs a guest OS id, which stays.
void Enable(uint32_t msr, uint64_t gpa) {
  if (msr == kHvMsrHypercall) WriteMsr(kHvMsrGuestOsId, kLinuxId);
  WriteMsr(msr, gpa | kHvOverlayEnable);
}
void Disable(uint32_t msr) { WriteMsr(msr, 0); }

uint64_t PatternOf(uint64_t gpa, uint64_t word) { return gpa * 0x9e37'79b9'7f4a'7c15 + word; }
void Fill(uint64_t gpa, uint64_t seed) {
  for (uint64_t word = 0; word < kWords; ++word) Store<uint64_t>(gpa + 8 * word, PatternOf(seed, word));
}
// Words that are not what Fill wrote.
uint64_t Differences(uint64_t gpa, uint64_t seed) {
  uint64_t count = 0;
  for (uint64_t word = 0; word < kWords; ++word) count += Load<uint64_t>(gpa + 8 * word) != PatternOf(seed, word);
  return count;
}
uint64_t NonZeroWords(uint64_t gpa) {
  uint64_t count = 0;
  for (uint64_t word = 0; word < kWords; ++word) count += Load<uint64_t>(gpa + 8 * word) != 0;
  return count;
}
uint64_t SumOf(uint64_t gpa) {
  uint64_t sum = 0;
  for (uint64_t word = 0; word < kWords; ++word) sum = sum * 31 + Load<uint64_t>(gpa + 8 * word);
  return sum;
}

uint64_t NewPage() {
  const uint64_t gpa = GpaOf(AllocatePages(1));
  Fill(gpa, gpa);
  return gpa;
}

// An unknown code, which a page that works answers.
uint64_t CallNothing(uint64_t hypercall_page) {
  uint64_t result;
  uint64_t input = 0xfff;
  asm volatile("callq *%[page]"
               : "=a"(result), "+c"(input)
               : [page] "r"(hypercall_page), "d"(uint64_t{0})
               : "r8", "r9", "r10", "r11", "memory", "cc");
  return result;
}
constexpr uint64_t kAnswer = static_cast<uint64_t>(HvStatus::kInvalidHypercallCode);

TEST(PagesOfAProcessorAreZeroAtFirst) {
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    for (const uint32_t msr : kReadWrite) {
      const Context of("msr", msr);
      const uint64_t page = NewPage();
      Enable(msr, page);
      EXPECT_EQ(NonZeroWords(page), 0u);
      Disable(msr);
    }
  });
}

TEST(WhatWasBeneathComesBack) {
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    for (const uint32_t msr : kAll) {
      const Context of("msr", msr);
      const uint64_t page = NewPage();
      const uint64_t next = NewPage();
      Enable(msr, page);
      EXPECT_EQ(Differences(page, page), kWords);
      EXPECT_EQ(Differences(next, next), 0u);
      Disable(msr);
      EXPECT_EQ(Differences(page, page), 0u);
    }
  });
}

TEST(RamBeneathIsNeverWritten) {
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    for (const uint32_t msr : kReadWrite) {
      const Context of("msr", msr);
      const uint64_t page = NewPage();
      Enable(msr, page);
      Fill(page, 77);
      EXPECT_EQ(Differences(page, 77), 0u);
      Disable(msr);
      EXPECT_EQ(Differences(page, page), 0u);
      // And the other way round: what is stored now is not the overlay's.
      Fill(page, 78);
      Enable(msr, page);
      EXPECT_EQ(Differences(page, 77), 0u);
      memset(reinterpret_cast<void*>(page), 0, kPageBytes);
      Disable(msr);
      EXPECT_EQ(Differences(page, 78), 0u);
    }
  });
}

TEST(ContentStaysAcrossDisableMoveAndEnable) {
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    for (const uint32_t msr : kReadWrite) {
      const Context of("msr", msr);
      const uint64_t a = NewPage();
      const uint64_t b = NewPage();
      Enable(msr, a);
      Fill(a, 5);
      WriteMsr(msr, a);  // Enable clear, the page number kept
      EXPECT_EQ(Differences(a, a), 0u);
      Enable(msr, b);
      EXPECT_EQ(Differences(b, 5), 0u);
      Enable(msr, a);  // straight from one place to the other
      EXPECT_EQ(Differences(a, 5), 0u);
      EXPECT_EQ(Differences(b, b), 0u);
      Enable(msr, a);  // to where it is
      EXPECT_EQ(Differences(a, 5), 0u);
      memset(reinterpret_cast<void*>(a), 0, kPageBytes);
      Disable(msr);
      EXPECT_EQ(Differences(a, a), 0u);
    }
  });
}

TEST(ReadOnlyPagesHoldTheSameEverywhere) {
  for (const uint32_t msr : kReadOnly) {
    const Context context("msr", msr);
    const uint64_t a = NewPage();
    const uint64_t b = NewPage();
    OnCpu(0, [&] { Enable(msr, a); });
    const uint64_t sum = SumOf(a);
    OnEachCpu([&] { EXPECT_EQ(SumOf(a), sum); });
    OnCpu(CpuCount() - 1, [&] { Enable(msr, b); });
    OnEachCpu([&] { EXPECT_EQ(SumOf(b), sum); });
    EXPECT_EQ(Differences(a, a), 0u);
    Disable(msr);
    EXPECT_EQ(Differences(b, b), 0u);
  }
}

TEST(HypercallPageIsCalledWhereverItIs) {
  const uint64_t a = NewPage();
  const uint64_t b = NewPage();
  for (const uint64_t page : {a, b, a}) {
    Enable(kHvMsrHypercall, page);
    OnEachCpu([&] { EXPECT_EQ(CallNothing(page), kAnswer); });
  }
  WriteMsr(kHvMsrGuestOsId, 0);
  EXPECT_EQ(Differences(a, a), 0u);
  Disable(kHvMsrHypercall);
}

TEST(WritesToReadOnlyPagesAreFaults) {
  for (const uint32_t msr : kReadOnly) {
    const Context context("msr", msr);
    const uint64_t page = NewPage();
    Enable(msr, page);
    const uint64_t sum = SumOf(page);
    OnEachCpu([&] {
      const Context of("cpu", ThisCpuNumber());
      const Fault fault = Catch([&] { Store<uint8_t>(page, 0); });
      EXPECT_EQ(fault.vector, kGeneralProtection);
      EXPECT_EQ(fault.error_code, 0u);
      EXPECT_FAULT(kGeneralProtection, Store<uint64_t>(page + kPageBytes - 8, 0));
      EXPECT_FAULT(kGeneralProtection, Store<uint32_t>(page + 24, 0));
      EXPECT_FAULT(kGeneralProtection, asm volatile("lock incl (%0)" : : "r"(page) : "memory"));
      EXPECT_FAULT(kGeneralProtection, memset(reinterpret_cast<void*>(page), 0, kPageBytes));
      EXPECT_FAULT(kGeneralProtection, Store<uint64_t>(page - 4, 0));  // its second half
      // At once where the first write of all is to it, too: no read before.
      EXPECT_EQ(SumOf(page), sum);
    });
    // The processor's own instruction emulator stores nothing either, whatever else it does.
    uint64_t to = page;
    uint64_t count = 16;
    const Fault fault = Catch([&] { asm volatile("rep insb" : "+D"(to), "+c"(count) : "d"(0xe0) : "memory"); });
    EXPECT_TRUE(!fault.raised() || fault.vector == kGeneralProtection);
    EXPECT_EQ(SumOf(page), sum);
    Disable(msr);
    EXPECT_EQ(Differences(page, page), 0u);
    EXPECT_NO_FAULT(Store<uint64_t>(page, 1));
    EXPECT_EQ(Load<uint64_t>(page), 1u);
    Enable(msr, page);
    EXPECT_EQ(SumOf(page), sum);
    Disable(msr);
  }
}

TEST(HypercallPageOutsideRamIsAFault) {
  const uint64_t page = NewPage();
  for (const uint64_t gpa : kNotRam) {
    const Context context("gpa", gpa);
    Enable(kHvMsrHypercall, page);
    EXPECT_FAULT(kGeneralProtection, Enable(kHvMsrHypercall, gpa));
    // A write that faults changes nothing.
    EXPECT_EQ(ReadMsr(kHvMsrHypercall), page | kHvOverlayEnable);
    EXPECT_EQ(CallNothing(page), kAnswer);
    // Without Enable any number is good.
    EXPECT_NO_FAULT(WriteMsr(kHvMsrHypercall, gpa));
    EXPECT_EQ(ReadMsr(kHvMsrHypercall), gpa);
  }
  Enable(kHvMsrHypercall, kRamBytes - kPageBytes);
  EXPECT_EQ(CallNothing(kRamBytes - kPageBytes), kAnswer);
  Disable(kHvMsrHypercall);
}

TEST(OtherPagesOutsideRamAreNowhereWithoutAFault) {
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    for (const uint32_t msr : kAll) {
      if (msr == kHvMsrHypercall) continue;
      const Context of("msr", msr);
      const uint64_t page = NewPage();
      Enable(msr, page);
      const uint64_t sum = SumOf(page);
      for (const uint64_t gpa : kNotRam) {
        EXPECT_NO_FAULT(Enable(msr, gpa));
        EXPECT_EQ(ReadMsr(msr), gpa | kHvOverlayEnable);
      }
      EXPECT_EQ(Differences(page, page), 0u);
      Enable(msr, page);
      EXPECT_EQ(SumOf(page), sum);
      Disable(msr);
    }
  });
}

// Which of the two is seen is not defined.
TEST(TwoOverlaysAtOnePlaceShowOneAndThenTheOther) {
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    const uint64_t page = NewPage();
    const auto mark = [&](uint32_t msr) {
      Enable(msr, page);
      Store<uint64_t>(page + 512, msr);
      Disable(msr);
    };
    mark(kHvMsrSimp);
    mark(kHvMsrSiefp);
    for (const bool first_goes_first : {true, false}) {
      Enable(kHvMsrSimp, page);
      Enable(kHvMsrSiefp, page);
      const uint64_t seen = Load<uint64_t>(page + 512);
      EXPECT_TRUE(seen == kHvMsrSimp || seen == kHvMsrSiefp);
      Disable(first_goes_first ? kHvMsrSimp : kHvMsrSiefp);
      EXPECT_EQ(Load<uint64_t>(page + 512), first_goes_first ? kHvMsrSiefp : kHvMsrSimp);
      Disable(first_goes_first ? kHvMsrSiefp : kHvMsrSimp);
      EXPECT_EQ(Differences(page, page), 0u);
    }
    // With a read-only one.
    Enable(kHvMsrSimp, page);
    Enable(kHvMsrHypercall, page);
    Disable(kHvMsrHypercall);
    EXPECT_EQ(Load<uint64_t>(page + 512), kHvMsrSimp);
    EXPECT_NO_FAULT(Store<uint64_t>(page + 512, 0));
    Enable(kHvMsrHypercall, page);
    Disable(kHvMsrSimp);
    EXPECT_EQ(CallNothing(page), kAnswer);
    Disable(kHvMsrHypercall);
    EXPECT_EQ(Differences(page, page), 0u);
    Enable(kHvMsrSiefp, page);
    Store<uint64_t>(page + 512, 0);
    Disable(kHvMsrSiefp);
  });
}

TEST(EachProcessorHasItsOwnPages) {
  static uint64_t places[8];
  for (uint32_t cpu = 0; cpu < CpuCount(); ++cpu) places[cpu] = NewPage();
  for (const uint32_t msr : kReadWrite) {
    const Context context("msr", msr);
    OnAllCpus([msr] {
      const uint64_t page = places[ThisCpuNumber()];
      Enable(msr, page);
      Store<uint64_t>(page + 1024, ThisCpuNumber() + 1);
    });
    OnEachCpu([] { EXPECT_EQ(Load<uint64_t>(places[ThisCpuNumber()] + 1024), ThisCpuNumber() + 1); });
    // All of them to one place, and away again.
    OnEachCpu([msr] { Enable(msr, places[0]); });
    OnEachCpu([msr] { Enable(msr, places[ThisCpuNumber()]); });
    OnEachCpu([] { EXPECT_EQ(Load<uint64_t>(places[ThisCpuNumber()] + 1024), ThisCpuNumber() + 1); });
    OnAllCpus([msr] {
      Store<uint64_t>(places[ThisCpuNumber()] + 1024, 0);
      Disable(msr);
    });
    OnEachCpu([] { EXPECT_EQ(Differences(places[ThisCpuNumber()], places[ThisCpuNumber()]), 0u); });
  }
}

TEST(OthersSeeOnePageOrTheOtherWhileItComesAndGoes) {
  if (CpuCount() < 2) SKIP("one processor");
  static uint64_t page;
  static Atomic<bool> done;
  static Atomic<uint64_t> torn, looks;
  page = NewPage();
  done.Store(false);
  constexpr uint64_t kRam = 0x1111, kOverlay = 0x2222;
  Store<uint64_t>(page + 8, kRam);
  const auto look = [] {
    while (!done.Load()) {
      const uint64_t seen = Load<uint64_t>(page + 8);
      torn.Add(seen != kRam && seen != kOverlay);
      looks.Add(1);
    }
  };
  Enable(kHvMsrVpAssistPage, page);
  Store<uint64_t>(page + 8, kOverlay);
  for (uint32_t cpu = 1; cpu < CpuCount(); ++cpu) StartOnCpu(cpu, look);
  uint32_t wrong = 0;
  for (int i = 0; i < 30; ++i) {
    Disable(kHvMsrVpAssistPage);
    wrong += Load<uint64_t>(page + 8) != kRam;
    Enable(kHvMsrVpAssistPage, page);
    wrong += Load<uint64_t>(page + 8) != kOverlay;
  }
  // On a busy host the others may not have had their turn yet.
  EXPECT_TRUE(WaitFor([] { return looks.Load() > 0; }));
  done.Store(true);
  for (uint32_t cpu = 1; cpu < CpuCount(); ++cpu) WaitForCpu(cpu);
  EXPECT_EQ(wrong, 0u);
  EXPECT_EQ(torn.Load(), 0u);
  Store<uint64_t>(page + 8, 0);
  Disable(kHvMsrVpAssistPage);
}

// A fault that is looked at when the page has already gone must not look like a host without memory.
TEST(WritersSurviveAReadOnlyPageThatComesAndGoes) {
  if (CpuCount() < 2) SKIP("one processor");
  static uint64_t page;
  static Atomic<bool> done;
  static Atomic<uint64_t> stores, other_faults;
  page = NewPage();
  done.Store(false);
  const auto write = [] {
    while (!done.Load()) {
      const Fault fault = Catch([] { Store<uint64_t>(page + 64 * ThisCpuNumber(), 1); });
      other_faults.Add(fault.raised() && fault.vector != kGeneralProtection);
      stores.Add(1);
    }
  };
  for (uint32_t cpu = 1; cpu < CpuCount(); ++cpu) StartOnCpu(cpu, write);
  uint32_t wrong = 0;
  for (int i = 0; i < 20; ++i) {
    Enable(kHvMsrHypercall, page);
    wrong += CallNothing(page) != kAnswer;
    Disable(kHvMsrHypercall);
  }
  // On a busy host the others may not have had their turn yet.
  EXPECT_TRUE(WaitFor([] { return stores.Load() > 0; }));
  done.Store(true);
  for (uint32_t cpu = 1; cpu < CpuCount(); ++cpu) WaitForCpu(cpu);
  EXPECT_EQ(wrong, 0u);
  EXPECT_EQ(other_faults.Load(), 0u);
}

// Last: it cannot be undone.
TEST(ALockedHypercallPageStaysAndCannotBeWritten) {
  const uint64_t page = NewPage();
  const uint64_t locked = page | kHvHypercallLocked | kHvOverlayEnable;
  WriteMsr(kHvMsrGuestOsId, kLinuxId);
  WriteMsr(kHvMsrHypercall, locked);
  EXPECT_EQ(ReadMsr(kHvMsrHypercall), locked);
  OnEachCpu([&] {
    const Context context("cpu", ThisCpuNumber());
    EXPECT_FAULT(kGeneralProtection, WriteMsr(kHvMsrHypercall, 0));
    EXPECT_FAULT(kGeneralProtection, WriteMsr(kHvMsrHypercall, locked));
    EXPECT_EQ(ReadMsr(kHvMsrHypercall), locked);
    EXPECT_EQ(CallNothing(page), kAnswer);
  });
  WriteMsr(kHvMsrGuestOsId, 0);
  EXPECT_EQ(ReadMsr(kHvMsrGuestOsId), 0u);
  EXPECT_EQ(ReadMsr(kHvMsrHypercall), locked);
  EXPECT_EQ(CallNothing(page), kAnswer);
}

}  // namespace
}  // namespace guest
