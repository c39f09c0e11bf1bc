// The Hyper-V MSRs: what they hold at first, what they keep, what they refuse, and whose they are. Time, the local APIC's
// registers and what overlay pages do are in files of their own.
#include "devices/hyperv/hv_msr_layout.h"
#include "tests/guests/runtime/cpu.h"
#include "tests/guests/runtime/interrupts.h"
#include "tests/guests/runtime/memory.h"
#include "tests/guests/runtime/smp.h"
#include "tests/guests/runtime/test.h"

namespace guest {
namespace {

using namespace vmm;

constexpr uint32_t kSintCount = 16;
constexpr uint64_t kLinuxId = uint64_t{0x8100} << 48;
constexpr uint64_t kSomeBits = 0xabc;  // 11:2 of a page register, which the guest may use as it likes, and Locked clear
constexpr uint64_t kReservedBits = 0xffff'ffff'ffe0'0000;  // 63:21 of SINTx

constexpr uint32_t kPartitionWide[] = {kHvMsrGuestOsId, kHvMsrHypercall, kHvMsrReferenceTsc, kHvMsrCrashP0, kHvMsrCrashP0 + 1,
                                       kHvMsrCrashP0 + 2, kHvMsrCrashP0 + 3, kHvMsrCrashP4};
constexpr uint32_t kReadOnly[] = {kHvMsrVpIndex,      kHvMsrVpRuntime,     kHvMsrTimeRefCount,
                                  kHvMsrTscFrequency, kHvMsrApicFrequency, kHvMsrSversion};

bool IsOneOf(uint32_t msr, const uint32_t* list, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) {
    if (list[i] == msr) return true;
  }
  return false;
}
template <uint32_t kCount>
bool IsOneOf(uint32_t msr, const uint32_t (&list)[kCount]) {
  return IsOneOf(msr, list, kCount);
}

bool IsOffered(uint32_t msr) {
  return IsOneOf(msr, kPartitionWide) || IsOneOf(msr, kReadOnly) || msr == kHvMsrReset || msr == kHvMsrCrashCtl ||
         (msr >= kHvMsrEoi && msr <= kHvMsrVpAssistPage) || (msr >= kHvMsrScontrol && msr <= kHvMsrEom) ||
         (msr >= kHvMsrSint0 && msr < kHvMsrSint0 + kSintCount) || (msr >= kHvMsrStimer0Config && msr <= kHvMsrStimer3Count);
}

// First of all: nothing has been written yet.
TEST(RegistersHaveTheirResetValues) {
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    for (const uint32_t msr : kPartitionWide) {
      const Context of("msr", msr);
      EXPECT_EQ(ReadMsr(msr), 0u);
    }
    for (const uint32_t msr : {kHvMsrReset, kHvMsrVpAssistPage, kHvMsrSiefp, kHvMsrSimp, kHvMsrEom}) {
      const Context of("msr", msr);
      EXPECT_EQ(ReadMsr(msr), 0u);
    }
    EXPECT_EQ(ReadMsr(kHvMsrScontrol), kHvScontrolEnable);
    EXPECT_EQ(ReadMsr(kHvMsrSversion), kHvSynicVersion);
    uint32_t wrong_sints = 0;
    for (uint32_t sint = 0; sint < kSintCount; ++sint) wrong_sints += ReadMsr(kHvMsrSint0 + sint) != kHvSintReset;
    EXPECT_EQ(wrong_sints, 0u);
    uint32_t wrong_timers = 0;
    for (uint32_t msr = kHvMsrStimer0Config; msr <= kHvMsrStimer3Count; ++msr) wrong_timers += ReadMsr(msr) != 0;
    EXPECT_EQ(wrong_timers, 0u);
    EXPECT_EQ(ReadMsr(kHvMsrCrashCtl), kHvCrashNotify | kHvCrashMessage);
  });
}

TEST(VpIndexIsTheProcessorsNumber) {
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    EXPECT_EQ(ReadMsr(kHvMsrVpIndex), ThisCpuNumber());
  });
}

TEST(ReadOnlyRegistersRefuseEvenTheirOwnValue) {
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    for (const uint32_t msr : kReadOnly) {
      const Context of("msr", msr);
      EXPECT_FAULT(kGeneralProtection, WriteMsr(msr, ReadMsr(msr)));
      EXPECT_FAULT(kGeneralProtection, WriteMsr(msr, 0));
    }
  });
}

TEST(WhatIsNotOfferedIsAFaultToReadAndToWrite) {
  // Some by name: a listing says more than a count when one of them answers.
  for (const uint32_t msr : {kHvMsrGuestIdle, 0x4000'0040u /* NPIEP */, 0x4000'0085u /* SIRBP */, 0x4000'00c1u, 0x4000'00e0u,
                             0x4000'00f1u /* SYNDBG */, 0x4000'00ffu, 0x4000'0106u /* reenlightenment */, 0x4000'0107u,
                             0x4000'0108u, 0x4000'0114u, 0x4000'0118u /* TSC invariant */, 0x4000'1002u /* nested */,
                             0x4000'1080u, 0x4000'0200u}) {
    const Context context("msr", msr);
    EXPECT_FAULT(kGeneralProtection, ReadMsr(msr));
    EXPECT_FAULT(kGeneralProtection, WriteMsr(msr, 0));
  }
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    uint32_t answered = 0;
    for (uint32_t msr = kHvMsrFirst; msr < kHvMsrFirst + kHvMsrCount; ++msr) {
      if (IsOffered(msr)) continue;
      uint64_t value;
      answered += TryReadMsr(msr, value).vector != kGeneralProtection;
      answered += TryWriteMsr(msr, 0).vector != kGeneralProtection;
    }
    EXPECT_EQ(answered, 0u);
  });
}

TEST(WhatIsOfferedCanBeRead) {
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    for (uint32_t msr = kHvMsrFirst; msr < kHvMsrFirst + kHvMsrCount; ++msr) {
      if (!IsOffered(msr) || msr == kHvMsrEoi) continue;
      uint64_t value = 0;
      const Fault fault = TryReadMsr(msr, value);
      if (!fault.raised()) continue;
      const Context of("msr", msr);
      EXPECT_EQ(fault.vector, kNoFault);
    }
    EXPECT_FAULT(kGeneralProtection, ReadMsr(kHvMsrEoi));
  });
}

TEST(GuestOsIdIsOneForAllProcessors) {
  for (const uint64_t id : {kLinuxId | 0x0123'4567'89ab, uint64_t{0x0001'040a'0000'3839}, ~uint64_t{0}, uint64_t{0}}) {
    const Context context("id", id);
    OnCpu(CpuCount() - 1, [&] { WriteMsr(kHvMsrGuestOsId, id); });
    OnEachCpu([&] { EXPECT_EQ(ReadMsr(kHvMsrGuestOsId), id); });
  }
}

TEST(HypercallPageNeedsAGuestOsId) {
  const uint64_t page = GpaOf(AllocatePages(1));
  WriteMsr(kHvMsrHypercall, page | kSomeBits | kHvOverlayEnable);
  EXPECT_EQ(ReadMsr(kHvMsrHypercall), page | (kSomeBits & ~kHvHypercallLocked));
  WriteMsr(kHvMsrHypercall, page | kHvHypercallLocked);
  EXPECT_EQ(ReadMsr(kHvMsrHypercall), page);
  WriteMsr(kHvMsrGuestOsId, kLinuxId);
  EXPECT_EQ(ReadMsr(kHvMsrHypercall), page);
  OnCpu(CpuCount() - 1, [&] { WriteMsr(kHvMsrHypercall, page | 0xab4 | kHvOverlayEnable); });
  OnEachCpu([&] { EXPECT_EQ(ReadMsr(kHvMsrHypercall), page | 0xab4 | kHvOverlayEnable); });
  // An id of another kind leaves it; none takes it, and keeps the rest.
  WriteMsr(kHvMsrGuestOsId, kLinuxId + 1);
  EXPECT_EQ(ReadMsr(kHvMsrHypercall), page | 0xab4 | kHvOverlayEnable);
  WriteMsr(kHvMsrGuestOsId, 0);
  OnEachCpu([&] { EXPECT_EQ(ReadMsr(kHvMsrHypercall), page | 0xab4); });
  WriteMsr(kHvMsrHypercall, 0);
}

TEST(PageRegistersKeepTheirReservedBits) {
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    const uint64_t page = GpaOf(AllocatePages(1));
    for (const uint32_t msr : {kHvMsrReferenceTsc, kHvMsrVpAssistPage, kHvMsrSiefp, kHvMsrSimp}) {
      const Context of("msr", msr);
      for (const uint64_t value : {page | 0xffe, page | 0xfff, page | 0x555, uint64_t{0xffe}, uint64_t{0}}) {
        WriteMsr(msr, value);
        EXPECT_EQ(ReadMsr(msr), value);
      }
    }
  });
}

TEST(PageRegistersOfAProcessorAreItsOwn) {
  for (const uint32_t msr : {kHvMsrVpAssistPage, kHvMsrSiefp, kHvMsrSimp, kHvMsrScontrol}) {
    const Context context("msr", msr);
    // Nothing is enabled by these.
    OnAllCpus([&] { WriteMsr(msr, (uint64_t{ThisCpuNumber()} + 0x100) << 12); });
    OnEachCpu([&] { EXPECT_EQ(ReadMsr(msr), (uint64_t{ThisCpuNumber()} + 0x100) << 12); });
    OnAllCpus([&] { WriteMsr(msr, msr == kHvMsrScontrol ? kHvScontrolEnable : 0); });
  }
}

TEST(ScontrolKeepsWhatIsWritten) {
  for (const uint64_t value : {uint64_t{0}, ~uint64_t{0}, ~uint64_t{1}, kHvScontrolEnable}) {
    WriteMsr(kHvMsrScontrol, value);
    EXPECT_EQ(ReadMsr(kHvMsrScontrol), value);
  }
}

TEST(EomTakesAnyValueAndReadsZero) {
  for (const uint64_t value : {uint64_t{0}, uint64_t{1}, ~uint64_t{0}}) {
    EXPECT_NO_FAULT(WriteMsr(kHvMsrEom, value));
    EXPECT_EQ(ReadMsr(kHvMsrEom), 0u);
  }
}

TEST(SintsKeepWhatIsWrittenAndAreTheProcessorsOwn) {
  const auto value_of = [](uint32_t sint) {
    const uint64_t modes = (sint & 1 ? kHvSintMasked : 0) | (sint & 2 ? kHvSintAutoEoi : 0) | (sint & 4 ? kHvSintPolling : 0);
    return (sint & 8 ? kReservedBits : 0) | modes | (0x40 + sint + 16 * ThisCpuNumber());
  };
  OnAllCpus([&] {
    for (uint32_t sint = 0; sint < kSintCount; ++sint) WriteMsr(kHvMsrSint0 + sint, value_of(sint));
  });
  OnEachCpu([&] {
    const Context context("cpu", ThisCpuNumber());
    for (uint32_t sint = 0; sint < kSintCount; ++sint) {
      EXPECT_EQ(ReadMsr(kHvMsrSint0 + sint), value_of(sint));
      WriteMsr(kHvMsrSint0 + sint, kHvSintReset);
    }
  });
}

TEST(SintsRefuseVectorsBelowSixteenUnlessMasked) {
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    for (const uint32_t sint : {0u, 2u, 15u}) {
      const uint32_t msr = kHvMsrSint0 + sint;
      WriteMsr(msr, 0x50);
      for (const uint64_t modes : {uint64_t{0}, kHvSintAutoEoi, kHvSintPolling}) {
        EXPECT_FAULT(kGeneralProtection, WriteMsr(msr, modes | 15));
        EXPECT_FAULT(kGeneralProtection, WriteMsr(msr, modes));
      }
      EXPECT_EQ(ReadMsr(msr), 0x50u);
      EXPECT_NO_FAULT(WriteMsr(msr, kHvFirstVector));
      EXPECT_NO_FAULT(WriteMsr(msr, kHvSintMasked | 15));
      EXPECT_EQ(ReadMsr(msr), kHvSintMasked | 15);
      WriteMsr(msr, kHvSintReset);
    }
  });
}

TEST(TimersKeepWhatIsWrittenAndAreTheProcessorsOwn) {
  const auto config_of = [](uint32_t timer) {  // nothing that runs: COUNT's writes find no AutoEnable
    return (timer & 1 ? kHvStimerPeriodic : 0) | (timer & 2 ? kHvStimerLazy : 0) |
           (uint64_t{ThisCpuNumber()} + 2) << kHvStimerSintShift | uint64_t{0x40 + timer} << kHvStimerVectorShift;
  };
  const auto count_of = [](uint32_t timer) { return ~uint64_t{0} - 8 * ThisCpuNumber() - timer; };
  OnAllCpus([&] {
    for (uint32_t timer = 0; timer < kHvStimerCount; ++timer) {
      WriteMsr(kHvMsrStimer0Config + 2 * timer, config_of(timer));
      WriteMsr(kHvMsrStimer0Config + 2 * timer + 1, count_of(timer));
    }
  });
  OnEachCpu([&] {
    const Context context("cpu", ThisCpuNumber());
    for (uint32_t timer = 0; timer < kHvStimerCount; ++timer) {
      EXPECT_EQ(ReadMsr(kHvMsrStimer0Config + 2 * timer), config_of(timer));
      EXPECT_EQ(ReadMsr(kHvMsrStimer0Config + 2 * timer + 1), count_of(timer));
      WriteMsr(kHvMsrStimer0Config + 2 * timer, 0);
      WriteMsr(kHvMsrStimer0Config + 2 * timer + 1, 0);
    }
  });
}

TEST(TimersKeepTheirReservedBits) {
  WriteMsr(kHvMsrStimer0Config, kHvStimerReserved);
  EXPECT_EQ(ReadMsr(kHvMsrStimer0Config), kHvStimerReserved);
  WriteMsr(kHvMsrStimer0Config, 0);
  EXPECT_EQ(ReadMsr(kHvMsrStimer0Config), 0u);
}

// Whose time has not come: Enable as the writes of CONFIG and COUNT leave it.
TEST(TimersEnableAsTheirConfigurationSays) {
  constexpr uint64_t kSint3 = uint64_t{3} << kHvStimerSintShift;
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    const uint64_t far = ReadMsr(kHvMsrTimeRefCount) + uint64_t{10'000'000} * 3600;
    for (uint32_t timer = 0; timer < kHvStimerCount; ++timer) {
      const Context of("timer", timer);
      const uint32_t config = kHvMsrStimer0Config + 2 * timer;
      const uint32_t count = config + 1;
      // SINT 0 takes no timer's messages.
      WriteMsr(config, kHvStimerEnable);
      EXPECT_EQ(ReadMsr(config), 0u);
      // Direct mode needs no SINT.
      WriteMsr(count, far);
      WriteMsr(config, kHvStimerEnable | kHvStimerDirect | uint64_t{0x50} << kHvStimerVectorShift);
      EXPECT_EQ(ReadMsr(config), kHvStimerEnable | kHvStimerDirect | uint64_t{0x50} << kHvStimerVectorShift);
      // A count of 0 stops it, AutoEnable or not; another starts it if AutoEnable.
      WriteMsr(count, 0);
      EXPECT_EQ(ReadMsr(config) & kHvStimerEnable, 0u);
      WriteMsr(config, kSint3 | kHvStimerAutoEnable);
      WriteMsr(count, far);
      EXPECT_EQ(ReadMsr(config), kSint3 | kHvStimerAutoEnable | kHvStimerEnable);
      EXPECT_EQ(ReadMsr(count), far);
      WriteMsr(count, 0);
      EXPECT_EQ(ReadMsr(config), kSint3 | kHvStimerAutoEnable);
      // Without it the count alone does not.
      WriteMsr(config, kSint3);
      WriteMsr(count, far);
      EXPECT_EQ(ReadMsr(config), kSint3);
      WriteMsr(config, 0);
      WriteMsr(count, 0);
    }
  });
}

TEST(CrashRegistersAreScratchOfThePartition) {
  for (uint32_t writer = 0; writer < CpuCount(); ++writer) {
    const Context context("writer", writer);
    const uint64_t first = uint64_t{0x0123'4567'89ab'cd00} + 16 * writer;
    OnCpu(writer, [&] {
      for (uint32_t n = 0; n < 5; ++n) WriteMsr(kHvMsrCrashP0 + n, first + n);
    });
    OnCpu((writer + 1) % CpuCount(), [&] {
      for (uint32_t n = 0; n < 5; ++n) EXPECT_EQ(ReadMsr(kHvMsrCrashP0 + n), first + n);
    });
  }
  WriteMsr(kHvMsrCrashP0, ~uint64_t{0});
  EXPECT_EQ(ReadMsr(kHvMsrCrashP0), ~uint64_t{0});
  for (uint32_t n = 0; n < 5; ++n) WriteMsr(kHvMsrCrashP0 + n, 0);
}

TEST(CrashControlWithoutNotifyDoesNothingAndRefusesReservedBits) {
  EXPECT_NO_FAULT(WriteMsr(kHvMsrCrashCtl, 0));
  EXPECT_NO_FAULT(WriteMsr(kHvMsrCrashCtl, kHvCrashMessage));
  EXPECT_FAULT(kGeneralProtection, WriteMsr(kHvMsrCrashCtl, 1));
  EXPECT_FAULT(kGeneralProtection, WriteMsr(kHvMsrCrashCtl, kHvCrashNotify | uint64_t{1} << 61));
  EXPECT_EQ(ReadMsr(kHvMsrCrashCtl), kHvCrashNotify | kHvCrashMessage);
}

TEST(ResetRefusesReservedBitsAndIgnoresZero) {
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    EXPECT_NO_FAULT(WriteMsr(kHvMsrReset, 0));
    EXPECT_FAULT(kGeneralProtection, WriteMsr(kHvMsrReset, 2));
    EXPECT_FAULT(kGeneralProtection, WriteMsr(kHvMsrReset, 3));
    EXPECT_FAULT(kGeneralProtection, WriteMsr(kHvMsrReset, uint64_t{1} << 63 | 1));
    EXPECT_EQ(ReadMsr(kHvMsrReset), 0u);
  });
}

}  // namespace
}  // namespace guest
