#include "vmm/hyperv/level_registers.h"

#include <bit>
#include <cstdint>
#include <optional>

#include "devices/hyperv/hypercall/hv_vp_context_layout.h"
#include "vmm/hyperv/initial_context.h"

namespace vmm {
namespace {

using Name = HvRegisterName;

constexpr uint32_t Raw(Name name) noexcept { return static_cast<uint32_t>(name); }
constexpr bool IsWithin(Name name, Name first, Name last) noexcept { return Raw(name) >= Raw(first) && Raw(name) <= Raw(last); }

// RAX to R15, in the order of their names.
__u64 kvm_regs::*GeneralRegister(Name name) noexcept {
  static constexpr __u64 kvm_regs::*kRegisters[] = {&kvm_regs::rax, &kvm_regs::rcx, &kvm_regs::rdx, &kvm_regs::rbx,
                                                       &kvm_regs::rsp, &kvm_regs::rbp, &kvm_regs::rsi, &kvm_regs::rdi,
                                                       &kvm_regs::r8,  &kvm_regs::r9,  &kvm_regs::r10, &kvm_regs::r11,
                                                       &kvm_regs::r12, &kvm_regs::r13, &kvm_regs::r14, &kvm_regs::r15};
  if (name == Name::kRip) return &kvm_regs::rip;
  if (name == Name::kRflags) return &kvm_regs::rflags;
  return IsWithin(name, Name::kRax, Name::kR15) ? kRegisters[Raw(name) - Raw(Name::kRax)] : nullptr;
}

kvm_segment kvm_sregs::*Segment(Name name) noexcept {
  switch (name) {
    case Name::kEs: return &kvm_sregs::es;
    case Name::kCs: return &kvm_sregs::cs;
    case Name::kSs: return &kvm_sregs::ss;
    case Name::kDs: return &kvm_sregs::ds;
    case Name::kFs: return &kvm_sregs::fs;
    case Name::kGs: return &kvm_sregs::gs;
    case Name::kLdtr: return &kvm_sregs::ldt;
    case Name::kTr: return &kvm_sregs::tr;
    default: return nullptr;
  }
}

kvm_dtable kvm_sregs::*Table(Name name) noexcept {
  if (name == Name::kIdtr) return &kvm_sregs::idt;
  return name == Name::kGdtr ? &kvm_sregs::gdt : nullptr;
}

__u64 kvm_sregs::*Control(Name name) noexcept {
  switch (name) {
    case Name::kCr0: return &kvm_sregs::cr0;
    case Name::kCr2: return &kvm_sregs::cr2;
    case Name::kCr3: return &kvm_sregs::cr3;
    case Name::kCr4: return &kvm_sregs::cr4;
    case Name::kCr8: return &kvm_sregs::cr8;
    case Name::kEfer: return &kvm_sregs::efer;
    case Name::kApicBase: return &kvm_sregs::apic_base;
    default: return nullptr;
  }
}

std::optional<uint32_t> Msr(Name name) noexcept {
  switch (name) {
    case Name::kTsc: return 0x10;
    case Name::kSysenterCs: return 0x174;
    case Name::kSysenterEsp: return 0x175;
    case Name::kSysenterEip: return 0x176;
    case Name::kPat: return 0x277;
    case Name::kStar: return 0xc000'0081;
    case Name::kLstar: return 0xc000'0082;
    case Name::kCstar: return 0xc000'0083;
    case Name::kSfmask: return 0xc000'0084;
    case Name::kKernelGsBase: return 0xc000'0102;
    case Name::kTscAux: return 0xc000'0103;
    default: return std::nullopt;
  }
}

bool IsDebug(Name name) noexcept { return IsWithin(name, Name::kDr0, Name::kDr7); }

// DR0 to DR3, DR6, DR7: the order of their names.
__u64& Debug(kvm_debugregs& registers, Name name) noexcept {
  if (name == Name::kDr6) return registers.dr6;
  if (name == Name::kDr7) return registers.dr7;
  return registers.db[Raw(name) - Raw(Name::kDr0)];
}

// Shared: whoever is asked, the active level has it.
bool IsShared(Name name) noexcept {
  return (IsWithin(name, Name::kRax, Name::kR15) && name != Name::kRsp) || name == Name::kCr2 || name == Name::kXcr0 ||
         IsWithin(name, Name::kDr0, Name::kDr3);
}

}  // namespace

HvStatus LevelRegisters::Get(Vtl vtl, Name name, HvRegisterValue& value) noexcept {
  kvm::Vcpu& vcpu = processor_->vcpu(IsShared(name) ? processor_->active() : vtl.raw());
  value = {};
  if (const auto general = GeneralRegister(name)) {
    value.low = vcpu.synced_regs().*general;
  } else if (const auto control = Control(name)) {
    value.low = vcpu.synced_sregs().*control;
  } else if (const auto segment = Segment(name)) {
    value = std::bit_cast<HvRegisterValue>(HvSegment(vcpu.synced_sregs().*segment));
  } else if (const auto table = Table(name)) {
    const kvm_dtable& from = vcpu.synced_sregs().*table;
    value = std::bit_cast<HvRegisterValue>(HvTableRegister{.pad = {}, .limit = from.limit, .base = from.base});
  } else if (IsDebug(name)) {
    kvm_debugregs registers{};
    if (!vcpu.GetDebugRegs(registers)) return HvStatus::kOperationFailed;
    value.low = Debug(registers, name);
  } else if (name == Name::kXcr0) {
    kvm_xcrs xcrs{};
    if (!vcpu.GetXcrs(xcrs)) return HvStatus::kOperationFailed;
    value.low = xcrs.nr_xcrs != 0 ? xcrs.xcrs[0].value : 1;
  } else if (name == Name::kInitialApicId) {
    value.low = vcpu.index();
  } else if (const auto msr = Msr(name)) {
    const auto got = vcpu.GetMsr(*msr);
    if (!got.ok()) return HvStatus::kOperationFailed;
    value.low = *got;
  } else {
    return HvStatus::kInvalidParameter;
  }
  return HvStatus::kSuccess;
}

HvStatus LevelRegisters::Set(Vtl vtl, Name name, const HvRegisterValue& value) noexcept {
  kvm::Vcpu& vcpu = processor_->vcpu(vtl.raw());
  if (const auto general = GeneralRegister(name)) {
    vcpu.synced_regs().*general = value.low;
    vcpu.MarkSyncedRegsDirty();
    return HvStatus::kSuccess;
  }
  if (IsDebug(name)) return SetDebug(IsShared(name) ? Vtl(static_cast<uint8_t>(processor_->active())) : vtl, name, value.low);
  if (const auto msr = Msr(name)) {
    return vcpu.SetMsr(*msr, value.low) ? HvStatus::kSuccess : HvStatus::kInvalidRegisterValue;
  }
  return SetSystem(vtl, name, value);
}

// In the vCPU at once: were it left in the run page, what the processor refuses would end the machine at the next entry.
HvStatus LevelRegisters::SetSystem(Vtl vtl, Name name, const HvRegisterValue& value) noexcept {
  kvm::Vcpu& vcpu = processor_->vcpu(vtl.raw());
  kvm_sregs sregs = vcpu.synced_sregs();
  if (const auto control = Control(name)) {
    sregs.*control = value.low;
  } else if (const auto segment = Segment(name)) {
    sregs.*segment = KvmSegment(std::bit_cast<HvSegmentRegister>(value));
    // CPL is there for KVM.
    if (name == Name::kCs && (sregs.cs.type & 4) == 0) sregs.ss.dpl = sregs.cs.dpl;
  } else if (const auto table = Table(name)) {
    const auto from = std::bit_cast<HvTableRegister>(value);
    sregs.*table = {.base = from.base, .limit = from.limit, .padding = {}};
  } else {
    return HvStatus::kInvalidParameter;
  }
  if (!vcpu.SetSregs(sregs).ok()) return HvStatus::kInvalidRegisterValue;
  // KVM's own idea of them; the general registers are in the run page only.
  const kvm_regs regs = vcpu.synced_regs();
  if (!vcpu.FetchSyncedRegs()) return HvStatus::kOperationFailed;
  vcpu.synced_regs() = regs;
  vcpu.MarkSyncedRegsDirty();
  return HvStatus::kSuccess;
}

HvStatus LevelRegisters::SetDebug(Vtl vtl, Name name, uint64_t value) noexcept {
  kvm::Vcpu& vcpu = processor_->vcpu(vtl.raw());
  kvm_debugregs registers{};
  if (!vcpu.GetDebugRegs(registers)) return HvStatus::kOperationFailed;
  Debug(registers, name) = value;
  return vcpu.SetDebugRegs(registers) ? HvStatus::kSuccess : HvStatus::kInvalidRegisterValue;
}

}  // namespace vmm
