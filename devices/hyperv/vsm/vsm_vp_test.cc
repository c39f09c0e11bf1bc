#include "devices/hyperv/vsm/vsm_vp.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>

#include <gtest/gtest.h>

#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/hypercall/hv_register_layout.h"
#include "devices/hyperv/hypercall/hv_vp_context_layout.h"
#include "devices/hyperv/vsm/vp_assist_page.h"
#include "devices/hyperv/vsm/vsm_layout.h"

namespace vmm {
namespace {

constexpr Vtl kVtl2{2};
constexpr uint64_t kCall = 0x11;
constexpr uint64_t kReturn = 0x12;
using Kind = VtlSchedule::Kind;
using Switch = VtlSwitchAction::Kind;

constexpr VtlSwitchAction kUd{};
VtlSwitchAction Call(Vtl to) { return {.kind = Switch::kCall, .to = to}; }
VtlSwitchAction Return(Vtl to, bool fast = false) { return {.kind = Switch::kReturn, .to = to, .fast = fast}; }
VtlSchedule RunsIn(Vtl vtl) { return {.kind = Kind::kRun, .vtl = vtl, .vina = std::nullopt}; }
VtlSchedule WaitsIn(Vtl vtl) { return {.kind = Kind::kWait, .vtl = vtl, .vina = std::nullopt}; }
VtlSchedule PreemptsFor(Vtl vtl) { return {.kind = Kind::kPreempt, .vtl = vtl, .vina = std::nullopt}; }

// A VP with an assist page for each level.
struct Vp {
  explicit Vp(VtlSet enabled) {
    for (uint8_t vtl = 1; vtl < kHvVtlCount; ++vtl) {
      if (!Has(enabled, Vtl(vtl))) continue;
      EXPECT_EQ(vsm.Enable(Vtl(vtl), {.rip = 0x1000u * vtl}), HvStatus::kSuccess);
    }
  }
  VpAssistPage page(Vtl vtl) { return VpAssistPage(bytes[vtl.raw()].data()); }
  template <typename T>
  T At(Vtl vtl, size_t offset) {
    T value;
    std::memcpy(&value, bytes[vtl.raw()].data() + offset, sizeof(value));
    return value;
  }
  template <typename T>
  void Put(Vtl vtl, size_t offset, T value) {
    std::memcpy(bytes[vtl.raw()].data() + offset, &value, sizeof(value));
  }
  void Enter(Vtl to, VtlEntryReason reason = VtlEntryReason::kVtlCall) { vsm.Enter(to, reason, page(to)); }
  VtlSet Leave(Vtl to) { return vsm.Leave(to, page(vsm.active())); }
  VtlSchedule Schedule(VtlInterrupts interrupts) { return vsm.Schedule(interrupts, page(vsm.active())); }

  alignas(4096) std::array<std::array<std::byte, 4096>, kHvVtlCount> bytes{};
  VsmVp vsm;
};

// --- The levels of a VP -----------------------------------------------------------------------------------------------------

TEST(VsmVpTest, BeginsInVtl0Alone) {
  Vp vp(0);
  EXPECT_EQ(vp.vsm.active(), kVtl0);
  EXPECT_EQ(vp.vsm.enabled(), 0b1);
  EXPECT_EQ(vp.vsm.status(), 0x1'0000u);
  EXPECT_EQ(vp.vsm.TakeInitialContext(kVtl0), nullptr);
}

TEST(VsmVpTest, EnablingChangesTheStatusAndNotWhoRuns) {
  Vp vp(0b10);
  EXPECT_EQ(vp.vsm.active(), kVtl0);
  EXPECT_EQ(vp.vsm.status(), 0x3'0000u);
  EXPECT_EQ(vp.vsm.Enable(kVtl1, {}), HvStatus::kVtlAlreadyEnabled);
  EXPECT_EQ(vp.vsm.Enable(kVtl0, {}), HvStatus::kVtlAlreadyEnabled);
}

TEST(VsmVpTest, InitialContextIsTakenOnce) {
  Vp vp(0b110);
  const HvInitialVpContext* const context = vp.vsm.TakeInitialContext(kVtl2);
  ASSERT_NE(context, nullptr);
  EXPECT_EQ(context->rip, 0x2000u);
  EXPECT_EQ(vp.vsm.TakeInitialContext(kVtl2), nullptr);
  EXPECT_NE(vp.vsm.TakeInitialContext(kVtl1), nullptr);
}

TEST(VsmVpTest, SecondEnablingDoesNotReplaceTheContext) {
  Vp vp(0b10);
  EXPECT_EQ(vp.vsm.Enable(kVtl1, {.rip = 0xbad}), HvStatus::kVtlAlreadyEnabled);
  EXPECT_EQ(vp.vsm.TakeInitialContext(kVtl1)->rip, 0x1000u);
}

TEST(VsmVpTest, StatusNamesTheActiveLevelAndItsMbec) {
  Vp vp(0b10);
  vp.vsm.set_secure_config(kVtl1, kVtl0, kHvSecureMbec);
  EXPECT_EQ(vp.vsm.status(), 0x3'0010u);
  vp.Enter(kVtl1);
  EXPECT_EQ(vp.vsm.status(), 0x3'0001u);
}

TEST(VsmVpTest, StartBeginsInTheHighestLevelAndTheTargetsContextIsFoundOnReturn) {
  Vp vp(0b10);
  vp.vsm.Start(kVtl0, {.rip = 0x7000});
  EXPECT_EQ(vp.vsm.active(), kVtl1);
  EXPECT_EQ(vp.vsm.TakeInitialContext(kVtl1)->rip, 0x1000u);
  EXPECT_EQ(vp.At<uint32_t>(kVtl1, 8), 0u);
  EXPECT_EQ(vp.Leave(kVtl0), 0);
  EXPECT_EQ(vp.vsm.TakeInitialContext(kVtl0)->rip, 0x7000u);
}

TEST(VsmVpTest, InitIsDroppedBelowTheHighestLevel) {
  Vp vp(0b10);
  EXPECT_TRUE(vp.vsm.DropsInit(kVtl0));
  EXPECT_FALSE(vp.vsm.DropsInit(kVtl1));
  EXPECT_FALSE(Vp(0).vsm.DropsInit(kVtl0));
}

TEST(VsmVpTest, ResetForgetsEverything) {
  Vp vp(0b110);
  vp.Enter(kVtl2);
  vp.vsm.set_vina(kVtl2, 0x1ff);
  vp.vsm.set_secure_config(kVtl2, kVtl0, kHvSecureMbec);
  vp.vsm.cr_intercepts(kVtl1).control = 1;
  vp.vsm.set_pending_event(kVtl0, {kHvEventPending, 0});
  vp.vsm.SetHalted(kVtl0, true);
  vp.vsm.Reset();
  EXPECT_EQ(vp.vsm.status(), 0x1'0000u);
  EXPECT_EQ(vp.vsm.vina(kVtl2), 0u);
  EXPECT_FALSE(vp.vsm.IsMbecEnabled(kVtl0));
  EXPECT_EQ(vp.vsm.cr_intercepts(kVtl1).control, 0u);
  EXPECT_EQ(vp.vsm.TakePendingException(kVtl0), std::nullopt);
  EXPECT_EQ(vp.vsm.TakeInitialContext(kVtl1), nullptr);
  EXPECT_EQ(vp.Schedule({}), RunsIn(kVtl0));
}

// --- VTL call and return ----------------------------------------------------------------------------------------------------

TEST(VtlCallTest, GoesToTheNextEnabledLevel) {
  EXPECT_EQ(Vp(0b10).vsm.DecideCall({kCall, 0}), Call(kVtl1));
  EXPECT_EQ(Vp(0b100).vsm.DecideCall({kCall, 0}), Call(kVtl2));
  Vp vp(0b110);
  EXPECT_EQ(vp.vsm.DecideCall({kCall, 0}), Call(kVtl1));
  vp.Enter(kVtl1);
  EXPECT_EQ(vp.vsm.DecideCall({kCall, 0}), Call(kVtl2));
}

TEST(VtlCallTest, IsUndefinedWithoutAHigherLevel) {
  Vp vp(0b10);
  vp.Enter(kVtl1);
  EXPECT_EQ(vp.vsm.DecideCall({kCall, 0}), kUd);
  EXPECT_EQ(Vp(0).vsm.DecideCall({kCall, 0}), kUd);
}

TEST(VtlCallTest, IsUndefinedWithAnyOtherBit) {
  Vp vp(0b10);
  for (unsigned bit = 0; bit < 64; ++bit) {
    const uint64_t mask = uint64_t{1} << bit;
    EXPECT_EQ(vp.vsm.DecideCall({kCall ^ mask, 0}), kUd) << bit;
    EXPECT_EQ(vp.vsm.DecideCall({kCall, mask}), kUd) << bit;
  }
}

TEST(VtlReturnTest, GoesToTheNextLowerEnabledLevel) {
  Vp vp(0b100);
  vp.Enter(kVtl2);
  EXPECT_EQ(vp.vsm.DecideReturn({kReturn, 0}), Return(kVtl0));
  EXPECT_EQ(vp.vsm.DecideReturn({kReturn, 1}), Return(kVtl0, /*fast=*/true));
  Vp three(0b110);
  three.Enter(kVtl2);
  EXPECT_EQ(three.vsm.DecideReturn({kReturn, 0}), Return(kVtl1));
}

TEST(VtlReturnTest, IsUndefinedInTheLowestLevel) { EXPECT_EQ(Vp(0b10).vsm.DecideReturn({kReturn, 0}), kUd); }

TEST(VtlReturnTest, IsUndefinedWithAnyOtherBit) {
  Vp vp(0b10);
  vp.Enter(kVtl1);
  for (unsigned bit = 0; bit < 64; ++bit) {
    const uint64_t mask = uint64_t{1} << bit;
    EXPECT_EQ(vp.vsm.DecideReturn({kReturn ^ mask, 0}), kUd) << bit;
    EXPECT_EQ(vp.vsm.DecideReturn({kReturn, mask}), bit != 0 ? kUd : Return(kVtl0, /*fast=*/true)) << bit;
  }
}

TEST(VtlSwitchTest, EntryReasonIsInTheEnteredLevelsPage) {
  Vp vp(0b10);
  vp.Enter(kVtl1, VtlEntryReason::kVtlCall);
  EXPECT_EQ(vp.At<uint32_t>(kVtl1, 8), 1u);
  EXPECT_EQ(vp.Leave(kVtl0), 0);
  vp.Enter(kVtl1, VtlEntryReason::kInterrupt);
  EXPECT_EQ(vp.At<uint32_t>(kVtl1, 8), 2u);
  EXPECT_EQ(vp.At<uint32_t>(kVtl0, 8), 0u);
}

TEST(VtlSwitchTest, ReturnReleasesTheLocksOfTheLevelThatLeaves) {
  Vp vp(0b110);
  vp.vsm.set_secure_config(kVtl1, kVtl0, kHvSecureMbec | kHvSecureTlbLocked);
  vp.vsm.set_secure_config(kVtl2, kVtl0, kHvSecureTlbLocked);
  vp.vsm.set_secure_config(kVtl2, kVtl1, kHvSecureTlbLocked);
  vp.Enter(kVtl2);
  EXPECT_EQ(vp.Leave(kVtl1), 0b11);
  EXPECT_EQ(vp.vsm.secure_config(kVtl2, kVtl0), 0u);
  EXPECT_EQ(vp.Leave(kVtl0), 0b01);
  EXPECT_EQ(vp.vsm.secure_config(kVtl1, kVtl0), kHvSecureMbec);
}

TEST(VpAssistPageTest, ReturnRegistersAreWhereTheSpecificationHasThem) {
  Vp vp(0);
  vp.Put<uint64_t>(kVtl0, 16, 0x1122'3344'5566'7788);
  vp.Put<uint64_t>(kVtl0, 24, 0x99aa'bbcc'ddee'ff00);
  EXPECT_EQ(vp.page(kVtl0).return_registers(), (VtlReturnRegisters{0x1122'3344'5566'7788, 0x99aa'bbcc'ddee'ff00}));
  EXPECT_EQ(vp.page(kVtl0).return_registers32(), (VtlReturnRegisters32{0x5566'7788, 0x1122'3344, 0xddee'ff00}));
}

// --- Who runs next ----------------------------------------------------------------------------------------------------------

TEST(VtlScheduleTest, ActiveLevelRuns) {
  EXPECT_EQ(Vp(0).Schedule({}), RunsIn(kVtl0));
  Vp vp(0b10);
  vp.Enter(kVtl1);
  EXPECT_EQ(vp.Schedule({}), RunsIn(kVtl1));
}

TEST(VtlScheduleTest, InterruptOfAHigherLevelPreemptsWhateverItsInterruptFlag) {
  Vp vp(0b10);
  EXPECT_EQ(vp.Schedule({.pending = 0b10, .deliverable = 0}), PreemptsFor(kVtl1));
}

TEST(VtlScheduleTest, HighestPendingLevelIsFirst) {
  Vp vp(0b110);
  EXPECT_EQ(vp.Schedule({.pending = 0b110}), PreemptsFor(kVtl2));
  vp.Enter(kVtl2);
  EXPECT_EQ(vp.Schedule({.pending = 0b010}), RunsIn(kVtl2));
}

TEST(VtlScheduleTest, LevelsThatAreNotEnabledDoNotCount) {
  EXPECT_EQ(Vp(0).Schedule({.pending = 0b110, .deliverable = 0b110}), RunsIn(kVtl0));
}

TEST(VtlScheduleTest, LowerLevelsInterruptWaits) {
  Vp vp(0b10);
  vp.Enter(kVtl1);
  EXPECT_EQ(vp.Schedule({.pending = 0b01, .deliverable = 0b01}), RunsIn(kVtl1));
}

TEST(VtlScheduleTest, ReturnWithAPendingInterruptEntersAgainAtOnce) {
  Vp vp(0b10);
  vp.Enter(kVtl1);
  EXPECT_EQ(vp.Leave(kVtl0), 0);
  EXPECT_EQ(vp.Schedule({.pending = 0b10}), PreemptsFor(kVtl1));
}

TEST(VtlScheduleTest, HaltedLevelWaitsForAnInterruptThatItWouldTake) {
  Vp vp(0b10);
  vp.vsm.SetHalted(kVtl0, true);
  EXPECT_EQ(vp.Schedule({}), WaitsIn(kVtl0));
  EXPECT_EQ(vp.Schedule({.pending = 0b01}), WaitsIn(kVtl0));
  EXPECT_EQ(vp.Schedule({.pending = 0b01, .deliverable = 0b01}), RunsIn(kVtl0));
  EXPECT_FALSE(vp.vsm.IsHalted(kVtl0));
}

TEST(VtlScheduleTest, HaltedLowerLevelIsPreemptedAndHaltedAgainAfterwards) {
  Vp vp(0b10);
  vp.vsm.SetHalted(kVtl0, true);
  EXPECT_EQ(vp.Schedule({.pending = 0b10}), PreemptsFor(kVtl1));
  vp.Enter(kVtl1, VtlEntryReason::kInterrupt);
  EXPECT_EQ(vp.Schedule({}), RunsIn(kVtl1));
  EXPECT_EQ(vp.Leave(kVtl0), 0);
  EXPECT_EQ(vp.Schedule({}), WaitsIn(kVtl0));
}

TEST(VtlScheduleTest, HaltedHigherLevelIsNotWokenByALowerOnesInterrupt) {
  Vp vp(0b10);
  vp.Enter(kVtl1);
  vp.vsm.SetHalted(kVtl1, true);
  EXPECT_EQ(vp.Schedule({.pending = 0b01, .deliverable = 0b01}), WaitsIn(kVtl1));
  EXPECT_EQ(vp.Schedule({.pending = 0b10, .deliverable = 0b10}), RunsIn(kVtl1));
}

TEST(VtlScheduleTest, InjectedExceptionEndsTheHalt) {
  Vp vp(0b10);
  vp.vsm.SetHalted(kVtl0, true);
  vp.Enter(kVtl1, VtlEntryReason::kInterrupt);
  vp.vsm.set_pending_event(kVtl0, {kHvEventPending | 6 << kHvEventVectorShift, 0});
  EXPECT_EQ(vp.Leave(kVtl0), 0);
  EXPECT_EQ(vp.Schedule({}), RunsIn(kVtl0));
}

TEST(VtlScheduleTest, FlushThatWaitsLetsInterruptsAndHigherLevelsIn) {
  Vp vp(0b10);
  vp.vsm.SetWaitsForTlbLock(kVtl0, true);
  EXPECT_EQ(vp.Schedule({}), WaitsIn(kVtl0));
  EXPECT_EQ(vp.Schedule({.pending = 0b10}), PreemptsFor(kVtl1));
  vp.Enter(kVtl1, VtlEntryReason::kInterrupt);
  EXPECT_EQ(vp.Schedule({}), RunsIn(kVtl1));
  EXPECT_EQ(vp.Leave(kVtl0), 0);
  EXPECT_EQ(vp.Schedule({}), WaitsIn(kVtl0));
  EXPECT_EQ(vp.Schedule({.deliverable = 0b01}), RunsIn(kVtl0));
  EXPECT_FALSE(vp.vsm.WaitsForTlbLock(kVtl0));
}

// --- VINA -------------------------------------------------------------------------------------------------------------------

VtlSchedule RunsWithVina(Vtl vtl, uint8_t vector, bool auto_eoi = false) {
  return {.kind = Kind::kRun, .vtl = vtl, .vina = VinaInterrupt{vector, auto_eoi}};
}

TEST(VinaTest, TellsOfALowerLevelsDeliverableInterruptOnce) {
  Vp vp(0b10);
  vp.vsm.set_vina(kVtl1, kHvVinaEnabled | 0x42);
  vp.Enter(kVtl1);
  EXPECT_EQ(vp.Schedule({.pending = 0b01}), RunsIn(kVtl1));  // interrupts are off in VTL0
  EXPECT_EQ(vp.Schedule({.pending = 0b01, .deliverable = 0b01}), RunsWithVina(kVtl1, 0x42));
  EXPECT_EQ(vp.At<uint8_t>(kVtl1, 12), 1);
  EXPECT_EQ(vp.Schedule({.pending = 0b01, .deliverable = 0b01}), RunsIn(kVtl1));
  vp.Put<uint8_t>(kVtl1, 12, 0);
  EXPECT_EQ(vp.Schedule({.pending = 0b01, .deliverable = 0b01}), RunsWithVina(kVtl1, 0x42));
}

TEST(VinaTest, AutoEoiIsTheRegisters) {
  Vp vp(0b10);
  vp.vsm.set_vina(kVtl1, kHvVinaEnabled | kHvVinaAutoEoi | 0x30);
  vp.Enter(kVtl1);
  EXPECT_EQ(vp.Schedule({.deliverable = 0b01}), RunsWithVina(kVtl1, 0x30, /*auto_eoi=*/true));
}

TEST(VinaTest, DisabledOrOwnInterruptsTellNothing) {
  Vp vp(0b10);
  vp.vsm.set_vina(kVtl1, 0x42);
  vp.Enter(kVtl1);
  EXPECT_EQ(vp.Schedule({.deliverable = 0b01}), RunsIn(kVtl1));
  vp.vsm.set_vina(kVtl1, kHvVinaEnabled | 0x42);
  EXPECT_EQ(vp.Schedule({.deliverable = 0b10}), RunsIn(kVtl1));
  EXPECT_EQ(vp.At<uint8_t>(kVtl1, 12), 0);
}

TEST(VinaTest, ReachesAHaltedHigherLevel) {
  Vp vp(0b10);
  vp.vsm.set_vina(kVtl1, kHvVinaEnabled | 0x42);
  vp.Enter(kVtl1);
  vp.vsm.SetHalted(kVtl1, true);
  const VtlSchedule told = vp.Schedule({.deliverable = 0b01});
  EXPECT_EQ(told.kind, Kind::kWait);
  EXPECT_EQ(told.vina, (VinaInterrupt{0x42, false}));
  // Raised in its local APIC, it is deliverable.
  EXPECT_EQ(vp.Schedule({.pending = 0b11, .deliverable = 0b11}), RunsIn(kVtl1));
}

TEST(VinaTest, AutoResetClearsAtTheReturn) {
  Vp vp(0b10);
  for (const uint64_t auto_reset : {uint64_t{0}, kHvVinaAutoReset}) {
    vp.vsm.set_vina(kVtl1, kHvVinaEnabled | auto_reset | 0x42);
    vp.Enter(kVtl1);
    (void)vp.Schedule({.deliverable = 0b01});
    EXPECT_EQ(vp.Leave(kVtl0), 0);
    EXPECT_EQ(vp.At<uint8_t>(kVtl1, 12), auto_reset != 0 ? 0 : 1);
  }
}

// --- Intercepts of control registers ----------------------------------------------------------------------------------------

TEST(CrInterceptTest, IsAskedForByBit) {
  Vp vp(0b10);
  for (unsigned bit = 2; bit < 25; ++bit) {
    vp.vsm.cr_intercepts(kVtl1).control = uint64_t{1} << bit;
    for (unsigned event = 0; event < 25; ++event) {
      const auto found = vp.vsm.FindCrIntercept(kVtl0, static_cast<CrEvent>(event), 0, ~uint64_t{0});
      EXPECT_EQ(found, event == bit ? std::optional(kVtl1) : std::nullopt) << bit << " " << event;
    }
  }
}

TEST(CrInterceptTest, ControlRegistersNeedAChangeWithinTheMask) {
  Vp vp(0b10);
  vp.vsm.cr_intercepts(kVtl1) = {.control = 3};
  EXPECT_EQ(vp.vsm.FindCrIntercept(kVtl0, CrEvent::kCr0Write, 0, ~uint64_t{0}), std::nullopt);
  vp.vsm.cr_intercepts(kVtl1) = {.control = 3, .cr0_mask = 0x1'0000, .cr4_mask = 0x20'0000};
  EXPECT_EQ(vp.vsm.FindCrIntercept(kVtl0, CrEvent::kCr0Write, 0x8001'0001, 0x8000'0001), kVtl1);
  EXPECT_EQ(vp.vsm.FindCrIntercept(kVtl0, CrEvent::kCr0Write, 0x8001'0001, 0x8001'0009), std::nullopt);
  EXPECT_EQ(vp.vsm.FindCrIntercept(kVtl0, CrEvent::kCr4Write, 0, 0x20'0000), kVtl1);
  EXPECT_EQ(vp.vsm.FindCrIntercept(kVtl0, CrEvent::kCr4Write, 0, 0x1'0000), std::nullopt);
}

TEST(CrInterceptTest, LowestLevelAboveHearsFirstAndNoneOfItself) {
  Vp vp(0b110);
  vp.vsm.cr_intercepts(kVtl1).control = 1u << 6;
  vp.vsm.cr_intercepts(kVtl2).control = 1u << 6;
  EXPECT_EQ(vp.vsm.FindCrIntercept(kVtl0, CrEvent::kLstarWrite, 0, 0), kVtl1);
  EXPECT_EQ(vp.vsm.FindCrIntercept(kVtl1, CrEvent::kLstarWrite, 0, 0), kVtl2);
  EXPECT_EQ(vp.vsm.FindCrIntercept(kVtl2, CrEvent::kLstarWrite, 0, 0), std::nullopt);
}

// --- Pending events ---------------------------------------------------------------------------------------------------------

TEST(PendingEventTest, IsTakenOnce) {
  Vp vp(0b10);
  const HvRegisterValue gp{kHvEventPending | kHvEventDeliverErrorCode | 13 << kHvEventVectorShift | uint64_t{0x18} << 32, 0};
  vp.vsm.set_pending_event(kVtl0, gp);
  EXPECT_EQ(vp.vsm.pending_event(kVtl0), gp);
  EXPECT_EQ(vp.vsm.TakePendingException(kVtl1), std::nullopt);
  EXPECT_EQ(vp.vsm.TakePendingException(kVtl0), (PendingException{13, 0x18, 0}));
  EXPECT_EQ(vp.vsm.TakePendingException(kVtl0), std::nullopt);
  EXPECT_EQ(vp.vsm.pending_event(kVtl0), HvRegisterValue{});
}

TEST(PendingEventTest, ParameterAndNoErrorCode) {
  Vp vp(0b10);
  vp.vsm.set_pending_event(kVtl0, {kHvEventPending | 1 << kHvEventVectorShift | uint64_t{7} << 32, 0x4001});
  EXPECT_EQ(vp.vsm.TakePendingException(kVtl0), (PendingException{1, std::nullopt, 0x4001}));
}

TEST(PendingEventTest, MayBeTakenBack) {
  Vp vp(0b10);
  vp.vsm.set_pending_event(kVtl0, {kHvEventPending | 6 << kHvEventVectorShift, 0});
  vp.vsm.set_pending_event(kVtl0, {});
  EXPECT_EQ(vp.vsm.TakePendingException(kVtl0), std::nullopt);
}

}  // namespace
}  // namespace vmm
