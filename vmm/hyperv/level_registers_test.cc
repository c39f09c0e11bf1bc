#include "vmm/hyperv/level_registers.h"

#include <bit>
#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/hypercall/hv_register_layout.h"
#include "devices/hyperv/hypercall/hv_vp_context_layout.h"
#include "kvm/uapi.h"
#include "vmm/hyperv/two_levels_for_test.h"

namespace vmm {
namespace {

using Name = HvRegisterName;

class LevelRegistersTest : public testing::Test {
 protected:
  void SetUp() override { registers_.SetProcessor(*levels_.processor); }

  uint64_t Get(Vtl vtl, Name name) {
    HvRegisterValue value{.low = 0xbad, .high = 0xbad};
    EXPECT_EQ(registers_.Get(vtl, name, value), HvStatus::kSuccess) << static_cast<uint32_t>(name);
    return value.low;
  }
  HvStatus Set(Vtl vtl, Name name, uint64_t value) { return registers_.Set(vtl, name, HvRegisterValue{.low = value, .high = 0}); }
  // The next entry, as far as registers go.
  void Enter(size_t level) { (void)levels_.vcpu(level).Run(); }

  TwoLevelsForTest levels_;
  LevelRegisters registers_;
};

TEST_F(LevelRegistersTest, GeneralRegistersAreSharedButThoseThatSayWhereALevelIs) {
  for (const size_t level : {0, 1}) {
    kvm_regs& regs = levels_.state(level).regs;
    regs.rax = 0x10 + level;
    regs.r15 = 0x20 + level;
    regs.rsp = 0x30 + level;
    regs.rip = 0x40 + level;
    regs.rflags = 0x50 + level;
  }
  ASSERT_TRUE(levels_.Fetch());
  // Level 0 is active: it has what is shared, whoever is asked.
  for (const Vtl vtl : {kVtl0, kVtl1}) {
    EXPECT_EQ(Get(vtl, Name::kRax), 0x10u);
    EXPECT_EQ(Get(vtl, Name::kR15), 0x20u);
    EXPECT_EQ(Get(vtl, Name::kRsp), 0x30u + vtl.raw());
    EXPECT_EQ(Get(vtl, Name::kRip), 0x40u + vtl.raw());
    EXPECT_EQ(Get(vtl, Name::kRflags), 0x50u + vtl.raw());
  }
  // They go over in a switch, and then are the other's.
  ASSERT_TRUE(levels_.processor->SwitchTo(1));
  EXPECT_EQ(Get(kVtl0, Name::kRax), 0x10u);
  Enter(1);
  EXPECT_EQ(levels_.state(1).regs.rax, 0x10u);
  EXPECT_EQ(levels_.state(1).regs.rip, 0x41u);
  EXPECT_EQ(levels_.state(1).regs.rsp, 0x31u);
}

TEST_F(LevelRegistersTest, AGeneralRegisterThatIsSetIsThereAtTheNextEntry) {
  ASSERT_TRUE(levels_.Fetch());
  ASSERT_TRUE(levels_.processor->SwitchTo(1));
  EXPECT_EQ(Set(kVtl0, Name::kRip, 0x1234), HvStatus::kSuccess);
  EXPECT_EQ(Set(kVtl0, Name::kRsp, 0x5678), HvStatus::kSuccess);
  EXPECT_EQ(Get(kVtl0, Name::kRip), 0x1234u);
  EXPECT_EQ(levels_.state(0).regs.rip, 0u);
  Enter(0);
  EXPECT_EQ(levels_.state(0).regs.rip, 0x1234u);
  EXPECT_EQ(levels_.state(0).regs.rsp, 0x5678u);
  EXPECT_EQ(levels_.state(1).regs.rip, 0u);
}

TEST_F(LevelRegistersTest, SystemRegistersAreALevelsOwnAndInTheVcpuAtOnce) {
  levels_.state(0).sregs.cr3 = 0x1000;
  levels_.state(1).sregs.cr3 = 0x2000;
  ASSERT_TRUE(levels_.Fetch());
  ASSERT_TRUE(levels_.processor->SwitchTo(1));
  ASSERT_EQ(Set(kVtl0, Name::kRip, 0x77), HvStatus::kSuccess);
  for (const Name name : {Name::kCr0, Name::kCr3, Name::kCr4, Name::kCr8, Name::kEfer, Name::kApicBase}) {
    EXPECT_EQ(Set(kVtl0, name, 0x8000 + static_cast<uint32_t>(name)), HvStatus::kSuccess);
    EXPECT_EQ(Get(kVtl0, name), 0x8000 + static_cast<uint32_t>(name));
  }
  EXPECT_EQ(levels_.state(0).sregs.cr3, 0x8000 + static_cast<uint32_t>(Name::kCr3));
  EXPECT_EQ(Get(kVtl1, Name::kCr3), 0x2000u);
  // The general registers that were set before are not lost by it.
  Enter(0);
  EXPECT_EQ(levels_.state(0).regs.rip, 0x77u);
}

TEST_F(LevelRegistersTest, WhatTheProcessorRefusesChangesNothing) {
  levels_.state(0).sregs.cr4 = 0x20;
  ASSERT_TRUE(levels_.Fetch());
  levels_.state(0).refused = {KVM_SET_SREGS, KVM_SET_DEBUGREGS};
  EXPECT_EQ(Set(kVtl0, Name::kCr4, ~uint64_t{0}), HvStatus::kInvalidRegisterValue);
  EXPECT_EQ(Set(kVtl0, Name::kDr7, ~uint64_t{0}), HvStatus::kInvalidRegisterValue);
  EXPECT_EQ(Set(kVtl0, Name::kPat, 5), HvStatus::kInvalidRegisterValue);  // no such MSR here
  EXPECT_EQ(Get(kVtl0, Name::kCr4), 0x20u);
  EXPECT_EQ(Get(kVtl0, Name::kDr7), 0u);
}

TEST_F(LevelRegistersTest, SegmentsAndTablesKeepTheirParts) {
  ASSERT_TRUE(levels_.Fetch());
  const HvSegmentRegister code{.base = 0x10, .limit = 0xffff'ffff, .selector = 0x33, .attributes = 0xa0fb};
  EXPECT_EQ(registers_.Set(kVtl0, Name::kCs, std::bit_cast<HvRegisterValue>(code)), HvStatus::kSuccess);
  const kvm_segment& cs = levels_.state(0).sregs.cs;
  EXPECT_EQ(cs.base, 0x10u);
  EXPECT_EQ(cs.limit, 0xffff'ffffu);
  EXPECT_EQ(cs.selector, 0x33u);
  EXPECT_EQ(cs.type, 0xbu);
  EXPECT_EQ(cs.dpl, 3u);
  EXPECT_EQ(cs.l, 1u);
  EXPECT_EQ(levels_.state(0).sregs.ss.dpl, 3u);  // KVM's place for the CPL
  HvRegisterValue value{};
  EXPECT_EQ(registers_.Get(kVtl0, Name::kCs, value), HvStatus::kSuccess);
  EXPECT_EQ(value, std::bit_cast<HvRegisterValue>(code));
  const HvTableRegister table{.pad = {}, .limit = 0xfff, .base = 0xffff'8000'0000'0000};
  EXPECT_EQ(registers_.Set(kVtl0, Name::kIdtr, std::bit_cast<HvRegisterValue>(table)), HvStatus::kSuccess);
  EXPECT_EQ(levels_.state(0).sregs.idt.base, 0xffff'8000'0000'0000u);
  EXPECT_EQ(levels_.state(0).sregs.idt.limit, 0xfffu);
  EXPECT_EQ(registers_.Get(kVtl0, Name::kIdtr, value), HvStatus::kSuccess);
  EXPECT_EQ(value, std::bit_cast<HvRegisterValue>(table));
}

TEST_F(LevelRegistersTest, OfTheDebugRegistersTheAddressesAreSharedAndTheRestIsNot) {
  for (const size_t level : {0, 1}) {
    levels_.state(level).debug.db[3] = 0x200 + level;
    levels_.state(level).debug.dr7 = 0x700 + level;
  }
  ASSERT_TRUE(levels_.Fetch());
  EXPECT_EQ(Get(kVtl1, Name::kDr3), 0x200u);
  EXPECT_EQ(Get(kVtl1, Name::kDr7), 0x701u);
  ASSERT_TRUE(levels_.processor->SwitchTo(1));
  EXPECT_EQ(Get(kVtl0, Name::kDr3), 0x200u);
  EXPECT_EQ(levels_.state(1).debug.db[3], 0x200u);
  // The active level's, and so both levels'.
  EXPECT_EQ(Set(kVtl0, Name::kDr3, 0x999), HvStatus::kSuccess);
  EXPECT_EQ(levels_.state(1).debug.db[3], 0x999u);
  EXPECT_EQ(Get(kVtl0, Name::kDr3), 0x999u);
  EXPECT_EQ(Set(kVtl0, Name::kDr7, 0x400), HvStatus::kSuccess);
  EXPECT_EQ(levels_.state(0).debug.dr7, 0x400u);
  EXPECT_EQ(levels_.state(1).debug.dr7, 0x701u);
  ASSERT_TRUE(levels_.processor->SwitchTo(0));
  EXPECT_EQ(levels_.state(0).debug.db[3], 0x999u);
  EXPECT_EQ(levels_.state(0).debug.dr7, 0x400u);
}

TEST_F(LevelRegistersTest, MsrsAreTheLevelsVcpus) {
  for (const size_t level : {0, 1}) levels_.state(level).msrs = {{0x277, 0x60 + level}, {0xc000'0082, 0x80 + level}};
  ASSERT_TRUE(levels_.Fetch());
  EXPECT_EQ(Get(kVtl0, Name::kPat), 0x60u);
  EXPECT_EQ(Get(kVtl1, Name::kLstar), 0x81u);
  EXPECT_EQ(Set(kVtl1, Name::kLstar, 0x1234), HvStatus::kSuccess);
  EXPECT_EQ(levels_.state(1).msrs[0xc000'0082], 0x1234u);
  EXPECT_EQ(levels_.state(0).msrs[0xc000'0082], 0x80u);
}

TEST_F(LevelRegistersTest, RegistersThatAreNone) {
  ASSERT_TRUE(levels_.Fetch());
  HvRegisterValue value{};
  EXPECT_EQ(registers_.Get(kVtl0, Name::kGuestOsId, value), HvStatus::kInvalidParameter);
  EXPECT_EQ(registers_.Set(kVtl0, Name::kGuestOsId, value), HvStatus::kInvalidParameter);
}

}  // namespace
}  // namespace vmm
