// A context with which a virtual processor can begin at the level of the code that asks: this processor's modes and tables.
//
// Threads  any processor.
#ifndef VMM_TESTS_GUESTS_HYPERV_VP_CONTEXT_H_
#define VMM_TESTS_GUESTS_HYPERV_VP_CONTEXT_H_

#include <cstdint>

#include "devices/hyperv/hypercall/hv_vp_context_layout.h"
#include "tests/guests/runtime/cpu.h"

namespace guest {

inline vmm::HvInitialVpContext ContextLikeThis(uint64_t rip, uint64_t rsp) {
  constexpr uint32_t kMsrEfer = 0xc000'0080, kMsrPat = 0x277;
  struct [[gnu::packed]] {
    uint16_t limit;
    uint64_t base;
  } gdt, idt;
  asm volatile("sgdt %0" : "=m"(gdt));
  asm volatile("sidt %0" : "=m"(idt));
  constexpr vmm::HvSegmentRegister kData{.base = 0, .limit = 0xffff'ffff, .selector = 0x10, .attributes = 0xc093};
  vmm::HvInitialVpContext c{};
  c.rip = rip;
  c.rsp = rsp;
  c.rflags = 2;
  c.cs = {.base = 0, .limit = 0xffff'ffff, .selector = 8, .attributes = 0xa09b};
  c.ds = c.es = c.fs = c.gs = c.ss = kData;
  c.tr = {.base = 0, .limit = 0x67, .selector = 0x30, .attributes = 0x8b};
  c.idtr = {.pad = {}, .limit = idt.limit, .base = idt.base};
  c.gdtr = {.pad = {}, .limit = gdt.limit, .base = gdt.base};
  c.efer = ReadMsr(kMsrEfer);
  c.cr0 = ReadCr0();
  c.cr3 = ReadCr3();
  c.cr4 = ReadCr4();
  c.pat = ReadMsr(kMsrPat);
  return c;
}

}  // namespace guest

#endif  // VMM_TESTS_GUESTS_HYPERV_VP_CONTEXT_H_
