// What a fuzz input is made of: this, then the contents of two pages of memory at kHypercallFuzzMemory.
//
// Trust    none needed: for tests.
#ifndef VMM_DEVICES_HYPERV_HYPERCALL_HYPERCALL_FUZZ_LAYOUT_H_
#define VMM_DEVICES_HYPERV_HYPERCALL_HYPERCALL_FUZZ_LAYOUT_H_

#include <cstdint>

#include "devices/guest_interface.h"
#include "memory/gpa.h"

namespace vmm {

inline constexpr Gpa kHypercallFuzzMemory{0x1000};

inline constexpr uint8_t kHypercallFuzzCplMask = 3;
inline constexpr uint8_t kHypercallFuzzNot64 = 4;
inline constexpr uint8_t kHypercallFuzzRealMode = 8;
inline constexpr uint8_t kHypercallFuzzNoXmm = 16;  // the host cannot reach XMM registers
inline constexpr uint8_t kHypercallFuzzVtl1 = 32;   // the caller is in VTL1, not in VTL0
inline constexpr uint8_t kHypercallFuzzLocked = 64;  // another processor holds a TLB lock

// All zeroes: 64-bit kernel code on the one processor of a partition that offers nothing.
struct HypercallFuzzInput {
  uint64_t rax, rbx, rcx, rdx, rsi, rdi, r8;
  XmmRegisters xmm;
  uint64_t privileges;
  uint32_t features;
  uint16_t vp_count;  // low byte: one less than there are; high byte: who calls
  uint8_t answer;     // the partition's, to what it is asked
  uint8_t modes;
};
static_assert(sizeof(HypercallFuzzInput) == 56 + 96 + 16);

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_HYPERCALL_HYPERCALL_FUZZ_LAYOUT_H_
