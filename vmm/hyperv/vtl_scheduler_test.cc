#include "vmm/hyperv/vtl_scheduler.h"

#include <array>
#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/hypercall/hv_register_layout.h"
#include "devices/hyperv/hypercall/hv_vp_context_layout.h"
#include "devices/hyperv/hypercall/hypercall_layout.h"
#include "devices/hyperv/hypercall/vsm_services.h"
#include "devices/hyperv/vsm/tlb_locks.h"
#include "devices/hyperv/vsm/vp_assist_page.h"
#include "devices/hyperv/vsm/vsm_layout.h"
#include "devices/hyperv/vsm/vsm_partition.h"
#include "devices/hyperv/vsm/vsm_registers.h"
#include "devices/hyperv/vsm/vsm_vp.h"
#include "gtest/gtest.h"
#include "vcpu/level_scheduler.h"
#include "vcpu/vp_requests.h"
#include "vmm/hyperv/scheduled_level.h"
#include "vmm/hyperv/vtl_processor.h"

namespace vmm {
namespace {

using Turn = LevelScheduler::Turn;
using Use = ScheduledLevel::Use;

constexpr Vtl kVtl2{2};

constexpr VtlSwitchRequest kCall{static_cast<uint64_t>(HypercallCode::kVtlCall), 0};
constexpr VtlSwitchRequest kReturn{static_cast<uint64_t>(HypercallCode::kVtlReturn), 0};
constexpr VtlSwitchRequest kFastReturn{static_cast<uint64_t>(HypercallCode::kVtlReturn), 1};

// A 64-bit context that passes CheckInitialVpContext.
HvInitialVpContext Context(uint64_t rip) {
  HvInitialVpContext context{};
  context.rip = rip;
  context.rflags = 2;
  context.cs = {.base = 0, .limit = 0xffff'ffff, .selector = 8, .attributes = 0xa09b};
  for (HvSegmentRegister* segment : {&context.ds, &context.es, &context.fs, &context.gs, &context.ss}) {
    *segment = {.base = 0, .limit = 0xffff'ffff, .selector = 16, .attributes = 0xc093};
  }
  context.tr = {.base = 0, .limit = 0x67, .selector = 24, .attributes = 0x8b};
  context.efer = 0xd01;
  context.cr0 = 0x8001'0031;
  context.cr3 = 0x1000;
  context.cr4 = 0x20;
  context.pat = 0x0007'0406'0007'0406;
  return context;
}

// Writes down what it is told to do, in one list for processor and levels: the order matters.
struct Log {
  std::vector<std::string> lines;
  std::vector<std::string> Take() { return std::exchange(lines, {}); }
};

class FakeProcessor final : public VtlProcessor {
 public:
  explicit FakeProcessor(Log& log) : log_(log) {}
  bool Settle() noexcept override {
    log_.lines.push_back("settle");
    return true;
  }
  bool SwitchTo(Vtl vtl) noexcept override {
    log_.lines.push_back("switch " + std::to_string(vtl.raw()));
    return !fails;
  }
  HvStatus LoadContext(Vtl vtl, const HvInitialVpContext& context) noexcept override {
    if (context.rip == refused_rip) return HvStatus::kInvalidRegisterValue;
    loaded[vtl.raw()] = context.rip;
    return HvStatus::kSuccess;
  }
  bool IsStarted() noexcept override { return started; }
  bool SetStarted() noexcept override { return started = true; }
  void RestoreReturnRegisters(Vtl from, const VpAssistPage& page) noexcept override {
    log_.lines.push_back("restore " + std::to_string(from.raw()) + " rax " + std::to_string(page.return_registers().rax));
  }
  bool Sleep() noexcept override {
    log_.lines.push_back("sleep");
    return asleep = true;
  }
  bool IsAsleep() noexcept override { return asleep; }
  bool Wake() noexcept override {
    log_.lines.push_back("wake");
    asleep = false;
    return true;
  }
  bool TrapMsrs(Vtl of, uint64_t events) noexcept override {
    if (refuses_traps) return false;
    trapped[of.raw()] = events;
    return true;
  }
  bool InjectException(const PendingException& exception) noexcept override {
    log_.lines.push_back("inject " + std::to_string(exception.vector));
    return true;
  }

  bool started = true;
  bool fails = false;
  uint64_t refused_rip = 0xbad;
  std::array<uint64_t, kHvVtlCount> loaded{};
  bool asleep = false;
  bool refuses_traps = false;
  std::array<uint64_t, kHvVtlCount> trapped{};

 private:
  Log& log_;
};

class FakeLevel final : public ScheduledLevel {
 public:
  FakeLevel(Log& log, int number) : log_(log), number_(number) {}
  std::byte* assist_page() noexcept override { return page.data(); }
  HvStatus GetOwnRegister(HvRegisterName, HvRegisterValue& value) noexcept override {
    value = {uint64_t(number_), 0};
    return HvStatus::kSuccess;
  }
  HvStatus SetOwnRegister(HvRegisterName, const HvRegisterValue&) noexcept override { return HvStatus::kAccessDenied; }
  bool AssertInterrupt(const VsmServices::Interrupt& interrupt) noexcept override {
    asserted.push_back(interrupt);
    return true;
  }
  bool WaitsInKernel() const noexcept override { return number_ == 0; }
  void Watch(bool on) noexcept override { watched = on; }
  void RunPending() noexcept override { ++runs; }
  bool IsPending() noexcept override { return pending; }
  bool IsDeliverable() noexcept override {
    ++deliverable_asked;
    watched_when_asked = watched;
    return deliverable;
  }
  bool PrepareEntry() noexcept override {
    log_.lines.push_back("prepare " + std::to_string(number_));
    pending = false;  // injected
    if (on_prepare) on_prepare();
    return true;
  }
  bool Arm(Use use) noexcept override {
    armed = use;
    if (!pending_while_arming) return true;
    pending_while_arming = false;
    pending = true;
    return false;
  }
  void Disarm() noexcept override { armed.reset(); }
  void AfterExit() noexcept override {
    armed.reset();
    ++exits;
  }
  void OnRedirected() noexcept override { ++redirected; }
  void RaiseVina(const VinaInterrupt& vina) noexcept override {
    log_.lines.push_back("vina " + std::to_string(vina.vector));
    pending = deliverable = true;
  }
  [[nodiscard]] uint32_t entry_reason() const {
    uint32_t reason;
    std::memcpy(&reason, page.data() + 8, sizeof(reason));
    return reason;
  }

  alignas(4096) std::array<std::byte, 4096> page{};
  bool pending = false;
  bool deliverable = false;
  bool pending_while_arming = false;
  bool watched = false;
  bool watched_when_asked = false;
  std::optional<Use> armed;
  std::vector<VsmServices::Interrupt> asserted;
  std::function<void()> on_prepare;
  int runs = 0, exits = 0, deliverable_asked = 0, redirected = 0;

 private:
  Log& log_;
  const int number_;
};

class FakeRegisters final : public LowerVtlRegisters {
 public:
  HvStatus Get(Vtl, HvRegisterName, HvRegisterValue& value) noexcept override {
    value = {0x1234, 0};
    return HvStatus::kSuccess;
  }
  HvStatus Set(Vtl, HvRegisterName, const HvRegisterValue&) noexcept override { return HvStatus::kSuccess; }
};

class VtlSchedulerTest : public testing::Test {
 protected:
  // VTL1 is enabled and has been entered and left once.
  void EnableVtl1() {
    ASSERT_EQ(partition_.Enable(kVtl0, 1, 0), HvStatus::kSuccess);
    ASSERT_EQ(scheduler_.Enable(kVtl0, true, 1, Context(0x5000)), HvStatus::kSuccess);
  }
  void EnterVtl1() {
    ASSERT_TRUE(scheduler_.Call(kCall));
    ASSERT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
    ASSERT_EQ(scheduler_.vsm().active(), kVtl1);
    log_.Take();
  }
  using Lines = std::vector<std::string>;

  Log log_;
  FakeProcessor processor_{log_};
  FakeLevel vtl0_{log_, 0}, vtl1_{log_, 1}, vtl2_{log_, 2};
  FakeRegisters registers_;
  VsmPartition partition_{VsmOffer{.maximum = kVtl2}};
  TlbLocks locks_{2};
  VpRequests requests_{2};
  int kicks_ = 0;
  VtlScheduler scheduler_{VpIndex(0),
                          VtlScheduler::Environment{.processor = processor_,
                                                    .partition = partition_,
                                                    .locks = locks_,
                                                    .registers = registers_,
                                                    .requests = requests_,
                                                    .levels = {&vtl0_, &vtl1_, &vtl2_},
                                                    .kick_all = [this] { ++kicks_; }}};
};

TEST_F(VtlSchedulerTest, WithVtl0AloneItRunsAndHasNowhereToGo) {
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
  EXPECT_EQ(log_.Take(), (Lines{"prepare 0"}));
  EXPECT_FALSE(scheduler_.Call(kCall));
  EXPECT_FALSE(scheduler_.Return(kReturn));
  EXPECT_EQ(vtl1_.runs, 0);
  EXPECT_FALSE(vtl1_.armed.has_value());
}

TEST_F(VtlSchedulerTest, EnablingLoadsTheContextAndSwitchesNothing) {
  EnableVtl1();
  EXPECT_EQ(processor_.loaded[1], 0x5000u);
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
  EXPECT_EQ(scheduler_.vsm().active(), kVtl0);
  EXPECT_EQ(log_.Take(), (Lines{"prepare 0"}));
}

TEST_F(VtlSchedulerTest, AContextThatTheProcessorRefusesEnablesNothing) {
  ASSERT_EQ(partition_.Enable(kVtl0, 1, 0), HvStatus::kSuccess);
  EXPECT_EQ(scheduler_.Enable(kVtl0, true, 1, Context(processor_.refused_rip)), HvStatus::kInvalidRegisterValue);
  EXPECT_FALSE(scheduler_.vsm().IsEnabled(kVtl1));
  // Who may not is told so first.
  EXPECT_EQ(scheduler_.Enable(kVtl0, false, 1, Context(processor_.refused_rip)), HvStatus::kAccessDenied);
}

TEST_F(VtlSchedulerTest, ACallEntersVtl1WithItsReasonBeforeTheNextEntry) {
  EnableVtl1();
  ASSERT_TRUE(scheduler_.Call(kCall));
  EXPECT_EQ(scheduler_.vsm().active(), kVtl0);
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
  EXPECT_EQ(log_.Take(), (Lines{"switch 1", "prepare 1"}));
  EXPECT_EQ(vtl1_.entry_reason(), 1u);
  EXPECT_EQ(scheduler_.stats().calls, 1u);
}

TEST_F(VtlSchedulerTest, AReturnRestoresRegistersUnlessItIsFast) {
  EnableVtl1();
  EnterVtl1();
  const uint64_t rax = 77;
  std::memcpy(vtl1_.page.data() + 16, &rax, sizeof(rax));
  ASSERT_TRUE(scheduler_.Return(kReturn));
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
  EXPECT_EQ(log_.Take(), (Lines{"switch 0", "restore 1 rax 77", "prepare 0"}));
  EnterVtl1();
  ASSERT_TRUE(scheduler_.Return(kFastReturn));
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
  EXPECT_EQ(log_.Take(), (Lines{"switch 0", "prepare 0"}));
}

TEST_F(VtlSchedulerTest, AnInterruptOfVtl1ComesBeforeVtl0) {
  EnableVtl1();
  vtl1_.pending = true;
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
  EXPECT_EQ(log_.Take(), (Lines{"switch 1", "prepare 1"}));
  EXPECT_EQ(vtl1_.entry_reason(), 2u);
  EXPECT_EQ(scheduler_.stats().preemptions, 1u);
}

TEST_F(VtlSchedulerTest, WhatBecomesPendingWhileItArmsIsSeen) {
  EnableVtl1();
  vtl1_.pending_while_arming = true;
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
  EXPECT_EQ(scheduler_.vsm().active(), kVtl1);
  EXPECT_EQ(log_.Take(), (Lines{"prepare 0", "switch 1", "prepare 1"}));
}

TEST_F(VtlSchedulerTest, AReturnWithAnInterruptPendingComesStraightBack) {
  EnableVtl1();
  EnterVtl1();
  ASSERT_TRUE(scheduler_.Return(kFastReturn));
  vtl1_.pending = true;
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
  EXPECT_EQ(log_.Take(), (Lines{"switch 0", "switch 1", "prepare 1"}));
  EXPECT_EQ(vtl1_.entry_reason(), 2u);
}

TEST_F(VtlSchedulerTest, HigherLevelsAreArmedWhileALowerOneRunsAndAwakeAfterwards) {
  EnableVtl1();
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
  EXPECT_EQ(vtl1_.armed, Use::kInactive);
  EXPECT_EQ(vtl0_.armed, Use::kRuns);
  scheduler_.AfterExit();
  EXPECT_FALSE(vtl1_.armed.has_value());
  EXPECT_EQ(vtl0_.exits, 1);
  EXPECT_EQ(vtl1_.exits, 0);
  EnterVtl1();
  EXPECT_EQ(vtl1_.armed, Use::kRuns);
  EXPECT_FALSE(vtl0_.armed.has_value());
}

TEST_F(VtlSchedulerTest, AHaltedVtl1WaitsForWhatItCanTake) {
  EnableVtl1();
  EnterVtl1();
  scheduler_.Halt();
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kWait);
  EXPECT_EQ(vtl1_.armed, Use::kWaits);
  vtl1_.deliverable = true;
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
  EXPECT_FALSE(scheduler_.vsm().IsHalted(kVtl1));
}

TEST_F(VtlSchedulerTest, VinaIsRaisedForAnInterruptOfVtl0AndAskedForOnlyWhenOn) {
  EnableVtl1();
  EnterVtl1();
  vtl0_.deliverable = true;
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
  EXPECT_EQ(vtl0_.deliverable_asked, 0);
  scheduler_.vsm().set_vina(kVtl1, kHvVinaEnabled | 0x55);
  log_.Take();
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
  EXPECT_EQ(log_.Take(), (Lines{"vina 85", "prepare 1"}));
  // Asserted: not again.
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
  EXPECT_EQ(log_.Take(), (Lines{"prepare 1"}));
}

TEST_F(VtlSchedulerTest, AnExceptionThatVtl1GaveIsInjectedWhenVtl0Runs) {
  EnableVtl1();
  EnterVtl1();
  const VsmRegisters::Target vtl0{.caller = kVtl1, .vtl = kVtl0};
  VsmRegisters::Effect effect;
  const HvRegisterValue fault{kHvEventPending | kHvEventDeliverErrorCode | uint64_t{13} << kHvEventVectorShift, 0};
  ASSERT_EQ(scheduler_.SetRegister(vtl0, HvRegisterName::kPendingEvent0, fault, effect), HvStatus::kSuccess);
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
  EXPECT_EQ(log_.Take(), (Lines{"prepare 1"}));
  ASSERT_TRUE(scheduler_.Return(kFastReturn));
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
  EXPECT_EQ(log_.Take(), (Lines{"switch 0", "inject 13", "prepare 0"}));
}

TEST_F(VtlSchedulerTest, AReturnReleasesTlbLocksAndWakesWhoWaitedForThem) {
  EnableVtl1();
  EnterVtl1();
  const VsmRegisters::Target own{.caller = kVtl1, .vtl = kVtl1};
  VsmRegisters::Effect effect;
  ASSERT_EQ(scheduler_.SetRegister(own, HvRegisterName::kVsmVpSecureConfigVtl0, {kHvSecureTlbLocked, 0}, effect),
            HvStatus::kSuccess);
  EXPECT_TRUE(locks_.MustWait(VpIndex(1), kVtl0));
  ASSERT_TRUE(scheduler_.Return(kFastReturn));
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
  EXPECT_FALSE(locks_.MustWait(VpIndex(1), kVtl0));
  EXPECT_EQ(kicks_, 1);
}

TEST_F(VtlSchedulerTest, AProcessorThatWaitsForItsStartRunsNothingUntilItAndThenVtl1First) {
  processor_.started = false;
  ASSERT_EQ(partition_.Enable(kVtl0, 1, 0), HvStatus::kSuccess);
  EXPECT_EQ(scheduler_.CheckStart(kVtl0, kVtl1), HvStatus::kInvalidVpState);
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);  // it waits in KVM
  ASSERT_EQ(scheduler_.Enable(kVtl1, false, 1, Context(0x5000)), HvStatus::kSuccess);
  vtl1_.pending = true;
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kWait);
  EXPECT_EQ(scheduler_.vsm().active(), kVtl0);
  EXPECT_EQ(scheduler_.Start(kVtl0, Context(processor_.refused_rip)), HvStatus::kInvalidRegisterValue);
  EXPECT_FALSE(processor_.started);
  ASSERT_EQ(scheduler_.Start(kVtl0, Context(0x6000)), HvStatus::kSuccess);
  EXPECT_EQ(processor_.loaded[0], 0x6000u);
  EXPECT_EQ(processor_.loaded[1], 0x5000u);
  log_.Take();
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
  EXPECT_EQ(scheduler_.vsm().active(), kVtl1);
  EXPECT_EQ(log_.Take(), (Lines{"prepare 1"}));
  EXPECT_EQ(scheduler_.Start(kVtl0, Context(0x6000)), HvStatus::kInvalidVpState);
}

TEST_F(VtlSchedulerTest, RegistersThatAreNoLevelsBusinessAreTheInterfaces) {
  EnableVtl1();
  EnterVtl1();
  HvRegisterValue value{};
  EXPECT_EQ(scheduler_.GetRegister({.caller = kVtl1, .vtl = kVtl0}, HvRegisterName::kVpIndex, value), HvStatus::kSuccess);
  EXPECT_EQ(value.low, 0u);
  EXPECT_EQ(scheduler_.GetRegister({.caller = kVtl1, .vtl = kVtl1}, HvRegisterName::kVpIndex, value), HvStatus::kSuccess);
  EXPECT_EQ(value.low, 1u);
  EXPECT_EQ(scheduler_.GetRegister({.caller = kVtl1, .vtl = kVtl0}, HvRegisterName::kRip, value), HvStatus::kSuccess);
  EXPECT_EQ(value.low, 0x1234u);
  EXPECT_EQ(scheduler_.GetRegister({.caller = kVtl0, .vtl = kVtl1}, HvRegisterName::kRip, value), HvStatus::kAccessDenied);
}

TEST_F(VtlSchedulerTest, ALevelThatAnInterceptStoppedWaitsTillVtl1WasEntered) {
  EnableVtl1();
  scheduler_.SuspendForIntercept();
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kWait);
  EXPECT_EQ(vtl1_.armed, Use::kInactive);
  EXPECT_EQ(log_.Take(), Lines{});
  vtl1_.pending = true;
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
  EXPECT_EQ(log_.Take(), (Lines{"switch 1", "prepare 1"}));
  ASSERT_TRUE(scheduler_.Return(kFastReturn));
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
  EXPECT_EQ(log_.Take(), (Lines{"switch 0", "prepare 0"}));
}

TEST_F(VtlSchedulerTest, WhatVtl1WantsToHearOfIsTrapped) {
  EnableVtl1();
  constexpr uint64_t kLstar = uint64_t{1} << static_cast<unsigned>(CrEvent::kLstarWrite);
  constexpr uint64_t kCr0 = uint64_t{1} << static_cast<unsigned>(CrEvent::kCr0Write);
  VsmRegisters::Effect effect;
  const auto set = [&](uint64_t value) {
    return scheduler_.SetRegister({.caller = kVtl1, .vtl = kVtl1}, HvRegisterName::kCrInterceptControl, {value, 0}, effect);
  };
  // What is no MSR's is no matter of traps.
  EXPECT_EQ(set(kLstar | kCr0), HvStatus::kSuccess);
  EXPECT_EQ(processor_.trapped[0], kLstar);
  processor_.refuses_traps = true;
  EXPECT_EQ(set(0), HvStatus::kInsufficientMemory);
  HvRegisterValue value{};
  EXPECT_EQ(scheduler_.GetRegister({.caller = kVtl1, .vtl = kVtl1}, HvRegisterName::kCrInterceptControl, value), HvStatus::kSuccess);
  EXPECT_EQ(value.low, kLstar | kCr0);
  processor_.refuses_traps = false;
  EXPECT_EQ(set(0), HvStatus::kSuccess);
  EXPECT_EQ(processor_.trapped[0], 0u);
}

// What a level holds back is tried when it is about to run, and may stop it again.
TEST_F(VtlSchedulerTest, ALevelMayFindThatItWaitsWhenItIsAboutToRun) {
  EnableVtl1();
  vtl0_.on_prepare = [this] {
    scheduler_.SuspendForIntercept();
    vtl1_.pending = true;
    vtl0_.on_prepare = nullptr;
  };
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
  EXPECT_EQ(log_.Take(), (Lines{"prepare 0", "switch 1", "prepare 1"}));
  ASSERT_TRUE(scheduler_.Return(kFastReturn));
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
  EXPECT_EQ(log_.Take(), (Lines{"switch 0", "prepare 0"}));
}

TEST_F(VtlSchedulerTest, ALevelHearsThatItIsToDoSomethingElse) {
  EnableVtl1();
  VsmRegisters::Effect effect;
  const auto set = [&](HvRegisterName name, uint64_t value) {
    return scheduler_.SetRegister({.caller = kVtl1, .vtl = kVtl0}, name, {value, 0}, effect);
  };
  EXPECT_EQ(set(HvRegisterName::kLstar, 0x1000), HvStatus::kSuccess);
  EXPECT_EQ(vtl0_.redirected, 0);
  EXPECT_EQ(set(HvRegisterName::kRip, 0x1000), HvStatus::kSuccess);
  EXPECT_EQ(vtl0_.redirected, 1);
  EXPECT_EQ(set(HvRegisterName::kRip, uint64_t{1} << 63), HvStatus::kInvalidRegisterValue);
  EXPECT_EQ(vtl0_.redirected, 1);
  EXPECT_EQ(set(HvRegisterName::kPendingEvent0, kHvEventPending | uint64_t{6} << kHvEventVectorShift), HvStatus::kSuccess);
  EXPECT_EQ(vtl0_.redirected, 2);
  EXPECT_EQ(vtl1_.redirected, 0);
}

// What comes between the look and the entry kicks: it is watched for before it is looked at.
TEST_F(VtlSchedulerTest, WhileVtl1WantsVinaVtl0IsWatchedBeforeItIsLookedAt) {
  EnableVtl1();
  EnterVtl1();
  EXPECT_FALSE(vtl0_.watched);
  scheduler_.vsm().set_vina(kVtl1, kHvVinaEnabled | 0x55);
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
  EXPECT_TRUE(vtl0_.watched);
  EXPECT_TRUE(vtl0_.watched_when_asked);
  EXPECT_FALSE(vtl1_.watched);
  // Also while VTL1 waits, whom it then wakes.
  scheduler_.Halt();
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kWait);
  EXPECT_TRUE(vtl0_.watched);
  vtl0_.deliverable = true;
  log_.Take();
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
  EXPECT_EQ(log_.Take(), (Lines{"vina 85", "prepare 1"}));
  EXPECT_FALSE(scheduler_.vsm().IsHalted(kVtl1));
  // VTL0 runs: nobody is to hear of its interrupts.
  ASSERT_TRUE(scheduler_.Return(kFastReturn));
  vtl1_.pending = vtl1_.deliverable = false;
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
  EXPECT_FALSE(vtl0_.watched);
}

class TlbWaitTest : public VtlSchedulerTest {
 protected:
  // VTL1 of another VP has VTL0's translations locked, and VTL0 of this one has been told to wait.
  void SetUp() override {
    EnableVtl1();
    locks_.Acquire(VpIndex(1), kVtl1, kVtl0);
    scheduler_.WaitForTlbLock();
    EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
    EXPECT_EQ(log_.Take(), (Lines{"sleep", "prepare 0"}));
  }
};

TEST_F(TlbWaitTest, ItSleepsInTheGuestTillTheLockIsReleased) {
  // A kick for something else.
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
  EXPECT_EQ(log_.Take(), (Lines{"prepare 0"}));
  EXPECT_TRUE(locks_.Release(VpIndex(1), kVtl1, VtlBit(kVtl0)));
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
  EXPECT_EQ(log_.Take(), (Lines{"wake", "prepare 0"}));
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
  EXPECT_EQ(log_.Take(), (Lines{"prepare 0"}));
}

TEST_F(TlbWaitTest, AnInterruptOfItsOwnEndsTheWaitAndTheCallWaitsAnew) {
  processor_.asleep = false;
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
  EXPECT_EQ(log_.Take(), (Lines{"prepare 0"}));
  // Its handler may halt: that is nobody's to end.
  processor_.asleep = true;
  EXPECT_TRUE(locks_.Release(VpIndex(1), kVtl1, VtlBit(kVtl0)));
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
  EXPECT_EQ(log_.Take(), (Lines{"prepare 0"}));
  processor_.asleep = false;
  locks_.Acquire(VpIndex(1), kVtl1, kVtl0);
  scheduler_.WaitForTlbLock();
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
  EXPECT_EQ(log_.Take(), (Lines{"sleep", "prepare 0"}));
}

TEST_F(TlbWaitTest, Vtl1IsEnteredMeanwhileAndVtl0SleepsOnAfterwards) {
  vtl1_.pending = true;
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
  EXPECT_EQ(log_.Take(), (Lines{"switch 1", "prepare 1"}));
  ASSERT_TRUE(scheduler_.Return(kFastReturn));
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
  EXPECT_EQ(log_.Take(), (Lines{"switch 0", "prepare 0"}));
  EXPECT_TRUE(processor_.asleep);
  // Released while VTL1 runs: it is looked at when VTL0 does.
  vtl1_.pending = true;
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
  EXPECT_TRUE(locks_.Release(VpIndex(1), kVtl1, VtlBit(kVtl0)));
  ASSERT_TRUE(scheduler_.Return(kFastReturn));
  log_.Take();
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
  EXPECT_EQ(log_.Take(), (Lines{"switch 0", "wake", "prepare 0"}));
}

TEST_F(TlbWaitTest, WhoIsMovedOnDoesNotSleepOn) {
  VsmRegisters::Effect effect;
  EXPECT_EQ(scheduler_.SetRegister({.caller = kVtl1, .vtl = kVtl0}, HvRegisterName::kRip, {0x1000, 0}, effect), HvStatus::kSuccess);
  EXPECT_EQ(log_.Take(), (Lines{"wake"}));
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
  EXPECT_EQ(log_.Take(), (Lines{"prepare 0"}));
}

// A level whose APIC is ours waits outside.
TEST_F(TlbWaitTest, AHigherLevelWaitsOutsideTheGuest) {
  ASSERT_TRUE(locks_.Release(VpIndex(1), kVtl1, VtlBit(kVtl0)));
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
  EnterVtl1();
  locks_.Acquire(VpIndex(1), kVtl2, kVtl1);
  scheduler_.WaitForTlbLock();
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kWait);
  EXPECT_EQ(vtl1_.armed, Use::kWaits);
  EXPECT_TRUE(locks_.Release(VpIndex(1), kVtl2, VtlBit(kVtl1)));
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
  EXPECT_EQ(log_.Take(), (Lines{"prepare 1"}));
}

// --- Three levels -----------------------------------------------------------------------------------------------------------

class ThreeLevelsTest : public VtlSchedulerTest {
 protected:
  void SetUp() override {
    EnableVtl1();
    EnterVtl1();
    ASSERT_EQ(partition_.Enable(kVtl1, 2, 0), HvStatus::kSuccess);
    ASSERT_EQ(scheduler_.Enable(kVtl1, true, 2, Context(0x6000)), HvStatus::kSuccess);
    EXPECT_EQ(processor_.loaded[2], 0x6000u);
    ASSERT_TRUE(scheduler_.Return(kFastReturn));
    EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
    log_.Take();
  }
  void Expect(Vtl active, const Lines& lines) {
    EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
    EXPECT_EQ(scheduler_.vsm().active(), active);
    EXPECT_EQ(log_.Take(), lines);
  }
};

TEST_F(ThreeLevelsTest, CallsGoUpOneAndReturnsGoDownOne) {
  ASSERT_TRUE(scheduler_.Call(kCall));
  Expect(kVtl1, {"switch 1", "prepare 1"});
  EXPECT_EQ(vtl1_.entry_reason(), 1u);
  ASSERT_TRUE(scheduler_.Call(kCall));
  Expect(kVtl2, {"switch 2", "prepare 2"});
  EXPECT_EQ(vtl2_.entry_reason(), 1u);
  EXPECT_FALSE(scheduler_.Call(kCall));
  ASSERT_TRUE(scheduler_.Return(kReturn));
  Expect(kVtl1, {"switch 1", "restore 2 rax 0", "prepare 1"});
  ASSERT_TRUE(scheduler_.Return(kReturn));
  Expect(kVtl0, {"switch 0", "restore 1 rax 0", "prepare 0"});
  EXPECT_FALSE(scheduler_.Return(kReturn));
}

TEST_F(ThreeLevelsTest, TheHighestThatIsPendingIsEnteredAndTheOthersAfterIt) {
  vtl1_.pending = vtl2_.pending = true;
  Expect(kVtl2, {"switch 2", "prepare 2"});
  EXPECT_EQ(vtl2_.entry_reason(), 2u);
  // A return goes to VTL1, which finds its interrupt.
  ASSERT_TRUE(scheduler_.Return(kFastReturn));
  Expect(kVtl1, {"switch 1", "prepare 1"});
  EXPECT_FALSE(vtl1_.pending);
  // VTL2 comes before VTL1 as before VTL0.
  vtl2_.pending = true;
  Expect(kVtl2, {"switch 2", "prepare 2"});
}

TEST_F(ThreeLevelsTest, EveryLevelAboveIsArmedAndEveryLevelBelowIsNot) {
  Expect(kVtl0, {"prepare 0"});
  EXPECT_EQ(vtl1_.armed, Use::kInactive);
  EXPECT_EQ(vtl2_.armed, Use::kInactive);
  scheduler_.AfterExit();
  EXPECT_FALSE(vtl1_.armed.has_value());
  EXPECT_FALSE(vtl2_.armed.has_value());
  ASSERT_TRUE(scheduler_.Call(kCall));
  Expect(kVtl1, {"switch 1", "prepare 1"});
  EXPECT_FALSE(vtl0_.armed.has_value());
  EXPECT_EQ(vtl2_.armed, Use::kInactive);
}

// VTL0 and VTL1 alike, by a level above; the lowest above alone does not suffice where another refused.
TEST_F(ThreeLevelsTest, WhoWasStoppedWaitsForALevelAbove) {
  scheduler_.SuspendForIntercept();
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kWait);
  vtl2_.pending = true;
  Expect(kVtl2, {"switch 2", "prepare 2"});
  ASSERT_TRUE(scheduler_.Return(kFastReturn));
  Expect(kVtl1, {"switch 1", "prepare 1"});
  scheduler_.SuspendForIntercept();
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kWait);
  EXPECT_EQ(vtl2_.armed, Use::kInactive);
  vtl2_.pending = true;
  Expect(kVtl2, {"switch 2", "prepare 2"});
}

TEST_F(ThreeLevelsTest, InterceptsAreTheUnionOfAllAboveAndEachLevelsOwnBelow) {
  constexpr uint64_t kLstar = uint64_t{1} << static_cast<unsigned>(CrEvent::kLstarWrite);
  constexpr uint64_t kEfer = uint64_t{1} << static_cast<unsigned>(CrEvent::kEferWrite);
  VsmRegisters::Effect effect;
  const auto set = [&](Vtl owner, uint64_t value) {
    return scheduler_.SetRegister({.caller = owner, .vtl = owner}, HvRegisterName::kCrInterceptControl, {value, 0}, effect);
  };
  EXPECT_EQ(set(kVtl1, kLstar), HvStatus::kSuccess);
  EXPECT_EQ(processor_.trapped, (std::array<uint64_t, kHvVtlCount>{kLstar, 0, 0}));
  EXPECT_EQ(set(kVtl2, kEfer), HvStatus::kSuccess);
  EXPECT_EQ(processor_.trapped, (std::array<uint64_t, kHvVtlCount>{kLstar | kEfer, kEfer, 0}));
  EXPECT_EQ(scheduler_.vsm().FindCrIntercept(kVtl0, CrEvent::kLstarWrite, 0, 0), kVtl1);
  EXPECT_EQ(scheduler_.vsm().FindCrIntercept(kVtl0, CrEvent::kEferWrite, 0, 0), kVtl2);
  EXPECT_EQ(scheduler_.vsm().FindCrIntercept(kVtl1, CrEvent::kEferWrite, 0, 0), kVtl2);
  EXPECT_EQ(scheduler_.vsm().FindCrIntercept(kVtl1, CrEvent::kLstarWrite, 0, 0), std::nullopt);
}

TEST_F(ThreeLevelsTest, VinaTellsTheActiveLevelOfEveryLevelBelow) {
  ASSERT_TRUE(scheduler_.Call(kCall));
  Expect(kVtl1, {"switch 1", "prepare 1"});
  ASSERT_TRUE(scheduler_.Call(kCall));
  Expect(kVtl2, {"switch 2", "prepare 2"});
  scheduler_.vsm().set_vina(kVtl2, kHvVinaEnabled | 0x66);
  vtl1_.deliverable = true;
  Expect(kVtl2, {"vina 102", "prepare 2"});
  EXPECT_TRUE(vtl0_.watched);
  EXPECT_TRUE(vtl1_.watched);
  EXPECT_FALSE(vtl2_.watched);
}

TEST_F(VtlSchedulerTest, NothingRunsAfterASwitchThatFailed) {
  EnableVtl1();
  ASSERT_TRUE(scheduler_.Call(kCall));
  processor_.fails = true;
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kWait);
  EXPECT_EQ(scheduler_.vsm().active(), kVtl0);
}

}  // namespace
}  // namespace vmm
