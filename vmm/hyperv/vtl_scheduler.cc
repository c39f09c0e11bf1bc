#include "vmm/hyperv/vtl_scheduler.h"

#include <bit>
#include <optional>
#include <utility>

#include "devices/hyperv/vsm/enable_vp_vtl.h"
#include "devices/hyperv/vsm/msr_intercepts.h"
#include "devices/hyperv/vsm/vsm_layout.h"

namespace vmm {
namespace {

// Adds without a locked instruction: the VP's thread alone writes.
void Count(std::atomic<uint64_t>& counter) noexcept {
  counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

}  // namespace

VtlScheduler::VtlScheduler(VpIndex vp, Environment environment) noexcept
    : vp_(vp),
      environment_(std::move(environment)),
      registers_(vp, environment_.partition, vsm_, environment_.locks, environment_.registers) {}

LevelScheduler::Turn VtlScheduler::BeforeEntry() noexcept {
  for (;;) {
    if (environment_.requests.HasWork(vp_.raw())) {
      if (!environment_.processor.Settle()) return Turn::kWait;
      environment_.requests.Serve(vp_.raw());
    }
    if (switch_.kind != VtlSwitchAction::Kind::kUndefinedOpcode && !DoSwitch()) return Turn::kWait;
    if (!LookAtTlbLock()) return Turn::kWait;
    const VtlInterrupts interrupts = LookAtInterrupts();
    if (waits_for_start_) return Turn::kWait;
    VtlSchedule schedule = vsm_.Schedule(interrupts, Page(vsm_.active()));
    // It waits where it would take an interrupt of its own.
    if (schedule.kind == VtlSchedule::Kind::kWait && Level(vsm_.active()).WaitsInKernel()) schedule.kind = VtlSchedule::Kind::kRun;
    if (schedule.vina.has_value()) {
      Level(vsm_.active()).RaiseVina(*schedule.vina);
      continue;
    }
    switch (schedule.kind) {
      case VtlSchedule::Kind::kPreempt:
        Count(preemptions_);
        if (!Enter(schedule.vtl, VtlEntryReason::kInterrupt)) return Turn::kWait;
        break;
      case VtlSchedule::Kind::kWait:
        if (ArmAll(ScheduledLevel::Use::kWaits)) return Turn::kWait;
        break;
      case VtlSchedule::Kind::kRun:
        if (suspended_) {
          if (ArmAll(ScheduledLevel::Use::kWaits)) return Turn::kWait;
          break;
        }
        if (const auto exception = vsm_.TakePendingException(vsm_.active())) {
          if (!environment_.processor.InjectException(*exception)) return Turn::kWait;
        }
        if (!Level(vsm_.active()).PrepareEntry()) return Turn::kWait;
        if (suspended_) break;
        if (ArmAll(ScheduledLevel::Use::kRuns)) return Turn::kRun;
        break;
    }
  }
}

void VtlScheduler::AfterExit() noexcept {
  Level(vsm_.active()).AfterExit();
  for (uint8_t vtl = vsm_.active().raw() + 1; vtl < kHvVtlCount; ++vtl) {
    if (vsm_.IsEnabled(Vtl(vtl))) Level(Vtl(vtl)).Disarm();
  }
}

VtlInterrupts VtlScheduler::LookAtInterrupts() noexcept {
  const Vtl active = vsm_.active();
  const bool vina = (vsm_.vina(active) & kHvVinaEnabled) != 0;
  VtlInterrupts interrupts;
  for (uint8_t vtl = 0; vtl < kHvVtlCount; ++vtl) {
    if (!vsm_.IsEnabled(Vtl(vtl))) continue;
    ScheduledLevel& level = Level(Vtl(vtl));
    level.RunPending();
    if (Vtl(vtl) > active && level.IsPending()) interrupts.pending |= VtlBit(Vtl(vtl));
    // Only where it is asked: of VTL0 it is costly to know.
    const bool watched = vina && Vtl(vtl) < active;
    level.Watch(watched);
    const bool waits = vsm_.IsHalted(active) || vsm_.WaitsForTlbLock(active);
    const bool asked = Vtl(vtl) == active ? waits && !level.WaitsInKernel() : watched;
    if (asked && level.IsDeliverable()) interrupts.deliverable |= VtlBit(Vtl(vtl));
  }
  return interrupts;
}

bool VtlScheduler::LookAtTlbLock() noexcept {
  const Vtl active = vsm_.active();
  const bool in_kernel = Level(active).WaitsInKernel();
  if (!vsm_.WaitsForTlbLock(active)) {
    // What ended the wait has woken it (an exception), or it never slept.
    if (in_kernel) asleep_ = false;
    return true;
  }
  if (in_kernel && !asleep_) {
    if (!environment_.processor.Sleep()) return false;
    asleep_ = true;
  } else if (in_kernel && !environment_.processor.IsAsleep()) {
    // By an interrupt of its own: it comes to the call again by itself.
    vsm_.SetWaitsForTlbLock(active, false);
    asleep_ = false;
    return true;
  }
  // Asked after it is asleep: a release from here on kicks.
  return environment_.locks.MustWait(vp_, active) || EndTlbWait(active);
}

bool VtlScheduler::EndTlbWait(Vtl vtl) noexcept {
  if (!vsm_.WaitsForTlbLock(vtl)) return true;
  vsm_.SetWaitsForTlbLock(vtl, false);
  if (!Level(vtl).WaitsInKernel() || !asleep_) return true;
  asleep_ = false;
  return !environment_.processor.IsAsleep() || environment_.processor.Wake();
}

bool VtlScheduler::ArmAll(ScheduledLevel::Use active) noexcept {
  for (uint8_t vtl = vsm_.active().raw(); vtl < kHvVtlCount; ++vtl) {
    if (!vsm_.IsEnabled(Vtl(vtl))) continue;
    if (!Level(Vtl(vtl)).Arm(Vtl(vtl) == vsm_.active() ? active : ScheduledLevel::Use::kInactive)) return false;
  }
  return true;
}

bool VtlScheduler::Call(VtlSwitchRequest request) noexcept {
  switch_ = vsm_.DecideCall(request);
  return switch_.kind != VtlSwitchAction::Kind::kUndefinedOpcode;
}

bool VtlScheduler::Return(VtlSwitchRequest request) noexcept {
  switch_ = vsm_.DecideReturn(request);
  return switch_.kind != VtlSwitchAction::Kind::kUndefinedOpcode;
}

bool VtlScheduler::DoSwitch() noexcept {
  const VtlSwitchAction action = std::exchange(switch_, VtlSwitchAction{});
  if (action.kind == VtlSwitchAction::Kind::kCall) {
    Count(calls_);
    return Enter(action.to, VtlEntryReason::kVtlCall);
  }
  Count(returns_);
  return Leave(action.to, action.fast);
}

bool VtlScheduler::Enter(Vtl to, VtlEntryReason reason) noexcept {
  if (!environment_.processor.SwitchTo(to)) return false;
  suspended_ = false;
  vsm_.Enter(to, reason, Page(to));
  (void)vsm_.TakeInitialContext(to);  // loaded when the level was enabled
  return true;
}

bool VtlScheduler::Leave(Vtl to, bool fast) noexcept {
  const Vtl from = vsm_.active();
  if (!environment_.processor.SwitchTo(to)) return false;
  const VtlSet released = vsm_.Leave(to, Page(from));
  if (released != 0 && environment_.locks.Release(vp_, from, released)) environment_.kick_all();
  (void)vsm_.TakeInitialContext(to);
  if (!fast) environment_.processor.RestoreReturnRegisters(from, Page(from));
  return true;
}

VtlScheduler::Stats VtlScheduler::stats() const noexcept {
  return {.calls = calls_.load(std::memory_order_relaxed),
          .returns = returns_.load(std::memory_order_relaxed),
          .preemptions = preemptions_.load(std::memory_order_relaxed)};
}

HvStatus VtlScheduler::Enable(Vtl caller, bool own_vp, uint8_t guest_vtl, const HvInitialVpContext& context) noexcept {
  // In the order of the checks: what the processor refuses comes after who may, and before anything is decided.
  const HvStatus allowed = environment_.partition.MayEnableVp(caller, own_vp, guest_vtl);
  if (allowed != HvStatus::kSuccess) return allowed;
  const Vtl vtl(guest_vtl);
  if (!vsm_.IsEnabled(vtl)) {
    const HvStatus loaded = environment_.processor.LoadContext(vtl, context);
    if (loaded != HvStatus::kSuccess) return loaded;
  }
  const bool first = vsm_.HighestEnabled() == kVtl0;
  const HvStatus status = EnableVpVtl(environment_.partition, vsm_, caller, own_vp, guest_vtl, context);
  if (status == HvStatus::kSuccess && first) waits_for_start_ = !environment_.processor.IsStarted();
  return status;
}

HvStatus VtlScheduler::CheckStart(Vtl caller, Vtl vtl) noexcept {
  if (!vsm_.IsEnabled(vtl)) return HvStatus::kInvalidVpState;
  return environment_.partition.MayStart(caller);
}

HvStatus VtlScheduler::Start(Vtl vtl, const HvInitialVpContext& context) noexcept {
  if (!vsm_.IsEnabled(vtl) || environment_.processor.IsStarted()) return HvStatus::kInvalidVpState;
  const HvStatus loaded = environment_.processor.LoadContext(vtl, context);
  if (loaded != HvStatus::kSuccess) return loaded;
  // A level above VTL0 that is started alone finds VTL0 as after a reset.
  if (!environment_.processor.SetStarted()) return HvStatus::kOperationFailed;
  waits_for_start_ = false;
  if (environment_.locks.ReleaseAll(vp_)) environment_.kick_all();
  const Vtl first = vsm_.HighestEnabled();
  if (!environment_.processor.SwitchTo(first)) return HvStatus::kOperationFailed;
  vsm_.Start(vtl, context);
  Level(vtl).OnRedirected();
  (void)vsm_.TakeInitialContext(vtl);
  (void)vsm_.TakeInitialContext(first);
  return HvStatus::kSuccess;
}

HvStatus VtlScheduler::GetRegister(VsmRegisters::Target target, HvRegisterName name, HvRegisterValue& value) noexcept {
  if (const auto status = registers_.Get(target, name, value)) return *status;
  return Level(target.vtl).GetOwnRegister(name, value);
}

uint64_t VtlScheduler::Peek(Vtl vtl, HvRegisterName name) noexcept {
  HvRegisterValue value{};
  return environment_.registers.Get(vtl, name, value) == HvStatus::kSuccess ? value.low : 0;
}

HvSegmentRegister VtlScheduler::PeekSegment(Vtl vtl, HvRegisterName name) noexcept {
  HvRegisterValue value{};
  if (environment_.registers.Get(vtl, name, value) != HvStatus::kSuccess) value = {};
  return std::bit_cast<HvSegmentRegister>(value);
}

HvStatus VtlScheduler::SetRegister(VsmRegisters::Target target, HvRegisterName name, const HvRegisterValue& value,
                                   VsmRegisters::Effect& effect) noexcept {
  const VsmVp::CrIntercepts before = vsm_.cr_intercepts(target.vtl);
  const auto status = registers_.Set(target, name, value, effect);
  if (!status) return Level(target.vtl).SetOwnRegister(name, value);
  if (effect.intercepts_changed && !TrapMsrsBelow(target.vtl)) {
    vsm_.cr_intercepts(target.vtl) = before;
    (void)TrapMsrsBelow(target.vtl);  // as they were; more of them would do no harm
    return HvStatus::kInsufficientMemory;
  }
  const bool redirects = name == HvRegisterName::kRip || name == HvRegisterName::kPendingEvent0;
  if (redirects && *status == HvStatus::kSuccess) {
    Level(target.vtl).OnRedirected();
    if (!EndTlbWait(target.vtl)) return HvStatus::kOperationFailed;
  }
  return *status;
}

bool VtlScheduler::TrapMsrsBelow(Vtl owner) noexcept {
  for (uint8_t of = 0; of < owner.raw(); ++of) {
    if (!vsm_.IsEnabled(Vtl(of))) continue;
    uint64_t events = 0;
    for (uint8_t above = of + 1; above < kHvVtlCount; ++above) events |= vsm_.cr_intercepts(Vtl(above)).control;
    if (!environment_.processor.TrapMsrs(Vtl(of), events & MsrCrEvents())) return false;
  }
  return true;
}

}  // namespace vmm
