#include "vmm/hyperv/vcpu_state.h"

#include <algorithm>
#include <cstring>

#include "vmm/hyperv/initial_context.h"

namespace vmm {
namespace {

constexpr uint64_t kCr4Osxsave = 1 << 18;

AccessSegment Segment(const kvm_segment& from) noexcept {
  return {.base = from.base,
          .limit = from.limit,
          .selector = from.selector,
          .type = from.type,
          .big = from.db != 0,
          .long_mode = from.l != 0,
          .unusable = from.unusable != 0};
}

// RAX to R15 as instructions number them, which is as HvRegisterName has them too.
std::array<uint64_t, 16> GeneralRegisters(const kvm_regs& r) noexcept {
  return {r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15};
}

std::optional<AccessEvent> Delivering(const kvm_vcpu_events& events) noexcept {
  constexpr uint8_t kNmi = 2;
  if (events.exception.injected != 0) {
    return AccessEvent{.vector = events.exception.nr, .has_error_code = events.exception.has_error_code != 0, .software = false};
  }
  if (events.interrupt.injected != 0) {
    return AccessEvent{.vector = events.interrupt.nr, .has_error_code = false, .software = events.interrupt.soft != 0};
  }
  if (events.nmi.injected != 0) return AccessEvent{.vector = kNmi, .has_error_code = false, .software = false};
  return std::nullopt;
}

}  // namespace

AccessRegisters AccessRegistersOf(kvm::Vcpu& vcpu) noexcept {
  const kvm_regs& regs = vcpu.synced_regs();
  const kvm_sregs& sregs = vcpu.synced_sregs();
  AccessRegisters out;
  out.gpr = GeneralRegisters(regs);
  out.rip = regs.rip;
  out.rflags = regs.rflags;
  out.cs = Segment(sregs.cs);
  out.ds = Segment(sregs.ds);
  out.es = Segment(sregs.es);
  out.fs = Segment(sregs.fs);
  out.gs = Segment(sregs.gs);
  out.ss = Segment(sregs.ss);
  out.tr = Segment(sregs.tr);
  out.ldtr = Segment(sregs.ldt);
  out.gdt = {.base = sregs.gdt.base, .limit = sregs.gdt.limit};
  out.idt = {.base = sregs.idt.base, .limit = sregs.idt.limit};
  out.cr0 = sregs.cr0;
  out.cr3 = sregs.cr3;
  out.cr4 = sregs.cr4;
  out.efer = sregs.efer;
  // Without it no instruction depends on XCR0, and it is a system call to ask for.
  if (kvm_xcrs xcrs{}; (sregs.cr4 & kCr4Osxsave) != 0 && vcpu.GetXcrs(xcrs) && xcrs.nr_xcrs != 0) out.xcr0 = xcrs.xcrs[0].value;
  out.cpl = sregs.ss.dpl;  // the processor's own place for it, and KVM's
  // AMD's nested paging writes where it reads; an Intel host may too (A/D bits in EPT), and then such a fault is found as a write.
  out.table_reads_need_write = true;
  return out;
}

InterceptedState InterceptedStateOf(kvm::Vcpu& vcpu, VpIndex vp, Vtl vtl) noexcept {
  constexpr uint64_t kDr7Breakpoints = 0xff;
  const kvm_regs& regs = vcpu.synced_regs();
  const kvm_sregs& sregs = vcpu.synced_sregs();
  InterceptedState state{.vp = vp, .vtl = vtl};
  state.cpl = sregs.ss.dpl;
  state.cr8 = static_cast<uint8_t>(sregs.cr8 & 0xf);
  state.cr0 = sregs.cr0;
  state.efer = sregs.efer;
  state.rip = regs.rip;
  state.rflags = regs.rflags;
  state.cs = HvSegment(sregs.cs);
  state.ds = HvSegment(sregs.ds);
  state.es = HvSegment(sregs.es);
  state.ss = HvSegment(sregs.ss);
  std::ranges::copy(GeneralRegisters(regs), state.gprs.begin());
  kvm_debugregs debug{};
  if (vcpu.GetDebugRegs(debug)) state.debug_active = (debug.dr7 & kDr7Breakpoints) != 0;
  if (const auto events = vcpu.GetVcpuEvents(); events.ok()) {
    state.interrupt_shadow = events->interrupt.shadow != 0;
    state.interruption_pending = Delivering(*events).has_value();
  }
  return state;
}

std::optional<AccessEvent> EventOf(const kvm::Vcpu& vcpu) noexcept {
  const auto events = vcpu.GetVcpuEvents();
  return events.ok() ? Delivering(*events) : std::nullopt;
}

bool VcpuVectors::Vector(unsigned index, std::span<std::byte, 64> out) noexcept {
  // XMM in the legacy region; the upper halves of YMM in their component's standard place, if it is there.
  constexpr size_t kXmmOffset = 160, kYmmHighOffset = 576, kPresentOffset = 512;
  constexpr uint64_t kAvxPresent = 4;
  if (index >= 16 || !Fetch()) return false;
  std::ranges::fill(out, std::byte{0});
  std::memcpy(out.data(), Image() + kXmmOffset + 16 * index, 16);
  uint64_t present;
  std::memcpy(&present, Image() + kPresentOffset, sizeof(present));
  if ((present & kAvxPresent) != 0) std::memcpy(out.data() + 16, Image() + kYmmHighOffset + 16 * index, 16);
  return true;
}

bool VcpuVectors::Mmx(unsigned index, uint64_t& out) noexcept {
  constexpr size_t kStOffset = 32;
  if (index >= 8 || !Fetch()) return false;
  std::memcpy(&out, Image() + kStOffset + 16 * index, sizeof(out));
  return true;
}

}  // namespace vmm
