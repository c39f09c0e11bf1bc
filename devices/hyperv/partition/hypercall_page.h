// What the hypercall page holds: the guest calls its first byte, and for VTL switches two published offsets.
//
// KVM keeps vmcall and vmmcall for itself and answers codes that it does not know without asking us. So the page's code does
// `out` to a port that nobody else has, which leaves the guest with every register in place.
//
// Shapes   all three entries are `nop; out port, al; ret`. A call that is to be made again goes back to the nop: KVM steps
//          over an `out` only if the instruction pointer still is at it. The layout is the one that Hyper-V's own page has.
// Trust    the page is read-only and executable to the guest, and its bytes never change.
// Source   Hyper-V TLFS, "Hypercall Interface" and "Virtual Secure Mode"; design.md, "One KVM VM per VTL".
#ifndef VMM_DEVICES_HYPERV_PARTITION_HYPERCALL_PAGE_H_
#define VMM_DEVICES_HYPERV_PARTITION_HYPERCALL_PAGE_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "memory/gpa.h"

namespace vmm {

inline constexpr uint16_t kHvHypercallPort = 0xbe;

inline constexpr uint32_t kHvHypercallOffset = 0x00;
inline constexpr uint32_t kHvVtlCall32Offset = 0x04;
inline constexpr uint32_t kHvVtlCall64Offset = 0x0f;
inline constexpr uint32_t kHvVtlReturn32Offset = 0x1b;
inline constexpr uint32_t kHvVtlReturn64Offset = 0x26;

void FillHypercallPage(std::span<std::byte, kPageBytes> page) noexcept;

// Whether `rip` may be the `out` of one of the page's entries.
[[nodiscard]] bool IsHypercallPageExit(uint64_t rip) noexcept;

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_PARTITION_HYPERCALL_PAGE_H_
