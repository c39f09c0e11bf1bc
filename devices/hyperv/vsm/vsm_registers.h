// Get/SetVpRegisters where trust levels matter: the registers of Virtual Secure Mode, and those of lower levels.
//
// Shapes   functions over one VP's state; the wiring's LowerVtlRegisters holds what a processor holds.
// Threads  the VP's thread, outside the guest. A call for another VP comes there by PartitionHost::RunOn.
// Trust    `target` is at most `caller`, and both are below kHvVtlCount; name and value are the guest's.
// Errors   HvStatus. nullopt: the name is none of these, and what the target level's own register interface says of it is the
//          answer. Nothing has changed unless kSuccess.
// Source   Hyper-V TLFS, "HvCallGetVpRegisters", "HvCallSetVpRegisters", "Virtual Secure Mode".
//
// Where sources differ, OpenVMM's statuses: a level's own architectural registers are ACCESS_DENIED, a register that cannot be
// written INVALID_PARAMETER, VsmVina and VsmPartitionConfig of VTL0 INVALID_PARAMETER, intercept registers of VTL0 ACCESS_DENIED.
// An intercept that the host cannot make is INVALID_REGISTER_VALUE, as a bit that is not known. What it says of VTL1 alone is meant here of every level above VTL0. An exception's error code must be there where the processor
// has one and nowhere else: it would not enter the guest with another.
#ifndef VMM_DEVICES_HYPERV_VSM_VSM_REGISTERS_H_
#define VMM_DEVICES_HYPERV_VSM_VSM_REGISTERS_H_

#include <cstdint>
#include <optional>

#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/hypercall/hv_register_layout.h"
#include "devices/hyperv/vsm/tlb_locks.h"
#include "devices/hyperv/vsm/vsm_partition.h"
#include "devices/hyperv/vsm/vsm_vp.h"

namespace vmm {

// The registers that a VP's processor holds for one of its levels that does not run.
//
// Threads  the VP's thread.
class LowerVtlRegisters {
 public:
  virtual ~LowerVtlRegisters() = default;
  // A name of FindLowerRegister. Set: not one that is read-only, and checked by IsAcceptable; kInvalidRegisterValue for what the
  // processor refuses. A write faults nothing and flushes nothing that the guest could tell.
  [[nodiscard]] virtual HvStatus Get(Vtl vtl, HvRegisterName name, HvRegisterValue& value) noexcept = 0;
  [[nodiscard]] virtual HvStatus Set(Vtl vtl, HvRegisterName name, const HvRegisterValue& value) noexcept = 0;
};

class VsmRegisters final {
 public:
  // All of it outlives this.
  VsmRegisters(VpIndex vp, VsmPartition& partition, VsmVp& state, TlbLocks& locks, LowerVtlRegisters& lower) noexcept
      : vp_(vp), partition_(partition), state_(state), locks_(locks), lower_(lower) {}

  struct Target {
    Vtl caller;
    Vtl vtl;
    bool long_mode = true;  // of the caller: which entries of the hypercall page it is told
  };
  [[nodiscard]] std::optional<HvStatus> Get(Target target, HvRegisterName name, HvRegisterValue& value) noexcept;

  // What the caller does about a write before the guest goes on.
  struct Effect {
    bool wake_flushes = false;       // kick all VPs: a TLB lock was released
    bool intercepts_changed = false;  // which accesses of control registers and MSRs must exit: kInsufficientMemory if they cannot
    std::optional<uint32_t> default_protection = std::nullopt;  // of all memory, by `target.vtl`
    bool operator==(const Effect&) const = default;
  };
  [[nodiscard]] std::optional<HvStatus> Set(Target target, HvRegisterName name, const HvRegisterValue& value,
                                            Effect& effect) noexcept;

 private:
  [[nodiscard]] HvStatus SetSecureConfig(Vtl owner, Vtl of, uint64_t value, Effect& effect) noexcept;
  [[nodiscard]] HvStatus SetPendingEvent(Target target, const HvRegisterValue& value) noexcept;
  [[nodiscard]] HvStatus SetLower(Target target, HvRegisterName name, const HvRegisterValue& value) noexcept;

  const VpIndex vp_;
  VsmPartition& partition_;
  VsmVp& state_;
  TlbLocks& locks_;
  LowerVtlRegisters& lower_;
};

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_VSM_VSM_REGISTERS_H_
