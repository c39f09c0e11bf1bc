#include "devices/hyperv/hypercall/hypercall_targets.h"

#include "devices/hyperv/hypercall/vsm_services.h"

namespace vmm {

bool IsOwnPartition(const HypercallCall& call, uint64_t guest_partition) noexcept {
  return guest_partition == kHvPartitionIdSelf || guest_partition == call.services().partition_id();
}

VtlTarget ResolveVtl(const HypercallCall& call, uint8_t guest_vtl) noexcept {
  if (guest_vtl >= kHvVtlCount) return {HvStatus::kInvalidParameter};
  const Vtl vtl(guest_vtl);
  if (vtl > call.caller().vtl) return {HvStatus::kAccessDenied};
  // Levels need not be consecutive: one below the caller's may not be there.
  VsmServices* const vsm = call.caller().vsm();
  if (vsm != nullptr && !vsm->IsVtlEnabled(vtl)) return {HvStatus::kInvalidVtlState};
  return {HvStatus::kSuccess, vtl};
}

VtlTarget ResolveInputVtl(const HypercallCall& call, uint8_t guest_input_vtl) noexcept {
  if ((guest_input_vtl & kHvInputVtlReserved) != 0) return {HvStatus::kInvalidParameter};
  if ((guest_input_vtl & kHvInputVtlUseTarget) == 0) return {HvStatus::kSuccess, call.caller().vtl};
  return ResolveVtl(call, guest_input_vtl & kHvInputVtlLevelMask);
}

VpTarget ResolveVp(const HypercallCall& call, uint32_t guest_vp) noexcept {
  const VpIndex vp(guest_vp);
  if (vp == kHvVpIndexSelf) return {HvStatus::kSuccess, call.caller().vp};
  if (guest_vp >= call.host().vp_count()) return {HvStatus::kInvalidVpIndex};
  return {HvStatus::kSuccess, vp};
}

bool IsZero(std::span<const uint8_t> reserved) noexcept {
  return std::all_of(reserved.begin(), reserved.end(), [](uint8_t byte) { return byte == 0; });
}

SparseVpSet ReadVpSet(const HypercallCall& call, HvVpSetHeader header) noexcept {
  if (call.variable_count() != static_cast<size_t>(std::popcount(header.valid_banks))) {
    return {HvStatus::kInvalidHypercallInput};
  }
  if (header.format == kHvVpSetAll) return {HvStatus::kSuccess, VpSet::All()};
  if (header.format != kHvVpSetSparse4k) return {HvStatus::kInvalidParameter};
  SparseVpSet sparse{HvStatus::kSuccess};
  size_t next = 0;
  for (uint64_t left = header.valid_banks; left != 0; left &= left - 1) {
    sparse.set.banks_[static_cast<size_t>(std::countr_zero(left))] = call.Variable(next++);
  }
  return sparse;
}

}  // namespace vmm
