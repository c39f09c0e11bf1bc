// The reference TSC page: how a guest computes reference time without an exit.
//
// Source   Hyper-V TLFS, "Partition Reference TSC Mechanism".
#ifndef VMM_DEVICES_HYPERV_PARTITION_REFERENCE_TSC_LAYOUT_H_
#define VMM_DEVICES_HYPERV_PARTITION_REFERENCE_TSC_LAYOUT_H_

#include <cstddef>
#include <cstdint>

namespace vmm {

inline constexpr uint32_t kHvReferenceTscInvalid = 0;  // sequence: read TIME_REF_COUNT instead. Never 0xffffffff either

// ticks = ((tsc * scale) >> 64) + offset
struct HvReferenceTscPage {
  uint32_t sequence;
  uint32_t reserved;
  uint64_t scale;
  uint64_t offset;
};
static_assert(sizeof(HvReferenceTscPage) == 24);
static_assert(offsetof(HvReferenceTscPage, scale) == 8);
static_assert(offsetof(HvReferenceTscPage, offset) == 16);

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_PARTITION_REFERENCE_TSC_LAYOUT_H_
