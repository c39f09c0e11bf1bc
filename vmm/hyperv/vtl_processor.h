// What VtlScheduler asks of the processor whose levels it schedules: registers, moved or loaded.
//
// Threads  the VP's thread, outside the guest.
// Trust    contexts have been checked; values the processor refuses come back as statuses.
// Errors   false: the machine ends, and it has been told so.
#ifndef VMM_VMM_HYPERV_VTL_PROCESSOR_H_
#define VMM_VMM_HYPERV_VTL_PROCESSOR_H_

#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/hypercall/hv_vp_context_layout.h"
#include "devices/hyperv/vsm/vp_assist_page.h"
#include "devices/hyperv/vsm/vsm_vp.h"

namespace vmm {

class VtlProcessor {
 public:
  virtual ~VtlProcessor() = default;

  // The active level's registers are those between two instructions.
  [[nodiscard]] virtual bool Settle() noexcept = 0;
  // `vtl` is the active level, with the shared registers.
  [[nodiscard]] virtual bool SwitchTo(Vtl vtl) noexcept = 0;
  // Into a level that does not run. kInvalidRegisterValue: the processor refuses it, and nothing has changed.
  [[nodiscard]] virtual HvStatus LoadContext(Vtl vtl, const HvInitialVpContext& context) noexcept = 0;
  // VTL0 does not wait for INIT and SIPI.
  [[nodiscard]] virtual bool IsStarted() noexcept = 0;
  // VTL0 waits for them no longer.
  [[nodiscard]] virtual bool SetStarted() noexcept = 0;
  // RAX and RCX (or EAX, ECX, EDX) of the active level, which `from` has just returned to.
  virtual void RestoreReturnRegisters(Vtl from, const VpAssistPage& page) noexcept = 0;
  // VTL0, at a call that it makes again when it runs: it sleeps there when it enters the guest, till an interrupt that it takes, or Wake.
  [[nodiscard]] virtual bool Sleep() noexcept = 0;
  // False: something has woken it, and it is elsewhere or on its way.
  [[nodiscard]] virtual bool IsAsleep() noexcept = 0;
  [[nodiscard]] virtual bool Wake() noexcept = 0;
  // What levels above `of` want to hear of its MSRs: bits of CrInterceptControl. False: the host refused, and nothing has changed.
  [[nodiscard]] virtual bool TrapMsrs(Vtl of, uint64_t events) noexcept = 0;
  // The active level takes it before its next instruction.
  [[nodiscard]] virtual bool InjectException(const PendingException& exception) noexcept = 0;
};

}  // namespace vmm

#endif  // VMM_VMM_HYPERV_VTL_PROCESSOR_H_
