#include "devices/hyperv/partition/hv_vp.h"

#include <time.h>

#include <array>
#include <bit>
#include <span>
#include <utility>

#include "base/status_macros.h"
#include "devices/hyperv/hv_msr_layout.h"
#include "devices/hyperv/partition/hypercall_page.h"
#include "devices/hyperv/partition/register_msrs.h"

namespace vmm {
namespace {

// One partition a machine: any number but 0 and "self" will do.
constexpr uint64_t kPartitionId = 1;

// What a register needs; nullopt: it is not ours.
std::optional<HvPrivilege> PrivilegeOf(uint32_t msr) noexcept {
  switch (msr) {
    case kHvMsrGuestOsId:
    case kHvMsrHypercall: return HvPrivilege::kHypercallMsrs;
    case kHvMsrVpIndex: return HvPrivilege::kVpIndex;
    case kHvMsrReset: return HvPrivilege::kReset;
    case kHvMsrVpRuntime: return HvPrivilege::kVpRuntime;
    case kHvMsrTimeRefCount: return HvPrivilege::kTimeRefCount;
    case kHvMsrReferenceTsc: return HvPrivilege::kReferenceTsc;
    case kHvMsrTscFrequency:
    case kHvMsrApicFrequency: return HvPrivilege::kFrequencyRegs;
    case kHvMsrVpAssistPage: return HvPrivilege::kIntrCtrlRegs;
    default: break;
  }
  if (Synic::Has(msr)) return HvPrivilege::kSynicRegs;
  if (SyntheticTimers::Has(msr)) return HvPrivilege::kSyntheticTimerRegs;
  return std::nullopt;
}

bool IsCrashMsr(uint32_t msr) noexcept { return msr >= kHvMsrCrashP0 && msr <= kHvMsrCrashCtl; }

bool MayUse(const HvOffer& offer, uint32_t msr) noexcept {
  if (IsCrashMsr(msr)) return offer.Has(HvFeature::kCrashRegs);
  const auto privilege = PrivilegeOf(msr);
  if (!privilege || !offer.Has(*privilege)) return false;
  return *privilege != HvPrivilege::kFrequencyRegs || offer.Has(HvFeature::kFrequencyRegs);
}

// What this thread, which is the VP, has run, the hypervisor's time included.
uint64_t VpRuntime() noexcept {
  timespec time;
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<uint64_t>(time.tv_sec) * HvTicks::kPerSecond + static_cast<uint64_t>(time.tv_nsec) / HvTicks::kNanoseconds;
}

}  // namespace

absl::StatusOr<std::unique_ptr<HvVp>> HvVp::Create(VpIndex vp, Vtl vtl, const HvOffer& offer, const Environment& environment) {
  ASSIGN_OR_RETURN(auto assist_page, environment.overlays.NewPage());
  ASSIGN_OR_RETURN(auto synic, Synic::Create(offer.max_vps, environment.overlays, environment.sints, environment.clock,
                                             environment.kick));
  return std::unique_ptr<HvVp>(new HvVp(vp, vtl, offer, environment, std::move(assist_page), std::move(synic)));
}

HvVp::HvVp(VpIndex vp, Vtl vtl, const HvOffer& offer, const Environment& environment, std::unique_ptr<OverlayPage> assist_page,
           std::unique_ptr<Synic> synic)
    : vp_(vp),
      vtl_(vtl),
      offer_(offer),
      environment_(environment),
      assist_page_(std::move(assist_page)),
      synic_(std::move(synic)),
      dispatcher_(vp, vtl, offer, environment.memory, *this) {
  if (environment_.kernel_timers == nullptr) {
    timers_.emplace(*synic_, environment_.clock, environment_.deadline, environment_.vectors,
                    offer_.Has(HvFeature::kDirectTimers));
  }
}

bool HvVp::ReadMsr(uint32_t msr, uint64_t& value) noexcept {
  if (!MayUse(offer_, msr)) return false;
  switch (msr) {
    case kHvMsrVpIndex:
      value = vp_.raw();
      return true;
    case kHvMsrVpRuntime:
      value = VpRuntime();
      return true;
    case kHvMsrVpAssistPage:
      value = assist_page_msr_;
      return true;
    default: break;
  }
  if (Synic::Has(msr)) return synic_->ReadMsr(msr, value);
  if (SyntheticTimers::Has(msr)) return timers_ ? timers_->ReadMsr(msr, value) : environment_.kernel_timers->GetMsr(msr, value);
  return environment_.partition.Read(msr, value);
}

bool HvVp::WriteMsr(uint32_t msr, uint64_t value) noexcept {
  if (!MayUse(offer_, msr)) return false;
  switch (msr) {
    case kHvMsrVpIndex:
    case kHvMsrVpRuntime: return false;
    case kHvMsrVpAssistPage: return WriteAssistPage(value);
    default: break;
  }
  if (Synic::Has(msr)) return WriteSynicMsr(msr, value);
  if (SyntheticTimers::Has(msr)) return timers_ ? timers_->WriteMsr(msr, value) : WriteKernelTimer(msr, value);
  return environment_.partition.Write(msr, value);
}

bool HvVp::WriteAssistPage(uint64_t value) noexcept {
  if ((value & kHvOverlayEnable) == 0) {
    assist_page_->Remove();
  } else if (value != assist_page_msr_) {
    if (!assist_page_->MayPlace(Gpfn(value >> kHvOverlayPageShift), OverlayPage::Access::kReadWrite)) return false;
    // Outside RAM: no fault, and the page is nowhere to be seen.
    (void)assist_page_->Place(Gpfn(value >> kHvOverlayPageShift), OverlayPage::Access::kReadWrite);
  }
  assist_page_msr_ = value;
  return true;
}

bool HvVp::WriteSynicMsr(uint32_t msr, uint64_t value) noexcept {
  if (!synic_->WriteMsr(msr, value)) return false;
  // The kernel's timers write into the page that SIMP names, and wait for its EOM. Ours comes first: SIMP's page is in place, and
  // what waits in our queue has the slot before a timer's next message. Where no timer has a slot to wait for, an EOM is nothing to
  // the kernel, and telling it of each would cost two system calls a message.
  if (environment_.kernel_timers != nullptr &&
      (msr == kHvMsrScontrol || msr == kHvMsrSimp || (msr == kHvMsrEom && kernel_timer_sints_ != 0))) {
    if (!environment_.kernel_timers->SetMsr(msr, value)) return false;
    // A timer of the kernel's that expired while there was no page looks for one only when it hears of an EOM.
    if (msr == kHvMsrSimp && (value & kHvOverlayEnable) != 0) return environment_.kernel_timers->SetMsr(kHvMsrEom, 0);
  }
  return true;
}

bool HvVp::WriteKernelTimer(uint32_t msr, uint64_t value) noexcept {
  const uint32_t number = (msr - kHvMsrStimer0Config) / 2;
  const bool is_config = (msr - kHvMsrStimer0Config) % 2 == 0;
  if (is_config) {
    const bool direct = (value & kHvStimerDirect) != 0;
    if (direct && !offer_.Has(HvFeature::kDirectTimers)) return false;
    // The kernel forgets to, unless the timer had been enabled before.
    if (!direct && ((value >> kHvStimerSintShift) & 0xf) == 0) value &= ~kHvStimerEnable;
    kernel_timer_configs_[number] = value;
    uint16_t sints = 0;
    for (const uint64_t config : kernel_timer_configs_) {
      const unsigned sint = (config >> kHvStimerSintShift) & 0xf;
      // SINT0 takes no timer messages: that is the reset value.
      if ((config & kHvStimerDirect) == 0 && sint != 0) sints |= static_cast<uint16_t>(1u << sint);
    }
    kernel_timer_sints_ = sints;
    synic_->SetKernelTimerSints(sints);
  }
  return environment_.kernel_timers->SetMsr(msr, value);
}

HypercallOutcome HvVp::Hypercall(HypercallRegisters& registers, XmmAccess& xmm) noexcept {
  // The port is behind the hypercall page only: flushing the TLB relies on the caller having just executed from that page.
  if (!environment_.partition.is_hypercall_page_enabled() || !IsHypercallPageExit(registers.rip)) {
    return HypercallOutcome::kNotOffered;
  }
  long_mode_ = registers.long_mode;
  return dispatcher_.Dispatch(registers, xmm);
}

bool HvVp::OnInaccessibleMemory() noexcept { return environment_.partition.had_read_only_page(); }

void HvVp::PrepareToEnter() noexcept {
  // The load spares the common case a locked access; what it misses, the kick that follows brings.
  if (notices_.load(std::memory_order_relaxed) != 0) {
    uint32_t notices = notices_.exchange(0, std::memory_order_acquire);
    if ((notices & kDeadlinePassed) != 0) {
      if (timers_) timers_->RunExpired();
      notices &= ~kDeadlinePassed;
    }
    for (; notices != 0; notices &= notices - 1) {
      if (const auto sint = Sint::From(static_cast<uint64_t>(std::countr_zero(notices)))) synic_->OnEoi(*sint);
    }
  }
  synic_->RunPending();
}

void HvVp::NotifyEoi(Sint sint) noexcept {
  notices_.fetch_or(1u << sint.raw(), std::memory_order_release);
  environment_.kick.Kick();
}

void HvVp::NotifyDeadline() noexcept {
  notices_.fetch_or(kDeadlinePassed, std::memory_order_release);
  environment_.kick.Kick();
}

PartitionHost& HvVp::host(Vtl vtl) noexcept {
  return environment_.levels != nullptr ? environment_.levels->host(vtl) : environment_.host;
}

VsmServices* HvVp::vsm() noexcept { return environment_.levels != nullptr ? &environment_.levels->vsm() : nullptr; }

uint64_t HvVp::partition_id() const noexcept { return kPartitionId; }

HvStatus HvVp::PostMessage(VpIndex poster, uint32_t connection, const HvMessage& message) noexcept {
  return environment_.connections.PostMessage(Poster::OfVp(poster), connection, static_cast<uint32_t>(message.header.type),
                                              std::span(message.payload).first(message.header.payload_size));
}

HvStatus HvVp::SignalEvent(uint32_t connection, uint16_t flag) noexcept {
  return environment_.connections.SignalEvent(connection, flag);
}

HvStatus HvVp::GetRegister(VpIndex vp, Vtl vtl, HvRegisterName name, HvRegisterValue& value) noexcept {
  if (environment_.levels != nullptr) return environment_.levels->GetRegister(vp, vtl, long_mode_, name, value);
  if (vp == vp_) return GetOwnRegister(name, value);
  HvVp* const other = environment_.vps.FindVp(vp);
  if (other == nullptr) return HvStatus::kInvalidVpIndex;
  HvStatus status = HvStatus::kOperationFailed;
  (void)environment_.host.RunOn(vp, [&] { status = other->GetOwnRegister(name, value); });
  return status;
}

HvStatus HvVp::SetRegister(VpIndex vp, Vtl vtl, HvRegisterName name, const HvRegisterValue& value) noexcept {
  if (environment_.levels != nullptr) return environment_.levels->SetRegister(vp, vtl, long_mode_, name, value);
  if (vp == vp_) return SetOwnRegister(name, value);
  HvVp* const other = environment_.vps.FindVp(vp);
  if (other == nullptr) return HvStatus::kInvalidVpIndex;
  HvStatus status = HvStatus::kOperationFailed;
  (void)environment_.host.RunOn(vp, [&] { status = other->SetOwnRegister(name, value); });
  return status;
}

HvStatus HvVp::GetOwnRegister(HvRegisterName name, HvRegisterValue& value) noexcept {
  value = {};
  if (const auto leaf = CpuidRegister(name, offer_)) {
    value = *leaf;
    return HvStatus::kSuccess;
  }
  if (const auto msr = MsrOfRegister(name)) {
    if (ReadMsr(*msr, value.low)) return HvStatus::kSuccess;
    return MayUse(offer_, *msr) ? HvStatus::kInvalidParameter : HvStatus::kAccessDenied;
  }
  // Architectural state is open to higher levels only.
  return IsArchitectural(name) ? HvStatus::kAccessDenied : HvStatus::kInvalidParameter;
}

HvStatus HvVp::SetOwnRegister(HvRegisterName name, const HvRegisterValue& value) noexcept {
  if (CpuidRegister(name, offer_)) return HvStatus::kInvalidParameter;
  if (const auto msr = MsrOfRegister(name)) {
    if (!MayUse(offer_, *msr)) return HvStatus::kAccessDenied;
    if (IsReadOnlyMsr(*msr)) return HvStatus::kInvalidParameter;
    return WriteMsr(*msr, value.low) ? HvStatus::kSuccess : HvStatus::kInvalidRegisterValue;
  }
  return IsArchitectural(name) ? HvStatus::kAccessDenied : HvStatus::kInvalidParameter;
}

HvStatus HvVp::StartVirtualProcessor(VpIndex vp, Vtl vtl, const HvInitialVpContext& context) noexcept {
  if (environment_.levels != nullptr) return environment_.levels->StartVirtualProcessor(vp, vtl, context);
  return environment_.starter.Start(vp, context);
}

}  // namespace vmm
