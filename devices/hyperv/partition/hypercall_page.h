// What the hypercall page holds: the guest calls its first byte, and for VTL switches two published offsets.
//
// KVM keeps vmcall and vmmcall for itself and answers codes that it does not know without asking us. So the page's code does
// `out` to a port that nobody else has, which leaves the guest with every register in place.
//
// Shapes   all three entries are `nop; out port, al; ret`. A call that is to be made again goes back to the nop: KVM steps
//          over an `out` only if the instruction pointer still is at it. hypercall_page_layout.h has the offsets.
// Trust    the page is read-only and executable to the guest, and its bytes never change.
// Source   Hyper-V TLFS, "Hypercall Interface" and "Virtual Secure Mode"; design.md, "One KVM VM per VTL".
//
// A known deviation: user mode that calls the page gets #GP where the TLFS says #UD. The processor checks `out` against IOPL and
// the TSS's I/O map before any exit, and KVM has no exit for #GP. With I/O privilege the call is #UD. No other instruction does
// better: vmcall and vmmcall in user mode KVM answers itself, without a fault, and nothing can tell who reads the page.
#ifndef VMM_DEVICES_HYPERV_PARTITION_HYPERCALL_PAGE_H_
#define VMM_DEVICES_HYPERV_PARTITION_HYPERCALL_PAGE_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "devices/hyperv/partition/hypercall_page_layout.h"
#include "memory/gpa.h"

namespace vmm {

void FillHypercallPage(std::span<std::byte, kPageBytes> page) noexcept;

// Whether `rip` may be the `out` of one of the page's entries.
[[nodiscard]] bool IsHypercallPageExit(uint64_t rip) noexcept;

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_PARTITION_HYPERCALL_PAGE_H_
