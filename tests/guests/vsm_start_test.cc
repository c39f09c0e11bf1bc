// StartVirtualProcessor where there is a VTL1: it runs first, and may forbid it.
//
// Known gap: start-up interrupts should be dropped there, and are not tried, because KVM's local APICs of VTL0 take them.
#include "tests/guests/hyperv/vp_context.h"
#include "tests/guests/hyperv/vsm_level.h"
#include "tests/guests/runtime/interrupts.h"
#include "tests/guests/runtime/machine.h"
#include "tests/guests/runtime/per_cpu.h"
#include "tests/guests/runtime/test.h"
#include "tests/guests/runtime/wait.h"

// Where VTL0 of a processor begins: its number is on its stack.
asm(R"(
.text
.code64
guest_start_vtl0:
  popq %rdi
  xorl %ebp, %ebp
  call guest_vtl0_started
)");

extern "C" {
extern char guest_start_vtl0[], guest_stacks[];
[[noreturn]] void guest_vtl0_started(uint32_t number);
}

namespace guest {

bool StartsOtherCpus() { return false; }

namespace {

using Name = HvRegisterName;

uint32_t Processors() {
  static uint32_t count = static_cast<uint32_t>(ReadFwCfg(kFwCfgCpus, 2));
  return count;
}

HvInitialVpContext Vtl0Context(uint32_t cpu) {
  const uint64_t stack = reinterpret_cast<uint64_t>(guest_stacks) + (uint64_t{cpu} + 1) * kStackBytes - 24;
  Store<uint64_t>(stack, cpu);
  return ContextLikeThis(reinterpret_cast<uint64_t>(guest_start_vtl0), stack);
}

uint64_t EnableFromVtl1(uint32_t cpu) {
  uint64_t answer = 0;
  const HvInitialVpContext context = SecureContext(cpu);
  InVtl1([&] { answer = EnableVpVtl(cpu, 1, context); });
  return answer;
}
uint64_t SetConfig(uint64_t value) {
  uint64_t answer = 0;
  InVtl1([&] { answer = SetRegister(Name::kVsmPartitionConfig, {value, 0}); });
  return answer;
}

TEST(Vtl1IsEnabledOnProcessorsThatDoNotRun) {
  EnableVtl1();  // on processor 0: there is no other yet
  for (uint32_t cpu = 1; cpu < Processors(); ++cpu) {
    EXPECT_EQ(EnableFromVtl1(cpu), Success());
    EXPECT_EQ(EnableFromVtl1(cpu), Answer(HvStatus::kVtlAlreadyEnabled));
  }
  EXPECT_EQ(CountsOf(0).others.Load(), 0u);
}

TEST(Vtl1MayDenyIt) {
  constexpr uint64_t kDeny = vmm::kHvConfigDefaultMask | vmm::kHvConfigZeroMemory | vmm::kHvConfigDenyStartup;
  EXPECT_EQ(SetConfig(kDeny), Success(1));
  if (Processors() > 1) {
    EXPECT_EQ(StartVp(1, 0, Vtl0Context(1)), Answer(HvStatus::kAccessDenied));
    EXPECT_FALSE(WaitFor([] { return g_cpus[1].online.Load(); }, 10'000'000));
  }
  EXPECT_EQ(SetConfig(vmm::kHvConfigReset), Success(1));
}

TEST(Vtl1RunsFirst) {
  for (uint32_t cpu = 1; cpu < Processors(); ++cpu) {
    const Context context("cpu", cpu);
    EXPECT_EQ(StartVp(cpu, 0, Vtl0Context(cpu)), Success());
    ASSERT_TRUE(AdoptCpu(cpu));
    // Once, and for none of the reasons that there are.
    EXPECT_EQ(CountsOf(cpu).calls.Load(), 1u);
    EXPECT_EQ(CountsOf(cpu).first_reason, 0u);
    OnCpu(cpu, [cpu] {
      EXPECT_EQ(ThisLevel(), 0u);
      InVtl1([cpu] { EXPECT_EQ(ReadMsr(vmm::kHvMsrVpIndex), cpu); });
    });
    EXPECT_EQ(StartVp(cpu, 0, Vtl0Context(cpu)), Answer(HvStatus::kInvalidVpState));
  }
  EXPECT_GE(CpuCount(), 1u);
}

TEST(TheLevelMustBeThere) {
  if (Processors() == 1) SKIP("one processor");
  EXPECT_EQ(StartVp(1, 1, SecureContext(1)), Answer(HvStatus::kAccessDenied));  // above the caller
  InVtl1([] { EXPECT_EQ(StartVp(1, 2, Vtl0Context(1)), Answer(HvStatus::kAccessDenied)); });
}

}  // namespace
}  // namespace guest

void guest_vtl0_started(uint32_t number) { guest::CpuMain(number); }
