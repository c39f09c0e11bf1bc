#include "vmm/hyperv/kvm_vtl_processor.h"

#include "kvm/uapi.h"
#include "kvm/vcpu.h"
#include "vmm/hyperv/initial_context.h"

namespace vmm {
namespace {

constexpr uint64_t kLow32 = 0xffff'ffff;
constexpr uint64_t kEferLongModeActive = 1 << 10;
constexpr uint8_t kDebug = 1, kPageFault = 14;

}  // namespace

HvStatus KvmVtlProcessor::LoadContext(Vtl vtl, const HvInitialVpContext& context) noexcept {
  kvm::Vcpu& vcpu = processor_->vcpu(vtl.raw());
  const HvStatus status = vmm::LoadContext(vcpu, context);
  if (status != HvStatus::kSuccess) return status;
  return vcpu.FetchSyncedRegs() ? HvStatus::kSuccess : HvStatus::kOperationFailed;
}

bool KvmVtlProcessor::IsStarted() noexcept {
  const auto state = processor_->vcpu().GetMpState();
  return state.ok() && *state != KVM_MP_STATE_UNINITIALIZED && *state != KVM_MP_STATE_INIT_RECEIVED;
}

bool KvmVtlProcessor::SetStarted() noexcept { return processor_->vcpu().SetMpState(KVM_MP_STATE_RUNNABLE).ok(); }

// As after a HLT: KVM_RUN blocks until an interrupt that the guest's flags let through, or a kick. What tells the one from a HLT of an
// interrupt's handler is where the processor stands.
bool KvmVtlProcessor::Sleep() noexcept {
  sleep_rip_ = processor_->vcpu().synced_regs().rip;
  return processor_->vcpu().SetMpState(KVM_MP_STATE_HALTED).ok();
}

bool KvmVtlProcessor::IsAsleep() noexcept {
  if (processor_->vcpu().synced_regs().rip != sleep_rip_) return false;
  const auto state = processor_->vcpu().GetMpState();
  return state.ok() && *state == KVM_MP_STATE_HALTED;
}

bool KvmVtlProcessor::Wake() noexcept { return processor_->vcpu().SetMpState(KVM_MP_STATE_RUNNABLE).ok(); }

void KvmVtlProcessor::RestoreReturnRegisters(Vtl from, const VpAssistPage& page) noexcept {
  const kvm_sregs& left = processor_->vcpu(from.raw()).synced_sregs();
  kvm::Vcpu& vcpu = processor_->vcpu(processor_->active());
  kvm_regs& regs = vcpu.synced_regs();
  if ((left.efer & kEferLongModeActive) != 0 && left.cs.l != 0) {
    const VtlReturnRegisters registers = page.return_registers();
    regs.rax = registers.rax;
    regs.rcx = registers.rcx;
  } else {
    const VtlReturnRegisters32 registers = page.return_registers32();
    regs.rax = (regs.rax & ~kLow32) | registers.eax;
    regs.rcx = (regs.rcx & ~kLow32) | registers.ecx;
    regs.rdx = (regs.rdx & ~kLow32) | registers.edx;
  }
  vcpu.MarkSyncedRegsDirty();
}

bool KvmVtlProcessor::InjectException(const PendingException& exception) noexcept {
  // It is settled if it has not run since it was left; it may have, where a higher level of another VP set the exception.
  if (!processor_->Settle()) return false;
  kvm::Vcpu& vcpu = processor_->vcpu(processor_->active());
  if (exception.vector == kPageFault) {
    vcpu.synced_sregs().cr2 = exception.parameter;
    vcpu.MarkSyncedSregsDirty();
  } else if (exception.vector == kDebug) {
    kvm_debugregs registers{};
    if (!vcpu.GetDebugRegs(registers)) return false;
    registers.dr6 = exception.parameter;
    if (!vcpu.SetDebugRegs(registers)) return false;
  }
  // Halted in the kernel: it takes the exception behind its HLT.
  const auto state = vcpu.GetMpState();
  if (state.ok() && *state == KVM_MP_STATE_HALTED && !vcpu.SetMpState(KVM_MP_STATE_RUNNABLE).ok()) return false;
  return processor_->Inject(exception.vector, exception.error_code);
}

}  // namespace vmm
