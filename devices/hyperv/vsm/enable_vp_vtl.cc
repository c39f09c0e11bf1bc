#include "devices/hyperv/vsm/enable_vp_vtl.h"

#include "devices/hyperv/hypercall/initial_vp_context.h"

namespace vmm {

HvStatus EnableVpVtl(VsmPartition& partition, VsmVp& target, Vtl caller, bool own_vp, uint8_t guest_vtl,
                     const HvInitialVpContext& context) noexcept {
  constexpr uint64_t kCr0Protected = 1;
  const HvStatus allowed = partition.MayEnableVp(caller, own_vp, guest_vtl);
  if (allowed != HvStatus::kSuccess) return allowed;
  const Vtl vtl(guest_vtl);
  if (target.IsEnabled(vtl)) return HvStatus::kVtlAlreadyEnabled;
  if ((context.cr0 & kCr0Protected) == 0 || !CheckInitialVpContext(context)) return HvStatus::kInvalidRegisterValue;
  // Once more: another VP may have been first, and a claim is not taken back.
  const HvStatus claimed = partition.ClaimVp(caller, own_vp, vtl);
  if (claimed != HvStatus::kSuccess) return claimed;
  return target.Enable(vtl, context);
}

}  // namespace vmm
