// Memory as a trust level sees it, for who decodes its accesses: protections as they are enforced, and the pages of ours that lie over
// RAM.
//
// Threads  any; immutable. Another processor may change protections and move pages meanwhile.
#ifndef VMM_VMM_HYPERV_ENFORCED_VIEW_H_
#define VMM_VMM_HYPERV_ENFORCED_VIEW_H_

#include <cstddef>

#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/partition/hv_partition.h"
#include "memory/gpa.h"
#include "memory/page_rights.h"
#include "memory/protection_enforcer.h"
#include "vcpu/access_decoder/access_decoder.h"

namespace vmm {

class EnforcedView final : public LevelView {
 public:
  // Both outlive it; the partition's interface is the level's.
  EnforcedView(const ProtectionEnforcer& protections, const HvPartition& partition, Vtl vtl) noexcept
      : protections_(protections), partition_(partition), vtl_(vtl) {}
  [[nodiscard]] PageRights Rights(Gpfn page) const noexcept override {
    constexpr PageRights kReadExecute(PageRights::kRead | PageRights::kKernelExecute | PageRights::kUserExecute);
    return partition_.IsReadOnlyPage(page) ? kReadExecute : protections_.Enforced(vtl_.raw(), page);
  }
  [[nodiscard]] const std::byte* Overlay(Gpfn page) const noexcept override { return partition_.HypercallPageAt(page); }

 private:
  const ProtectionEnforcer& protections_;
  const HvPartition& partition_;
  const Vtl vtl_;
};

}  // namespace vmm

#endif  // VMM_VMM_HYPERV_ENFORCED_VIEW_H_
