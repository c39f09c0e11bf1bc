// How VTL1 comes to be: who may enable whom, in which order, and what each refusal says.
#include "tests/guests/hyperv/vsm_level.h"
#include "tests/guests/runtime/interrupts.h"
#include "tests/guests/runtime/modes.h"
#include "tests/guests/runtime/test.h"

namespace guest {
namespace {

constexpr uint64_t kOtherPartition = 5;
constexpr uint64_t kStatusBefore = uint64_t{1} << vmm::kHvPartitionStatusMaximumShift | 1;  // VTL0 is, VTL1 may be
constexpr uint64_t kStatusAfter = kStatusBefore | 2;
constexpr uint64_t kVpEnabled0 = uint64_t{1} << vmm::kHvVpStatusEnabledShift;
constexpr uint64_t kVpEnabledBoth = uint64_t{3} << vmm::kHvVpStatusEnabledShift;

uint64_t PartitionStatus() { return RegisterValue(HvRegisterName::kVsmPartitionStatus); }
uint64_t VpStatus(uint32_t vp = kSelf) { return RegisterValue(HvRegisterName::kVsmVpStatus, {.vp = vp}); }

void JumpInto(uint64_t entry, uint64_t control) {
  Registers registers;
  registers.rcx = control;
  CallWithRegisters(entry, registers);
}

TEST(WhatIsOfferedIsNotThereYet) {
  EnableHypercalls();
  const uint32_t privileges = Cpuid(0x4000'0003).ebx;
  EXPECT_EQ(privileges >> 16 & 3, 3u);  // AccessVsm, AccessVpRegisters
  EXPECT_EQ(Cpuid(0x4000'0003).eax >> 2 & 1, 1u);  // AccessSynicRegs
  EXPECT_EQ(PartitionStatus(), kStatusBefore);
  EXPECT_EQ(VpStatus(), kVpEnabled0);
  EXPECT_EQ(RegisterValue(HvRegisterName::kVsmCapabilities) & ~vmm::kHvVsmDr6Shared, vmm::kHvVsmCanDenyStartup);
  EXPECT_EQ(RegisterValue(HvRegisterName::kVsmCodePageOffsets), 0x2'600fu);
  // Another processor's, too.
  EXPECT_EQ(VpStatus(CpuCount() - 1), kVpEnabled0);
}

TEST(ThereIsNowhereToGoBeforehand) {
  EXPECT_FAULT(kUndefinedOpcode, JumpInto(HypercallPage() + 0x0f, 0));
  EXPECT_FAULT(kUndefinedOpcode, JumpInto(HypercallPage() + 0x26, 0));
  EXPECT_EQ(SetRegister(HvRegisterName::kVsmPartitionConfig, {vmm::kHvConfigEnableProtection | vmm::kHvConfigDefaultMask, 0}),
            Answer(HvStatus::kInvalidParameter));
  EXPECT_EQ(RegisterValue(HvRegisterName::kVsmPartitionConfig, {.input_vtl = OfVtl(1)}), kNoValue);
  EXPECT_EQ(ModifyProtection(0x10'0000, kReadExecute), Answer(HvStatus::kInvalidParameter));  // VTL0 restricts nobody
}

TEST(EnableVpVtlNeedsThePartitions) {
  const HvInitialVpContext context = SecureContext(0);
  EXPECT_EQ(EnableVpVtl(kSelf, 1, context, kOtherPartition), Answer(HvStatus::kInvalidPartitionId));
  EXPECT_EQ(EnableVpVtl(CpuCount(), 1, context), Answer(HvStatus::kInvalidVpIndex));
  EXPECT_EQ(EnableVpVtl(0xffff'ffff, 1, context), Answer(HvStatus::kInvalidVpIndex));
  EXPECT_EQ(EnableVpVtl(kSelf, 0, context), Answer(HvStatus::kInvalidParameter));
  EXPECT_EQ(EnableVpVtl(kSelf, 2, context), Answer(HvStatus::kInvalidParameter));
  EXPECT_EQ(EnableVpVtl(kSelf, 0xff, context), Answer(HvStatus::kInvalidParameter));
  EXPECT_EQ(EnableVpVtl(kSelf, 1, context), Answer(HvStatus::kInvalidVtlState));
  EXPECT_EQ(VpStatus(), kVpEnabled0);
}

TEST(PartitionsLevelsThatMayNotBe) {
  EXPECT_EQ(EnablePartitionVtl(1, 0, kOtherPartition), Answer(HvStatus::kInvalidPartitionId));
  for (const uint8_t vtl : {uint8_t{0}, uint8_t{2}, uint8_t{15}, uint8_t{16}, uint8_t{0xff}}) {
    const Context context("vtl", vtl);
    EXPECT_EQ(EnablePartitionVtl(vtl), Answer(HvStatus::kAccessDenied));
  }
  EXPECT_EQ(EnablePartitionVtl(1, vmm::kHvEnableMbec), Answer(HvStatus::kInvalidParameter));  // not in the capabilities
  EXPECT_EQ(EnablePartitionVtl(1, 0x80), Answer(HvStatus::kInvalidParameter));
  Block().Put(vmm::HvEnablePartitionVtlInput{
      .partition_id = vmm::kHvPartitionIdSelf, .target_vtl = 1, .flags = 0, .reserved = {0, 0, 0, 0, 0, 1}});
  EXPECT_EQ(CallMemory({.code = HypercallCode::kEnablePartitionVtl}), Answer(HvStatus::kInvalidParameter));
  EXPECT_EQ(PartitionStatus(), kStatusBefore);
}

TEST(ThePartitionsLevelStartsNothing) {
  EXPECT_EQ(EnablePartitionVtl(1), Success());
  EXPECT_EQ(PartitionStatus(), kStatusAfter);
  EXPECT_EQ(VpStatus(), kVpEnabled0);
  EXPECT_EQ(EnablePartitionVtl(1), Answer(HvStatus::kInvalidVtlState));
  EXPECT_FAULT(kUndefinedOpcode, JumpInto(HypercallPage() + 0x0f, 0));
}

TEST(ContextsThatNoProcessorTakes) {
  const auto bad = [](uint32_t what, auto spoil) {
    const Context context("case", what);
    HvInitialVpContext c = SecureContext(0);
    spoil(c);
    EXPECT_EQ(EnableVpVtl(kSelf, 1, c), Answer(HvStatus::kInvalidRegisterValue));
  };
  bad(0, [](HvInitialVpContext& c) { c = {}; });
  bad(1, [](HvInitialVpContext& c) { c.rip = uint64_t{1} << 60; });
  bad(2, [](HvInitialVpContext& c) { c.rflags = 0; });
  bad(3, [](HvInitialVpContext& c) { c.efer &= ~uint64_t{0x400}; });
  bad(4, [](HvInitialVpContext& c) { c.cr0 = 0x10, c.efer = 0; });  // no real mode above VTL0
  bad(5, [](HvInitialVpContext& c) { c.cr4 &= ~uint64_t{0x20}; });
  bad(6, [](HvInitialVpContext& c) { c.pat = 2; });
  bad(7, [](HvInitialVpContext& c) { c.gdtr.base = uint64_t{1} << 47; });
  bad(8, [](HvInitialVpContext& c) { c.cs.attributes |= 0x4000; });  // long and default
  EXPECT_EQ(VpStatus(), kVpEnabled0);
}

TEST(Vtl0EnablesItOnItsOwnProcessorOnce) {
  if (CpuCount() > 1) {
    EXPECT_EQ(EnableVpVtl(1, 1, SecureContext(1)), Answer(HvStatus::kAccessDenied));
    EXPECT_EQ(VpStatus(1), kVpEnabled0);
  }
  EnableVtl1OnThisCpu();
  EXPECT_EQ(VpStatus(), kVpEnabledBoth);
  // Where VTL1 is, only VTL1 says more about it.
  EXPECT_EQ(EnableVpVtl(kSelf, 1, SecureContext(0)), Answer(HvStatus::kAccessDenied));
  EXPECT_EQ(CountsOf(0).calls.Load(), 1u);
  InVtl1([] {
    EXPECT_EQ(ThisLevel(), 1u);
    EXPECT_EQ(VpStatus(), kVpEnabledBoth | 1);  // and active
    EXPECT_EQ(PartitionStatus(), kStatusAfter);
  });
  EXPECT_EQ(ThisLevel(), 0u);
}

TEST(ItBeganWithItsContext) {
  const HvInitialVpContext context = SecureContext(0);
  InVtl1([&] {
    EXPECT_EQ(ReadCr0(), context.cr0);
    EXPECT_EQ(ReadCr3(), context.cr3);
    EXPECT_EQ(ReadCr4(), context.cr4);
    EXPECT_EQ(ReadMsr(0xc000'0080), context.efer);
    EXPECT_EQ(ReadMsr(0x277), context.pat);
    EXPECT_EQ(ReadMsr(0xc000'0101), context.gs.base);
    EXPECT_EQ(ReadMsr(0xc000'0100), context.fs.base);
    uint16_t tr, cs;
    asm volatile("str %0; mov %%cs, %1" : "=r"(tr), "=r"(cs));
    EXPECT_EQ(tr, context.tr.selector);
    EXPECT_EQ(cs, context.cs.selector);
  });
}

TEST(OtherProcessorsGetItFromVtl1) {
  for (uint32_t cpu = 1; cpu < CpuCount(); ++cpu) {
    const Context context("cpu", cpu);
    // Neither their own VTL0 nor another's.
    OnCpu(cpu, [cpu] { EXPECT_EQ(EnableVpVtl(kSelf, 1, SecureContext(cpu)), Answer(HvStatus::kAccessDenied)); });
    EXPECT_EQ(EnableVpVtl(cpu, 1, SecureContext(cpu)), Answer(HvStatus::kAccessDenied));
    EXPECT_EQ(VpStatus(cpu), kVpEnabled0);
    EnableVtl1OnCpu(cpu);
    EXPECT_EQ(VpStatus(cpu), kVpEnabledBoth);
    EXPECT_EQ(CountsOf(cpu).calls.Load(), 1u);
    OnCpu(cpu, [cpu] {
      InVtl1([cpu] {
        EXPECT_EQ(ThisCpuNumber(), cpu);
        EXPECT_EQ(ReadMsr(vmm::kHvMsrVpIndex), cpu);
        EXPECT_EQ(VpStatus(), kVpEnabledBoth | 1);
      });
    });
  }
  InVtl1([] {
    for (uint32_t cpu = 0; cpu < CpuCount(); ++cpu) {
      const Context context("cpu", cpu);
      EXPECT_EQ(EnableVpVtl(cpu, 1, SecureContext(cpu)), Answer(HvStatus::kVtlAlreadyEnabled));
    }
    EXPECT_EQ(EnableVpVtl(kSelf, 0, SecureContext(0)), Answer(HvStatus::kInvalidParameter));
    EXPECT_EQ(EnablePartitionVtl(0), Answer(HvStatus::kAccessDenied));
    EXPECT_EQ(EnablePartitionVtl(1), Answer(HvStatus::kInvalidVtlState));
  });
}

TEST(CallsAndReturnsThatAreUndefined) {
  const uint32_t calls = CountsOf(0).calls.Load();
  const uint64_t return_entry = HypercallPage() + 0x26;
  EXPECT_FAULT(kUndefinedOpcode, JumpInto(VtlCallEntry(), 1));
  EXPECT_FAULT(kUndefinedOpcode, JumpInto(VtlCallEntry(), uint64_t{1} << 63));
  EXPECT_FAULT(kUndefinedOpcode, JumpInto(return_entry, 0));  // VTL0 is the lowest
  EXPECT_FAULT(kUndefinedOpcode, (void)CallRaw(static_cast<uint64_t>(HypercallCode::kVtlCall) | vmm::HypercallInput::kFast, 0, 0));
  EXPECT_FAULT(kUndefinedOpcode, (void)CallRaw(static_cast<uint64_t>(HypercallCode::kVtlCall) | uint64_t{1} << 32, 0, 0));
  const uint64_t entry = VtlCallEntry();
  EXPECT_TRUE(InUserMode([entry] {
                uint64_t control = 0;
                asm volatile("call *%1" : "+c"(control) : "r"(entry) : "rax", "memory");
              }).raised());
  EXPECT_EQ(CountsOf(0).calls.Load(), calls);
  InVtl1([] {
    EXPECT_FAULT(kUndefinedOpcode, JumpInto(HypercallPage() + 0x0f, 0));  // nothing is above VTL1
    EXPECT_FAULT(kUndefinedOpcode, JumpInto(VtlReturnEntry(), 2));
    EXPECT_FAULT(kUndefinedOpcode, JumpInto(VtlReturnEntry(), ~uint64_t{0}));
  });
  EXPECT_EQ(CountsOf(0).calls.Load(), calls + 1);
}

}  // namespace
}  // namespace guest
