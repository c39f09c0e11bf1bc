// The trust levels of one virtual processor: who runs next, and the switch from one to the other.
//
// Invariants of the switch
//   1. One level is active: VsmVp::active() and the processor's agree outside Enter, Leave and Start. Only it enters the guest.
//   2. A level that is not active is settled (virtual_processor.h): nothing of its last exit is left for KVM to do, so that its
//      registers may be read and written, and it goes on exactly there. The level that calls or returns is behind its call.
//   3. Shared registers are the active level's. They go over in the switch, before the level that is entered runs or is asked.
//   4. A higher level is never left but by its own return, or for a level above it. A lower level's interrupts wait in its local
//      APIC, which does not need the processor for that.
//   5. Before each entry, every level above the active one is armed: what becomes pending there from then on kicks. What is
//      pending before is seen by BeforeEntry, which enters that level instead. So no interrupt of a higher level waits for a lower one,
//      also not for one that is halted in the kernel: the kick brings it out of KVM_RUN and it halts again later.
//   6. A call or return is decided in the hypercall and done in the next BeforeEntry, so that a pending interrupt of the level that is
//      left is looked at right after its return.
//   7. A level that was stopped by an intercept waits, with interrupts of its own pending or not, till a level above is entered. Who has
//      its SINT0 masked, or its SynIC off, stops it so for good, as far as it is not entered otherwise.
//   8. A level whose flush must wait for a TLB lock sleeps at the call, which it makes again once the lock was released, and takes its own
//      interrupts and levels above meanwhile: whose local APIC is in the kernel sleeps in KVM_RUN, as if it had halted there.
//   9. VINA: while a level that wants it runs or waits, what comes for a lower one by this process kicks (ScheduledLevel::Watch), from
//      before that one is looked at.
//   10. A VP that waits for INIT and SIPI and has a higher level runs nothing till StartVirtualProcessor: what is sent to it by
//      SIPI stays unseen.
//
// Threads  confined to the VP's, outside the guest, but for stats. Another VP's calls come here by VpRequests.
// Trust    contexts and register values are the guest's; Vtl is below kHvVtlCount and one that the partition may have.
// Errors   HvStatus. What ends the machine has been told by VtlProcessor; then nothing runs any more.
// Source   Hyper-V TLFS, "Virtual Secure Mode"; docs/design.md, "One KVM VM per VTL".
//
// Known gap: INIT to VTL0 of a VP that runs is not dropped, since KVM's local APIC tells nobody of it.
#ifndef VMM_VMM_HYPERV_VTL_SCHEDULER_H_
#define VMM_VMM_HYPERV_VTL_SCHEDULER_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>

#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/hypercall/hv_register_layout.h"
#include "devices/hyperv/hypercall/hv_vp_context_layout.h"
#include "devices/hyperv/vsm/tlb_locks.h"
#include "devices/hyperv/vsm/vp_assist_page.h"
#include "devices/hyperv/vsm/vsm_partition.h"
#include "devices/hyperv/vsm/vsm_registers.h"
#include "devices/hyperv/vsm/vsm_vp.h"
#include "vcpu/level_scheduler.h"
#include "vcpu/vp_requests.h"
#include "vmm/hyperv/scheduled_level.h"
#include "vmm/hyperv/vtl_processor.h"

namespace vmm {

class VtlScheduler final : public LevelScheduler {
 public:
  // All of it outlives this; null: there is no such level.
  struct Environment {
    VtlProcessor& processor;
    VsmPartition& partition;
    TlbLocks& locks;
    LowerVtlRegisters& registers;
    VpRequests& requests;
    std::array<ScheduledLevel*, kHvVtlCount> levels;
    std::function<void()> kick_all;  // all VPs
  };
  struct Stats {
    uint64_t calls = 0;
    uint64_t returns = 0;
    uint64_t preemptions = 0;
  };

  VtlScheduler(VpIndex vp, Environment environment) noexcept;
  VtlScheduler(const VtlScheduler&) = delete;
  VtlScheduler& operator=(const VtlScheduler&) = delete;

  // LevelScheduler.
  [[nodiscard]] Turn BeforeEntry() noexcept override;
  void AfterExit() noexcept override;

  // The active level's VtlCall or VtlReturn. False: #UD. True: done in the next BeforeEntry.
  [[nodiscard]] bool Call(VtlSwitchRequest request) noexcept;
  [[nodiscard]] bool Return(VtlSwitchRequest request) noexcept;
  // The active level executed HLT.
  void Halt() noexcept { vsm_.SetHalted(vsm_.active(), true); }

  // The active level was stopped by an access that a level above does not allow: it runs no more before that one has been entered.
  void SuspendForIntercept() noexcept { suspended_ = true; }

  // The active level's call must wait for a TLB lock, and has been put back to be made again.
  void WaitForTlbLock() noexcept { vsm_.SetWaitsForTlbLock(vsm_.active(), true); }

  // HvCallEnableVpVtl and HvCallStartVirtualProcessor, with this VP as their target.
  [[nodiscard]] HvStatus Enable(Vtl caller, bool own_vp, uint8_t guest_vtl, const HvInitialVpContext& context) noexcept;
  [[nodiscard]] HvStatus CheckStart(Vtl caller, Vtl vtl) noexcept;
  [[nodiscard]] HvStatus Start(Vtl vtl, const HvInitialVpContext& context) noexcept;
  // Registers of this VP. `effect` is what the caller still has to do.
  [[nodiscard]] HvStatus GetRegister(VsmRegisters::Target target, HvRegisterName name, HvRegisterValue& value) noexcept;
  [[nodiscard]] HvStatus SetRegister(VsmRegisters::Target target, HvRegisterName name, const HvRegisterValue& value,
                                     VsmRegisters::Effect& effect) noexcept;

  // A register that the processor holds for a level, whoever asks.
  [[nodiscard]] uint64_t Peek(Vtl vtl, HvRegisterName name) noexcept;
  [[nodiscard]] HvSegmentRegister PeekSegment(Vtl vtl, HvRegisterName name) noexcept;

  [[nodiscard]] bool AssertInterrupt(Vtl vtl, const VsmServices::Interrupt& interrupt) noexcept {
    return Level(vtl).AssertInterrupt(interrupt);
  }

  [[nodiscard]] VsmVp& vsm() noexcept { return vsm_; }
  // Any thread.
  [[nodiscard]] Stats stats() const noexcept;

 private:
  [[nodiscard]] ScheduledLevel& Level(Vtl vtl) noexcept { return *environment_.levels[vtl.raw()]; }
  [[nodiscard]] VpAssistPage Page(Vtl vtl) noexcept { return VpAssistPage(Level(vtl).assist_page()); }
  [[nodiscard]] VtlInterrupts LookAtInterrupts() noexcept;
  // Puts the active level to sleep where it waits for a TLB lock, and ends the wait. False: the machine ends.
  [[nodiscard]] bool LookAtTlbLock() noexcept;
  // It is not to wait at its call any more, whatever is locked. False: the machine ends.
  [[nodiscard]] bool EndTlbWait(Vtl vtl) noexcept;
  // False: the machine ends.
  [[nodiscard]] bool DoSwitch() noexcept;
  [[nodiscard]] bool Enter(Vtl to, VtlEntryReason reason) noexcept;
  [[nodiscard]] bool Leave(Vtl to, bool fast) noexcept;
  // What every level below `owner` is stopped at. False: the host refused.
  [[nodiscard]] bool TrapMsrsBelow(Vtl owner) noexcept;
  // False: something became pending.
  [[nodiscard]] bool ArmAll(ScheduledLevel::Use active) noexcept;

  const VpIndex vp_;
  const Environment environment_;
  VsmVp vsm_;
  VsmRegisters registers_;
  VtlSwitchAction switch_;  // kUndefinedOpcode: none
  bool waits_for_start_ = false;
  bool suspended_ = false;  // the active level
  bool asleep_ = false;     // VTL0, in KVM_RUN when it runs
  // Written by the VP's thread alone; relaxed, they order nothing.
  std::atomic<uint64_t> calls_{0};
  std::atomic<uint64_t> returns_{0};
  std::atomic<uint64_t> preemptions_{0};
};

}  // namespace vmm

#endif  // VMM_VMM_HYPERV_VTL_SCHEDULER_H_
