// The registers with which a virtual processor begins at a trust level: HV_INITIAL_VP_CONTEXT, and the segment and table formats
// that VP registers have too.
//
// Shapes   224 bytes.
// Trust    the guest's until CheckInitialVpContext (initial_vp_context.h) has passed it.
// Source   Hyper-V TLFS, "HV_INITIAL_VP_CONTEXT", "HV_X64_SEGMENT_REGISTER", "HV_X64_TABLE_REGISTER".
#ifndef VMM_DEVICES_HYPERV_HYPERCALL_HV_VP_CONTEXT_LAYOUT_H_
#define VMM_DEVICES_HYPERV_HYPERCALL_HV_VP_CONTEXT_LAYOUT_H_

#include <cstddef>
#include <cstdint>

namespace vmm {

// Attributes: 3:0 type, 4 non-system, 6:5 DPL, 7 present, 11:8 reserved, 12 available, 13 long, 14 default, 15 granularity. There
// is no "unusable" bit: a segment that is not present is.
struct HvSegmentRegister {
  uint64_t base;
  uint32_t limit;
  uint16_t selector;
  uint16_t attributes;
};
static_assert(sizeof(HvSegmentRegister) == 16);
static_assert(offsetof(HvSegmentRegister, limit) == 8);
static_assert(offsetof(HvSegmentRegister, selector) == 12);
static_assert(offsetof(HvSegmentRegister, attributes) == 14);
inline constexpr uint16_t kHvSegmentReserved = 0x0f00;

struct HvTableRegister {
  uint16_t pad[3];
  uint16_t limit;
  uint64_t base;
};
static_assert(sizeof(HvTableRegister) == 16);
static_assert(offsetof(HvTableRegister, limit) == 6);
static_assert(offsetof(HvTableRegister, base) == 8);

struct HvInitialVpContext {
  uint64_t rip;
  uint64_t rsp;
  uint64_t rflags;
  HvSegmentRegister cs;
  HvSegmentRegister ds;
  HvSegmentRegister es;
  HvSegmentRegister fs;
  HvSegmentRegister gs;
  HvSegmentRegister ss;
  HvSegmentRegister tr;
  HvSegmentRegister ldtr;
  HvTableRegister idtr;
  HvTableRegister gdtr;
  uint64_t efer;
  uint64_t cr0;
  uint64_t cr3;
  uint64_t cr4;
  uint64_t pat;
};
static_assert(sizeof(HvInitialVpContext) == 224);
static_assert(offsetof(HvInitialVpContext, cs) == 24);
static_assert(offsetof(HvInitialVpContext, ss) == 104);
static_assert(offsetof(HvInitialVpContext, tr) == 120);
static_assert(offsetof(HvInitialVpContext, ldtr) == 136);
static_assert(offsetof(HvInitialVpContext, idtr) == 152);
static_assert(offsetof(HvInitialVpContext, gdtr) == 168);
static_assert(offsetof(HvInitialVpContext, efer) == 184);
static_assert(offsetof(HvInitialVpContext, cr0) == 192);
static_assert(offsetof(HvInitialVpContext, cr3) == 200);
static_assert(offsetof(HvInitialVpContext, cr4) == 208);
static_assert(offsetof(HvInitialVpContext, pat) == 216);

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_HYPERCALL_HV_VP_CONTEXT_LAYOUT_H_
