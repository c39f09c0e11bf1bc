#include "devices/hyperv/partition/hv_partition.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "devices/hyperv/hv_msr_layout.h"
#include "devices/hyperv/partition/hypercall_page.h"
#include "devices/hyperv/partition/reference_tsc_layout.h"
#include "memory/gpa.h"

namespace vmm {
namespace {

// What a crash message may add to the log, however long the guest says that it is.
constexpr uint64_t kMaxCrashMessageBytes = 1024;

constexpr Gpfn PageOf(uint64_t msr_value) { return Gpfn(msr_value >> kHvOverlayPageShift); }

// The guest sees the page by mapping it after REFERENCE_TSC is written, and the content never changes: no sequence to bump.
void FillReferenceTscPage(std::byte* page, std::optional<ReferenceTscParameters> parameters) {
  HvReferenceTscPage content{};
  if (parameters) {
    content = {.sequence = 1, .reserved = 0, .scale = parameters->scale, .offset = parameters->offset};
  } else {
    content.sequence = kHvReferenceTscInvalid;
  }
  std::memcpy(page, &content, sizeof(content));
}

}  // namespace

bool HvSharedRegisters::Read(uint32_t msr, uint64_t& value) const noexcept {
  switch (msr) {
    case kHvMsrReset:
      value = 0;
      return true;
    case kHvMsrTimeRefCount:
      value = environment_.clock.Now().raw();
      return true;
    case kHvMsrTscFrequency:
      value = frequencies_.tsc_hz;
      return true;
    case kHvMsrApicFrequency:
      value = frequencies_.apic_hz;
      return true;
    case kHvMsrCrashCtl:
      value = kHvCrashNotify | kHvCrashMessage;  // what is supported
      return true;
    default:
      if (msr < kHvMsrCrashP0 || msr > kHvMsrCrashP4) return false;
      value = crash_[msr - kHvMsrCrashP0].load(std::memory_order_relaxed);
      return true;
  }
}

bool HvSharedRegisters::Write(uint32_t msr, uint64_t value) noexcept {
  switch (msr) {
    case kHvMsrReset:
      if ((value & ~kHvResetNow) != 0) return false;
      if (value == kHvResetNow) environment_.control.RequestEnd(MachineEnd::kRebooted, "the guest wrote the reset register");
      return true;
    case kHvMsrCrashCtl:
      if ((value & ~(kHvCrashNotify | kHvCrashMessage)) != 0) return false;
      if ((value & kHvCrashNotify) != 0) ReportCrash(value);
      return true;
    default:
      if (msr < kHvMsrCrashP0 || msr > kHvMsrCrashP4) return false;
      crash_[msr - kHvMsrCrashP0].store(value, std::memory_order_relaxed);
      return true;
  }
}

// The machine ends by it, so it may allocate.
void HvSharedRegisters::ReportCrash(uint64_t control) noexcept {
  std::array<uint64_t, kCrashParameters> p;
  std::ranges::transform(crash_, p.begin(), [](const auto& cell) { return cell.load(std::memory_order_relaxed); });
  std::string report = absl::StrFormat("the guest reported a crash: 0x%x (0x%x, 0x%x, 0x%x, 0x%x)", p[0], p[1], p[2], p[3], p[4]);
  if ((control & kHvCrashMessage) != 0) {
    const Gpa text(p[3]);
    const uint64_t bytes = p[4];
    std::string message(std::min(bytes, kMaxCrashMessageBytes), '\0');
    if (bytes > kPageBytes || !environment_.memory.Read(text, std::as_writable_bytes(std::span(message)))) {
      absl::StrAppend(&report, "; its message is not in RAM, or longer than a page, or not for it to read");
    } else {
      absl::StrAppend(&report, "; it says: ", absl::CHexEscape(message.substr(0, message.find('\0'))),
                      bytes > kMaxCrashMessageBytes ? "..." : "");
    }
  }
  environment_.control.RequestEnd(MachineEnd::kGuestCrash, report);
}

absl::StatusOr<std::unique_ptr<HvPartition>> HvPartition::Create(const HvOffer& offer, HvSharedRegisters& shared,
                                                                 OverlaySpace& overlays, std::optional<uint64_t> apic_hz) {
  ASSIGN_OR_RETURN(auto hypercall, overlays.NewPage());
  ASSIGN_OR_RETURN(auto reference_tsc, overlays.NewPage());
  FillHypercallPage(std::span<std::byte, kPageBytes>(hypercall->data(), kPageBytes));
  FillReferenceTscPage(reference_tsc->data(), shared.clock().tsc_parameters());
  return std::unique_ptr<HvPartition>(new HvPartition(offer, shared, std::move(hypercall), std::move(reference_tsc), apic_hz));
}

HvPartition::HvPartition(const HvOffer& offer, HvSharedRegisters& shared, std::unique_ptr<OverlayPage> hypercall,
                         std::unique_ptr<OverlayPage> reference_tsc, std::optional<uint64_t> apic_hz)
    : offer_(offer),
      shared_(shared),
      apic_hz_(apic_hz),
      hypercall_overlay_(std::move(hypercall)),
      reference_tsc_overlay_(std::move(reference_tsc)) {}

bool HvPartition::Read(uint32_t msr, uint64_t& value) const noexcept {
  switch (msr) {
    case kHvMsrGuestOsId: {
      const MutexLock lock(mutex_);
      value = guest_os_id_;
      return true;
    }
    case kHvMsrHypercall: {
      const MutexLock lock(mutex_);
      value = hypercall_;
      return true;
    }
    case kHvMsrReferenceTsc: {
      const MutexLock lock(mutex_);
      value = reference_tsc_;
      return true;
    }
    case kHvMsrApicFrequency:
      if (!apic_hz_) return shared_.Read(msr, value);
      value = *apic_hz_;
      return true;
    default:
      return shared_.Read(msr, value);
  }
}

bool HvPartition::Write(uint32_t msr, uint64_t value) noexcept {
  switch (msr) {
    case kHvMsrGuestOsId: {
      const MutexLock lock(mutex_);
      guest_os_id_ = value;
      if (value == 0 && (hypercall_ & kHvHypercallLocked) == 0) RemoveHypercallPageLocked();
      return true;
    }
    case kHvMsrHypercall: {
      const MutexLock lock(mutex_);
      return WriteHypercallLocked(value);
    }
    case kHvMsrReferenceTsc: {
      const MutexLock lock(mutex_);
      return WriteReferenceTscLocked(value);
    }
    default:
      return shared_.Write(msr, value);
  }
}

bool HvPartition::WriteHypercallLocked(uint64_t value) {
  if ((hypercall_ & kHvHypercallLocked) != 0) return false;
  if (!offer_.Has(HvFeature::kHypercallLock)) value &= ~kHvHypercallLocked;
  if (guest_os_id_ == 0) value &= ~(kHvOverlayEnable | kHvHypercallLocked);
  // Every VP of some guests writes the same value: that must not take the page from under the others for a moment.
  const bool unchanged = value == hypercall_;
  if ((value & kHvOverlayEnable) == 0) {
    RemoveHypercallPageLocked();
  } else if (!unchanged) {
    if (!hypercall_overlay_->MayPlace(PageOf(value), OverlayPage::Access::kReadExecute)) return false;
    had_read_only_page_.store(true, std::memory_order_release);
    const std::optional<Gpfn> before = hypercall_overlay_->place();
    if (!hypercall_overlay_->Place(PageOf(value), OverlayPage::Access::kReadExecute)) {
      // A write that faults changes nothing: back to where it was, which is RAM.
      if (before) (void)hypercall_overlay_->Place(*before, OverlayPage::Access::kReadExecute);
      return false;
    }
    hypercall_page_.store(PageOf(value).raw(), std::memory_order_relaxed);
  }
  hypercall_ = value;
  hypercall_enabled_.store((value & kHvOverlayEnable) != 0, std::memory_order_release);
  return true;
}

void HvPartition::RemoveHypercallPageLocked() {
  hypercall_enabled_.store(false, std::memory_order_release);
  hypercall_overlay_->Remove();
  hypercall_ &= ~kHvOverlayEnable;
}

bool HvPartition::WriteReferenceTscLocked(uint64_t value) {
  if ((value & kHvOverlayEnable) == 0) {
    reference_tsc_overlay_->Remove();
  } else if (value != reference_tsc_) {
    if (!reference_tsc_overlay_->MayPlace(PageOf(value), OverlayPage::Access::kRead)) return false;
    had_read_only_page_.store(true, std::memory_order_release);
    // Outside RAM: no fault, and the page is nowhere to be seen.
    (void)reference_tsc_overlay_->Place(PageOf(value), OverlayPage::Access::kRead);
  }
  reference_tsc_ = value;
  return true;
}

}  // namespace vmm
