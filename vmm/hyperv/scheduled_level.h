// One virtual processor at one trust level, as VtlScheduler sees it: what it has waiting, and what is to be done about its
// interrupts around an entry.
//
// Threads  the VP's thread, outside the guest.
// Errors   PrepareEntry: false, KVM refused and the machine ends.
#ifndef VMM_VMM_HYPERV_SCHEDULED_LEVEL_H_
#define VMM_VMM_HYPERV_SCHEDULED_LEVEL_H_

#include <cstddef>
#include <cstdint>
#include <cstdint>

#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hypercall/hv_register_layout.h"
#include "devices/hyperv/hypercall/vsm_services.h"
#include "devices/hyperv/vsm/vsm_vp.h"

namespace vmm {

class ScheduledLevel {
 public:
  virtual ~ScheduledLevel() = default;

  // Its VP assist page, wherever the guest has it; aligned to a page, and there for ever.
  [[nodiscard]] virtual std::byte* assist_page() noexcept = 0;
  // Registers of its Hyper-V interface, as a hypercall of its own has them.
  [[nodiscard]] virtual HvStatus GetOwnRegister(HvRegisterName name, HvRegisterValue& value) noexcept = 0;
  [[nodiscard]] virtual HvStatus SetOwnRegister(HvRegisterName name, const HvRegisterValue& value) noexcept = 0;

  // To the local APICs of its level, as HvCallAssertVirtualInterrupt has it. False: what is asked for cannot be.
  [[nodiscard]] virtual bool AssertInterrupt(const VsmServices::Interrupt& interrupt) noexcept = 0;

  // Its local APIC is in the kernel: the processor waits there (VtlProcessor::Sleep) for what this level would take, and nobody is told.
  [[nodiscard]] virtual bool WaitsInKernel() const noexcept = 0;
  // It is not active, and an interrupt that its processor would take at its next instruction is to kick, now and from here on, if it comes
  // by this process; what the host's kernel makes by itself nobody tells of. Of VTL0 alone: no other level is below one that can run yet.
  virtual void Watch(bool on) noexcept = 0;

  // What other threads and timers have left for this level.
  virtual void RunPending() noexcept = 0;
  // Requires RunPending: an interrupt that its priority lets through, or an event that no priority holds back.
  [[nodiscard]] virtual bool IsPending() noexcept = 0;
  // The same, and the processor would take it at its next instruction.
  [[nodiscard]] virtual bool IsDeliverable() noexcept = 0;
  // This level is active and enters the guest next: gives its processor what is pending. It may find that it is to wait for a level above
  // (VtlScheduler::SuspendForIntercept).
  [[nodiscard]] virtual bool PrepareEntry() noexcept = 0;
  enum class Use : uint8_t {
    kRuns,      // active; PrepareEntry came before. What waits for the processor's flags does not count: an exit tells of them
    kWaits,     // active and halted: interrupts do not count if it has them off
    kInactive,  // a lower level runs or waits
  };
  // From here on what becomes pending kicks. False: something has, look again.
  [[nodiscard]] virtual bool Arm(Use use) noexcept = 0;
  virtual void Disarm() noexcept = 0;
  // This level has left the guest.
  virtual void AfterExit() noexcept = 0;
  // A level above has moved its instruction pointer, given it an exception, or started it anew: what it was about to do is not done.
  virtual void OnRedirected() noexcept = 0;
  // It is active, and is told of a lower level's interrupt.
  virtual void RaiseVina(const VinaInterrupt& vina) noexcept = 0;
};

}  // namespace vmm

#endif  // VMM_VMM_HYPERV_SCHEDULED_LEVEL_H_
