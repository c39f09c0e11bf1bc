// VP registers that are another name for an MSR, or for a CPUID leaf.
//
// Threads  pure functions.
// Trust    any name.
// Source   Hyper-V TLFS, "HV_REGISTER_NAME".
#ifndef VMM_DEVICES_HYPERV_PARTITION_REGISTER_MSRS_H_
#define VMM_DEVICES_HYPERV_PARTITION_REGISTER_MSRS_H_

#include <cstdint>
#include <optional>

#include "devices/hyperv/hv_cpuid_layout.h"
#include "devices/hyperv/hypercall/hv_register_layout.h"

namespace vmm {

[[nodiscard]] std::optional<uint32_t> MsrOfRegister(HvRegisterName name) noexcept;
[[nodiscard]] bool IsReadOnlyMsr(uint32_t msr) noexcept;
// EAX and EBX in the low half, ECX and EDX in the high one.
[[nodiscard]] std::optional<HvRegisterValue> CpuidRegister(HvRegisterName name, const HvOffer& offer) noexcept;
// General, control, debug, segment, system and floating-point registers.
[[nodiscard]] bool IsArchitectural(HvRegisterName name) noexcept;

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_PARTITION_REGISTER_MSRS_H_
