// MSRs that leave the guest because some processor's accesses are to be told of, made for one whose are not: as KVM would have.
//
// Shapes   what the processor holds is in the vCPU; KVM takes it from this process as it would from the guest, less what it only asks
//          of a guest, which is asked here.
// Threads  AsGuestWrites: any, pure. The rest: the VP's, outside the guest.
// Trust    values are the guest's.
// Errors   false, nullopt: #GP(0).
// Source   Intel SDM volumes 3 and 4, AMD64 APM volume 2; what an unmodified KVM lets a guest write.
#ifndef VMM_VMM_HYPERV_GUEST_MSRS_H_
#define VMM_VMM_HYPERV_GUEST_MSRS_H_

#include <cstdint>
#include <optional>

#include "kvm/vcpu.h"

namespace vmm {

// What the MSR holds after a guest has written `value`, where it holds `old` now. `paging`: CR0.PG. Numbers that are not
// InterceptedMsrs (devices/hyperv/vsm/msr_intercepts.h): nullopt.
[[nodiscard]] std::optional<uint64_t> AsGuestWrites(uint32_t msr, uint64_t old, uint64_t value, bool paging) noexcept;

[[nodiscard]] bool ReadMsrAsGuest(kvm::Vcpu& vcpu, uint32_t msr, uint64_t& value) noexcept;
// Requires synced registers.
[[nodiscard]] bool WriteMsrAsGuest(kvm::Vcpu& vcpu, uint32_t msr, uint64_t value) noexcept;

}  // namespace vmm

#endif  // VMM_VMM_HYPERV_GUEST_MSRS_H_
