#include "vcpu/initial_state.h"

#include "base/status_macros.h"

namespace vmm {
namespace {

constexpr uint64_t kCr0Pe = 1, kCr0Et = 1 << 4, kCr0Pg = 1ull << 31;
constexpr uint64_t kCr4Pae = 1 << 5;
constexpr uint64_t kEferLme = 1 << 8, kEferLma = 1 << 10;
constexpr uint64_t kRflagsReserved = 1 << 1;

kvm_segment FlatSegment(uint16_t selector, uint8_t type, bool long_mode_code) {
  kvm_segment segment{};
  segment.selector = selector;
  segment.limit = 0xffff'ffff;
  segment.type = type;
  segment.present = 1;
  segment.s = 1;
  segment.g = 1;
  segment.l = long_mode_code ? 1 : 0;
  segment.db = long_mode_code ? 0 : 1;
  return segment;
}

}  // namespace

absl::Status SetInitialState(kvm::Vcpu& vcpu, const InitialState& state) {
  const bool long_mode = state.mode == InitialState::Mode::kLong64;
  ASSIGN_OR_RETURN(kvm_sregs sregs, vcpu.GetSregs());
  constexpr uint8_t kCode = 0xb, kData = 0x3, kBusyTss = 0xb;
  sregs.cs = FlatSegment(state.code_selector, kCode, long_mode);
  sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = FlatSegment(state.data_selector, kData, false);
  sregs.tr = kvm_segment{};
  sregs.tr.limit = 0x67;
  sregs.tr.type = kBusyTss;
  sregs.tr.present = 1;
  sregs.ldt = kvm_segment{};
  sregs.ldt.unusable = 1;
  sregs.gdt = {.base = state.gdt_base.raw(), .limit = state.gdt_limit, .padding = {}};
  sregs.idt = {.base = 0, .limit = 0, .padding = {}};
  sregs.cr0 = kCr0Pe | kCr0Et | (long_mode ? kCr0Pg : 0);
  sregs.cr3 = long_mode ? state.cr3.raw() : 0;
  sregs.cr4 = long_mode ? kCr4Pae : 0;
  sregs.efer = long_mode ? kEferLme | kEferLma : 0;
  RETURN_IF_ERROR(vcpu.SetSregs(sregs));

  kvm_regs regs{};
  regs.rip = state.rip;
  regs.rsp = state.rsp;
  regs.rax = state.rax;
  regs.rbx = state.rbx;
  regs.rsi = state.rsi;
  regs.rflags = kRflagsReserved;
  return vcpu.SetRegs(regs);
}

}  // namespace vmm
