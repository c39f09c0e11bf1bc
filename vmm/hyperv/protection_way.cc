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
      return absl::FailedPreconditionError(absl::StrCat("protect pages by KVM's PRIVATE attribute, as hyperv.vsm.protection says: ", vm.status().message()));
    }
  }
  ASSIGN_OR_RETURN(auto vm, system.CreateVm());
  if (!vm->HasNestedPaging()) {
    return absl::FailedPreconditionError(
        "protect pages by their host mapping: this KVM has no nested paging, or is older than Linux 6.11 and does not say so");
  }
  return RestrictedVm{std::move(vm), ProtectionWay::kHostMapping};
}

std::string Describe(ProtectionWay way, Unenforceable unenforceable) {
  return absl::StrCat("pages are protected by ", way == ProtectionWay::kPrivateAttribute ? "KVM's PRIVATE attribute" : "their host mapping",
                      " (way ", std::string(1, static_cast<char>(way)), "): no access, or read and execute; what takes execution alone from a page is ",
                      unenforceable == Unenforceable::kRound ? "ROUNDED: it is allowed all the same" : "refused");
}

}  // namespace vmm
