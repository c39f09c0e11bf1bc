// HV_INITIAL_VP_CONTEXT into a vCPU: that waits for INIT and SIPI (HvCallStartVirtualProcessor), or of another trust level
// (HvCallEnableVpVtl).
//
// Threads  the vCPU's.
// Trust    `context` has the right shape; KVM refuses values that the processor would.
// Errors   kInvalidVpState: it has been started. kInvalidRegisterValue: KVM refused; it still waits.
#ifndef VMM_VMM_HYPERV_INITIAL_CONTEXT_H_
#define VMM_VMM_HYPERV_INITIAL_CONTEXT_H_

#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hypercall/hv_vp_context_layout.h"
#include "kvm/uapi.h"
#include "kvm/vcpu.h"

namespace vmm {

// The same without a look at what the vCPU waits for, and it goes on waiting: for a level that is entered later. Registers that the
// context does not name stay.
[[nodiscard]] HvStatus LoadContext(kvm::Vcpu& vcpu, const HvInitialVpContext& context) noexcept;

[[nodiscard]] HvStatus StartWithContext(kvm::Vcpu& vcpu, const HvInitialVpContext& context) noexcept;

// A segment that is not present is unusable, and a task register must be a busy one: what processors insist on and the guest's
// format cannot say.
[[nodiscard]] kvm_segment KvmSegment(const HvSegmentRegister& segment) noexcept;
// The reverse: attributes as a descriptor has them; the bit "unusable" is lost.
[[nodiscard]] HvSegmentRegister HvSegment(const kvm_segment& segment) noexcept;

}  // namespace vmm

#endif  // VMM_VMM_HYPERV_INITIAL_CONTEXT_H_
