// Whom a hypercall means: partition, trust level, one virtual processor, or a set of them.
//
// Shapes   a VpSet is 64 banks of 64 processors, dense.
// Threads  plain functions and values.
// Trust    numbers and masks are the guest's; a resolved one is in range, but a VpSet may name processors that are not there.
// Errors   HvStatus beside the value, which means nothing unless that is kSuccess.
// Source   Hyper-V TLFS, "Partition Identity", "Virtual Processor Index", "HV_INPUT_VTL", "Sparse Virtual Processor Set".
#ifndef VMM_DEVICES_HYPERV_HYPERCALL_HYPERCALL_TARGETS_H_
#define VMM_DEVICES_HYPERV_HYPERCALL_HYPERCALL_TARGETS_H_

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <span>

#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/hypercall/hypercall_call.h"
#include "devices/hyperv/hypercall/hypercall_parameters_layout.h"

namespace vmm {

// "Self", or the caller's own id.
[[nodiscard]] bool IsOwnPartition(const HypercallCall& call, uint64_t guest_partition) noexcept;

struct VtlTarget {
  HvStatus status;
  Vtl vtl{0};
};
// HV_VTL, a plain number. kInvalidParameter for one that does not exist, kAccessDenied for one above the caller's,
// kInvalidVtlState for one that is not enabled.
[[nodiscard]] VtlTarget ResolveVtl(const HypercallCall& call, uint8_t guest_vtl) noexcept;
// HV_INPUT_VTL.
[[nodiscard]] VtlTarget ResolveInputVtl(const HypercallCall& call, uint8_t guest_input_vtl) noexcept;

struct VpTarget {
  HvStatus status;
  VpIndex vp{0};
};
// An index, or "self". kInvalidVpIndex, also for "any".
[[nodiscard]] VpTarget ResolveVp(const HypercallCall& call, uint32_t guest_vp) noexcept;

[[nodiscard]] bool IsZero(std::span<const uint8_t> reserved) noexcept;

class VpSet final {
 public:
  static VpSet All() noexcept {
    VpSet set;
    set.all_ = true;
    return set;
  }
  static VpSet FromMask(uint64_t mask) noexcept {
    VpSet set;
    set.banks_[0] = mask;
    return set;
  }

  // True: it names no processor, there or not.
  [[nodiscard]] bool empty() const noexcept {
    return !all_ && std::all_of(banks_.begin(), banks_.end(), [](uint64_t bank) { return bank == 0; });
  }
  // Calls `f` with each that is there, in ascending order.
  template <typename F>
  void ForEach(uint32_t vp_count, F f) const noexcept {
    if (all_) {
      for (uint32_t vp = 0; vp < vp_count; ++vp) f(VpIndex(vp));
      return;
    }
    for (uint32_t bank = 0; bank < kHvVpSetBanks && bank * kHvVpSetBankBits < vp_count; ++bank) {
      for (uint64_t left = banks_[bank]; left != 0; left &= left - 1) {
        const uint32_t vp = bank * kHvVpSetBankBits + static_cast<uint32_t>(std::countr_zero(left));
        if (vp < vp_count) f(VpIndex(vp));
      }
    }
  }

 private:
  friend struct SparseVpSet ReadVpSet(const HypercallCall& call, HvVpSetHeader header) noexcept;
  bool all_ = false;
  std::array<uint64_t, kHvVpSetBanks> banks_{};
};

struct SparseVpSet {
  HvStatus status;
  VpSet set;
};
// HV_VP_SET: banks from the variable header. kInvalidHypercallInput where they are not as many as the mask says, whatever the
// format (as KVM has it); kInvalidParameter for a format that does not exist (as OpenVMM has it; KVM takes it for "all").
[[nodiscard]] SparseVpSet ReadVpSet(const HypercallCall& call, HvVpSetHeader header) noexcept;

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_HYPERCALL_HYPERCALL_TARGETS_H_
