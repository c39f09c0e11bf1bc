#include "vcpu/shared_registers.h"

#include <cstring>

namespace vmm {
namespace {

constexpr uint64_t kCr4Osxsave = 1 << 18;

void CarryGeneral(kvm::Vcpu& from, kvm::Vcpu& to) noexcept {
  kvm_regs regs = from.synced_regs();
  kvm_regs& target = to.synced_regs();
  regs.rip = target.rip;
  regs.rsp = target.rsp;
  regs.rflags = target.rflags;
  target = regs;
  to.MarkSyncedRegsDirty();
  // Seldom: loading all system registers is not for each switch.
  const uint64_t cr2 = from.synced_sregs().cr2;
  if (to.synced_sregs().cr2 == cr2) return;
  to.synced_sregs().cr2 = cr2;
  to.MarkSyncedSregsDirty();
}

}  // namespace

bool SharedRegisters::CarryOver(kvm::Vcpu& from, size_t from_level, kvm::Vcpu& to, size_t to_level) noexcept {
  CarryGeneral(from, to);
  // XCR0 first: it says which vector state there is.
  return CarryXcr0(from, from_level, to, to_level) && CarryVector(from, from_level, to, to_level) &&
         CarryDebug(from, from_level, to, to_level);
}

bool SharedRegisters::CarryVector(kvm::Vcpu& from, size_t from_level, kvm::Vcpu& to, size_t to_level) noexcept {
  kvm_xsave& now = xsave_[1 - newest_];
  if (!from.GetXsave(now)) return false;
  const bool changed = std::memcmp(&now, &xsave_[newest_], sizeof(now)) != 0;
  if (changed) newest_ = 1 - newest_;
  vector_.Left(from_level, changed);
  return !vector_.Enters(to_level) || to.SetXsave(xsave_[newest_]);
}

bool SharedRegisters::CarryDebug(kvm::Vcpu& from, size_t from_level, kvm::Vcpu& to, size_t to_level) noexcept {
  kvm_debugregs registers{};
  if (!from.GetDebugRegs(registers)) return false;
  const bool changed = std::memcmp(registers.db, debug_addresses_.data(), sizeof(registers.db)) != 0;
  if (changed) std::memcpy(debug_addresses_.data(), registers.db, sizeof(registers.db));
  debug_.Left(from_level, changed);
  if (!debug_.Enters(to_level)) return true;
  // DR6 and DR7 are its own.
  kvm_debugregs target{};
  if (!to.GetDebugRegs(target)) return false;
  std::memcpy(target.db, debug_addresses_.data(), sizeof(target.db));
  return to.SetDebugRegs(target);
}

bool SharedRegisters::CarryXcr0(kvm::Vcpu& from, size_t from_level, kvm::Vcpu& to, size_t to_level) noexcept {
  if ((from.synced_sregs().cr4 & kCr4Osxsave) != 0) has_xcr0_ = true;
  if (!has_xcr0_) return true;
  kvm_xcrs now{};
  if (!from.GetXcrs(now)) return false;
  if (now.nr_xcrs == 0) return true;
  const bool changed = now.xcrs[0].value != xcr0_value_;
  xcr0_value_ = now.xcrs[0].value;
  xcr0_.Left(from_level, changed);
  return !xcr0_.Enters(to_level) || to.SetXcrs(now);
}

}  // namespace vmm
