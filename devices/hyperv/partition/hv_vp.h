// The Hyper-V interface of one virtual processor at one trust level: which register is whose, which privilege it needs, and what
// waits for the processor before it enters the guest.
//
// Shapes   owns the VP assist page, the SynIC, the hypercall dispatcher and, unless the kernel has them, the timers.
// Threads  GuestInterface and registers: confined to the VP's thread. NotifyEoi, NotifyDeadline: any.
// Trust    numbers and values are the guest's. A register without its privilege, or that is nobody's, is #GP(0).
// Errors   Create: Status. Else as GuestInterface says.
// Source   Hyper-V TLFS, "Hypervisor Synthetic MSRs", "Virtual Processors", "Feature and Interface Discovery".
//
// Not offered, because the in-kernel local APIC does not tell what is pending with interrupts off: GUEST_IDLE. EOI, ICR and TPR
// of VTL0 are KVM's and never come here. The VP assist page holds no EOI assist: the guest always writes EOI.
#ifndef VMM_DEVICES_HYPERV_PARTITION_HV_VP_H_
#define VMM_DEVICES_HYPERV_PARTITION_HV_VP_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "devices/guest_interface.h"
#include "devices/hyperv/hv_cpuid_layout.h"
#include "devices/hyperv/hv_host.h"
#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/hypercall/hypercall_dispatcher.h"
#include "devices/hyperv/hypercall/hypercall_services.h"
#include "devices/hyperv/hypercall/vsm_services.h"
#include "devices/hyperv/overlay_page.h"
#include "devices/hyperv/partition/hv_partition.h"
#include "devices/hyperv/synic/connections.h"
#include "devices/hyperv/synic/synic.h"
#include "devices/hyperv/timers/synthetic_timers.h"
#include "memory/level_memory.h"

namespace vmm {

// The host kernel's own synthetic timers, which write into the message page we placed.
//
// Threads  the VP's thread.
class KernelTimers {
 public:
  virtual ~KernelTimers() = default;
  // STIMERx, SCONTROL, SIMP and EOM, as the guest wrote them. False: refused, #GP(0).
  [[nodiscard]] virtual bool SetMsr(uint32_t msr, uint64_t value) noexcept = 0;
  [[nodiscard]] virtual bool GetMsr(uint32_t msr, uint64_t& value) noexcept = 0;
};

// Puts a VP that waits to be started into a state.
//
// Threads  any VP's thread but the target's.
class VpStarter {
 public:
  virtual ~VpStarter() = default;
  [[nodiscard]] virtual HvStatus Start(VpIndex vp, const HvInitialVpContext& context) noexcept = 0;
};

class HvVp;

// All VPs of one trust level.
//
// Threads  any.
class HvVpDirectory {
 public:
  virtual ~HvVpDirectory() = default;
  // Null past the last.
  [[nodiscard]] virtual HvVp* FindVp(VpIndex vp) noexcept = 0;
};

// What one trust level of a VP asks of the other levels, where there are any.
//
// Shapes   one object a VP and level: who asks is known behind this.
// Threads  the VP's thread, outside the guest.
// Trust    as HypercallServices.
class HvVpLevels {
 public:
  virtual ~HvVpLevels() = default;
  [[nodiscard]] virtual VsmServices& vsm() noexcept = 0;
  [[nodiscard]] virtual PartitionHost& host(Vtl vtl) noexcept = 0;
  // `long_mode`: of the caller.
  [[nodiscard]] virtual HvStatus GetRegister(VpIndex vp, Vtl vtl, bool long_mode, HvRegisterName name,
                                             HvRegisterValue& value) noexcept = 0;
  [[nodiscard]] virtual HvStatus SetRegister(VpIndex vp, Vtl vtl, bool long_mode, HvRegisterName name,
                                             const HvRegisterValue& value) noexcept = 0;
  [[nodiscard]] virtual HvStatus StartVirtualProcessor(VpIndex vp, Vtl vtl, const HvInitialVpContext& context) noexcept = 0;
};

class HvVp final : public GuestInterface, private HypercallServices {
 public:
  // All of it outlives the HvVp.
  struct Environment {
    HvPartition& partition;
    ConnectionTable& connections;
    HvVpDirectory& vps;
    PartitionHost& host;
    VpStarter& starter;
    ReferenceClock& clock;
    const LevelMemory& memory;
    OverlaySpace& overlays;
    SintInterrupts& sints;
    VectorInterrupts& vectors;
    DeadlineTimer& deadline;
    VpKick& kick;
    KernelTimers* kernel_timers;  // null: the timers are our own
    HvVpLevels* levels = nullptr;  // null: there is one level
  };
  static absl::StatusOr<std::unique_ptr<HvVp>> Create(VpIndex vp, Vtl vtl, const HvOffer& offer, const Environment& environment);

  // GuestInterface.
  [[nodiscard]] bool ReadMsr(uint32_t msr, uint64_t& value) noexcept override;
  [[nodiscard]] bool WriteMsr(uint32_t msr, uint64_t value) noexcept override;
  [[nodiscard]] HypercallOutcome Hypercall(HypercallRegisters& registers, XmmAccess& xmm) noexcept override;
  [[nodiscard]] bool OnInaccessibleMemory() noexcept override;
  void PrepareToEnter() noexcept override;

  // An end of interrupt that Synic::WatchEoi asked for.
  void NotifyEoi(Sint sint) noexcept;
  // The deadline has passed.
  void NotifyDeadline() noexcept;

  // Of this VP at this level, as a hypercall of its own has them. The VP's thread.
  [[nodiscard]] HvStatus GetOwnRegister(HvRegisterName name, HvRegisterValue& value) noexcept;
  [[nodiscard]] HvStatus SetOwnRegister(HvRegisterName name, const HvRegisterValue& value) noexcept;
  // The page itself, wherever the guest has it.
  [[nodiscard]] std::byte* assist_page() noexcept { return assist_page_->data(); }

  [[nodiscard]] Synic& synic() noexcept { return *synic_; }
  [[nodiscard]] HypercallDispatcher::Stats hypercall_stats() const noexcept { return dispatcher_.stats(); }

 private:
  HvVp(VpIndex vp, Vtl vtl, const HvOffer& offer, const Environment& environment, std::unique_ptr<OverlayPage> assist_page,
       std::unique_ptr<Synic> synic);

  [[nodiscard]] bool WriteSynicMsr(uint32_t msr, uint64_t value) noexcept;
  [[nodiscard]] bool WriteKernelTimer(uint32_t msr, uint64_t value) noexcept;
  [[nodiscard]] bool WriteAssistPage(uint64_t value) noexcept;

  // HypercallServices.
  [[nodiscard]] PartitionHost& host(Vtl vtl) noexcept override;
  [[nodiscard]] uint64_t partition_id() const noexcept override;
  [[nodiscard]] HvStatus PostMessage(VpIndex poster, uint32_t connection, const HvMessage& message) noexcept override;
  [[nodiscard]] HvStatus SignalEvent(uint32_t connection, uint16_t flag) noexcept override;
  [[nodiscard]] HvStatus GetRegister(VpIndex vp, Vtl vtl, HvRegisterName name, HvRegisterValue& value) noexcept override;
  [[nodiscard]] HvStatus SetRegister(VpIndex vp, Vtl vtl, HvRegisterName name, const HvRegisterValue& value) noexcept override;
  [[nodiscard]] HvStatus StartVirtualProcessor(VpIndex vp, Vtl vtl, const HvInitialVpContext& context) noexcept override;
  [[nodiscard]] VsmServices* vsm() noexcept override;

  static constexpr uint32_t kDeadlinePassed = 1u << Sint::kCount;  // of notices_; the bits below are SINTs

  const VpIndex vp_;
  const Vtl vtl_;
  const HvOffer offer_;
  const Environment environment_;
  const std::unique_ptr<OverlayPage> assist_page_;
  uint64_t assist_page_msr_ = 0;
  bool long_mode_ = true;  // of the hypercall that is being made
  std::array<uint64_t, kHvStimerCount> kernel_timer_configs_{};
  uint16_t kernel_timer_sints_ = 0;  // bit n: one of them writes messages to slot n
  const std::unique_ptr<Synic> synic_;
  std::optional<SyntheticTimers> timers_;
  HypercallDispatcher dispatcher_;
  // release by who notifies, acquire by PrepareToEnter, which a kick brings about.
  std::atomic<uint32_t> notices_{0};
};

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_PARTITION_HV_VP_H_
