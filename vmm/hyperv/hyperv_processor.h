// One virtual processor of a Hyper-V partition over KVM, at VTL0: all that the interface asks of its host, for one VP.
//
// Shapes   exists before its VirtualProcessor, which needs a GuestInterface, and is finished once that exists.
// Threads  Finish, destructor: the machine's owner, nothing running. SendInterrupt, FlushTlb, RunOn, Start, registers: the VP's
//          thread. RaiseVector: any.
// Trust    vector numbers and VP indices have been checked by the hypercalls; register values of a start are the guest's, and KVM
//          refuses what the processor would.
// Errors   Finish: Status.
#ifndef VMM_VMM_HYPERV_HYPERV_PROCESSOR_H_
#define VMM_VMM_HYPERV_HYPERV_PROCESSOR_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "base/mutex.h"
#include "devices/guest_interface.h"
#include "devices/hyperv/hv_host.h"
#include "devices/hyperv/partition/hv_vp.h"
#include "kvm/vm.h"
#include "memory/guest_view.h"
#include "memory/level_memory.h"
#include "vcpu/virtual_processor.h"
#include "vcpu/vp_requests.h"
#include "vmm/hyperv/access_intercepts.h"
#include "vmm/hyperv/kvm_sint_interrupts.h"
#include "vmm/hyperv/memory_intercepts.h"
#include "vmm/hyperv/scheduled_level.h"
#include "vmm/hyperv/timerfd_deadline.h"
#include "vmm/machine/machine_event_loop.h"

namespace vmm {

class HypervProcessor final : public GuestInterface,
                              public ScheduledLevel,
                              private PartitionHost,
                              private VpStarter,
                              private VectorInterrupts,
                              private KernelTimers {
 public:
  // All are borrowed and outlive the processor.
  struct Environment {
    kvm::Vm& vm;
    GuestView& view;
    VpRequests& requests;
    MachineEventLoop& loop;
    // Of the partition, one each VP; filled before any of them is finished.
    const std::vector<std::unique_ptr<HypervProcessor>>& processors;
    // One TLB flush at a time: see FlushTlb.
    Mutex& flush;
  };
  HypervProcessor(uint32_t index, const Environment& environment) : index_(index), environment_(environment) {}
  ~HypervProcessor() override;

  // What the interface takes from the partition.
  struct Interface {
    HvPartition& partition;
    ConnectionTable& connections;
    HvVpDirectory& vps;
    ReferenceClock& clock;
    const LevelMemory& memory;
    OverlaySpace& overlays;
    EoiWatch& eoi_watch;
    bool kernel_timers;
    HvVpLevels* levels;  // null: there is one
    MemoryIntercepts* intercepts;
    AccessIntercepts* accesses;
  };
  absl::Status Finish(VirtualProcessor& processor, const HvOffer& offer, const Interface& interface);

  // Null before Finish.
  [[nodiscard]] HvVp* vp() noexcept { return vp_.get(); }
  [[nodiscard]] PartitionHost& host() noexcept { return *this; }
  [[nodiscard]] SintInterrupts& sints() noexcept { return *sints_; }
  // Any thread: an interrupt was given to its local APIC, which a level above may want to hear of.
  void AfterInterrupt() noexcept {
    if (watched_.load(std::memory_order_seq_cst)) processor_->Kick();
  }
  [[nodiscard]] uint64_t sint_failures() const noexcept { return sints_->failures(); }

  // GuestInterface.
  [[nodiscard]] bool ReadMsr(uint32_t msr, uint64_t& value) noexcept override;
  [[nodiscard]] bool WriteMsr(uint32_t msr, uint64_t value) noexcept override;
  [[nodiscard]] bool OnInterceptedMsr(uint32_t msr, bool write) noexcept override {
    return accesses_ != nullptr && accesses_->OnMsr(msr, write);
  }
  [[nodiscard]] AccessAnswer AccessPort(const PortAccess& access, std::span<std::byte> data) noexcept override;
  [[nodiscard]] HypercallOutcome Hypercall(HypercallRegisters& registers, XmmAccess& xmm) noexcept override {
    return vp_->Hypercall(registers, xmm);
  }
  [[nodiscard]] bool OnInaccessibleMemory() noexcept override { return vp_->OnInaccessibleMemory(); }
  [[nodiscard]] bool OnRefusedMemory() noexcept override { return intercepts_ != nullptr && intercepts_->OnFault(); }
  [[nodiscard]] AccessAnswer AccessMemory(uint64_t guest_gpa, std::span<std::byte> data, bool write) noexcept override {
    return intercepts_ == nullptr ? AccessAnswer::kUnclaimed : intercepts_->OnEmulatedAccess(Gpa(guest_gpa), data, write);
  }
  void PrepareToEnter() noexcept override;

  // ScheduledLevel. Its interrupts are KVM's: they are not told of, and wait for no level.
  [[nodiscard]] std::byte* assist_page() noexcept override { return vp_->assist_page(); }
  [[nodiscard]] HvStatus GetOwnRegister(HvRegisterName name, HvRegisterValue& value) noexcept override {
    return vp_->GetOwnRegister(name, value);
  }
  [[nodiscard]] HvStatus SetOwnRegister(HvRegisterName name, const HvRegisterValue& value) noexcept override {
    return vp_->SetOwnRegister(name, value);
  }
  [[nodiscard]] bool AssertInterrupt(const VsmServices::Interrupt& interrupt) noexcept override;
  [[nodiscard]] bool WaitsInKernel() const noexcept override { return true; }
  void Watch(bool on) noexcept override;
  void RunPending() noexcept override { vp_->PrepareToEnter(); }
  [[nodiscard]] bool IsPending() noexcept override { return false; }
  [[nodiscard]] bool IsDeliverable() noexcept override;
  [[nodiscard]] bool PrepareEntry() noexcept override;
  [[nodiscard]] bool Arm(Use) noexcept override { return true; }
  void Disarm() noexcept override {}
  void AfterExit() noexcept override {}
  void RaiseVina(const VinaInterrupt&) noexcept override {}
  void OnRedirected() noexcept override;

 private:
  // PartitionHost.
  [[nodiscard]] uint32_t vp_count() const noexcept override {
    return static_cast<uint32_t>(environment_.processors.size());
  }
  void SendInterrupt(VpIndex vp, uint8_t vector) noexcept override;
  void FlushTlb() noexcept override;
  [[nodiscard]] bool RunOn(VpIndex vp, absl::FunctionRef<void()> work) noexcept override;
  // VpStarter.
  [[nodiscard]] HvStatus Start(VpIndex vp, const HvInitialVpContext& context) noexcept override;
  // VectorInterrupts.
  void RaiseVector(uint8_t vector) noexcept override;
  // KernelTimers.
  [[nodiscard]] bool SetMsr(uint32_t msr, uint64_t value) noexcept override;
  [[nodiscard]] bool GetMsr(uint32_t msr, uint64_t& value) noexcept override;

  const uint32_t index_;
  const Environment environment_;
  VirtualProcessor* processor_ = nullptr;
  HvPartition* partition_ = nullptr;
  MemoryIntercepts* intercepts_ = nullptr;  // with levels above, as the next
  AccessIntercepts* accesses_ = nullptr;
  std::unique_ptr<TimerfdDeadline> deadline_;
  // seq_cst: set before the APIC is looked at, read after an interrupt was given to it; one of the two sees the other.
  std::atomic<bool> watched_{false};
  std::optional<KvmSintInterrupts> sints_;
  std::unique_ptr<HvVp> vp_;
};

}  // namespace vmm

#endif  // VMM_VMM_HYPERV_HYPERV_PROCESSOR_H_
