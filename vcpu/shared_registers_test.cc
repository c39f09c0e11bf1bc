#include "vcpu/shared_registers.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>

#include <gtest/gtest.h>

#include "kvm/fake_kvm.h"
#include "kvm/uapi.h"
#include "kvm/vcpu.h"
#include "kvm/vm.h"

namespace vmm {
namespace {

constexpr uint64_t kOsxsave = 1 << 18;

// The vCPUs of three levels; what KVM has of each is `state`.
class SharedRegistersTest : public testing::Test {
 protected:
  static constexpr size_t kLevels = SharedRegisters::kMaxLevels;

  SharedRegistersTest() {
    for (size_t level = 0; level < kLevels; ++level) {
      vms_[level] = kvm_.CreateVm();
      vcpus_[level] = vms_[level]->CreateVcpu(0).value();
      vcpus_[level]->EnableSyncRegs(/*with_sregs=*/true);
      kvm_xcrs& xcrs = state(level).xcrs;
      xcrs.nr_xcrs = 1;
      xcrs.xcrs[0].value = 1;
    }
  }
  kvm::FakeVcpu& state(size_t level) { return kvm_.vcpu(*vms_[level], 0); }
  // As after an exit of the level that leaves, and an earlier one of the other.
  bool Carry(size_t from, size_t to) {
    EXPECT_TRUE(vcpus_[from]->FetchSyncedRegs());
    EXPECT_TRUE(vcpus_[to]->FetchSyncedRegs());
    return shared_.CarryOver(*vcpus_[from], from, *vcpus_[to], to);
  }
  // Its next entry, which loads what was marked.
  void Enter(size_t level) { static_cast<void>(vcpus_[level]->Run()); }
  uint64_t dirty(size_t level) { return vcpus_[level]->run().kvm_dirty_regs; }
  uint32_t& xsave(size_t level) { return state(level).xsave.region[100]; }
  void Refuse(size_t level, std::initializer_list<unsigned long> requests) { state(level).refused = requests; }

  kvm::FakeKvm kvm_;
  std::array<std::unique_ptr<kvm::Vm>, kLevels> vms_;
  std::array<std::unique_ptr<kvm::Vcpu>, kLevels> vcpus_;
  SharedRegisters shared_;
};

TEST_F(SharedRegistersTest, GeneralRegistersGoOverButThoseThatSayWhereALevelIs) {
  using Register = __u64 kvm_regs::*;
  constexpr Register kShared[] = {&kvm_regs::rax, &kvm_regs::rbx, &kvm_regs::rcx, &kvm_regs::rdx, &kvm_regs::rsi,
                                  &kvm_regs::rdi, &kvm_regs::rbp, &kvm_regs::r8,  &kvm_regs::r9,  &kvm_regs::r10,
                                  &kvm_regs::r11, &kvm_regs::r12, &kvm_regs::r13, &kvm_regs::r14, &kvm_regs::r15};
  constexpr Register kOwn[] = {&kvm_regs::rsp, &kvm_regs::rip, &kvm_regs::rflags};
  uint64_t value = 0x100;
  for (const size_t level : {0, 1}) {
    for (const Register reg : kShared) state(level).regs.*reg = value++;
    for (const Register reg : kOwn) state(level).regs.*reg = value++;
  }
  const kvm_regs before = state(1).regs;
  ASSERT_TRUE(Carry(0, 1));
  EXPECT_EQ(state(1).regs.rax, before.rax);  // no system call yet
  Enter(1);
  for (const Register reg : kShared) EXPECT_EQ(state(1).regs.*reg, state(0).regs.*reg);
  for (const Register reg : kOwn) EXPECT_EQ(state(1).regs.*reg, before.*reg);
}

TEST_F(SharedRegistersTest, Cr2GoesOverAndSystemRegistersAreLoadedForItAlone) {
  for (const size_t level : {0, 1}) {
    state(level).sregs.cr2 = 0x2000;
    state(level).sregs.cr3 = 0x3000 + level;
  }
  ASSERT_TRUE(Carry(0, 1));
  EXPECT_EQ(dirty(1), uint64_t{KVM_SYNC_X86_REGS});
  state(0).sregs.cr2 = 0x2222;
  ASSERT_TRUE(Carry(0, 1));
  EXPECT_EQ(dirty(1), uint64_t{KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS});
  Enter(1);
  EXPECT_EQ(state(1).sregs.cr2, 0x2222u);
  EXPECT_EQ(state(1).sregs.cr3, 0x3001u);
}

TEST_F(SharedRegistersTest, DebugAddressesGoOverAndTheRestStays) {
  for (const size_t level : {0, 1}) {
    for (size_t i = 0; i < 4; ++i) state(level).debug.db[i] = 0x10 * (level + 1) + i;
    state(level).debug.dr6 = 0x600 + level;
    state(level).debug.dr7 = 0x700 + level;
  }
  ASSERT_TRUE(Carry(0, 1));
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(state(1).debug.db[i], 0x10 + i);
  EXPECT_EQ(state(1).debug.dr6, 0x601u);
  EXPECT_EQ(state(1).debug.dr7, 0x701u);
  EXPECT_EQ(state(0).debug.dr7, 0x700u);
}

TEST_F(SharedRegistersTest, VectorStateGoesOver) {
  xsave(0) = 0xaaaa;
  ASSERT_TRUE(Carry(0, 1));
  EXPECT_EQ(xsave(1), 0xaaaau);
  xsave(1) = 0xbbbb;
  ASSERT_TRUE(Carry(1, 0));
  EXPECT_EQ(xsave(0), 0xbbbbu);
}

TEST_F(SharedRegistersTest, WhatIsTheSameIsNotLoadedAgain) {
  xsave(0) = 0xaaaa;
  state(0).debug.db[0] = 0xd0;
  ASSERT_TRUE(Carry(0, 1));
  EXPECT_EQ(shared_.vector_loads(), 1u);
  EXPECT_EQ(shared_.debug_loads(), 1u);
  for (const size_t level : {0, 1}) Refuse(level, {KVM_SET_XSAVE, KVM_SET_DEBUGREGS});
  EXPECT_TRUE(Carry(1, 0));
  EXPECT_TRUE(Carry(0, 1));
  // Only the other of the two has changed.
  Refuse(0, {KVM_SET_XSAVE});
  state(1).debug.db[0] = 0xd1;
  EXPECT_TRUE(Carry(1, 0));
  EXPECT_EQ(state(0).debug.db[0], 0xd1u);
  EXPECT_EQ(shared_.vector_loads(), 1u);
  EXPECT_EQ(shared_.debug_loads(), 2u);
  Refuse(1, {KVM_SET_DEBUGREGS});
  xsave(0) = 0xcccc;
  EXPECT_TRUE(Carry(0, 1));
  EXPECT_EQ(xsave(1), 0xccccu);
  EXPECT_EQ(shared_.vector_loads(), 2u);
}

// A value that comes again is a change all the same: the others have had another since.
TEST_F(SharedRegistersTest, AValueThatWasThereBeforeGoesOverToo) {
  for (const uint32_t value : {1, 2, 1}) {
    xsave(0) = value;
    state(0).debug.db[3] = value;
    ASSERT_TRUE(Carry(0, 1));
    EXPECT_EQ(xsave(1), value);
    EXPECT_EQ(state(1).debug.db[3], value);
    ASSERT_TRUE(Carry(1, 0));
  }
}

TEST_F(SharedRegistersTest, ALevelThatWasAwayForSomeSwitchesGetsTheNewest) {
  xsave(0) = 1;
  state(0).debug.db[1] = 1;
  ASSERT_TRUE(Carry(0, 2));
  ASSERT_TRUE(Carry(2, 0));
  xsave(0) = 2;
  state(0).debug.db[1] = 2;
  ASSERT_TRUE(Carry(0, 1));
  ASSERT_TRUE(Carry(1, 0));
  ASSERT_TRUE(Carry(0, 1));
  // Nothing has changed since, but this one has not seen it.
  ASSERT_TRUE(Carry(1, 2));
  EXPECT_EQ(xsave(2), 2u);
  EXPECT_EQ(state(2).debug.db[1], 2u);
}

// A level that has not run yet has its own, whatever that is.
TEST_F(SharedRegistersTest, AStateOfZerosGoesOverLikeAnyOther) {
  xsave(1) = 0xffff;
  state(1).debug.db[0] = 0xffff;
  ASSERT_TRUE(Carry(0, 1));
  EXPECT_EQ(xsave(1), 0u);
  EXPECT_EQ(state(1).debug.db[0], 0u);
}

TEST_F(SharedRegistersTest, Xcr0IsNotLookedAtBeforeALevelCouldHaveChangedIt) {
  for (const size_t level : {0, 1}) Refuse(level, {KVM_GET_XCRS, KVM_SET_XCRS});
  state(1).sregs.cr4 = kOsxsave;  // it has not run yet
  EXPECT_TRUE(Carry(0, 1));
  EXPECT_FALSE(Carry(1, 0));
}

TEST_F(SharedRegistersTest, Xcr0GoesOverAlsoToAndFromALevelThatDoesNotUseIt) {
  state(0).sregs.cr4 = kOsxsave;
  state(0).xcrs.xcrs[0].value = 7;
  ASSERT_TRUE(Carry(0, 1));
  EXPECT_EQ(state(1).xcrs.xcrs[0].value, 7u);
  state(1).xcrs.xcrs[0].value = 3;
  ASSERT_TRUE(Carry(1, 0));
  EXPECT_EQ(state(0).xcrs.xcrs[0].value, 3u);
  // The same is not loaded again.
  for (const size_t level : {0, 1}) Refuse(level, {KVM_SET_XCRS});
  EXPECT_TRUE(Carry(0, 1));
  EXPECT_TRUE(Carry(1, 0));
}

// It says which vector state there is.
TEST_F(SharedRegistersTest, Xcr0ComesBeforeTheVectorState) {
  state(0).sregs.cr4 = kOsxsave;
  xsave(0) = 0xaaaa;
  Refuse(1, {KVM_SET_XCRS});
  EXPECT_FALSE(Carry(0, 1));
  EXPECT_EQ(xsave(1), 0u);
}

TEST_F(SharedRegistersTest, AHostWithoutXsaveHasNoXcr0) {
  state(0).sregs.cr4 = kOsxsave;
  state(0).xcrs = {};
  Refuse(1, {KVM_SET_XCRS});
  EXPECT_TRUE(Carry(0, 1));
}

TEST_F(SharedRegistersTest, WhatKvmRefusesIsTold) {
  state(0).sregs.cr4 = kOsxsave;
  for (const unsigned long request : std::initializer_list<unsigned long>{KVM_GET_XCRS, KVM_GET_XSAVE, KVM_GET_DEBUGREGS}) {
    Refuse(0, {request});
    EXPECT_FALSE(Carry(0, 1)) << request;
    Refuse(0, {});
  }
  for (const unsigned long request :
       std::initializer_list<unsigned long>{KVM_SET_XCRS, KVM_SET_XSAVE, KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS}) {
    ++state(0).xcrs.xcrs[0].value;
    ++xsave(0);
    ++state(0).debug.db[0];
    Refuse(1, {request});
    EXPECT_FALSE(Carry(0, 1)) << request;
    Refuse(1, {});
  }
}

}  // namespace
}  // namespace vmm
