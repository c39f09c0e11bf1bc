// VtlProcessor over a VirtualProcessor: trust levels are its levels, by number.
//
// Threads  as VtlProcessor; SetProcessor: set-up.
// Errors   as VtlProcessor.
#ifndef VMM_VMM_HYPERV_KVM_VTL_PROCESSOR_H_
#define VMM_VMM_HYPERV_KVM_VTL_PROCESSOR_H_

#include <cstdint>

#include "devices/hyperv/hv_types.h"
#include "vcpu/virtual_processor.h"
#include "vmm/hyperv/msr_traps.h"
#include "vmm/hyperv/vtl_processor.h"

namespace vmm {

class KvmVtlProcessor final : public VtlProcessor {
 public:
  // Before the VP runs, once: it outlives this.
  void SetProcessor(VirtualProcessor& processor) noexcept { processor_ = &processor; }
  // The same, of VTL0's VM.
  void SetTraps(MsrTraps& traps) noexcept { traps_ = &traps; }

  [[nodiscard]] bool Settle() noexcept override { return processor_->Settle(); }
  [[nodiscard]] bool SwitchTo(Vtl vtl) noexcept override { return processor_->SwitchTo(vtl.raw()); }
  [[nodiscard]] HvStatus LoadContext(Vtl vtl, const HvInitialVpContext& context) noexcept override;
  [[nodiscard]] bool IsStarted() noexcept override;
  [[nodiscard]] bool SetStarted() noexcept override;
  void RestoreReturnRegisters(Vtl from, const VpAssistPage& page) noexcept override;
  [[nodiscard]] bool Sleep() noexcept override;
  [[nodiscard]] bool IsAsleep() noexcept override;
  [[nodiscard]] bool Wake() noexcept override;
  // Of VTL0 alone: there are no levels yet that could want to hear of another's.
  [[nodiscard]] bool TrapMsrs(Vtl of, uint64_t events) noexcept override {
    return of == kVtl0 ? traps_->Set(VpIndex(processor_->vcpu().index()), events) : events == 0;
  }
  [[nodiscard]] bool InjectException(const PendingException& exception) noexcept override;

 private:
  VirtualProcessor* processor_ = nullptr;
  MsrTraps* traps_ = nullptr;
  uint64_t sleep_rip_ = 0;  // of the call
};

}  // namespace vmm

#endif  // VMM_VMM_HYPERV_KVM_VTL_PROCESSOR_H_
