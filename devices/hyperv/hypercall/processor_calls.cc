#include "devices/hyperv/hypercall/handlers.h"
#include "devices/hyperv/hypercall/hypercall_parameters_layout.h"
#include "devices/hyperv/hypercall/hypercall_targets.h"
#include "devices/hyperv/hypercall/initial_vp_context.h"
#include "devices/hyperv/hypercall/vsm_services.h"

namespace vmm::hypercalls {

HvStatus StartVirtualProcessor(HypercallCall& call) noexcept {
  const auto input = call.Header<HvStartVirtualProcessorInput>();
  if (!IsOwnPartition(call, input.partition_id)) return HvStatus::kInvalidPartitionId;
  const VpTarget vp = ResolveVp(call, input.vp_index);
  if (vp.status != HvStatus::kSuccess) return vp.status;
  // Who calls runs already, at whatever level.
  if (vp.vp == call.caller().vp) return HvStatus::kInvalidVpIndex;
  const VtlTarget vtl = ResolveVtl(call, input.target_vtl);
  if (vtl.status != HvStatus::kSuccess) return vtl.status;
  if (!IsZero(input.reserved)) return HvStatus::kInvalidParameter;
  if (VsmServices* const vsm = call.caller().vsm()) {
    const HvStatus allowed = vsm->CheckStart(vp.vp, vtl.vtl);
    if (allowed != HvStatus::kSuccess) return allowed;
  }
  if (!CheckInitialVpContext(input.context)) return HvStatus::kInvalidRegisterValue;
  return call.services().StartVirtualProcessor(vp.vp, vtl.vtl, input.context);
}

HvStatus GetVpIndexFromApicId(HypercallCall& call) noexcept {
  const auto input = call.Header<HvVpIndexFromApicIdInput>();
  if (!IsOwnPartition(call, input.partition_id)) return HvStatus::kInvalidPartitionId;
  const VtlTarget vtl = ResolveVtl(call, input.target_vtl);
  if (vtl.status != HvStatus::kSuccess) return vtl.status;
  if (!IsZero(input.reserved)) return HvStatus::kInvalidParameter;
  const uint32_t vp_count = call.host().vp_count();
  for (; call.HasRep(); call.CompleteRep()) {
    const auto apic_id = call.Element<uint32_t>();
    if (apic_id >= vp_count) return HvStatus::kInvalidParameter;
    call.PutElement(apic_id);  // an APIC id is the index here (hv_types.h)
  }
  return HvStatus::kSuccess;
}

// A hint, and never wrong. Nobody here has another thread to give the processor to but the host's scheduler, which needs none.
HvStatus NotifyLongSpinWait(HypercallCall&) noexcept { return HvStatus::kSuccess; }

}  // namespace vmm::hypercalls
