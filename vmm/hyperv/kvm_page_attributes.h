// KVM's attributes of one trust level's pages, as GuestView wants them.
//
// Threads  as PageAttributes.
// Errors   as PageAttributes.
#ifndef VMM_VMM_HYPERV_KVM_PAGE_ATTRIBUTES_H_
#define VMM_VMM_HYPERV_KVM_PAGE_ATTRIBUTES_H_

#include <cstdint>

#include "kvm/vm.h"
#include "memory/gpa.h"
#include "memory/page_attributes.h"

namespace vmm {

class KvmPageAttributes final : public PageAttributes {
 public:
  // `vm` has the PRIVATE attribute and outlives this.
  explicit KvmPageAttributes(kvm::Vm& vm) noexcept : vm_(vm) {}

  [[nodiscard]] bool SetPrivate(Gpfn first, uint64_t pages, bool is_private) noexcept override {
    return vm_.SetPrivate(Gpa(first), pages * kPageBytes, is_private);
  }

 private:
  kvm::Vm& vm_;
};

}  // namespace vmm

#endif  // VMM_VMM_HYPERV_KVM_PAGE_ATTRIBUTES_H_
