// EnableVpVtl, on the thread of the VP that gets the level.
//
// Threads  the target VP's.
// Trust    `guest_vtl` and `context` are the guest's.
// Errors   as VsmPartition::MayEnableVp, then kVtlAlreadyEnabled on this VP, then kInvalidRegisterValue: in this order. Nothing
//          has changed unless kSuccess.
// Source   Hyper-V TLFS, "HvCallEnableVpVtl"; a level above VTL0 has no real mode.
#ifndef VMM_DEVICES_HYPERV_VSM_ENABLE_VP_VTL_H_
#define VMM_DEVICES_HYPERV_VSM_ENABLE_VP_VTL_H_

#include <cstdint>

#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/hypercall/hv_vp_context_layout.h"
#include "devices/hyperv/vsm/vsm_partition.h"
#include "devices/hyperv/vsm/vsm_vp.h"

namespace vmm {

// `own_vp`: the caller's VP is the target.
[[nodiscard]] HvStatus EnableVpVtl(VsmPartition& partition, VsmVp& target, Vtl caller, bool own_vp, uint8_t guest_vtl,
                                   const HvInitialVpContext& context) noexcept;

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_VSM_ENABLE_VP_VTL_H_
