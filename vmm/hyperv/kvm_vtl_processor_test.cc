#include "vmm/hyperv/kvm_vtl_processor.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <future>
#include <initializer_list>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/hypercall/hv_vp_context_layout.h"
#include "devices/hyperv/hypercall/vp_context_for_test.h"
#include "devices/hyperv/vsm/msr_intercepts.h"
#include "devices/hyperv/vsm/vp_assist_page.h"
#include "devices/hyperv/vsm/vsm_layout.h"
#include "devices/hyperv/vsm/vsm_vp.h"
#include "devices/machine_control.h"
#include "kvm/uapi.h"
#include "kvm/vcpu.h"
#include "kvm/vm.h"
#include "vcpu/level_scheduler.h"
#include "vmm/hyperv/msr_traps.h"
#include "vmm/hyperv/two_levels_for_test.h"

namespace vmm {
namespace {

constexpr uint32_t kMsrPat = 0x277;
constexpr uint8_t kDebug = 1, kUndefinedOpcode = 6, kDoubleFault = 8, kGeneralProtection = 13, kPageFault = 14;

class KvmVtlProcessorTest : public testing::Test {
 protected:
  KvmVtlProcessorTest() {
    processor_.SetProcessor(*levels_.processor);
    for (const size_t level : {0, 1}) levels_.state(level).msrs = {{kMsrPat, 0}};
    EXPECT_TRUE(levels_.Fetch());
  }
  bool Inject(uint8_t vector, std::optional<uint32_t> error_code, uint64_t parameter = 0) {
    return processor_.InjectException({.vector = vector, .error_code = error_code, .parameter = parameter});
  }
  // The next entry, as far as registers go.
  void Enter(size_t level) { static_cast<void>(levels_.vcpu(level).Run()); }

  TwoLevelsForTest levels_;
  KvmVtlProcessor processor_;
};

TEST_F(KvmVtlProcessorTest, AContextIsInTheVcpuAndToBeSeenAtOnce) {
  const HvInitialVpContext context = LongModeContext();
  levels_.state(1).sregs.apic_base = 0xfee0'0900;
  EXPECT_EQ(processor_.LoadContext(kVtl1, context), HvStatus::kSuccess);
  const kvm_sregs& sregs = levels_.state(1).sregs;
  EXPECT_EQ(levels_.state(1).regs.rip, context.rip);
  EXPECT_EQ(levels_.state(1).regs.rsp, context.rsp);
  EXPECT_EQ(sregs.cr0, context.cr0);
  EXPECT_EQ(sregs.cr3, context.cr3);
  EXPECT_EQ(sregs.cr4, context.cr4);
  EXPECT_EQ(sregs.efer, context.efer);
  EXPECT_EQ(sregs.cs.l, 1);
  EXPECT_EQ(sregs.gs.base, context.gs.base);
  EXPECT_EQ(sregs.tr.type, 0xb);
  EXPECT_EQ(sregs.idt.base, context.idtr.base);
  EXPECT_EQ(sregs.gdt.limit, context.gdtr.limit);
  EXPECT_EQ(sregs.apic_base, 0xfee0'0900u);  // no part of a context
  EXPECT_EQ(levels_.state(1).msrs[kMsrPat], context.pat);
  // Who asks for its registers now is told these.
  EXPECT_EQ(levels_.vcpu(1).synced_regs().rip, context.rip);
  EXPECT_EQ(levels_.vcpu(1).synced_sregs().cr3, context.cr3);
  EXPECT_EQ(levels_.state(0).regs.rip, 0u);
  EXPECT_EQ(levels_.vcpu(0).synced_regs().rip, 0u);
}

TEST_F(KvmVtlProcessorTest, AContextThatTheProcessorRefusesChangesNothing) {
  levels_.state(1).msrs.clear();  // the last of it but the general registers
  levels_.state(1).sregs.cr3 = 0x7000;
  EXPECT_EQ(processor_.LoadContext(kVtl1, LongModeContext()), HvStatus::kInvalidRegisterValue);
  EXPECT_EQ(levels_.state(1).sregs.cr3, 0x7000u);
  EXPECT_EQ(levels_.vcpu(1).synced_regs().rip, 0u);
}

TEST_F(KvmVtlProcessorTest, AContextWhoseRegistersKvmDoesNotTellIsNoSuccess) {
  levels_.state(1).refused = {KVM_GET_REGS};
  EXPECT_EQ(processor_.LoadContext(kVtl1, LongModeContext()), HvStatus::kOperationFailed);
}

TEST_F(KvmVtlProcessorTest, WhoWaitsForInitOrSipiIsNotStarted) {
  for (const uint32_t state : {KVM_MP_STATE_UNINITIALIZED, KVM_MP_STATE_INIT_RECEIVED}) {
    levels_.state(0).mp_state = state;
    EXPECT_FALSE(processor_.IsStarted()) << state;
  }
  for (const uint32_t state : {KVM_MP_STATE_RUNNABLE, KVM_MP_STATE_HALTED, KVM_MP_STATE_SIPI_RECEIVED}) {
    levels_.state(0).mp_state = state;
    EXPECT_TRUE(processor_.IsStarted()) << state;
  }
  levels_.state(0).refused = {KVM_GET_MP_STATE};
  EXPECT_FALSE(processor_.IsStarted());
}

TEST_F(KvmVtlProcessorTest, StartingEndsTheWaitOfVtl0) {
  for (const size_t level : {0, 1}) levels_.state(level).mp_state = KVM_MP_STATE_UNINITIALIZED;
  EXPECT_TRUE(processor_.SetStarted());
  EXPECT_EQ(levels_.state(0).mp_state, uint32_t{KVM_MP_STATE_RUNNABLE});
  EXPECT_EQ(levels_.state(1).mp_state, uint32_t{KVM_MP_STATE_UNINITIALIZED});
  levels_.state(0).refused = {KVM_SET_MP_STATE};
  EXPECT_FALSE(processor_.SetStarted());
}

TEST_F(KvmVtlProcessorTest, Vtl0SleepsInKvmTillItIsWoken) {
  levels_.state(0).regs.rip = 0x1000;
  ASSERT_TRUE(levels_.Fetch());
  EXPECT_FALSE(processor_.IsAsleep());
  EXPECT_TRUE(processor_.Sleep());
  EXPECT_EQ(levels_.state(0).mp_state, uint32_t{KVM_MP_STATE_HALTED});
  EXPECT_TRUE(processor_.IsAsleep());
  EXPECT_TRUE(processor_.Wake());
  EXPECT_EQ(levels_.state(0).mp_state, uint32_t{KVM_MP_STATE_RUNNABLE});
  EXPECT_FALSE(processor_.IsAsleep());
}

TEST_F(KvmVtlProcessorTest, AHaltElsewhereIsNoSleep) {
  levels_.state(0).regs.rip = 0x1000;
  ASSERT_TRUE(levels_.Fetch());
  EXPECT_TRUE(processor_.Sleep());
  // An interrupt's handler halts.
  levels_.state(0).regs.rip = 0x2000;
  Enter(0);
  EXPECT_FALSE(processor_.IsAsleep());
  levels_.state(0).regs.rip = 0x1000;
  Enter(0);
  EXPECT_TRUE(processor_.IsAsleep());
}

TEST_F(KvmVtlProcessorTest, WhatKvmRefusesOfSleepIsTold) {
  EXPECT_TRUE(processor_.Sleep());
  levels_.state(0).refused = {KVM_SET_MP_STATE, KVM_GET_MP_STATE};
  EXPECT_FALSE(processor_.IsAsleep());
  EXPECT_FALSE(processor_.Sleep());
  EXPECT_FALSE(processor_.Wake());
}

TEST_F(KvmVtlProcessorTest, MsrsOfVtl0AreTrappedInTheNameOfThisProcessor) {
  constexpr uint32_t kEfer = 0xc000'0080, kSysenterCs = 0x174;
  std::vector<uint32_t> filter;
  bool takes = true;
  MsrTraps traps(/*vp_count=*/2, {}, [&](std::span<const kvm::MsrRange> ranges) {
    filter.clear();
    for (const kvm::MsrRange& range : ranges) filter.push_back(range.base);
    return takes;
  });
  processor_.SetTraps(traps);
  ASSERT_TRUE(traps.Set(VpIndex(1), CrEventBit(CrEvent::kSysenterCsWrite)));
  EXPECT_TRUE(processor_.TrapMsrs(kVtl0, CrEventBit(CrEvent::kEferRead)));
  EXPECT_EQ(filter, (std::vector<uint32_t>{kSysenterCs, kEfer}));
  EXPECT_TRUE(processor_.TrapMsrs(kVtl0, 0));
  EXPECT_EQ(filter, std::vector<uint32_t>{kSysenterCs});
  takes = false;
  EXPECT_FALSE(processor_.TrapMsrs(kVtl0, CrEventBit(CrEvent::kEferRead)));
}

TEST_F(KvmVtlProcessorTest, OfOtherLevelsNoMsrIsTrapped) {
  EXPECT_TRUE(processor_.TrapMsrs(kVtl1, 0));
  EXPECT_FALSE(processor_.TrapMsrs(kVtl1, CrEventBit(CrEvent::kEferRead)));
}

// --- Switches ---

// KVM would forget it: loading the registers for the level's next run drops what is pending, not what is on its way.
TEST_F(KvmVtlProcessorTest, ASwitchKeepsTheExceptionOfTheLevelThatIsLeft) {
  kvm_vcpu_events& events = levels_.state(0).events;
  events.exception.pending = 1;
  events.exception.nr = kPageFault;
  events.exception.has_error_code = 1;
  events.exception.error_code = 2;
  levels_.state(0).regs.rbx = 0xb0;
  ASSERT_TRUE(levels_.Fetch());
  EXPECT_TRUE(processor_.SwitchTo(kVtl1));
  EXPECT_EQ(events.exception.injected, 1);
  EXPECT_EQ(events.exception.pending, 0);
  EXPECT_EQ(events.exception.nr, kPageFault);
  EXPECT_EQ(events.exception.error_code, 2u);
  EXPECT_EQ(levels_.state(1).events.exception.injected, 0);
  EXPECT_EQ(levels_.processor->active(), 1u);
  EXPECT_EQ(levels_.processor->stats().switches, 1u);
  Enter(1);
  EXPECT_EQ(levels_.state(1).regs.rbx, 0xb0u);
  // To where it is already nothing is carried.
  levels_.state(1).refused = {KVM_GET_VCPU_EVENTS, KVM_GET_XSAVE};
  EXPECT_TRUE(processor_.SwitchTo(kVtl1));
  EXPECT_EQ(levels_.processor->stats().switches, 1u);
}

TEST_F(KvmVtlProcessorTest, ASwitchThatKvmRefusesEndsTheMachine) {
  levels_.state(0).refused = {KVM_GET_VCPU_EVENTS};
  EXPECT_FALSE(processor_.SwitchTo(kVtl1));
  EXPECT_EQ(levels_.control.reason, MachineEnd::kInternalError);
  EXPECT_EQ(levels_.processor->active(), 0u);
  levels_.state(0).refused = {};
  EXPECT_FALSE(processor_.SwitchTo(kVtl1));  // for good
}

TEST_F(KvmVtlProcessorTest, ASwitchWithoutItsSharedRegistersIsNone) {
  levels_.state(1).refused = {KVM_SET_XSAVE};
  EXPECT_FALSE(processor_.SwitchTo(kVtl1));
  EXPECT_EQ(levels_.control.reason, MachineEnd::kInternalError);
  EXPECT_EQ(levels_.processor->active(), 0u);
}

// --- Returns ---

class KvmVtlProcessorReturnTest : public KvmVtlProcessorTest {
 protected:
  // VTL1 has left, VTL0 is active.
  void Leave(bool lma, bool cs_l) {
    HvVpAssistPage& page = *reinterpret_cast<HvVpAssistPage*>(page_.data());
    page.vtl_return_rax = 0x1111'2222'3333'4444;
    page.vtl_return_rcx = 0x5555'6666'7777'8888;
    levels_.state(1).sregs.efer = lma ? 0xd00 : 0x100;
    levels_.state(1).sregs.cs.l = cs_l ? 1 : 0;
    levels_.state(0).sregs.efer = 0xd00;  // which does not count
    levels_.state(0).sregs.cs.l = 1;
    levels_.state(0).regs = {.rax = kOld, .rcx = kOld, .rdx = kOld, .rip = 0x1000};
    ASSERT_TRUE(levels_.Fetch());
    processor_.RestoreReturnRegisters(kVtl1, VpAssistPage(page_.data()));
    Enter(0);
  }
  static constexpr uint64_t kOld = 0xaaaa'bbbb'cccc'dddd;
  const kvm_regs& regs() { return levels_.state(0).regs; }
  alignas(4096) std::array<std::byte, 4096> page_{};
};

TEST_F(KvmVtlProcessorReturnTest, From64BitCodeTheyAreRaxAndRcx) {
  Leave(/*lma=*/true, /*cs_l=*/true);
  EXPECT_EQ(regs().rax, 0x1111'2222'3333'4444u);
  EXPECT_EQ(regs().rcx, 0x5555'6666'7777'8888u);
  EXPECT_EQ(regs().rdx, kOld);
  EXPECT_EQ(regs().rip, 0x1000u);
}

TEST_F(KvmVtlProcessorReturnTest, From32BitCodeTheyAreTheLowHalvesOfThree) {
  for (const auto& [lma, cs_l] : {std::pair(true, false), std::pair(false, true), std::pair(false, false)}) {
    Leave(lma, cs_l);
    EXPECT_EQ(regs().rax, 0xaaaa'bbbb'3333'4444u);
    EXPECT_EQ(regs().rcx, 0xaaaa'bbbb'1111'2222u);
    EXPECT_EQ(regs().rdx, 0xaaaa'bbbb'7777'8888u);
  }
}

// --- Exceptions ---

TEST_F(KvmVtlProcessorTest, APageFaultHasItsAddressAndErrorCode) {
  EXPECT_TRUE(Inject(kPageFault, 0x11, 0xdead'b000));
  const kvm_vcpu_events& events = levels_.state(0).events;
  EXPECT_EQ(events.exception.injected, 1);
  EXPECT_EQ(events.exception.nr, kPageFault);
  EXPECT_EQ(events.exception.has_error_code, 1);
  EXPECT_EQ(events.exception.error_code, 0x11u);
  Enter(0);
  EXPECT_EQ(levels_.state(0).sregs.cr2, 0xdead'b000u);
}

TEST_F(KvmVtlProcessorTest, ADebugExceptionHasItsReasonInDr6) {
  levels_.state(0).debug = {.db = {1, 2, 3, 4}, .dr6 = 0xffff'0ff0, .dr7 = 0x400};
  EXPECT_TRUE(Inject(kDebug, std::nullopt, 0x4001));
  EXPECT_EQ(levels_.state(0).debug.dr6, 0x4001u);
  EXPECT_EQ(levels_.state(0).debug.dr7, 0x400u);
  EXPECT_EQ(levels_.state(0).debug.db[3], 4u);
  EXPECT_EQ(levels_.state(0).events.exception.nr, kDebug);
  EXPECT_EQ(levels_.state(0).events.exception.has_error_code, 0);
}

TEST_F(KvmVtlProcessorTest, OtherExceptionsHaveNoParameter) {
  levels_.state(0).debug.dr6 = 0xffff'0ff0;
  levels_.state(0).sregs.cr2 = 0x123;
  ASSERT_TRUE(levels_.Fetch());
  EXPECT_TRUE(Inject(kGeneralProtection, 0x18, 0x4001));
  EXPECT_EQ(levels_.state(0).debug.dr6, 0xffff'0ff0u);
  EXPECT_EQ(levels_.state(0).events.exception.error_code, 0x18u);
  Enter(0);
  EXPECT_EQ(levels_.state(0).sregs.cr2, 0x123u);
}

TEST_F(KvmVtlProcessorTest, TheActiveLevelGetsIt) {
  ASSERT_TRUE(processor_.SwitchTo(kVtl1));
  EXPECT_TRUE(Inject(kPageFault, 0, 0xb000));
  EXPECT_EQ(levels_.state(0).events.exception.injected, 0);
  EXPECT_EQ(levels_.state(1).events.exception.injected, 1);
  Enter(0);
  Enter(1);
  EXPECT_EQ(levels_.state(0).sregs.cr2, 0u);
  EXPECT_EQ(levels_.state(1).sregs.cr2, 0xb000u);
}

TEST_F(KvmVtlProcessorTest, AHaltedProcessorTakesItBehindItsHalt) {
  levels_.state(0).mp_state = KVM_MP_STATE_HALTED;
  EXPECT_TRUE(Inject(kUndefinedOpcode, std::nullopt));
  EXPECT_EQ(levels_.state(0).mp_state, uint32_t{KVM_MP_STATE_RUNNABLE});
  // Nobody else is woken by it.
  levels_.state(0).events = {};
  levels_.state(0).mp_state = KVM_MP_STATE_INIT_RECEIVED;
  EXPECT_TRUE(Inject(kUndefinedOpcode, std::nullopt));
  EXPECT_EQ(levels_.state(0).mp_state, uint32_t{KVM_MP_STATE_INIT_RECEIVED});
}

TEST_F(KvmVtlProcessorTest, ASecondExceptionIsADoubleFaultAndAThirdEndsTheMachine) {
  EXPECT_TRUE(Inject(kPageFault, 0, 0));
  EXPECT_TRUE(Inject(kPageFault, 0, 0));
  EXPECT_EQ(levels_.state(0).events.exception.nr, kDoubleFault);
  EXPECT_EQ(levels_.control.reason, std::nullopt);
  EXPECT_FALSE(Inject(kPageFault, 0, 0));
  EXPECT_EQ(levels_.control.reason, MachineEnd::kTripleFault);
}

TEST_F(KvmVtlProcessorTest, WhatKvmRefusesOfAnExceptionIsTold) {
  for (const unsigned long request : std::initializer_list<unsigned long>{KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, KVM_SET_VCPU_EVENTS}) {
    levels_.state(0).refused = {request};
    EXPECT_FALSE(Inject(kDebug, std::nullopt, 0)) << request;
  }
  levels_.state(0).refused = {KVM_SET_MP_STATE};
  levels_.state(0).mp_state = KVM_MP_STATE_HALTED;
  EXPECT_FALSE(Inject(kUndefinedOpcode, std::nullopt));
  EXPECT_EQ(levels_.state(0).events.exception.injected, 0);
}

// --- What the last exit left ---

// Plays what comes before the second entry, behind an exit that KVM has yet to complete. On the VP's thread, which alone uses the fake
// KVM meanwhile.
class SecondEntry final : public LevelScheduler {
 public:
  [[nodiscard]] Turn BeforeEntry() noexcept override {
    if (entries_++ == 0) return Turn::kRun;
    if (entries_ == 2) {
      play();
      done.set_value();
    }
    return Turn::kWait;
  }
  void AfterExit() noexcept override {}
  std::function<void()> play;
  std::promise<void> done;

 private:
  int entries_ = 0;
};

class KvmVtlProcessorSettlingTest : public testing::Test {
 protected:
  // An MSR is read, and its value is on its way.
  void BehindAnExit(std::function<void()> play) {
    levels_.state(0).runs.push_back([](kvm_run& run) {
      run.exit_reason = KVM_EXIT_X86_RDMSR;
      return 0;
    });
    second_entry_.play = std::move(play);
    processor_.SetProcessor(*levels_.processor);
    ASSERT_TRUE(levels_.processor->Start().ok());
    second_entry_.done.get_future().wait();
    levels_.processor->RequestStop();
    levels_.processor->Join();
  }
  SecondEntry second_entry_;
  TwoLevelsForTest levels_{{.scheduler = &second_entry_}};
  KvmVtlProcessor processor_;
};

TEST_F(KvmVtlProcessorSettlingTest, AnExceptionComesBehindTheLastExit) {
  BehindAnExit([this] {
    // KVM's completion is its KVM_RUN, which loads what is dirty before it begins.
    levels_.vcpu(0).synced_regs().rip = 0x1234;
    levels_.vcpu(0).MarkSyncedRegsDirty();
    EXPECT_TRUE(processor_.InjectException({.vector = kUndefinedOpcode, .error_code = std::nullopt, .parameter = 0}));
    EXPECT_EQ(levels_.state(0).regs.rip, 0x1234u);
    EXPECT_EQ(levels_.state(0).events.exception.injected, 1);
  });
}

TEST_F(KvmVtlProcessorSettlingTest, ASwitchComesBehindTheLastExit) {
  BehindAnExit([this] {
    levels_.vcpu(0).synced_regs().rbx = 0x77;
    levels_.vcpu(0).MarkSyncedRegsDirty();
    EXPECT_TRUE(processor_.SwitchTo(kVtl1));
    EXPECT_EQ(levels_.state(0).regs.rbx, 0x77u);
    EXPECT_EQ(levels_.vcpu(1).synced_regs().rbx, 0x77u);
    EXPECT_EQ(levels_.processor->active(), 1u);
  });
}

TEST_F(KvmVtlProcessorSettlingTest, WhatCannotBeCompletedEndsTheMachine) {
  BehindAnExit([this] {
    levels_.state(0).refused = {KVM_RUN};
    EXPECT_FALSE(processor_.Settle());
    EXPECT_FALSE(processor_.InjectException({.vector = kUndefinedOpcode, .error_code = std::nullopt, .parameter = 0}));
    EXPECT_FALSE(processor_.SwitchTo(kVtl1));
    EXPECT_EQ(levels_.state(0).events.exception.injected, 0);
  });
  EXPECT_EQ(levels_.control.reason, MachineEnd::kInternalError);
  EXPECT_EQ(levels_.processor->active(), 0u);
}

}  // namespace
}  // namespace vmm
