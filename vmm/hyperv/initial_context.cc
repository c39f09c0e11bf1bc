#include "vmm/hyperv/initial_context.h"

namespace vmm {
namespace {

constexpr uint32_t kMsrPat = 0x277;
constexpr uint8_t kBusyTss = 0xb;

}  // namespace

kvm_segment KvmSegment(const HvSegmentRegister& from) noexcept {
  kvm_segment to{};
  to.base = from.base;
  to.limit = from.limit;
  to.selector = from.selector;
  to.type = from.attributes & 0xf;
  to.s = (from.attributes >> 4) & 1;
  to.dpl = (from.attributes >> 5) & 3;
  to.present = (from.attributes >> 7) & 1;
  to.avl = (from.attributes >> 12) & 1;
  to.l = (from.attributes >> 13) & 1;
  to.db = (from.attributes >> 14) & 1;
  to.g = (from.attributes >> 15) & 1;
  to.unusable = to.present == 0;
  return to;
}

HvSegmentRegister HvSegment(const kvm_segment& from) noexcept {
  return {.base = from.base,
          .limit = from.limit,
          .selector = from.selector,
          .attributes = static_cast<uint16_t>(from.type | from.s << 4 | from.dpl << 5 | from.present << 7 | from.avl << 12 |
                                              from.l << 13 | from.db << 14 | from.g << 15)};
}

HvStatus LoadContext(kvm::Vcpu& vcpu, const HvInitialVpContext& context) noexcept {
  const auto before = vcpu.GetSregs();
  if (!before.ok()) return HvStatus::kOperationFailed;
  kvm_sregs sregs = *before;
  sregs.cs = KvmSegment(context.cs);
  sregs.ds = KvmSegment(context.ds);
  sregs.es = KvmSegment(context.es);
  sregs.fs = KvmSegment(context.fs);
  sregs.gs = KvmSegment(context.gs);
  sregs.ss = KvmSegment(context.ss);
  sregs.tr = KvmSegment(context.tr);
  sregs.tr.type = kBusyTss;
  sregs.tr.s = 0;
  sregs.tr.present = 1;
  sregs.tr.unusable = 0;
  sregs.ldt = KvmSegment(context.ldtr);
  sregs.idt = {.base = context.idtr.base, .limit = context.idtr.limit, .padding = {}};
  sregs.gdt = {.base = context.gdtr.base, .limit = context.gdtr.limit, .padding = {}};
  sregs.efer = context.efer;
  sregs.cr0 = context.cr0;
  sregs.cr3 = context.cr3;
  sregs.cr4 = context.cr4;
  kvm_regs regs{};
  regs.rip = context.rip;
  regs.rsp = context.rsp;
  regs.rflags = context.rflags | 2;
  if (!vcpu.SetSregs(sregs).ok() || !vcpu.SetMsr(kMsrPat, context.pat) || !vcpu.SetRegs(regs).ok()) {
    (void)vcpu.SetSregs(*before);
    return HvStatus::kInvalidRegisterValue;
  }
  return HvStatus::kSuccess;
}

HvStatus StartWithContext(kvm::Vcpu& vcpu, const HvInitialVpContext& context) noexcept {
  const auto state = vcpu.GetMpState();
  if (!state.ok() || (*state != KVM_MP_STATE_UNINITIALIZED && *state != KVM_MP_STATE_INIT_RECEIVED)) {
    return HvStatus::kInvalidVpState;
  }
  const HvStatus loaded = LoadContext(vcpu, context);
  if (loaded != HvStatus::kSuccess) return loaded;
  return vcpu.SetMpState(KVM_MP_STATE_RUNNABLE).ok() ? HvStatus::kSuccess : HvStatus::kOperationFailed;
}

}  // namespace vmm
