// /dev/kvm: is it there, what does it offer, and the making of VMs.
//
// Threads  immutable after Open.
// Errors   Open: NOT_FOUND no such device, PERMISSION_DENIED, FAILED_PRECONDITION a KVM of another API version or without
//          something that we cannot do without.
// Source   Linux, "The Definitive KVM API Documentation".
#ifndef VMM_KVM_SYSTEM_H_
#define VMM_KVM_SYSTEM_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/owned_fd.h"
#include "kvm/uapi.h"
#include "kvm/vm.h"

namespace vmm::kvm {

class System final {
 public:
  static absl::StatusOr<std::unique_ptr<System>> Open(const std::string& path = "/dev/kvm");
  System(const System&) = delete;
  System& operator=(const System&) = delete;

  [[nodiscard]] int CheckExtension(uint32_t capability) const noexcept;
  // `type` is a KVM_X86_*_VM.
  absl::StatusOr<std::unique_ptr<Vm>> CreateVm(uint32_t type = KVM_X86_DEFAULT_VM) const;
  // One whose pages take the PRIVATE attribute (Vm::SetPrivate). FAILED_PRECONDITION, and why, where this KVM makes none.
  absl::StatusOr<std::unique_ptr<Vm>> CreateVmWithPrivateAttribute() const;
  // What KVM can show a guest, before our own filter.
  absl::StatusOr<std::vector<kvm_cpuid_entry2>> SupportedCpuid() const;

 private:
  System(OwnedFd fd, uint32_t run_bytes) noexcept : fd_(std::move(fd)), run_bytes_(run_bytes) {}
  const OwnedFd fd_;
  const uint32_t run_bytes_;
};

}  // namespace vmm::kvm

#endif  // VMM_KVM_SYSTEM_H_
