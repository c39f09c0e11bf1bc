// A guest that writes anything to anywhere: nothing ends the machine, and afterwards it works as before.
//
// What is left out, because it would only harm the guest itself: overlays over its own code, vectors below 32, INIT and NMI by
// the ICR; RESET and the crash notice, which end the machine as they should; the lock of the hypercall page, which cannot be
// undone; and periods so short that KVM's timers leave a guest no time (ours have a least period).
#include "devices/hyperv/hv_msr_layout.h"
#include "tests/guests/runtime/cpu.h"
#include "tests/guests/runtime/interrupts.h"
#include "tests/guests/runtime/memory.h"
#include "tests/guests/runtime/smp.h"
#include "tests/guests/runtime/test.h"
#include "tests/guests/runtime/wait.h"

namespace guest {
namespace {

using namespace vmm;

constexpr uint32_t kFirstUsedVector = 0x20;
constexpr uint32_t kScratchPages = 4;
constexpr uint64_t kFirstNotRam = (64 << 20) / kPageBytes;
constexpr uint64_t kLinuxId = uint64_t{0x8100} << 48;
constexpr uint64_t kShortestCount = 200'000;  // 20 ms

class Random final {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e37'79b9'7f4a'7c15 + 1) {}
  uint64_t Next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_;
  }
  uint64_t Below(uint64_t end) { return Next() % end; }
  // Few bits set, few clear, near a power of two, or anything.
  uint64_t Value() {
    switch (Below(6)) {
      case 0: return Below(4);
      case 1: return uint64_t{1} << Below(64);
      case 2: return ~(uint64_t{1} << Below(64));
      case 3: return (uint64_t{1} << Below(64)) - Below(2);
      case 4: return Next() >> Below(64);
      default: return Next();
    }
  }

 private:
  uint64_t state_;
};

uint64_t g_scratch;

bool IsPageRegister(uint32_t msr) {
  return msr == kHvMsrHypercall || msr == kHvMsrReferenceTsc || msr == kHvMsrVpAssistPage || msr == kHvMsrSiefp ||
         msr == kHvMsrSimp;
}
bool IsSint(uint32_t msr) { return msr >= kHvMsrSint0 && msr < kHvMsrSint0 + 16; }
bool IsTimer(uint32_t msr) { return msr >= kHvMsrStimer0Config && msr <= kHvMsrStimer3Count; }

// The value without what is left out (see the top).
uint64_t Tame(uint32_t msr, uint64_t value, Random& random) {
  if (IsPageRegister(msr)) {
    if (msr == kHvMsrHypercall) value &= ~kHvHypercallLocked;
    const uint64_t page = value >> kHvOverlayPageShift;
    if (page < kFirstNotRam || random.Below(2) == 0) {
      value = (value & (kPageBytes - 1)) | (g_scratch + kPageBytes * random.Below(kScratchPages));
    }
    return value;
  }
  if (IsSint(msr)) {
    const uint64_t vector = value & kHvSintVectorMask;
    return vector >= kHvFirstVector && vector < kFirstUsedVector ? value | kFirstUsedVector : value;
  }
  if (IsTimer(msr)) {
    if ((msr - kHvMsrStimer0Config) % 2 == 0) return value | kFirstUsedVector << kHvStimerVectorShift;
    return value != 0 && value < kShortestCount ? value + kShortestCount : value;
  }
  if (msr == kHvMsrIcr) return (value & 0xff00'0000'000c'00ff) | kFirstUsedVector;
  if (msr == kHvMsrReset) return value == kHvResetNow ? 2 : value;
  if (msr == kHvMsrCrashCtl) return value & ~kHvCrashNotify;
  return value;
}

uint32_t RandomMsr(Random& random) {
  switch (random.Below(8)) {
    case 0: return kHvMsrFirst + static_cast<uint32_t>(random.Below(kHvMsrCount));
    case 1: return kHvMsrFirst + static_cast<uint32_t>(random.Below(0x2000));
    case 2: return kHvMsrStimer0Config + static_cast<uint32_t>(random.Below(8));
    case 3: return kHvMsrSint0 + static_cast<uint32_t>(random.Below(16));
    case 4: return kHvMsrScontrol + static_cast<uint32_t>(random.Below(6));
    case 5: return kHvMsrEoi + static_cast<uint32_t>(random.Below(4));
    case 6: return kHvMsrGuestOsId + static_cast<uint32_t>(random.Below(2));
    default: return kHvMsrReferenceTsc;
  }
}

// This processor's registers as they were at reset.
void Reset() {
  for (uint32_t msr = kHvMsrStimer0Config; msr <= kHvMsrStimer3Count; ++msr) WriteMsr(msr, 0);
  for (uint32_t sint = 0; sint < 16; ++sint) WriteMsr(kHvMsrSint0 + sint, kHvSintReset);
  for (const uint32_t msr : {kHvMsrVpAssistPage, kHvMsrSiefp, kHvMsrSimp, kHvMsrTpr, kHvMsrEom}) WriteMsr(msr, 0);
  WriteMsr(kHvMsrScontrol, kHvScontrolEnable);
}

struct Counts {
  uint64_t accesses, faults, other_faults;
};

Counts Storm(uint64_t seed, uint32_t count) {
  Random random(seed);
  Counts counts{};
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t msr = RandomMsr(random);
    Fault fault;
    uint64_t value = Tame(msr, random.Value(), random);
    if (random.Below(4) == 0) {
      fault = TryReadMsr(msr, value);
    } else {
      fault = TryWriteMsr(msr, value);
    }
    ++counts.accesses;
    counts.faults += fault.raised();
    counts.other_faults += fault.raised() && fault.vector != kGeneralProtection;
    // All interrupts in again, or the runtime's own would not come.
    if (msr == kHvMsrTpr) WriteMsr(kHvMsrTpr, 0);
  }
  Reset();
  return counts;
}

void CountAllInterrupts() {
  for (uint32_t vector = kFirstUsedVector; vector < 0xfe; ++vector) CountInterrupts(static_cast<uint8_t>(vector), Eoi::kApic);
}

void ResetPartition() {
  for (const uint32_t msr : {kHvMsrReferenceTsc, kHvMsrHypercall, kHvMsrGuestOsId}) WriteMsr(msr, 0);
}

TEST(AnyRegisterAndAnyValueOnOneProcessor) {
  g_scratch = GpaOf(AllocatePages(kScratchPages));
  CountAllInterrupts();
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    const Counts counts = Storm(100 + ThisCpuNumber(), 1500);
    EXPECT_EQ(counts.other_faults, 0u);
    EXPECT_GT(counts.faults, 0u);
    EXPECT_LT(counts.faults, counts.accesses);
  });
  ResetPartition();
}

TEST(AnyRegisterAndAnyValueOnAllProcessorsAtOnce) {
  CountAllInterrupts();
  OnAllCpus([] {
    const Counts counts = Storm(200 + ThisCpuNumber(), 1500);
    EXPECT_EQ(counts.other_faults, 0u);
  });
  ResetPartition();
}

// Overlays alone, over each other and over what others write to: the most that the host's mapping has to bear.
TEST(OverlaysOfAllProcessorsOverTheSamePages) {
  OnAllCpus([] {
    Random random(300 + ThisCpuNumber());
    constexpr uint32_t kPages[] = {kHvMsrHypercall, kHvMsrReferenceTsc, kHvMsrVpAssistPage, kHvMsrSiefp, kHvMsrSimp};
    uint64_t other_faults = 0;
    WriteMsr(kHvMsrGuestOsId, kLinuxId);
    for (uint32_t i = 0; i < 60; ++i) {
      const uint32_t msr = kPages[random.Below(5)];
      const uint64_t page = g_scratch + kPageBytes * random.Below(kScratchPages);
      WriteMsr(msr, page | random.Below(2));
      const Fault fault = Catch([&] { Store<uint64_t>(g_scratch + 8 * random.Below(kScratchPages * kPageBytes / 8), 1); });
      other_faults += fault.raised() && fault.vector != kGeneralProtection;
    }
    EXPECT_EQ(other_faults, 0u);
    Reset();
  });
  ResetPartition();
  // RAM again, all of it.
  for (uint32_t page = 0; page < kScratchPages; ++page) {
    EXPECT_NO_FAULT(memset(reinterpret_cast<void*>(g_scratch + page * kPageBytes), 0x5a, kPageBytes));
    EXPECT_EQ(Load<uint8_t>(g_scratch + page * kPageBytes + 100), 0x5a);
  }
}

TEST(AfterwardsAllIsAsBefore) {
  OnEachCpu([] {
    const Context context("cpu", ThisCpuNumber());
    EXPECT_EQ(ReadMsr(kHvMsrVpIndex), ThisCpuNumber());
    EXPECT_EQ(ReadMsr(kHvMsrScontrol), kHvScontrolEnable);
    EXPECT_EQ(ReadMsr(kHvMsrHypercall), 0u);
    const uint64_t time = ReadMsr(kHvMsrTimeRefCount);
    EXPECT_TRUE(WaitFor([&] { return ReadMsr(kHvMsrTimeRefCount) > time; }));
    // A direct timer, once.
    constexpr uint8_t kVector = 0x71;
    CountInterrupts(kVector, Eoi::kApic);
    const uint64_t before = InterruptCount(kVector);
    WriteMsr(kHvMsrStimer0Config, kHvStimerAutoEnable | kHvStimerDirect | uint64_t{kVector} << kHvStimerVectorShift);
    WriteMsr(kHvMsrStimer0Config + 1, ReadMsr(kHvMsrTimeRefCount) + 10'000);
    EXPECT_TRUE(WaitFor([&] { return InterruptCount(kVector) == before + 1; }));
    EXPECT_EQ(ReadMsr(kHvMsrStimer0Config) & kHvStimerEnable, 0u);
    Reset();
    // The SynIC's page of messages is placed, and zero or what an earlier timer left.
    WriteMsr(kHvMsrSimp, g_scratch | kHvOverlayEnable);
    EXPECT_NE(Load<uint8_t>(g_scratch + 100), 0x5a);
    WriteMsr(kHvMsrSimp, 0);
    EXPECT_EQ(Load<uint8_t>(g_scratch + 100), 0x5a);
  });
}

}  // namespace
}  // namespace guest
