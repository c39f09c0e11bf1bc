// What one trust level of one virtual processor asks of the partition: the calls of Virtual Secure Mode, and registers, interrupts
// and starts that name a level.
//
// Threads  confined to the VP's thread, outside the guest; other VPs' part is done on theirs (VpRequests).
// Trust    as VsmServices and HvVpLevels.
// Errors   HvStatus.
// Source   Hyper-V TLFS, "Virtual Secure Mode".
//
// Ports that KVM's legacy interrupt controllers answer in the kernel cannot be intercepted: FEATURE_UNAVAILABLE.
#ifndef VMM_VMM_HYPERV_VSM_LEVEL_H_
#define VMM_VMM_HYPERV_VSM_LEVEL_H_

#include <cstdint>
#include <span>
#include <vector>

#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/hypercall/vsm_services.h"
#include "devices/hyperv/partition/hv_vp.h"
#include "devices/hyperv/vsm/io_port_intercepts.h"
#include "devices/hyperv/vsm/tlb_locks.h"
#include "devices/hyperv/vsm/vsm_partition.h"
#include "memory/guest_memory.h"
#include "memory/guest_view.h"
#include "memory/protection_enforcer.h"
#include "vcpu/vp_requests.h"
#include "vmm/hyperv/vtl_scheduler.h"

namespace vmm {

// The VPs of a partition, for those that act on others.
//
// Threads  any; immutable.
class VsmVps {
 public:
  virtual ~VsmVps() = default;
  [[nodiscard]] virtual VtlScheduler& scheduler(VpIndex vp) noexcept = 0;
  // Interrupts and TLB of `vtl`, on `vp`'s thread.
  [[nodiscard]] virtual PartitionHost& host(VpIndex vp, Vtl vtl) noexcept = 0;
  // RAM as `vtl` sees it.
  [[nodiscard]] virtual const GuestView& view(Vtl vtl) noexcept = 0;
  virtual void KickAll() noexcept = 0;
};

class VsmLevel final : public HvVpLevels, private VsmServices {
 public:
  // All outlive this.
  struct Environment {
    VsmPartition& partition;
    TlbLocks& locks;
    IoPortIntercepts& ports;
    VpRequests& requests;
    VsmVps& vps;
    ProtectionEnforcer& protections;
    const GuestMemory& memory;
  };
  VsmLevel(VpIndex vp, Vtl vtl, const Environment& environment) : vp_(vp), vtl_(vtl), environment_(environment) {}

  // HvVpLevels.
  [[nodiscard]] VsmServices& vsm() noexcept override { return *this; }
  [[nodiscard]] PartitionHost& host(Vtl vtl) noexcept override { return environment_.vps.host(vp_, vtl); }
  [[nodiscard]] HvStatus GetRegister(VpIndex vp, Vtl vtl, bool long_mode, HvRegisterName name,
                                     HvRegisterValue& value) noexcept override;
  [[nodiscard]] HvStatus SetRegister(VpIndex vp, Vtl vtl, bool long_mode, HvRegisterName name,
                                     const HvRegisterValue& value) noexcept override;
  [[nodiscard]] HvStatus StartVirtualProcessor(VpIndex vp, Vtl vtl, const HvInitialVpContext& context) noexcept override;

 private:
  // VsmServices.
  [[nodiscard]] bool VtlCall(VtlSwitchRequest request) noexcept override { return own().Call(request); }
  [[nodiscard]] bool VtlReturn(VtlSwitchRequest request) noexcept override { return own().Return(request); }
  [[nodiscard]] bool IsVtlEnabled(Vtl vtl) noexcept override { return environment_.partition.IsEnabled(vtl); }
  [[nodiscard]] bool MustWaitForTlbLock() noexcept override;
  [[nodiscard]] HvStatus EnablePartitionVtl(uint8_t guest_vtl, uint8_t guest_flags) noexcept override {
    return environment_.partition.Enable(vtl_, guest_vtl, guest_flags);
  }
  [[nodiscard]] HvStatus EnableVpVtl(VpIndex vp, uint8_t guest_vtl, const HvInitialVpContext& guest_context) noexcept override;
  [[nodiscard]] HvStatus CheckStart(VpIndex vp, Vtl vtl) noexcept override;
  [[nodiscard]] HvStatus CheckProtection(Vtl owner, uint32_t guest_flags) noexcept override {
    return environment_.partition.CheckProtection(vtl_, owner, guest_flags);
  }
  [[nodiscard]] PageProtection Protect(Vtl owner, uint32_t flags, std::span<const uint64_t> guest_pages) noexcept override;
  [[nodiscard]] GvaTranslation Translate(VpIndex vp, Vtl vtl, uint64_t flags, uint64_t guest_gva_page) noexcept override;
  [[nodiscard]] HvStatus AssertInterrupt(Vtl vtl, const Interrupt& interrupt) noexcept override;
  [[nodiscard]] HvStatus InterceptIoPort(uint16_t port, bool reads, bool writes) noexcept override;

  [[nodiscard]] VtlScheduler& own() noexcept { return environment_.vps.scheduler(vp_); }
  // Runs `work` with the VP's scheduler, on its thread. Its status; kOperationFailed: the machine ends.
  template <typename Work>
  [[nodiscard]] HvStatus On(VpIndex vp, Work work) noexcept {
    HvStatus status = HvStatus::kOperationFailed;
    (void)environment_.requests.RunOn(vp_.raw(), vp.raw(), [&] { status = work(environment_.vps.scheduler(vp)); });
    return status;
  }

  const VpIndex vp_;
  const Vtl vtl_;
  const Environment environment_;
};

}  // namespace vmm

#endif  // VMM_VMM_HYPERV_VSM_LEVEL_H_
