// Contexts with which a processor can start, for tests to spoil.
#ifndef VMM_DEVICES_HYPERV_HYPERCALL_VP_CONTEXT_FOR_TEST_H_
#define VMM_DEVICES_HYPERV_HYPERCALL_VP_CONTEXT_FOR_TEST_H_

#include <cstdint>

#include "devices/hyperv/hypercall/hv_vp_context_layout.h"

namespace vmm {

// 64-bit kernel code with paging, as an operating system's loader of secondary processors has it.
inline HvInitialVpContext LongModeContext() {
  constexpr HvSegmentRegister kData{.limit = 0xffff'ffff, .selector = 0x18, .attributes = 0xc093};
  return {.rip = 0xffff'ffff'8100'0000,
          .rsp = 0xffff'c900'0000'0000,
          .rflags = 2,
          .cs = {.limit = 0xffff'ffff, .selector = 0x10, .attributes = 0xa09b},
          .ds = kData,
          .es = kData,
          .fs = kData,
          .gs = {.base = 0xffff'8880'0000'0000, .limit = 0xffff'ffff, .selector = 0, .attributes = 0xc093},
          .ss = kData,
          .tr = {.base = 0xffff'fe00'0000'3000, .limit = 0x206f, .selector = 0x40, .attributes = 0x8b},
          .ldtr = {},
          .idtr = {.limit = 0xfff, .base = 0xffff'fe00'0000'0000},
          .gdtr = {.limit = 0x7f, .base = 0xffff'fe00'0000'1000},
          .efer = 0xd01,
          .cr0 = 0x8005'0033,
          .cr3 = 0x100'0000,
          .cr4 = 0x6f0,
          .pat = 0x0407'0506'0007'0106};
}

// What a start-up interrupt leaves: real mode.
inline HvInitialVpContext RealModeContext() {
  constexpr HvSegmentRegister kData{.limit = 0xffff, .selector = 0, .attributes = 0x93};
  return {.rip = 0,
          .rflags = 2,
          .cs = {.base = 0x8000, .limit = 0xffff, .selector = 0x800, .attributes = 0x9b},
          .ds = kData,
          .es = kData,
          .fs = kData,
          .gs = kData,
          .ss = kData,
          .tr = {.limit = 0xffff, .attributes = 0x8b},
          .ldtr = {.limit = 0xffff, .attributes = 0x82},
          .idtr = {.limit = 0xffff},
          .gdtr = {.limit = 0xffff},
          .cr0 = 0x6000'0010,
          .pat = 0x0007'0406'0007'0406};
}

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_HYPERCALL_VP_CONTEXT_FOR_TEST_H_
