// One virtual processor at one trust level above VTL0: its local APIC, SynIC, timers and Hyper-V interface, all of them ours, and how
// its interrupts get into a vCPU that has no interrupt controller in the kernel.
//
// Shapes   exists before its VirtualProcessor, which needs a GuestInterface, and is finished once that exists.
// Threads  Create, Finish, destructor: the machine's owner, nothing running. Post and RaiseSint: any. The rest: the VP's thread.
// Trust    registers, vectors, addresses: the guest's, checked by LocalApic and HvVp.
// Errors   Finish: Status.
#ifndef VMM_VMM_HYPERV_UPPER_LEVEL_H_
#define VMM_VMM_HYPERV_UPPER_LEVEL_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "base/mutex.h"
#include "devices/guest_interface.h"
#include "devices/hyperv/hv_cpuid_layout.h"
#include "devices/hyperv/hv_host.h"
#include "devices/hyperv/overlay_page.h"
#include "devices/hyperv/partition/hv_partition.h"
#include "devices/hyperv/partition/hv_vp.h"
#include "devices/hyperv/synic/connections.h"
#include "memory/guest_view.h"
#include "memory/level_memory.h"
#include "vcpu/local_apic/apic_directory.h"
#include "vcpu/local_apic/apic_sint_interrupts.h"
#include "vcpu/local_apic/local_apic.h"
#include "vcpu/local_apic/reference_apic_time.h"
#include "vcpu/virtual_processor.h"
#include "vcpu/vp_requests.h"
#include "vmm/hyperv/scheduled_level.h"
#include "vmm/hyperv/timerfd_deadline.h"
#include "vmm/machine/machine_event_loop.h"

namespace vmm {

class VtlScheduler;

class UpperLevel final : public GuestInterface,
                         public ScheduledLevel,
                         private PartitionHost,
                         private VpStarter,
                         private SintEoiSink {
 public:
  // All are borrowed and outlive this.
  struct Environment {
    HvPartition& partition;
    ConnectionTable& connections;
    HvVpDirectory& vps;  // of this level
    ReferenceClock& clock;
    const LevelMemory& memory;
    OverlaySpace& overlays;
    GuestView& view;
    VpRequests& requests;
    MachineEventLoop& loop;
    ApicDirectory& apics;  // of this level
    Mutex& flush;
    HvVpLevels& levels;
    VtlScheduler& scheduler;
  };
  UpperLevel(VpIndex vp, Vtl vtl) : vp_(vp), vtl_(vtl) {}
  ~UpperLevel() override;

  // In the order of the VPs' numbers: their APICs go into the directory so.
  absl::Status Finish(VirtualProcessor& processor, const HvOffer& offer, const Environment& environment);

  void RaiseSint(Sint sint) noexcept { sints_->Raise(sint); }
  [[nodiscard]] HvVp* vp() noexcept { return interface_.get(); }
  [[nodiscard]] PartitionHost& host() noexcept { return *this; }
  [[nodiscard]] LocalApic& apic() noexcept { return *apic_; }

  // GuestInterface.
  [[nodiscard]] bool ReadMsr(uint32_t msr, uint64_t& value) noexcept override;
  [[nodiscard]] bool WriteMsr(uint32_t msr, uint64_t value) noexcept override;
  [[nodiscard]] HypercallOutcome Hypercall(HypercallRegisters& registers, XmmAccess& xmm) noexcept override {
    return interface_->Hypercall(registers, xmm);
  }
  [[nodiscard]] AccessAnswer AccessMemory(uint64_t guest_gpa, std::span<std::byte> data, bool write) noexcept override;
  void OnHalt() noexcept override;
  [[nodiscard]] bool OnRefusedMemory() noexcept override;
  [[nodiscard]] bool OnInaccessibleMemory() noexcept override { return interface_->OnInaccessibleMemory(); }
  void PrepareToEnter() noexcept override { RunPending(); }

  // ScheduledLevel.
  [[nodiscard]] std::byte* assist_page() noexcept override { return interface_->assist_page(); }
  [[nodiscard]] HvStatus GetOwnRegister(HvRegisterName name, HvRegisterValue& value) noexcept override {
    return interface_->GetOwnRegister(name, value);
  }
  [[nodiscard]] HvStatus SetOwnRegister(HvRegisterName name, const HvRegisterValue& value) noexcept override {
    return interface_->SetOwnRegister(name, value);
  }
  [[nodiscard]] bool AssertInterrupt(const VsmServices::Interrupt& interrupt) noexcept override;
  [[nodiscard]] bool WaitsInKernel() const noexcept override { return false; }
  void Watch(bool) noexcept override {}
  void RunPending() noexcept override;
  [[nodiscard]] bool IsPending() noexcept override { return apic_->WantsToRun(); }
  [[nodiscard]] bool IsDeliverable() noexcept override;
  [[nodiscard]] bool PrepareEntry() noexcept override;
  [[nodiscard]] bool Arm(Use use) noexcept override;
  void Disarm() noexcept override { apic_->Disarm(); }
  void AfterExit() noexcept override;
  void RaiseVina(const VinaInterrupt& vina) noexcept override;
  void OnRedirected() noexcept override {}

 private:
  // PartitionHost.
  [[nodiscard]] uint32_t vp_count() const noexcept override { return offer_.max_vps; }
  void SendInterrupt(VpIndex vp, uint8_t vector) noexcept override;
  void FlushTlb() noexcept override;
  [[nodiscard]] bool RunOn(VpIndex vp, absl::FunctionRef<void()> work) noexcept override;
  // VpStarter.
  [[nodiscard]] HvStatus Start(VpIndex vp, const HvInitialVpContext& context) noexcept override {
    return environment_->levels.StartVirtualProcessor(vp, vtl_, context);
  }
  // SintEoiSink.
  void OnEoi(Sint sint) noexcept override { interface_->synic().OnEoi(sint); }

  [[nodiscard]] kvm::Vcpu& vcpu() noexcept { return processor_->vcpu(vtl_.raw()); }

  const VpIndex vp_;
  const Vtl vtl_;
  HvOffer offer_;
  std::optional<Environment> environment_;
  VirtualProcessor* processor_ = nullptr;
  std::unique_ptr<TimerfdDeadline> timer_deadline_;  // the SynIC timers'
  std::unique_ptr<TimerfdDeadline> apic_deadline_;
  std::optional<ReferenceApicTime> apic_time_;
  std::optional<LocalApic> apic_;
  std::optional<ApicSintInterrupts> sints_;
  std::unique_ptr<HvVp> interface_;
  // The APIC's deadline has passed: release by the event loop, acquire by RunPending, which the kick brings about.
  std::atomic<bool> apic_deadline_passed_{false};
  bool window_ = false;  // the vCPU exits when it can take an interrupt
  uint64_t moves_before_ = 0;  // the view's, of the last entry
};

}  // namespace vmm

#endif  // VMM_VMM_HYPERV_UPPER_LEVEL_H_
