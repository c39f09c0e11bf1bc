#include "vmm/hyperv/vsm_level.h"

#include "devices/hyperv/hypercall/hypercall_parameters_layout.h"
#include "memory/page_rights.h"
#include "vmm/hyperv/enforced_view.h"
#include "vmm/hyperv/translate.h"

namespace vmm {
namespace {

HvStatus StatusOf(ProtectStatus status) noexcept {
  switch (status) {
    case ProtectStatus::kDone: return HvStatus::kSuccess;
    case ProtectStatus::kNotRam: return HvStatus::kInvalidParameter;
    case ProtectStatus::kNotLegal:
    case ProtectStatus::kDefaultIsFixed: return HvStatus::kInvalidRegisterValue;
    case ProtectStatus::kNotEnforceable: return HvStatus::kFeatureUnavailable;
    case ProtectStatus::kTooManyPieces:
    case ProtectStatus::kHostRefused: break;
  }
  return HvStatus::kInsufficientMemory;
}

// The PICs and their edge/level registers, which KVM makes along with its local APICs.
bool IsAnsweredInKernel(uint16_t port) noexcept {
  constexpr uint16_t kMaster = 0x20, kSlave = 0xa0, kEdgeLevel = 0x4d0;
  for (const uint16_t first : {kMaster, kSlave, kEdgeLevel}) {
    if (port == first || port == first + 1) return true;
  }
  return false;
}

}  // namespace

bool VsmLevel::MustWaitForTlbLock() noexcept {
  if (!environment_.locks.MustWait(vp_, vtl_)) return false;
  own().WaitForTlbLock();
  return true;
}

HvStatus VsmLevel::GetRegister(VpIndex vp, Vtl vtl, bool long_mode, HvRegisterName name, HvRegisterValue& value) noexcept {
  const VsmRegisters::Target target{.caller = vtl_, .vtl = vtl, .long_mode = long_mode};
  return On(vp, [&](VtlScheduler& scheduler) { return scheduler.GetRegister(target, name, value); });
}

HvStatus VsmLevel::SetRegister(VpIndex vp, Vtl vtl, bool long_mode, HvRegisterName name, const HvRegisterValue& value) noexcept {
  const VsmRegisters::Target target{.caller = vtl_, .vtl = vtl, .long_mode = long_mode};
  VsmRegisters::Effect effect;
  const HvStatus status = On(vp, [&](VtlScheduler& scheduler) { return scheduler.SetRegister(target, name, value, effect); });
  if (effect.wake_flushes) environment_.vps.KickAll();
  if (status == HvStatus::kSuccess && effect.default_protection.has_value()) {
    return StatusOf(environment_.protections.SetDefault(vtl.raw(), PageRights(static_cast<uint8_t>(*effect.default_protection))));
  }
  return status;
}

HvStatus VsmLevel::StartVirtualProcessor(VpIndex vp, Vtl vtl, const HvInitialVpContext& context) noexcept {
  return On(vp, [&](VtlScheduler& scheduler) { return scheduler.Start(vtl, context); });
}

HvStatus VsmLevel::EnableVpVtl(VpIndex vp, uint8_t guest_vtl, const HvInitialVpContext& guest_context) noexcept {
  return On(vp, [&](VtlScheduler& scheduler) { return scheduler.Enable(vtl_, vp == vp_, guest_vtl, guest_context); });
}

HvStatus VsmLevel::CheckStart(VpIndex vp, Vtl vtl) noexcept {
  return On(vp, [&](VtlScheduler& scheduler) { return scheduler.CheckStart(vtl_, vtl); });
}

PageProtection VsmLevel::Protect(Vtl owner, uint32_t flags, std::span<const uint64_t> guest_pages) noexcept {
  const auto made = environment_.protections.Protect(owner.raw(), PageRights(static_cast<uint8_t>(flags)), guest_pages);
  return {.status = StatusOf(made.status), .done = static_cast<uint16_t>(made.done)};
}

GvaTranslation VsmLevel::Translate(VpIndex vp, Vtl vtl, uint64_t flags, uint64_t guest_gva_page) noexcept {
  GvaTranslation result{.status = HvStatus::kOperationFailed};
  result.status = On(vp, [&](VtlScheduler& scheduler) {
    if (!scheduler.vsm().IsEnabled(vtl)) return HvStatus::kInvalidVtlState;
    constexpr unsigned kDplShift = 5;
    TranslationState state;
    state.paging.cr0 = scheduler.Peek(vtl, HvRegisterName::kCr0);
    state.paging.cr3 = scheduler.Peek(vtl, HvRegisterName::kCr3);
    state.paging.cr4 = scheduler.Peek(vtl, HvRegisterName::kCr4);
    state.paging.efer = scheduler.Peek(vtl, HvRegisterName::kEfer);
    state.paging.rflags = scheduler.Peek(vtl, HvRegisterName::kRflags);
    state.pat = scheduler.Peek(vtl, HvRegisterName::kPat);
    state.cpl = static_cast<uint8_t>(scheduler.PeekSegment(vtl, HvRegisterName::kSs).attributes >> kDplShift & 3);
    const EnforcedView view(environment_.protections, environment_.vps.view(vtl), vtl);
    result = TranslatePage(state, flags, guest_gva_page, environment_.memory, view);
    if ((flags & kHvTranslateInhibitFlush) != 0 && vtl < vtl_) environment_.locks.Acquire(vp, vtl_, vtl);
    return HvStatus::kSuccess;
  });
  return result;
}

HvStatus VsmLevel::AssertInterrupt(Vtl vtl, const Interrupt& interrupt) noexcept {
  return own().AssertInterrupt(vtl, interrupt) ? HvStatus::kSuccess : HvStatus::kInvalidParameter;
}

HvStatus VsmLevel::InterceptIoPort(uint16_t port, bool reads, bool writes) noexcept {
  if (!environment_.partition.MayIntercept((reads || writes) && IsAnsweredInKernel(port))) return HvStatus::kFeatureUnavailable;
  environment_.ports.Install(vtl_, port, reads, writes);
  return HvStatus::kSuccess;
}

}  // namespace vmm
