// VTL calls and returns: general and vector registers pass through both ways, and who entered why.
#include "tests/guests/hyperv/vsm_level.h"
#include "tests/guests/runtime/interrupts.h"
#include "tests/guests/runtime/random.h"
#include "tests/guests/runtime/tally.h"
#include "tests/guests/runtime/test.h"

namespace guest {
namespace {

constexpr uint32_t kRounds = 100;

struct alignas(16) FpState {
  uint8_t bytes[512];
};
void SaveFp(FpState& state) { asm volatile("fxsave64 %0" : "=m"(state) : : "memory"); }
void LoadFp(const FpState& state) { asm volatile("fxrstor64 %0" : : "m"(state) : "memory"); }

// x87 with its control words, MXCSR, XMM0 to XMM15: all of it another for each seed.
FpState FpOf(uint64_t seed) {
  FpState state;
  SaveFp(state);
  Random random(seed);
  for (uint32_t i = 32; i < 416; ++i) {
    if (i < 160 && i % 16 >= 10) continue;  // behind an x87 register
    state.bytes[i] = static_cast<uint8_t>(random.Next());
  }
  state.bytes[0] = seed % 2 == 0 ? 0x7f : 0x7e;  // FCW
  state.bytes[4] = 0xff;                         // tags: all in use
  state.bytes[25] = seed % 2 == 0 ? 0x1f : 0x3f;  // MXCSR: rounding
  return state;
}
// The first byte that differs from `want`, or kSame. Where an instruction was (FIP, FDP) and the reserved ones do not count.
constexpr uint32_t kSame = 416;
uint32_t DifferenceFrom(const FpState& want) {
  FpState got;
  SaveFp(got);
  for (uint32_t i = 0; i < kSame; ++i) {
    const bool counts = i < 2 || i == 4 || (i >= 24 && i < 28) || (i >= 32 && (i >= 160 || i % 16 < 10));
    if (counts && got.bytes[i] != want.bytes[i]) return i;
  }
  return kSame;
}

// Everything but RSP, and RDI and RSI, by which VTL1 knows what to do.
uint64_t* Shared(VtlFrame& f, uint32_t i) {
  uint64_t* const all[] = {&f.rdx, &f.rbx, &f.r8, &f.r9, &f.r10, &f.r11, &f.r12, &f.r13};
  return all[i];
}
uint64_t* Shared(Registers& r, uint32_t i) {
  uint64_t* const all[] = {&r.rdx, &r.rbx, &r.r8, &r.r9, &r.r10, &r.r11, &r.r12, &r.r13};
  return all[i];
}

TEST(GeneralRegistersPassBothWays) {
  EnableVtl1();
  Tally tally;
  OnEachCpu([&] {
    struct Work {
      Tally& tally;
      Random there{1}, back{2};
    } work{tally};
    Random here(1), expected(2);
    for (uint32_t round = 0; round < 10; ++round) {
      Registers r;
      for (uint32_t i = 0; i < 8; ++i) *Shared(r, i) = here.Next();
      r.rcx = 0;
      r.rsi = reinterpret_cast<uint64_t>(&work);
      r.rdi = reinterpret_cast<uint64_t>(static_cast<void (*)(void*)>([](void* argument) {
        auto& work = *static_cast<Work*>(argument);
        VtlFrame& frame = FrameOf(ThisCpuNumber());
        for (uint32_t i = 0; i < 8; ++i) work.tally.Equal(*Shared(frame, i), work.there.Next(), "as VTL0 had it");
        work.tally.Equal(frame.rax, 0, "the control input, where the page has put it");
        work.tally.Equal(frame.rcx, static_cast<uint64_t>(HypercallCode::kVtlCall), "the control word");
        for (uint32_t i = 0; i < 8; ++i) *Shared(frame, i) = work.back.Next();
        frame.rax = work.back.Next();
        frame.rcx = work.back.Next();
      }));
      CallWithRegisters(VtlCallEntry(), r);
      for (uint32_t i = 0; i < 8; ++i) tally.Equal(*Shared(r, i), expected.Next(), "as VTL1 left it");
      tally.Equal(r.rax, expected.Next(), "RAX, from the assist page");
      tally.Equal(r.rcx, expected.Next(), "RCX, from the assist page");
    }
  });
  EXPECT_TRUE(tally.ok());
}

TEST(FastReturnsLeaveRaxAndRcx) {
  InVtl1([] { SetFastReturn(true); });
  InVtl1([] { FrameOf(ThisCpuNumber()).rax = FrameOf(ThisCpuNumber()).rcx = 0x5555; });
  Registers r;
  CallWithRegisters(VtlCallEntry(), r);
  // What VTL1's page had in them: the control input, and the control word.
  EXPECT_EQ(r.rax, 1u);
  EXPECT_EQ(r.rcx, static_cast<uint64_t>(HypercallCode::kVtlReturn));
  InVtl1([] { SetFastReturn(false); });
  CallWithRegisters(VtlCallEntry(), r = {});
  EXPECT_EQ(r.rax, 0u);
  EXPECT_EQ(r.rcx, static_cast<uint64_t>(HypercallCode::kVtlCall));
}

TEST(FloatingPointIsShared) {
  Tally tally;
  OnEachCpu([&] {
    FpState before;
    SaveFp(before);
    for (uint64_t seed = 2; seed < 6; seed += 2) {
      const FpState here = FpOf(seed), there = FpOf(seed + 1);
      // Nothing that is compiled touches these in between.
      LoadFp(here);
      InVtl1([&] {
        tally.Equal(DifferenceFrom(here), kSame, "VTL1 has VTL0's");
        LoadFp(there);
      });
      tally.Equal(DifferenceFrom(there), kSame, "VTL0 has VTL1's");
    }
    LoadFp(before);
  });
  EXPECT_TRUE(tally.ok());
}

TEST(WideVectorsAndXcr0AreShared) {
  const uint32_t features = Cpuid(1).ecx;
  if ((features >> 26 & 1) == 0 || (features >> 28 & 1) == 0) SKIP("no AVX");
  constexpr uint64_t kOsXsave = 1 << 18;
  const auto xgetbv = [] {
    uint32_t low, high;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return uint64_t{high} << 32 | low;
  };
  const auto xsetbv = [](uint64_t value) {
    asm volatile("xsetbv" : : "a"(static_cast<uint32_t>(value)), "d"(static_cast<uint32_t>(value >> 32)), "c"(0));
  };
  const auto load = [](const uint64_t* words) { asm volatile("vmovdqu (%0), %%ymm7" : : "r"(words) : "memory"); };
  const auto store = [](uint64_t* words) { asm volatile("vmovdqu %%ymm7, (%0)" : : "r"(words) : "memory"); };
  WriteCr4(ReadCr4() | kOsXsave);
  InVtl1([&] { WriteCr4(ReadCr4() | kOsXsave); });
  xsetbv(7);
  uint64_t seen = 0;
  InVtl1([&] { seen = xgetbv(); });
  EXPECT_EQ(seen, 7u);
  const uint64_t here[] = {1, 2, 0x3333'0000'3333'0000, 0x4444'4444'0000'0004}, there[] = {5, 6, 7, ~uint64_t{8}};
  uint64_t got[4] = {};
  load(here);
  InVtl1([&] {
    store(got);
    load(there);
  });
  EXPECT_EQ(memcmp(got, here, sizeof(got)), 0);
  store(got);
  EXPECT_EQ(memcmp(got, there, sizeof(got)), 0);
  InVtl1([&] { xsetbv(3); });
  EXPECT_EQ(xgetbv(), 3u);
  xsetbv(1);
  InVtl1([&] { WriteCr4(ReadCr4() & ~kOsXsave); });
  WriteCr4(ReadCr4() & ~kOsXsave);
}

TEST(ManyCallsOnAllProcessorsAtOnce) {
  Tally tally;
  uint32_t before[kMaxVsmCpus];
  for (uint32_t cpu = 0; cpu < CpuCount(); ++cpu) before[cpu] = CountsOf(cpu).calls.Load();
  OnAllCpus([&] {
    uint64_t sum = 0;
    for (uint32_t round = 0; round < kRounds; ++round) InVtl1([&] { sum += round + ThisCpuNumber(); });
    tally.Equal(sum, uint64_t{kRounds} * (kRounds - 1) / 2 + uint64_t{kRounds} * ThisCpuNumber(), "each call once, on its processor");
    tally.True(InterruptsEnabled(), "RFLAGS are VTL0's");
  });
  for (uint32_t cpu = 0; cpu < CpuCount(); ++cpu) {
    tally.Equal(CountsOf(cpu).calls.Load(), before[cpu] + kRounds, "entries that say: a call");
    tally.Equal(CountsOf(cpu).others.Load(), 0, "entries for no reason");
  }
  EXPECT_TRUE(tally.ok());
}

}  // namespace
}  // namespace guest
