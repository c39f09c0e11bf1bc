// Another processor's registers may be had too, as the TLFS has it (OpenVMM: the caller's own only).
#include "devices/hyperv/hypercall/handlers.h"
#include "devices/hyperv/hypercall/hypercall_parameters_layout.h"
#include "devices/hyperv/hypercall/hypercall_targets.h"

namespace vmm::hypercalls {
namespace {

struct Target {
  HvStatus status;
  VpIndex vp{0};
  Vtl vtl{0};
};

Target CheckTarget(const HypercallCall& call) noexcept {
  const auto input = call.Header<HvVpRegistersInput>();
  // Not INVALID_PARTITION_ID, as for the other calls: another's registers are denied, whether it exists or not.
  if (!IsOwnPartition(call, input.partition_id)) return {HvStatus::kAccessDenied};
  const VpTarget vp = ResolveVp(call, input.vp_index);
  if (vp.status != HvStatus::kSuccess) return {vp.status};
  const VtlTarget vtl = ResolveInputVtl(call, input.target_vtl);
  if (vtl.status != HvStatus::kSuccess) return {vtl.status};
  if (!IsZero(input.reserved)) return {HvStatus::kInvalidParameter};
  return {HvStatus::kSuccess, vp.vp, vtl.vtl};
}

}  // namespace

HvStatus GetVpRegisters(HypercallCall& call) noexcept {
  const Target target = CheckTarget(call);
  if (target.status != HvStatus::kSuccess) return target.status;
  for (; call.HasRep(); call.CompleteRep()) {
    HvRegisterValue value{};
    const HvStatus status = call.services().GetRegister(target.vp, target.vtl, call.Element<HvRegisterName>(), value);
    if (status != HvStatus::kSuccess) return status;
    call.PutElement(value);
  }
  return HvStatus::kSuccess;
}

HvStatus SetVpRegisters(HypercallCall& call) noexcept {
  const Target target = CheckTarget(call);
  if (target.status != HvStatus::kSuccess) return target.status;
  for (; call.HasRep(); call.CompleteRep()) {
    const auto element = call.Element<HvSetVpRegistersElement>();
    if ((element.reserved[0] | element.reserved[1] | element.reserved[2]) != 0) return HvStatus::kInvalidParameter;
    const HvStatus status = call.services().SetRegister(target.vp, target.vtl, element.name, element.value);
    if (status != HvStatus::kSuccess) return status;
  }
  return HvStatus::kSuccess;
}

}  // namespace vmm::hypercalls
