#include "vmm/hyperv/protection_way.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace vmm {
absl::StatusOr<RestrictedVm> CreateRestrictedVm(const kvm::System& system, ProtectionWish wish) {
  if (wish != ProtectionWish::kHostMapping) {
    auto vm = system.CreateVmWithPrivateAttribute();
    if (vm.ok()) return RestrictedVm{*std::move(vm), ProtectionWay::kPrivateAttribute};
    if (wish == ProtectionWish::kPrivateAttribute) {
      return absl::FailedPreconditionError(absl::StrCat("protect pages by KVM's PRIVATE attribute: ", vm.status().message()));
    }
  }
  ASSIGN_OR_RETURN(auto vm, system.CreateVm());
  if (!vm->HasNestedPaging()) {
    return absl::FailedPreconditionError(
        "protect pages by their host mapping: this KVM has no nested paging, or is older than Linux 6.11 and does not say so");
  }
  return RestrictedVm{std::move(vm), ProtectionWay::kHostMapping};
}

}  // namespace vmm
