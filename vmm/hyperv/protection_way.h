// Which way a machine enforces page protections, and so of which type its restricted levels' VMs are.
//
// Threads  pure functions of the host.
// Errors   Status. FAILED_PRECONDITION: this host has not the way that was asked for, and why.
#ifndef VMM_VMM_HYPERV_PROTECTION_WAY_H_
#define VMM_VMM_HYPERV_PROTECTION_WAY_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kvm/system.h"
#include "kvm/vm.h"
#include "memory/protection_enforcer.h"

namespace vmm {

// What the configuration says.
enum class ProtectionWish : uint8_t { kAuto, kPrivateAttribute, kHostMapping };

// docs/design.md, section 5, by their letters there.
enum class ProtectionWay : char { kPrivateAttribute = 'B', kHostMapping = 'C' };

// A VM for a level that higher ones will restrict. kAuto: the private attribute where a VM that has it can be made, since its faults
// name the page; else the host mapping, which any KVM with nested paging has.
struct RestrictedVm {
  std::unique_ptr<kvm::Vm> vm;
  ProtectionWay way;
};
absl::StatusOr<RestrictedVm> CreateRestrictedVm(const kvm::System& system, ProtectionWish wish);

// For the log: what the way can enforce, and what becomes of the rest.
[[nodiscard]] std::string Describe(ProtectionWay way, Unenforceable unenforceable);

}  // namespace vmm

#endif  // VMM_VMM_HYPERV_PROTECTION_WAY_H_
