// Where the hypercall page has its entries, and the port behind them.
//
// Shapes   offsets into the page; the layout is the one that Hyper-V's own page has.
// Source   Hyper-V TLFS, "Hypercall Interface" and "Virtual Secure Mode".
#ifndef VMM_DEVICES_HYPERV_PARTITION_HYPERCALL_PAGE_LAYOUT_H_
#define VMM_DEVICES_HYPERV_PARTITION_HYPERCALL_PAGE_LAYOUT_H_

#include <cstdint>

namespace vmm {

inline constexpr uint16_t kHvHypercallPort = 0xbe;

inline constexpr uint32_t kHvHypercallOffset = 0x00;
inline constexpr uint32_t kHvVtlCall32Offset = 0x04;
inline constexpr uint32_t kHvVtlCall64Offset = 0x0f;
inline constexpr uint32_t kHvVtlReturn32Offset = 0x1b;
inline constexpr uint32_t kHvVtlReturn64Offset = 0x26;

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_PARTITION_HYPERCALL_PAGE_LAYOUT_H_
