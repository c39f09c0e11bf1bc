// The Hyper-V guest interface of a machine over KVM: where the partition, its processors and KVM meet.
//
// Two backings. KERNEL: KVM's synthetic timers, which write into the message page that we place; the vectors of SINTs, auto-EOI and
// ends of interrupt are KVM's in both, for the local APIC is. OWN: timers are ours too. Messages, events, hypercalls, pages and all
// other registers are ours in both.
//
// Shapes   VTL0; the levels above it are VsmMachine's, where there are any.
// Threads  Create, PrepareVcpu, Finish, destructor: the machine's owner, with no processor running. stats: any.
// Trust    none of its own: what the guest says goes to devices/hyperv.
// Errors   Status. A host without KVM's Hyper-V capabilities is FAILED_PRECONDITION, with the capability's name.
#ifndef VMM_VMM_HYPERV_HYPERV_MACHINE_H_
#define VMM_VMM_HYPERV_HYPERV_MACHINE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "devices/guest_interface.h"
#include "devices/hyperv/hv_cpuid_layout.h"
#include "devices/hyperv/hypercall/hypercall_dispatcher.h"
#include "devices/hyperv/partition/hv_partition.h"
#include "devices/hyperv/partition/hv_vp.h"
#include "devices/hyperv/synic/connections.h"
#include "devices/hyperv/synic/synic.h"
#include "devices/hyperv/test_device/hyperv_test_device.h"
#include "devices/hyperv/view_overlay_space.h"
#include "devices/hyperv/vsm/vsm_partition.h"
#include "devices/machine_control.h"
#include "kvm/vm.h"
#include "memory/guest_memory.h"
#include "memory/guest_view.h"
#include "memory/level_memory.h"
#include "memory/protection_enforcer.h"
#include "vcpu/virtual_processor.h"
#include "vcpu/vp_requests.h"
#include "vmm/hyperv/eoi_watch.h"
#include "vmm/hyperv/kvm_reference_clock.h"
#include "vmm/hyperv/vsm_machine.h"
#include "vmm/machine/machine_event_loop.h"

namespace vmm {

class HypervProcessor;

class HypervMachine final : public SintRaiser, private SynicDirectory, private HvVpDirectory {
 public:
  enum class Backing : uint8_t { kKernel, kOwn };
  // Pages that the view must have for `processors`.
  static constexpr uint32_t OverlayPages(uint32_t processors) { return 2 + 3 * processors; }

  // All are borrowed and outlive the machine. `view` has OverlayPages. The VirtualProcessors outlive it too, but their threads have
  // ended before.
  struct Environment {
    kvm::Vm& vm;
    GuestView& view;
    const GuestMemory& memory;
    MachineEventLoop& loop;
    MachineControl& control;
    VpRequests& requests;
    // VTL1 and up: for each a view with OverlayPages, and a VM without interrupt controllers.
    std::vector<VsmMachine::LevelParts> levels = {};
    // Where there are levels: of all but the highest, and what they offer.
    ProtectionEnforcer* protections = nullptr;
    VsmOffer vsm = {};
  };
  static absl::StatusOr<std::unique_ptr<HypervMachine>> Create(const Environment& environment, const HvOffer& offer,
                                                               Backing backing);
  HypervMachine(const HypervMachine&) = delete;
  HypervMachine& operator=(const HypervMachine&) = delete;
  ~HypervMachine() override;

  // In this order: each vCPU; then the VirtualProcessor with guest(index), kHvHypercallPort and the same requests; then Finish.
  absl::Status PrepareVcpu(kvm::Vcpu& vcpu);
  // Null: there is VTL0 alone. Its vCPUs are prepared by it.
  [[nodiscard]] VsmMachine* vsm() noexcept { return vsm_.get(); }
  [[nodiscard]] GuestInterface& guest(uint32_t index) noexcept;
  absl::Status Finish(const std::vector<std::unique_ptr<VirtualProcessor>>& processors);

  [[nodiscard]] const HvOffer& offer() const noexcept { return offer_; }
  [[nodiscard]] ConnectionTable& connections() noexcept { return connections_; }
  void RaiseSint(VpIndex vp, Sint sint) noexcept override;

  struct VpStats {
    Synic::Stats synic;
    HypercallDispatcher::Stats hypercalls;
    uint64_t sint_failures;
  };
  [[nodiscard]] std::vector<VpStats> stats() const;

 private:
  HypervMachine(const Environment& environment, const HvOffer& offer, Backing backing);
  [[nodiscard]] std::vector<kvm::MsrRange> TrappedMsrs() const;
  // SynicDirectory, HvVpDirectory: any thread.
  [[nodiscard]] Synic* Find(VpIndex vp, Vtl vtl) noexcept override;
  [[nodiscard]] uint32_t vp_count() const noexcept override { return offer_.max_vps; }
  [[nodiscard]] HvVp* FindVp(VpIndex vp) noexcept override;

  const Environment environment_;
  const HvOffer offer_;
  const Backing backing_;
  const LevelMemory memory_;  // VTL0's
  ViewOverlaySpace overlays_;
  ConnectionTable connections_;
  std::unique_ptr<EoiWatch> eoi_watch_;
  std::unique_ptr<KvmReferenceClock> clock_;
  std::unique_ptr<HvSharedRegisters> shared_;
  std::unique_ptr<HvPartition> partition_;
  Mutex flush_;  // the processors'
  std::vector<std::unique_ptr<HypervProcessor>> processors_;
  std::unique_ptr<VsmMachine> vsm_;  // uses the processors
};

}  // namespace vmm

#endif  // VMM_VMM_HYPERV_HYPERV_MACHINE_H_
