// StartVirtualProcessor: processors that wait for a start-up interrupt begin with a context instead. No other processor runs at
// first.
#include "tests/guests/hypercalls.h"
#include "tests/guests/hyperv/vp_context.h"
#include "tests/guests/runtime/apic.h"
#include "tests/guests/runtime/atomic.h"
#include "tests/guests/runtime/interrupts.h"
#include "tests/guests/runtime/machine.h"
#include "tests/guests/runtime/per_cpu.h"
#include "tests/guests/runtime/test.h"
#include "tests/guests/runtime/wait.h"

// Where a processor begins: its number is on its stack. What it finds goes to g_began.
asm(R"(
.text
.code64
guest_begin:
  pushfq
  popq %rax
  orq %r8, %rbx
  orq %r9, %rbx
  orq %r10, %rbx
  orq %r11, %rbx
  orq %r12, %rbx
  orq %r13, %rbx
  orq %r14, %rbx
  orq %r15, %rbx
  orq %rcx, %rbx
  orq %rbp, %rbx
  popq %rdi
  movq %rax, %rsi
  movq %rbx, %rdx
  movq %rsp, %rcx
  xorl %ebp, %ebp
  call guest_began
)");

extern "C" {
extern char guest_begin[], guest_stacks[];
[[noreturn]] void guest_began(uint32_t number, uint64_t flags, uint64_t registers, uint64_t rsp);
}

namespace guest {

bool StartsOtherCpus() { return false; }

namespace {

using vmm::HvInitialVpContext;
using vmm::HvStartVirtualProcessorInput;
using vmm::kHvPartitionIdSelf;

constexpr uint32_t kMsrEfer = 0xc000'0080;
constexpr uint32_t kMsrPat = 0x277;
constexpr uint64_t kPat = 0x0407'0506'0007'0106;
constexpr uint32_t kSelf = 0xffff'fffe;

uint32_t ProcessorsOfMachine() {
  static uint32_t count = static_cast<uint32_t>(ReadFwCfg(kFwCfgCpus, 2));
  return count;
}

struct Began {
  Atomic<uint64_t> count;
  uint64_t flags, registers, rsp;
  uint64_t cr0, cr3, cr4, efer, pat, fs_base;
  uint16_t cs, ss, fs, tr;
  uint32_t apic_id;
};
Began g_began[kMaxCpus];

uint64_t StackOf(uint32_t number) {
  const uint64_t at = reinterpret_cast<uint64_t>(guest_stacks) + (uint64_t{number} + 1) * kStackBytes - 24;
  Store<uint64_t>(at, number);
  return at;
}

HvInitialVpContext GoodContext(uint32_t number) {
  HvInitialVpContext c = ContextLikeThis(reinterpret_cast<uint64_t>(guest_begin), StackOf(number));
  c.fs.base = 0x1234'5000;
  c.pat = kPat;
  return c;
}

HvStartVirtualProcessorInput Input(uint32_t vp, const HvInitialVpContext& context) {
  return {.partition_id = kHvPartitionIdSelf, .vp_index = vp, .target_vtl = 0, .reserved = {}, .context = context};
}
uint64_t Start(const HvStartVirtualProcessorInput& input) {
  Block().Put(input);
  return CallMemory({.code = HypercallCode::kStartVirtualProcessor});
}

TEST(NobodyRunsThatHasNotBeenStarted) {
  EnableHypercalls();
  EXPECT_EQ(CpuCount(), 1u);
  EXPECT_GE(ProcessorsOfMachine(), 1u);
}

TEST(TargetsAreCheckedInTheirOrder) {
  HvStartVirtualProcessorInput input = Input(0, {});  // a bad context comes last
  const auto own = [&](uint32_t vp) {
    input.vp_index = vp;
    return Start(input);
  };
  EXPECT_EQ(own(0), Answer(HvStatus::kInvalidVpIndex));
  EXPECT_EQ(own(kSelf), Answer(HvStatus::kInvalidVpIndex));
  EXPECT_EQ(own(ProcessorsOfMachine()), Answer(HvStatus::kInvalidVpIndex));
  EXPECT_EQ(own(0xffff'ffff), Answer(HvStatus::kInvalidVpIndex));
  input.target_vtl = 0xff;
  EXPECT_EQ(own(0), Answer(HvStatus::kInvalidVpIndex));
  input.partition_id = 2;
  EXPECT_EQ(own(0), Answer(HvStatus::kInvalidPartitionId));
  EXPECT_EQ(CallBlockInRegisters({.code = HypercallCode::kStartVirtualProcessor}), Answer(HvStatus::kInvalidHypercallInput));
  if (ProcessorsOfMachine() == 1) return;
  input = Input(1, {});
  input.reserved[0] = 1;
  input.target_vtl = 1;
  EXPECT_EQ(Start(input), Answer(HvStatus::kAccessDenied));
  input.target_vtl = 3;
  EXPECT_EQ(Start(input), Answer(HvStatus::kInvalidParameter));
  input.target_vtl = 0;
  EXPECT_EQ(Start(input), Answer(HvStatus::kInvalidParameter));
}

TEST(BadContextsStartNobody) {
  if (ProcessorsOfMachine() == 1) SKIP("one processor");
  const auto bad = [](uint32_t what, auto spoil) {
    const Context context("case", what);
    HvStartVirtualProcessorInput input = Input(1, GoodContext(1));
    spoil(input.context);
    EXPECT_EQ(Start(input), Answer(HvStatus::kInvalidRegisterValue));
  };
  bad(0, [](HvInitialVpContext& c) { c = {}; });
  bad(1, [](HvInitialVpContext& c) { c.rip = uint64_t{1} << 60; });
  bad(2, [](HvInitialVpContext& c) { c.rflags |= 1 << 17; });  // virtual 8086
  bad(3, [](HvInitialVpContext& c) { c.rflags = 0; });
  bad(4, [](HvInitialVpContext& c) { c.cs.attributes &= static_cast<uint16_t>(~0x80); });
  bad(5, [](HvInitialVpContext& c) { c.cs.attributes |= 0x4000; });  // long and default
  bad(6, [](HvInitialVpContext& c) { c.efer &= ~uint64_t{0x400}; });
  bad(7, [](HvInitialVpContext& c) { c.efer |= 0x1000; });  // SVME: not in this machine's CPUID, which KVM looks at
  bad(8, [](HvInitialVpContext& c) { c.efer |= 0x8000; });
  bad(9, [](HvInitialVpContext& c) { c.efer |= uint64_t{1} << 40; });
  bad(10, [](HvInitialVpContext& c) { c.cr0 |= uint64_t{1} << 32; });
  bad(11, [](HvInitialVpContext& c) { c.cr0 &= ~uint64_t{1}; });
  bad(12, [](HvInitialVpContext& c) { c.cr4 &= ~uint64_t{0x20}; });
  bad(13, [](HvInitialVpContext& c) { c.cr4 |= uint64_t{1} << 31; });  // which only KVM knows not to be there
  bad(14, [](HvInitialVpContext& c) { c.cr3 |= uint64_t{1} << 51; });  // beyond the processor's addresses
  bad(15, [](HvInitialVpContext& c) { c.pat = 2; });
  bad(16, [](HvInitialVpContext& c) { c.tr.attributes = 0; });
  bad(17, [](HvInitialVpContext& c) { c.gdtr.base = uint64_t{1} << 47; });
  bad(18, [](HvInitialVpContext& c) { c.ss.limit = 0xffff'0000; });
  SpinTicks(3'000'000);
  EXPECT_EQ(g_began[1].count.Load(), 0u);
}

// All of them, the second by the first that was started so, and so on: who asks and who runs may be anybody.
TEST(AProcessorBeginsWithItsContext) {
  if (ProcessorsOfMachine() == 1) SKIP("one processor");
  for (uint32_t vp = 1; vp < ProcessorsOfMachine(); ++vp) {
    const Context context("vp", vp);
    // The last is left to a start-up interrupt, below.
    if (vp == 3) break;
    OnCpu(vp - 1, [vp] { EXPECT_EQ(Start(Input(vp, GoodContext(vp))), Success()); });
    ASSERT_TRUE(WaitFor([vp] { return g_began[vp].count.Load() == 1; }));
    const Began& began = g_began[vp];
    EXPECT_EQ(began.apic_id, vp);
    EXPECT_EQ(began.flags, 2u);
    EXPECT_EQ(began.registers, 0u);
    EXPECT_EQ(began.rsp, StackOf(vp) + 8);
    EXPECT_EQ(began.cr0, ReadCr0());
    EXPECT_EQ(began.cr3, ReadCr3());
    EXPECT_EQ(began.cr4, ReadCr4());
    EXPECT_EQ(began.efer, ReadMsr(kMsrEfer));
    EXPECT_EQ(began.pat, kPat);
    EXPECT_EQ(began.fs_base, 0x1234'5000u);
    EXPECT_EQ(began.cs, 8);
    EXPECT_EQ(began.ss, 0x10);
    EXPECT_EQ(began.fs, 0x10);
    EXPECT_EQ(began.tr, 0x30);
    ASSERT_TRUE(AdoptCpu(vp));
    // A full member of the machine.
    OnCpu(vp, [vp] {
      EXPECT_EQ(ReadMsr(vmm::kHvMsrVpIndex), vp);
      EXPECT_EQ(CallFast({.code = HypercallCode::kNotifyLongSpinWait}), Success());
    });
  }
}

TEST(WhoRunsCannotBeStarted) {
  if (CpuCount() == 1) SKIP("one processor");
  const uint32_t last = CpuCount() - 1;
  EXPECT_EQ(Start(Input(last, GoodContext(last))), Answer(HvStatus::kInvalidVpState));
  OnCpu(last, [last] {
    EXPECT_EQ(Start(Input(0, GoodContext(0))), Answer(HvStatus::kInvalidVpState));
    EXPECT_EQ(Start(Input(last, GoodContext(last))), Answer(HvStatus::kInvalidVpIndex));
  });
  EXPECT_EQ(g_began[last].count.Load(), 1u);
  // A bad context comes first.
  EXPECT_EQ(Start(Input(last, {})), Answer(HvStatus::kInvalidRegisterValue));
}

// Two ask for the same one at the same time: one of them has started it.
TEST(AProcessorIsStartedOnce) {
  if (ProcessorsOfMachine() < 4) SKIP("fewer than four processors");
  Atomic<uint64_t> started, refused;
  Atomic<uint32_t> ready;
  OnAllCpus([&] {
    const HvInitialVpContext context = GoodContext(3);
    Block().Put(Input(3, context));
    ready.Add(1);
    while (ready.Load() < CpuCount()) Pause();
    const uint64_t answer = CallMemory({.code = HypercallCode::kStartVirtualProcessor});
    started.Add(answer == Success());
    refused.Add(answer == Answer(HvStatus::kInvalidVpState));
  });
  EXPECT_EQ(started.Load(), 1u);
  EXPECT_EQ(refused.Load(), 2u);
  ASSERT_TRUE(AdoptCpu(3));
  EXPECT_EQ(g_began[3].count.Load(), 1u);
}

// Back to waiting by INIT: then it can be started again, by whoever comes first, in either way.
TEST(InitMakesAProcessorStartable) {
  if (CpuCount() == 1) SKIP("one processor");
  constexpr uint32_t kIcrInit = 0x4500;
  g_cpus[1].online.Store(false);
  WriteIcr(1, kIcrInit);
  uint64_t answer = 0;
  EXPECT_TRUE(WaitFor([&] {
    answer = Start(Input(1, GoodContext(1)));
    return answer != Answer(HvStatus::kInvalidVpState);
  }));
  EXPECT_EQ(answer, Success());
  EXPECT_TRUE(AdoptCpu(1));
  EXPECT_EQ(g_began[1].count.Load(), 2u);
  g_cpus[1].online.Store(false);
  EXPECT_TRUE(StartCpu(1));
  EXPECT_EQ(g_began[1].count.Load(), 2u);
  OnCpu(1, [] { EXPECT_EQ(CallFast({.code = HypercallCode::kNotifyLongSpinWait}), Success()); });
}

}  // namespace
}  // namespace guest

void guest_began(uint32_t number, uint64_t flags, uint64_t registers, uint64_t rsp) {
  using namespace guest;
  Began& began = g_began[number];
  began.flags = flags;
  began.registers = registers;
  began.rsp = rsp;
  began.cr0 = ReadCr0();
  began.cr3 = ReadCr3();
  began.cr4 = ReadCr4();
  began.efer = ReadMsr(kMsrEfer);
  began.pat = ReadMsr(kMsrPat);
  began.fs_base = ReadMsr(0xc000'0100);
  asm volatile("mov %%cs, %0" : "=r"(began.cs));
  asm volatile("mov %%ss, %0" : "=r"(began.ss));
  asm volatile("mov %%fs, %0" : "=r"(began.fs));
  asm volatile("str %0" : "=r"(began.tr));
  began.apic_id = Cpuid(1).ebx >> 24;
  began.count.Add(1);
  CpuMain(number);
}
