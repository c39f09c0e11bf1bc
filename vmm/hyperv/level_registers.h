// The registers of a trust level that does not run, for the levels above it: out of its vCPU, and into it.
//
// Shapes   general, segment and control registers are in the vCPU's run page (kvm/vcpu.h, synced_regs): no system call. Debug
//          registers and MSRs are KVM's.
// Threads  confined to the VP's, outside the guest.
// Trust    values have been checked by VsmRegisters; what only the processor knows (reserved bits of CR4, an illegal EFER) is tried in
//          the vCPU, and taken back where it refuses.
// Errors   HvStatus: kInvalidRegisterValue, kOperationFailed where KVM does not tell.
#ifndef VMM_VMM_HYPERV_LEVEL_REGISTERS_H_
#define VMM_VMM_HYPERV_LEVEL_REGISTERS_H_

#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/hypercall/hv_register_layout.h"
#include "devices/hyperv/vsm/vsm_registers.h"
#include "kvm/uapi.h"
#include "vcpu/virtual_processor.h"

namespace vmm {

class LevelRegisters final : public LowerVtlRegisters {
 public:
  // Before the VP runs, once: it outlives this.
  void SetProcessor(VirtualProcessor& processor) noexcept { processor_ = &processor; }

  [[nodiscard]] HvStatus Get(Vtl vtl, HvRegisterName name, HvRegisterValue& value) noexcept override;
  [[nodiscard]] HvStatus Set(Vtl vtl, HvRegisterName name, const HvRegisterValue& value) noexcept override;

 private:
  [[nodiscard]] HvStatus SetSystem(Vtl vtl, HvRegisterName name, const HvRegisterValue& value) noexcept;
  [[nodiscard]] HvStatus SetDebug(Vtl vtl, HvRegisterName name, uint64_t value) noexcept;

  VirtualProcessor* processor_ = nullptr;
};

}  // namespace vmm

#endif  // VMM_VMM_HYPERV_LEVEL_REGISTERS_H_
