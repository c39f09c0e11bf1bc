// Memory as a trust level sees it, for who decodes its accesses: protections as they are enforced, and the pages of ours that lie over
// RAM.
//
// Threads  any; immutable. Another processor may change protections and move pages meanwhile.
#ifndef VMM_VMM_HYPERV_ENFORCED_VIEW_H_
#define VMM_VMM_HYPERV_ENFORCED_VIEW_H_

#include <cstddef>

#include "devices/hyperv/hv_types.h"
#include "memory/gpa.h"
#include "memory/guest_view.h"
#include "memory/page_rights.h"
#include "memory/protection_enforcer.h"
#include "vcpu/access_decoder/access_decoder.h"

namespace vmm {

class EnforcedView final : public LevelView {
 public:
  // Both outlive it; `view` is the level's.
  EnforcedView(const ProtectionEnforcer& protections, const GuestView& view, Vtl vtl) noexcept
      : protections_(protections), view_(view), vtl_(vtl) {}
  // An overlay's own, whatever lies beneath.
  [[nodiscard]] PageRights Rights(Gpfn page) const noexcept override {
    constexpr PageRights kReadExecute(PageRights::kRead | PageRights::kKernelExecute | PageRights::kUserExecute);
    const auto overlay = view_.OverlayAt(page);
    if (!overlay) return protections_.Enforced(vtl_.raw(), page);
    return overlay->access == ViewAccess::kReadWrite ? PageRights() : kReadExecute;
  }
  [[nodiscard]] const std::byte* Overlay(Gpfn page) const noexcept override {
    const auto overlay = view_.OverlayAt(page);
    return overlay ? overlay->bytes : nullptr;
  }

 private:
  const ProtectionEnforcer& protections_;
  const GuestView& view_;
  const Vtl vtl_;
};

}  // namespace vmm

#endif  // VMM_VMM_HYPERV_ENFORCED_VIEW_H_
