// What a hypercall's registers hold: the input value, the result value, the codes, and the slots of the fast form.
//
// Shapes   input value and result value are 64 bits; a 32-bit caller has them in EDX:EAX, a 64-bit caller in RCX and RAX.
// Units    sizes in bytes unless said.
// Threads  plain values.
// Trust    an input value is the guest's: every field is range-checked by who uses it. The accessors only cut bits.
// Errors   none.
// Source   Hyper-V TLFS, "Hypercall Interface": "Hypercall Inputs", "Hypercall Outputs". The variable header's size has ten bits
//          and IsNested is bit 31: a diagram in version 6.0b shows nine bits and bit 26.
#ifndef VMM_DEVICES_HYPERV_HYPERCALL_HYPERCALL_LAYOUT_H_
#define VMM_DEVICES_HYPERV_HYPERCALL_HYPERCALL_LAYOUT_H_

#include <cstddef>
#include <cstdint>

#include "devices/hyperv/hv_status.h"

namespace vmm {

enum class HypercallCode : uint16_t {
  kFlushVirtualAddressSpace = 0x0002,
  kFlushVirtualAddressList = 0x0003,
  kNotifyLongSpinWait = 0x0008,
  kSendSyntheticClusterIpi = 0x000b,
  kModifyVtlProtectionMask = 0x000c,
  kEnablePartitionVtl = 0x000d,
  kEnableVpVtl = 0x000f,
  kVtlCall = 0x0011,
  kVtlReturn = 0x0012,
  kFlushVirtualAddressSpaceEx = 0x0013,
  kFlushVirtualAddressListEx = 0x0014,
  kSendSyntheticClusterIpiEx = 0x0015,
  kGetPartitionId = 0x0046,
  kInstallIntercept = 0x004d,
  kGetVpRegisters = 0x0050,
  kSetVpRegisters = 0x0051,
  kTranslateVirtualAddress = 0x0052,
  kPostMessage = 0x005c,
  kSignalEvent = 0x005d,
  kAssertVirtualInterrupt = 0x0094,
  kStartVirtualProcessor = 0x0099,
  kGetVpIndexFromApicId = 0x009a,
  kTranslateVirtualAddressEx = 0x00ac,
  kExtQueryCapabilities = 0x8001,
};

// The hypercall input value.
class HypercallInput final {
 public:
  constexpr explicit HypercallInput(uint64_t raw) noexcept : raw_(raw) {}
  [[nodiscard]] constexpr uint64_t raw() const noexcept { return raw_; }

  [[nodiscard]] constexpr uint16_t code() const noexcept { return static_cast<uint16_t>(raw_); }  // 15:0
  [[nodiscard]] constexpr bool fast() const noexcept { return ((raw_ >> 16) & 1) != 0; }
  // 26:17, in units of 8 bytes; this is bytes.
  [[nodiscard]] constexpr uint32_t variable_header_bytes() const noexcept {
    return static_cast<uint32_t>((raw_ >> kVariableHeaderShift) & 0x3ff) * 8;
  }
  [[nodiscard]] constexpr uint16_t rep_count() const noexcept {  // 43:32
    return static_cast<uint16_t>((raw_ >> kRepCountShift) & kRepMask);
  }
  [[nodiscard]] constexpr uint16_t rep_start() const noexcept {  // 59:48
    return static_cast<uint16_t>((raw_ >> kRepStartShift) & kRepMask);
  }
  // 30:27, 47:44, 63:60; and 31, IsNested: only a root that runs below another hypervisor may set it, and none does here.
  [[nodiscard]] constexpr bool has_reserved_bits() const noexcept { return (raw_ & 0xf000'f000'f800'0000) != 0; }

  [[nodiscard]] constexpr HypercallInput WithRepStart(uint16_t start) const noexcept {
    return HypercallInput((raw_ & ~(uint64_t{kRepMask} << kRepStartShift)) | (uint64_t{start} & kRepMask) << kRepStartShift);
  }

  static constexpr unsigned kVariableHeaderShift = 17;
  static constexpr unsigned kRepCountShift = 32;
  static constexpr unsigned kRepStartShift = 48;
  static constexpr uint16_t kRepMask = 0xfff;
  static constexpr uint64_t kFast = uint64_t{1} << 16;

 private:
  uint64_t raw_;
};

// The hypercall result value: 15:0 status, 43:32 reps completed (absolute: those before the rep start index count), rest 0.
constexpr uint64_t MakeHypercallResult(HvStatus status, uint16_t reps_completed) noexcept {
  return static_cast<uint64_t>(status) | (uint64_t{reps_completed} & HypercallInput::kRepMask) << HypercallInput::kRepCountShift;
}

// The registers of VtlCall or VtlReturn, as the hypercall page's code has left them. A level decides what is wrong with them.
struct VtlSwitchRequest {
  uint64_t control_word;   // RCX, or EDX:EAX: the hypercall input value
  uint64_t control_input;  // RAX, or ECX
  constexpr bool operator==(const VtlSwitchRequest&) const = default;
};

inline constexpr uint64_t kHypercallParameterAlignment = 8;

// The fast form's registers as slots of 16 bytes: slot 0 is RDX then R8 (32-bit: EBX:ECX then EDI:ESI), slots 1 to 6 are XMM0 to
// XMM5. Input fills them from slot 0, output begins at the first slot behind it.
inline constexpr size_t kHypercallSlotBytes = 16;
inline constexpr size_t kHypercallSlots = 7;
inline constexpr size_t kHypercallFastBytes = kHypercallSlots * kHypercallSlotBytes;

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_HYPERCALL_HYPERCALL_LAYOUT_H_
