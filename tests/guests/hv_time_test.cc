// Reference time, its page, the frequencies, and what a processor has run.
#include "devices/hyperv/hv_msr_layout.h"
#include "devices/hyperv/partition/reference_tsc_layout.h"
#include "tests/guests/runtime/apic.h"
#include "tests/guests/runtime/atomic.h"
#include "tests/guests/runtime/cpu.h"
#include "tests/guests/runtime/memory.h"
#include "tests/guests/runtime/print.h"
#include "tests/guests/runtime/smp.h"
#include "tests/guests/runtime/test.h"
#include "tests/guests/runtime/wait.h"

namespace guest {
namespace {

using namespace vmm;

constexpr uint64_t kTicksPerSecond = 10'000'000;
constexpr uint64_t kMillisecond = kTicksPerSecond / 1000;

uint64_t Now() { return ReadMsr(kHvMsrTimeRefCount); }

// Enabled at a page of its own while this lives.
class ReferenceTsc final {
 public:
  ReferenceTsc() : gpa_(GpaOf(AllocatePages(1))) { WriteMsr(kHvMsrReferenceTsc, gpa_ | kHvOverlayEnable); }
  ~ReferenceTsc() { WriteMsr(kHvMsrReferenceTsc, 0); }
  [[nodiscard]] const volatile HvReferenceTscPage& page() const {
    return *reinterpret_cast<const volatile HvReferenceTscPage*>(gpa_);
  }
  [[nodiscard]] bool valid() const { return page().sequence != kHvReferenceTscInvalid; }

  // As a guest does it: by the page while the sequence is valid and the same before and after.
  [[nodiscard]] uint64_t Read() const {
    while (true) {
      const uint32_t sequence = page().sequence;
      if (sequence == kHvReferenceTscInvalid) return Now();
      const uint64_t tsc = ReadTsc();
      const uint64_t scale = page().scale;
      const uint64_t offset = page().offset;
      uint64_t high, low;
      asm("mulq %3" : "=d"(high), "=a"(low) : "a"(tsc), "r"(scale) : "cc");
      if (page().sequence == sequence) return high + offset;
    }
  }

 private:
  const uint64_t gpa_;
};

// The largest reading of all processors so far, and how many were below one that had been taken before.
class Order final {
 public:
  template <typename F>
  void Observe(F read) {
    const uint64_t before = latest_.Load();
    const uint64_t now = read();
    backwards_.Add(now < before);
    // Racing stores may lower it, which only makes the check weaker for a moment.
    if (latest_.Load() < now) latest_.Store(now);
  }
  [[nodiscard]] uint64_t backwards() const { return backwards_.Load(); }

 private:
  Atomic<uint64_t> latest_;
  Atomic<uint64_t> backwards_;
};

TEST(ReferenceTimeGoesOnOnEachProcessor) {
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    uint64_t last = Now();
    uint32_t backwards = 0;
    for (int i = 0; i < 300; ++i) {
      const uint64_t now = Now();
      backwards += now < last;
      last = now;
    }
    EXPECT_EQ(backwards, 0u);
    const uint64_t start = Now();
    EXPECT_TRUE(WaitFor([&] { return Now() > start + kMillisecond; }));
  });
}

TEST(ReferenceTimeIsOneForAllProcessors) {
  static Order order;
  OnAllCpus([] {
    for (int i = 0; i < 300; ++i) order.Observe(Now);
  });
  EXPECT_EQ(order.backwards(), 0u);
}

TEST(ReferenceTimeBeganWithTheMachine) {
  EXPECT_GT(Now(), 0u);
  EXPECT_LT(Now(), 600 * kTicksPerSecond);
}

TEST(ThePageIsInvalidOrSaysWhatItMust) {
  const ReferenceTsc tsc;
  const uint32_t sequence = tsc.page().sequence;
  Note("sequence of the reference TSC page", sequence);
  EXPECT_NE(sequence, 0xffff'ffffu);
  EXPECT_EQ(tsc.page().reserved, 0u);
  EXPECT_EQ(tsc.valid(), tsc.page().scale != 0);
  uint64_t rest = 0;
  for (uint64_t at = sizeof(HvReferenceTscPage); at < kPageBytes; at += 8) rest |= Load<uint64_t>(GpaOf(&tsc.page()) + at);
  EXPECT_EQ(rest, 0u);
  OnEachCpu([&] {
    EXPECT_EQ(ReadMsr(kHvMsrReferenceTsc), GpaOf(&tsc.page()) | kHvOverlayEnable);
    EXPECT_EQ(tsc.page().sequence, sequence);
  });
}

TEST(ThePagesSequenceAndParametersStayOnceItIsMoved) {
  HvReferenceTscPage first;
  {
    const ReferenceTsc tsc;
    first = {.sequence = tsc.page().sequence, .reserved = 0, .scale = tsc.page().scale, .offset = tsc.page().offset};
  }
  const ReferenceTsc tsc;
  EXPECT_EQ(tsc.page().sequence, first.sequence);
  EXPECT_EQ(tsc.page().scale, first.scale);
  EXPECT_EQ(tsc.page().offset, first.offset);
}

TEST(ThePageAgreesWithTheRegister) {
  const ReferenceTsc tsc;
  if (!tsc.valid()) SKIP("this host's TSC is no clock for KVM");
  OnEachCpu([&] {
    const Context context("cpu", ThisCpuNumber());
    uint32_t outside = 0;
    for (int i = 0; i < 200; ++i) {
      const uint64_t before = Now();
      const uint64_t by_page = tsc.Read();
      outside += by_page < before || by_page > Now();
    }
    EXPECT_EQ(outside, 0u);
  });
}

TEST(ThePageIsMonotonicAcrossProcessors) {
  const ReferenceTsc tsc;
  static Order order;
  OnAllCpus([&] {
    for (int i = 0; i < 300; ++i) {
      order.Observe([&] { return tsc.Read(); });
      order.Observe(Now);
    }
  });
  EXPECT_EQ(order.backwards(), 0u);
}

TEST(ThePagesScaleIsTheFrequencys) {
  const ReferenceTsc tsc;
  if (!tsc.valid()) SKIP("this host's TSC is no clock for KVM");
  // scale = 10^7 x 2^64 / frequency, rounded down: back to it within a Hz or so.
  const uint64_t hz = ReadMsr(kHvMsrTscFrequency);
  uint64_t high, low;
  asm("mulq %3" : "=d"(high), "=a"(low) : "a"(hz), "r"(tsc.page().scale) : "cc");
  EXPECT_GE(high, kTicksPerSecond - 1);
  EXPECT_LE(high, kTicksPerSecond);
}

TEST(TheTscRunsAtItsFrequency) {
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    const uint64_t hz = ReadMsr(kHvMsrTscFrequency);
    EXPECT_EQ(hz % 1000, 0u);
    const uint64_t start = Now();
    const uint64_t start_tsc = ReadTsc();
    ASSERT_TRUE(WaitFor([&] { return Now() - start >= 50 * kMillisecond; }));
    const uint64_t tsc = ReadTsc() - start_tsc;
    const uint64_t ticks = Now() - start;
    // Within a tenth: the two are read at slightly different times, on a machine that may be busy.
    const uint64_t measured = tsc * 1000 / ticks * (kTicksPerSecond / 1000);
    Note("measured Hz", measured);
    EXPECT_GT(measured, hz - hz / 10);
    EXPECT_LT(measured, hz + hz / 10);
  });
}

TEST(TheApicTimerRunsAtItsFrequency) {
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    const uint64_t hz = ReadMsr(kHvMsrApicFrequency);
    constexpr uint32_t kMasked = 1 << 16;
    WriteApic(kApicLvtTimer, kMasked);
    WriteApic(kApicTimerDivide, 0xb);  // by 1
    const uint64_t start = Now();
    WriteApic(kApicTimerInitial, ~uint32_t{0});
    const bool came = WaitFor([&] { return Now() - start >= 50 * kMillisecond; });
    const uint64_t counted = ~uint32_t{0} - ReadApic(kApicTimerCurrent);
    const uint64_t ticks = Now() - start;
    WriteApic(kApicTimerInitial, 0);
    ASSERT_TRUE(came);
    const uint64_t measured = counted * 1000 / ticks * (kTicksPerSecond / 1000);
    Note("measured Hz", measured);
    EXPECT_GT(measured, hz - hz / 5);
    EXPECT_LT(measured, hz + hz / 5);
  });
}

TEST(RuntimeGrowsWhereAProcessorRunsAndNoFasterThanTime) {
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    const uint64_t start_time = Now();
    const uint64_t start = ReadMsr(kHvMsrVpRuntime);
    EXPECT_TRUE(WaitFor([&] { return ReadMsr(kHvMsrVpRuntime) - start >= 5 * kMillisecond; }));
    const uint64_t ran = ReadMsr(kHvMsrVpRuntime) - start;
    EXPECT_LE(ran, Now() - start_time + kMillisecond);
  });
}

TEST(RuntimeOfAHaltedProcessorStands) {
  if (CpuCount() < 2) SKIP("one processor");
  uint64_t before, after;
  OnCpu(1, [&] { before = ReadMsr(kHvMsrVpRuntime); });
  const uint64_t start = Now();
  ASSERT_TRUE(WaitFor([&] { return Now() - start >= 100 * kMillisecond; }));
  OnCpu(1, [&] { after = ReadMsr(kHvMsrVpRuntime); });
  EXPECT_GE(after, before);
  // KVM polls a little before it sleeps, and waking costs something.
  EXPECT_LT(after - before, 50 * kMillisecond);
}

}  // namespace
}  // namespace guest
