// Which register names there are for a higher level to read and write in a lower one, and what may be written there.
//
// Shapes   one row a register, or a run of them that are alike.
// Threads  immutable; pure functions.
// Trust    any name, any value.
// Errors   null: no such register here; false: INVALID_REGISTER_VALUE.
// Source   Hyper-V TLFS, "HV_REGISTER_NAME", "Virtual Secure Mode". Readable is all that the TLFS lists for trust levels and what
//          real guests read besides; writable the same without what all levels share, as OpenVMM has it.
#ifndef VMM_DEVICES_HYPERV_VSM_VP_REGISTERS_H_
#define VMM_DEVICES_HYPERV_VSM_VP_REGISTERS_H_

#include <cstdint>
#include <span>

#include "devices/hyperv/hypercall/hv_register_layout.h"

namespace vmm {

// Where a register lives.
enum class RegisterStorage : uint8_t {
  kPrivate,  // each level has its own
  kShared,   // one a processor, whichever level runs
  kDr6,      // the host's processor decides which of the two
};

// What a value must be, so that the processor takes it. The rest is KVM's to refuse.
enum class RegisterCheck : uint8_t {
  kNone,
  kReadOnly,
  kCanonical,  // an address
  kRflags,
  kCr0,
  kHigh32Zero,  // CR4, DR7, SFMASK, TSC_AUX, SYSENTER_CS
  kCr3,
  kCr8,
  kEfer,
  kPat,
  kSegment,
  kSystemSegment,  // LDTR
  kTaskSegment,
  kTable,
  kSameValue,  // APIC_BASE: may be written, not changed. INVALID_PARAMETER else
};

struct LowerRegister {
  HvRegisterName first;
  HvRegisterName last;
  RegisterStorage storage;
  RegisterCheck check;
};

[[nodiscard]] const LowerRegister* FindLowerRegister(HvRegisterName name) noexcept;
[[nodiscard]] std::span<const LowerRegister> AllLowerRegisters() noexcept;

// `five_levels`: CR4.LA57 of the level, which says what is an address. Nothing that is kReadOnly or kSameValue comes here.
[[nodiscard]] bool IsAcceptable(RegisterCheck check, const HvRegisterValue& value, bool five_levels) noexcept;

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_VSM_VP_REGISTERS_H_
