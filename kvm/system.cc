#include "kvm/system.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "base/errno_status.h"
#include "base/status_macros.h"
#include "kvm/ioctl.h"

namespace vmm::kvm {
namespace {

struct Requirement {
  uint32_t capability;
  const char* name;
};
// A monitor that runs without these would be another program.
constexpr Requirement kRequired[] = {
    {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"}, {KVM_CAP_IRQFD, "KVM_CAP_IRQFD"},
    {KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD"},           {KVM_CAP_IRQ_ROUTING, "KVM_CAP_IRQ_ROUTING"},
    {KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},       {KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
    {KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP"},               {KVM_CAP_SET_IDENTITY_MAP_ADDR, "KVM_CAP_SET_IDENTITY_MAP_ADDR"},
};

}  // namespace

absl::StatusOr<std::unique_ptr<System>> System::Open(const std::string& path) {
  const int raw = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (raw < 0) {
    const int error = errno;
    if (error == ENOENT) {
      return absl::NotFoundError(absl::StrCat("open ", path, ": this host has no KVM (module not loaded, virtualization off "
                                              "in the firmware, or a guest without nested virtualization)"));
    }
    if (error == EACCES || error == EPERM) {
      return absl::PermissionDeniedError(
          absl::StrCat("open ", path, ": no permission (usually: be a member of the group 'kvm')"));
    }
    return ErrnoStatus(error, absl::StrCat("open ", path));
  }
  OwnedFd fd(raw);
  const int version = Ioctl(fd.get(), KVM_GET_API_VERSION, 0UL);
  if (const int error = errno; version < 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("use ", path, ": it is not KVM: ", ErrnoStatus(error, "ask for its API version").message()));
  }
  if (version != KVM_API_VERSION) {
    return absl::FailedPreconditionError(
        absl::StrCat("use ", path, ": it answers API version ", version, ", not ", KVM_API_VERSION));
  }
  const int run_bytes = Ioctl(fd.get(), KVM_GET_VCPU_MMAP_SIZE, 0UL);
  if (run_bytes < static_cast<int>(sizeof(kvm_run))) {
    return absl::FailedPreconditionError(absl::StrCat("use ", path, ": run page of ", run_bytes, " bytes"));
  }
  std::unique_ptr<System> system(new System(std::move(fd), static_cast<uint32_t>(run_bytes)));
  for (const Requirement& required : kRequired) {
    if (system->CheckExtension(required.capability) <= 0) {
      return absl::FailedPreconditionError(absl::StrCat("use ", path, ": this KVM lacks ", required.name));
    }
  }
  return system;
}

int System::CheckExtension(uint32_t capability) const noexcept {
  const int answer = Ioctl(fd_.get(), KVM_CHECK_EXTENSION, static_cast<unsigned long>(capability));
  return answer < 0 ? 0 : answer;
}

absl::StatusOr<std::unique_ptr<Vm>> System::CreateVm(uint32_t type) const {
  const int raw = Ioctl(fd_.get(), KVM_CREATE_VM, static_cast<unsigned long>(type));
  if (raw < 0) return KvmStatus(errno, absl::StrCat("create VM of type ", type));
  return std::make_unique<Vm>(OwnedFd(raw), run_bytes_);
}

absl::StatusOr<std::unique_ptr<Vm>> System::CreateVmWithPrivateAttribute() const {
  if ((CheckExtension(KVM_CAP_VM_TYPES) >> KVM_X86_SW_PROTECTED_VM & 1) == 0) {
    return absl::FailedPreconditionError("this kernel makes no VM of type SW_PROTECTED_VM (CONFIG_KVM_SW_PROTECTED_VM is off)");
  }
  ASSIGN_OR_RETURN(auto vm, CreateVm(KVM_X86_SW_PROTECTED_VM));
  // Asked of the VM: the system's own answer is another one.
  if (!vm->HasPrivateAttribute()) {
    return absl::FailedPreconditionError("a VM of type SW_PROTECTED_VM does not take the PRIVATE attribute");
  }
  return vm;
}

absl::StatusOr<std::vector<kvm_cpuid_entry2>> System::SupportedCpuid() const {
  // The kernel says E2BIG until the array is large enough; it never has more than a few hundred entries.
  for (uint32_t entries = 128; entries <= 4096; entries *= 2) {
    std::vector<uint64_t> words((sizeof(kvm_cpuid2) + entries * sizeof(kvm_cpuid_entry2)) / 8 + 1);
    auto* const argument = reinterpret_cast<kvm_cpuid2*>(words.data());
    argument->nent = entries;
    if (Ioctl(fd_.get(), KVM_GET_SUPPORTED_CPUID, argument) == 0) {
      const uint32_t count = std::min(argument->nent, entries);
      const auto* const first = reinterpret_cast<const kvm_cpuid_entry2*>(argument->entries);
      return std::vector<kvm_cpuid_entry2>(first, first + count);
    }
    if (errno != E2BIG) return KvmStatus(errno, "get supported CPUID");
  }
  return absl::InternalError("get supported CPUID: more than 4096 entries");
}

}  // namespace vmm::kvm
