#include "vmm/machine/boot_state.h"

#include "base/status_macros.h"

namespace vmm {
namespace {

kvm_segment ToKvm(const BootSegment& segment) {
  kvm_segment out{};
  out.base = segment.base;
  out.limit = segment.limit;
  out.selector = segment.selector;
  out.type = segment.type;
  out.dpl = segment.dpl;
  out.present = segment.present;
  out.s = segment.s;
  out.l = segment.l;
  out.db = segment.db;
  out.g = segment.g;
  out.unusable = !segment.present;
  return out;
}

}  // namespace

absl::Status SetBootState(kvm::Vcpu& vcpu, const BootEntry& entry) {
  ASSIGN_OR_RETURN(kvm_sregs sregs, vcpu.GetSregs());
  sregs.cs = ToKvm(entry.code);
  sregs.ds = sregs.es = sregs.ss = sregs.fs = sregs.gs = ToKvm(entry.data);
  sregs.tr = ToKvm(entry.task);
  sregs.ldt = ToKvm({});
  sregs.gdt = {.base = entry.gdt_base.raw(), .limit = entry.gdt_limit, .padding = {}};
  sregs.idt = {.base = 0, .limit = 0, .padding = {}};
  sregs.cr0 = entry.cr0;
  sregs.cr3 = entry.cr3;
  sregs.cr4 = entry.cr4;
  sregs.efer = entry.efer;
  RETURN_IF_ERROR(vcpu.SetSregs(sregs));

  kvm_regs regs{};
  regs.rip = entry.rip;
  regs.rsp = entry.rsp;
  regs.rax = entry.rax;
  regs.rbx = entry.rbx;
  regs.rsi = entry.rsi;
  regs.rflags = entry.rflags;
  return vcpu.SetRegs(regs);
}

}  // namespace vmm
