#include "devices/hyperv/vsm/vsm_vp.h"

#include <bit>

namespace vmm {
namespace {

constexpr uint64_t kReturnFast = 1;

// The highest or lowest of a set that is not empty.
Vtl Highest(VtlSet set) noexcept { return Vtl(static_cast<uint8_t>(std::bit_width(set) - 1)); }
Vtl Lowest(VtlSet set) noexcept { return Vtl(static_cast<uint8_t>(std::countr_zero(set))); }

constexpr VtlSet kAllVtls = (1u << kHvVtlCount) - 1;
constexpr VtlSet VtlsAbove(Vtl vtl) noexcept { return static_cast<VtlSet>(kAllVtls & ~(VtlsBelow(vtl) | VtlBit(vtl))); }

}  // namespace

void VsmVp::Reset() noexcept {
  active_ = kVtl0;
  enabled_ = VtlBit(kVtl0);
  halted_ = 0;
  waits_for_lock_ = 0;
  levels_.fill(Level{});
}

Vtl VsmVp::HighestEnabled() const noexcept { return Highest(enabled_); }

uint64_t VsmVp::status() const noexcept {
  return uint64_t{active_.raw()} | (IsMbecEnabled(active_) ? kHvVpStatusActiveMbec : 0) |
         uint64_t{enabled_} << kHvVpStatusEnabledShift;
}

HvStatus VsmVp::Enable(Vtl vtl, const HvInitialVpContext& context) noexcept {
  if (IsEnabled(vtl)) return HvStatus::kVtlAlreadyEnabled;
  Assign(enabled_, vtl, true);
  Level& level = At(vtl);
  level = Level{};
  level.has_context = true;
  level.context = context;
  return HvStatus::kSuccess;
}

void VsmVp::Start(Vtl vtl, const HvInitialVpContext& context) noexcept {
  At(vtl).has_context = true;
  At(vtl).context = context;
  halted_ = 0;
  waits_for_lock_ = 0;
  active_ = HighestEnabled();
}

const HvInitialVpContext* VsmVp::TakeInitialContext(Vtl vtl) noexcept {
  Level& level = At(vtl);
  if (!level.has_context) return nullptr;
  level.has_context = false;
  return &level.context;
}

VtlSwitchAction VsmVp::DecideCall(VtlSwitchRequest request) const noexcept {
  // Any bit beside the code asks for a form that a switch has not.
  if (request.control_word != static_cast<uint64_t>(HypercallCode::kVtlCall) || request.control_input != 0) return {};
  const VtlSet above = enabled_ & VtlsAbove(active_);
  if (above == 0) return {};
  return {.kind = VtlSwitchAction::Kind::kCall, .to = Lowest(above)};
}

VtlSwitchAction VsmVp::DecideReturn(VtlSwitchRequest request) const noexcept {
  if (request.control_word != static_cast<uint64_t>(HypercallCode::kVtlReturn)) return {};
  if ((request.control_input & ~kReturnFast) != 0) return {};
  const VtlSet below = enabled_ & VtlsBelow(active_);
  if (below == 0) return {};
  return {.kind = VtlSwitchAction::Kind::kReturn, .to = Highest(below), .fast = (request.control_input & kReturnFast) != 0};
}

void VsmVp::Enter(Vtl to, VtlEntryReason reason, VpAssistPage page) noexcept {
  active_ = to;
  // A higher level is entered to do something, whatever it had waited for.
  Assign(halted_, to, false);
  page.SetEntryReason(reason);
}

VtlSet VsmVp::Leave(Vtl to, VpAssistPage page) noexcept {
  Level& leaving = At(active_);
  VtlSet released = 0;
  for (uint8_t below = 0; below < active_.raw(); ++below) {
    if ((leaving.secure_config[below] & kHvSecureTlbLocked) != 0) released |= VtlBit(Vtl(below));
    leaving.secure_config[below] &= ~kHvSecureTlbLocked;
  }
  if ((leaving.vina & kHvVinaAutoReset) != 0) page.SetVinaAsserted(false);
  active_ = to;
  return released;
}

VtlSchedule VsmVp::Schedule(VtlInterrupts interrupts, VpAssistPage page) noexcept {
  const VtlSet preempting = enabled_ & interrupts.pending & VtlsAbove(active_);
  if (preempting != 0) return {.kind = VtlSchedule::Kind::kPreempt, .vtl = Highest(preempting), .vina = std::nullopt};

  const std::optional<VinaInterrupt> vina = AssertVina(interrupts.deliverable, page);
  const bool has_work = Has(interrupts.deliverable, active_) || (At(active_).pending_event.low & kHvEventPending) != 0;
  const bool waits = IsHalted(active_) || WaitsForTlbLock(active_);
  if (waits && !has_work) return {.kind = VtlSchedule::Kind::kWait, .vtl = active_, .vina = vina};
  Assign(halted_, active_, false);
  // The call is made again after the interrupt: it may find the lock still held, and waits anew.
  Assign(waits_for_lock_, active_, false);
  return {.kind = VtlSchedule::Kind::kRun, .vtl = active_, .vina = vina};
}

std::optional<VinaInterrupt> VsmVp::AssertVina(VtlSet deliverable, VpAssistPage page) noexcept {
  const uint64_t vina = At(active_).vina;
  if ((vina & kHvVinaEnabled) == 0 || (enabled_ & deliverable & VtlsBelow(active_)) == 0) return std::nullopt;
  if (page.is_vina_asserted()) return std::nullopt;
  page.SetVinaAsserted(true);
  return VinaInterrupt{.vector = static_cast<uint8_t>(vina), .auto_eoi = (vina & kHvVinaAutoEoi) != 0};
}

bool VsmVp::IsMbecEnabled(Vtl of) const noexcept {
  for (uint8_t owner = of.raw() + 1; owner < kHvVtlCount; ++owner) {
    if ((levels_[owner].secure_config[of.raw()] & kHvSecureMbec) != 0) return true;
  }
  return false;
}

std::optional<Vtl> VsmVp::FindCrIntercept(Vtl by, CrEvent event, uint64_t old_value, uint64_t new_value) const noexcept {
  for (uint8_t owner = by.raw() + 1; owner < kHvVtlCount; ++owner) {
    const CrIntercepts& cr = levels_[owner].cr;
    if (((cr.control >> static_cast<unsigned>(event)) & 1) == 0) continue;
    const uint64_t changed = old_value ^ new_value;
    if (event == CrEvent::kCr0Write && (changed & cr.cr0_mask) == 0) continue;
    if (event == CrEvent::kCr4Write && (changed & cr.cr4_mask) == 0) continue;
    return Vtl(owner);
  }
  return std::nullopt;
}

void VsmVp::set_pending_event(Vtl vtl, HvRegisterValue event) noexcept {
  At(vtl).pending_event = event;
  if ((event.low & kHvEventPending) != 0) Assign(halted_, vtl, false);
}

std::optional<PendingException> VsmVp::TakePendingException(Vtl vtl) noexcept {
  HvRegisterValue& event = At(vtl).pending_event;
  if ((event.low & kHvEventPending) == 0) return std::nullopt;
  PendingException exception{.vector = static_cast<uint8_t>(event.low >> kHvEventVectorShift),
                             .error_code = std::nullopt,
                             .parameter = event.high};
  if ((event.low & kHvEventDeliverErrorCode) != 0) {
    exception.error_code = static_cast<uint32_t>(event.low >> kHvEventErrorCodeShift);
  }
  event = {};
  return exception;
}

}  // namespace vmm
