// Virtual Secure Mode of a machine: the trust levels above VTL0 and what all levels share. HypervMachine has VTL0.
//
// Shapes   a KVM VM a level, over the same guest RAM, each with a view of its own; for each VP and level an UpperLevel, for each VP a
//          VtlScheduler.
// Threads  Create, PrepareVcpu, Finish, destructor: the machine's owner, no processor running. The rest as it says.
// Trust    none of its own.
// Errors   Status.
#ifndef VMM_VMM_HYPERV_VSM_MACHINE_H_
#define VMM_VMM_HYPERV_VSM_MACHINE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "base/mutex.h"
#include "devices/guest_interface.h"
#include "devices/hyperv/hv_cpuid_layout.h"
#include "devices/hyperv/hv_host.h"
#include "devices/hyperv/partition/hv_partition.h"
#include "devices/hyperv/partition/hv_vp.h"
#include "devices/hyperv/synic/connections.h"
#include "devices/hyperv/synic/synic.h"
#include "devices/hyperv/view_overlay_space.h"
#include "devices/hyperv/vsm/io_port_intercepts.h"
#include "devices/hyperv/vsm/tlb_locks.h"
#include "devices/hyperv/vsm/vsm_partition.h"
#include "kvm/vm.h"
#include "memory/guest_memory.h"
#include "memory/guest_view.h"
#include "memory/level_memory.h"
#include "memory/protection_enforcer.h"
#include "vcpu/level_scheduler.h"
#include "vcpu/local_apic/apic_directory.h"
#include "vcpu/virtual_processor.h"
#include "vcpu/vp_requests.h"
#include "vmm/hyperv/access_intercepts.h"
#include "vmm/hyperv/kvm_vtl_processor.h"
#include "vmm/hyperv/level_registers.h"
#include "vmm/hyperv/memory_intercepts.h"
#include "vmm/hyperv/msr_traps.h"
#include "vmm/hyperv/scheduled_level.h"
#include "vmm/hyperv/upper_level.h"
#include "vmm/hyperv/vsm_level.h"
#include "vmm/hyperv/vtl_scheduler.h"
#include "vmm/machine/machine_event_loop.h"

namespace vmm {

class VsmMachine final : private VsmVps {
 public:
  // Of one level above VTL0. The view has pages for the level's overlays (HypervMachine::OverlayPages).
  struct LevelParts {
    kvm::Vm& vm;
    GuestView& view;
  };
  // All are borrowed and outlive the machine.
  struct Environment {
    const GuestMemory& memory;
    MachineEventLoop& loop;
    VpRequests& requests;
    struct Vtl0 {
      ScheduledLevel& level;
      PartitionHost& host;
    };
    std::vector<Vtl0> vtl0;             // of each VP
    std::vector<LevelParts> levels;     // VTL1 and up, as many as there are: not more than VsmOffer's maximum
    ProtectionEnforcer& protections;    // of all levels but the highest
  };
  VsmMachine(const Environment& environment, const HvOffer& offer, const VsmOffer& vsm);
  VsmMachine(const VsmMachine&) = delete;
  VsmMachine& operator=(const VsmMachine&) = delete;
  ~VsmMachine() override;

  [[nodiscard]] size_t level_count() const noexcept { return levels_.size(); }
  absl::Status PrepareVcpu(kvm::Vcpu& vcpu);
  [[nodiscard]] GuestInterface& guest(uint32_t index, Vtl vtl) noexcept;
  [[nodiscard]] LevelScheduler& scheduler(uint32_t index) noexcept { return *vps_[index].scheduler; }
  // What VTL0's interface of a VP needs.
  [[nodiscard]] MemoryIntercepts& intercepts(uint32_t index) noexcept { return *vps_[index].intercepts; }  // after Finish
  [[nodiscard]] AccessIntercepts& accesses(uint32_t index) noexcept { return *vps_[index].accesses; }        // after Finish
  [[nodiscard]] HvVpLevels& vtl0(uint32_t index) noexcept { return *vps_[index].services[0]; }

  struct Interface {
    HvSharedRegisters& shared;
    ConnectionTable& connections;
    ReferenceClock& clock;
    const GuestView& vtl0_view;
    const LevelMemory& vtl0_memory;
    kvm::Vm& vtl0_vm;
    std::span<const kvm::MsrRange> vtl0_trapped;  // what its filter has now
    std::optional<uint64_t> tsc_offset;
  };
  absl::Status Finish(const std::vector<std::unique_ptr<VirtualProcessor>>& processors, const Interface& interface);

  // Null where there is no such level or VP.
  [[nodiscard]] Synic* FindSynic(VpIndex vp, Vtl vtl) noexcept;
  struct VpStats {
    VtlScheduler::Stats switches;
    MemoryIntercepts::Stats intercepts;  // of VTL0, as the next
    AccessIntercepts::Stats accesses;
  };
  [[nodiscard]] uint64_t unenforced_intercepts() const noexcept { return partition_.unenforced_intercepts(); }
  // Any thread, after Finish.
  [[nodiscard]] VpStats stats(uint32_t index) const noexcept {
    return {.switches = vps_[index].scheduler->stats(), .intercepts = vps_[index].intercepts->stats(),
            .accesses = vps_[index].accesses->stats()};
  }

 private:
  // The VPs of a level.
  struct Level final : public HvVpDirectory {
    Level(const Environment& environment, Vtl number)
        : parts(environment.levels[number.raw() - 1u]),
          vtl(number),
          memory(environment.memory, environment.protections.map(), environment.protections.gate(), number.raw()),
          overlays(parts.view, memory) {}
    [[nodiscard]] HvVp* FindVp(VpIndex vp) noexcept override {
      return vp.raw() < vps.size() ? vps[vp.raw()]->vp() : nullptr;
    }
    LevelParts parts;
    const Vtl vtl;
    const LevelMemory memory;
    ViewOverlaySpace overlays;
    Mutex flush;
    ApicDirectory apics;
    std::unique_ptr<HvPartition> partition;
    std::vector<std::unique_ptr<UpperLevel>> vps;
  };
  struct Vp {
    KvmVtlProcessor processor;
    LevelRegisters registers;
    std::vector<std::unique_ptr<VsmLevel>> services;  // by level
    std::unique_ptr<VtlScheduler> scheduler;
    std::unique_ptr<MemoryIntercepts> intercepts;  // of VTL0, as the next
    std::unique_ptr<AccessIntercepts> accesses;
    std::vector<PartitionHost*> hosts;  // by level
    VirtualProcessor* virtual_processor = nullptr;
  };
  absl::Status TrapMsrs(Level& level);
  // VsmVps.
  [[nodiscard]] VtlScheduler& scheduler(VpIndex vp) noexcept override { return *vps_[vp.raw()].scheduler; }
  [[nodiscard]] PartitionHost& host(VpIndex vp, Vtl vtl) noexcept override { return *vps_[vp.raw()].hosts[vtl.raw()]; }
  [[nodiscard]] const GuestView& view(Vtl vtl) noexcept override {
    return vtl == kVtl0 ? *vtl0_view_ : levels_[vtl.raw() - 1u]->parts.view;
  }
  void KickAll() noexcept override;

  const Environment environment_;
  const HvOffer offer_;
  VsmPartition partition_;
  TlbLocks locks_;
  const std::unique_ptr<IoPortIntercepts> ports_ = std::make_unique<IoPortIntercepts>();
  std::unique_ptr<MsrTraps> traps_;  // of VTL0, as the next; after Finish
  const GuestView* vtl0_view_ = nullptr;
  std::vector<std::unique_ptr<Level>> levels_;  // VTL1 first
  std::vector<Vp> vps_;
};

}  // namespace vmm

#endif  // VMM_VMM_HYPERV_VSM_MACHINE_H_
