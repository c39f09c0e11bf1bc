// Virtual Secure Mode on one virtual processor: which levels it has, which one runs, who runs next, and the registers of each
// level that are about the others.
//
// Shapes   arrays by level; a level is enabled here by EnableVpVtl, VTL0 always. Levels need not be consecutive.
// Threads  confined to the VP's thread, outside the guest. Another VP's hypercall comes by PartitionHost::RunOn.
// Trust    values are the guest's, checked where they are set. Levels that callers pass are below kHvVtlCount.
// Errors   HvStatus, or an action that says #UD.
// Source   Hyper-V TLFS, "Virtual Secure Mode"; design.md, "One KVM VM per VTL".
//
// A decision changes nothing; Enter, Leave and Start do what was decided, here, while the wiring moves registers. The order of a
// switch: instruction pointer of the level that leaves past its call, Leave or Enter, shared registers over, and then, for a
// first entry, the level's initial context. Who resets or starts a VP also releases its TLB locks (TlbLocks::ReleaseAll).
//
// Where sources differ or say nothing:
// - VINA is asserted again while a lower level's interrupt still waits and the guest has cleared the byte (as OpenVMM; the TLFS:
//   only for a new interrupt). Nothing is lost so. AutoReset clears at the return, not at the next entry: no guest can tell.
// - HLT is each level's own: a lower level that was halted when a higher one was entered is halted again afterwards, unless an
//   exception was injected or an interrupt for it came.
// - An INIT or SIPI for a level is dropped where a higher one is enabled (OpenVMM: only with DenyLowerVtlStartup).
#ifndef VMM_DEVICES_HYPERV_VSM_VSM_VP_H_
#define VMM_DEVICES_HYPERV_VSM_VSM_VP_H_

#include <array>
#include <cstdint>
#include <optional>

#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/hypercall/hv_register_layout.h"
#include "devices/hyperv/hypercall/hv_vp_context_layout.h"
#include "devices/hyperv/hypercall/hypercall_layout.h"
#include "devices/hyperv/vsm/vp_assist_page.h"
#include "devices/hyperv/vsm/vsm_layout.h"

namespace vmm {

struct VtlSwitchAction {
  enum class Kind : uint8_t { kUndefinedOpcode, kCall, kReturn };
  Kind kind = Kind::kUndefinedOpcode;  // #UD in the level that asked, its instruction pointer where it was
  Vtl to{0};
  bool fast = false;  // a return that leaves RAX and RCX as they are
  bool operator==(const VtlSwitchAction&) const = default;
};

// What is known of each level's interrupts, as sets of levels. Bits of levels that are not enabled mean nothing.
struct VtlInterrupts {
  // An interrupt that the level's task priority lets through, whatever its RFLAGS.IF; or an NMI.
  VtlSet pending = 0;
  // One that the level would take at its next instruction: interrupt flag, shadow and NMI blocking let it through too.
  VtlSet deliverable = 0;
};

struct VinaInterrupt {
  uint8_t vector;
  bool auto_eoi;
  bool operator==(const VinaInterrupt&) const = default;
};

struct VtlSchedule {
  enum class Kind : uint8_t {
    kRun,      // the active level goes on
    kWait,     // nothing runs: halted, or waiting for a TLB lock to be released
    kPreempt,  // Enter(vtl, kInterrupt): a higher level has an interrupt
  };
  Kind kind;
  Vtl vtl;
  // To be raised, as an edge, in the local APIC of `vtl`, which is the active level; then ask again. Never with kPreempt.
  std::optional<VinaInterrupt> vina;
  bool operator==(const VtlSchedule&) const = default;
};

// An exception that a higher level gave a lower one, for when that runs next.
struct PendingException {
  uint8_t vector;
  std::optional<uint32_t> error_code;
  uint64_t parameter;  // CR2 of #PF, DR6 of #DB
  bool operator==(const PendingException&) const = default;
};

class VsmVp final {
 public:
  VsmVp() noexcept { Reset(); }
  VsmVp(const VsmVp&) = delete;
  VsmVp& operator=(const VsmVp&) = delete;

  // As after power-on: VTL0 alone.
  void Reset() noexcept;

  [[nodiscard]] Vtl active() const noexcept { return active_; }
  [[nodiscard]] VtlSet enabled() const noexcept { return enabled_; }
  [[nodiscard]] bool IsEnabled(Vtl vtl) const noexcept { return Has(enabled_, vtl); }
  [[nodiscard]] Vtl HighestEnabled() const noexcept;
  [[nodiscard]] uint64_t status() const noexcept;  // VsmVpStatus

  // EnableVpVtl, on this VP: nothing runs differently before the level is entered. kVtlAlreadyEnabled; `context` has been
  // checked.
  [[nodiscard]] HvStatus Enable(Vtl vtl, const HvInitialVpContext& context) noexcept;
  // StartVirtualProcessor: `vtl`, which is enabled, begins at `context` when it first runs. The highest enabled level runs
  // first: it is active from here on, as if it had been entered without a reason.
  void Start(Vtl vtl, const HvInitialVpContext& context) noexcept;
  // Not null once, when a level runs for the first time: its registers are these. Valid until the next Enable or Start.
  [[nodiscard]] const HvInitialVpContext* TakeInitialContext(Vtl vtl) noexcept;
  [[nodiscard]] bool DropsInit(Vtl vtl) const noexcept { return HighestEnabled() > vtl; }

  // --- Switches; the caller is in ring 0 and protected mode ---
  [[nodiscard]] VtlSwitchAction DecideCall(VtlSwitchRequest request) const noexcept;
  [[nodiscard]] VtlSwitchAction DecideReturn(VtlSwitchRequest request) const noexcept;
  // To a higher level; `page` is that level's.
  void Enter(Vtl to, VtlEntryReason reason, VpAssistPage page) noexcept;
  // To a lower level; `page` is that of the level that leaves, from which the caller restores RAX and RCX unless it was fast.
  // Returns the levels whose TLB locks on this VP are released by it: TlbLocks::Release.
  [[nodiscard]] VtlSet Leave(Vtl to, VpAssistPage page) noexcept;

  // --- Who runs next ---
  void SetHalted(Vtl vtl, bool halted) noexcept { Assign(halted_, vtl, halted); }
  [[nodiscard]] bool IsHalted(Vtl vtl) const noexcept { return Has(halted_, vtl); }
  // A flush that must wait: the level goes on to make it again once locks were released, or an interrupt comes.
  void SetWaitsForTlbLock(Vtl vtl, bool waits) noexcept { Assign(waits_for_lock_, vtl, waits); }
  [[nodiscard]] bool WaitsForTlbLock(Vtl vtl) const noexcept { return Has(waits_for_lock_, vtl); }
  // `page` is the active level's. Asserts VINA in it if the answer has one. Ends the active level's halt and wait if it runs.
  [[nodiscard]] VtlSchedule Schedule(VtlInterrupts interrupts, VpAssistPage page) noexcept;

  // --- Registers; what may be written by whom is VsmRegisters' to decide ---
  [[nodiscard]] uint64_t vina(Vtl vtl) const noexcept { return At(vtl).vina; }
  void set_vina(Vtl vtl, uint64_t value) noexcept { At(vtl).vina = value; }
  // What `owner` has decided of the lower level `of`.
  [[nodiscard]] uint64_t secure_config(Vtl owner, Vtl of) const noexcept { return At(owner).secure_config[of.raw()]; }
  void set_secure_config(Vtl owner, Vtl of, uint64_t value) noexcept { At(owner).secure_config[of.raw()] = value; }
  // Any level above has said so.
  [[nodiscard]] bool IsMbecEnabled(Vtl of) const noexcept;

  struct CrIntercepts {
    uint64_t control = 0;
    uint64_t cr0_mask = 0;
    uint64_t cr4_mask = 0;
    uint64_t misc_enable_mask = 0;  // kept, not consulted
  };
  [[nodiscard]] const CrIntercepts& cr_intercepts(Vtl owner) const noexcept { return At(owner).cr; }
  [[nodiscard]] CrIntercepts& cr_intercepts(Vtl owner) noexcept { return At(owner).cr; }
  // The lowest level above `by` that wants to hear of this. Values matter for writes of CR0 and CR4 alone: some bit of the mask
  // must change.
  [[nodiscard]] std::optional<Vtl> FindCrIntercept(Vtl by, CrEvent event, uint64_t old_value, uint64_t new_value) const noexcept;

  // PendingEvent0 of a level, as it was set. Setting one ends the level's halt.
  [[nodiscard]] HvRegisterValue pending_event(Vtl vtl) const noexcept { return At(vtl).pending_event; }
  void set_pending_event(Vtl vtl, HvRegisterValue event) noexcept;
  // What `vtl` takes before its next instruction; it is pending no longer.
  [[nodiscard]] std::optional<PendingException> TakePendingException(Vtl vtl) noexcept;

 private:
  struct Level {
    uint64_t vina = 0;
    std::array<uint64_t, kHvVtlCount> secure_config{};
    CrIntercepts cr;
    HvRegisterValue pending_event{};
    bool has_context = false;
    HvInitialVpContext context{};
  };

  [[nodiscard]] Level& At(Vtl vtl) noexcept { return levels_[vtl.raw()]; }
  [[nodiscard]] const Level& At(Vtl vtl) const noexcept { return levels_[vtl.raw()]; }
  static void Assign(VtlSet& set, Vtl vtl, bool value) noexcept {
    set = static_cast<VtlSet>(value ? set | VtlBit(vtl) : set & ~VtlBit(vtl));
  }
  [[nodiscard]] std::optional<VinaInterrupt> AssertVina(VtlSet deliverable, VpAssistPage page) noexcept;

  Vtl active_{0};
  VtlSet enabled_ = VtlBit(kVtl0);
  VtlSet halted_ = 0;
  VtlSet waits_for_lock_ = 0;
  std::array<Level, kHvVtlCount> levels_;
};

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_VSM_VSM_VP_H_
