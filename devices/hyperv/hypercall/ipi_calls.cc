#include "devices/hyperv/hv_msr_layout.h"
#include "devices/hyperv/hypercall/handlers.h"
#include "devices/hyperv/hypercall/hypercall_parameters_layout.h"
#include "devices/hyperv/hypercall/hypercall_targets.h"

namespace vmm::hypercalls {
namespace {

constexpr uint32_t kLastVector = 0xff;

// A vector that may not be sent is INVALID_PARAMETER, as the TLFS has it (KVM: INVALID_HYPERCALL_INPUT).
template <typename Input>
VtlTarget CheckIpi(const HypercallCall& call, const Input& input) noexcept {
  if (input.vector < kHvFirstVector || input.vector > kLastVector) return {HvStatus::kInvalidParameter};
  const VtlTarget target = ResolveInputVtl(call, input.target_vtl);
  if (target.status != HvStatus::kSuccess) return target;
  if (!IsZero(input.reserved)) return {HvStatus::kInvalidParameter};
  return target;
}

// Processors that are not there are skipped without a word, as KVM does; so an empty set is a success.
HvStatus Send(const HypercallCall& call, Vtl vtl, uint32_t vector, const VpSet& processors) noexcept {
  PartitionHost& host = call.services().host(vtl);
  processors.ForEach(host.vp_count(), [&](VpIndex vp) { host.SendInterrupt(vp, static_cast<uint8_t>(vector)); });
  return HvStatus::kSuccess;
}

}  // namespace

HvStatus SendSyntheticClusterIpi(HypercallCall& call) noexcept {
  const auto input = call.Header<HvSendIpiInput>();
  const VtlTarget target = CheckIpi(call, input);
  if (target.status != HvStatus::kSuccess) return target.status;
  return Send(call, target.vtl, input.vector, VpSet::FromMask(input.processor_mask));
}

HvStatus SendSyntheticClusterIpiEx(HypercallCall& call) noexcept {
  const auto input = call.Header<HvSendIpiExInput>();
  const VtlTarget target = CheckIpi(call, input);
  if (target.status != HvStatus::kSuccess) return target.status;
  const SparseVpSet sparse = ReadVpSet(call, input.processors);
  if (sparse.status != HvStatus::kSuccess) return sparse.status;
  return Send(call, target.vtl, input.vector, sparse.set);
}

}  // namespace vmm::hypercalls
