// Whether a virtual processor could begin with the registers that a guest gives it.
//
// Shapes   one HvInitialVpContext.
// Threads  a pure function.
// Trust    the context is the guest's. What passes is consistent in itself: modes, reserved and fixed bits, addresses, segments.
//          What depends on the host's processor (bits of CR4 and EFER that it may lack, its physical address width) is for KVM to
//          refuse. The rules are the stricter ones of VMX, also on AMD: there a bad segment would show only as a failed entry
//          into the guest.
// Errors   false is INVALID_REGISTER_VALUE.
// Source   Intel SDM, "Checks on the Guest State Area"; AMD APM, "Canonicalization and Consistency Checks".
#ifndef VMM_DEVICES_HYPERV_HYPERCALL_INITIAL_VP_CONTEXT_H_
#define VMM_DEVICES_HYPERV_HYPERCALL_INITIAL_VP_CONTEXT_H_

#include "devices/hyperv/hypercall/hv_vp_context_layout.h"

namespace vmm {

[[nodiscard]] bool CheckInitialVpContext(const HvInitialVpContext& context) noexcept;

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_HYPERCALL_INITIAL_VP_CONTEXT_H_
