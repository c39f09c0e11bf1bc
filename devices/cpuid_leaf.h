// One CPUID leaf as a guest reads it, for leaves that depend on no input but the function number.
//
// Threads  plain values.
#ifndef VMM_DEVICES_CPUID_LEAF_H_
#define VMM_DEVICES_CPUID_LEAF_H_

#include <cstdint>

namespace vmm {

struct CpuidLeaf {
  uint32_t function;
  uint32_t eax, ebx, ecx, edx;
  constexpr bool operator==(const CpuidLeaf&) const = default;
};

}  // namespace vmm

#endif  // VMM_DEVICES_CPUID_LEAF_H_
