// Which accesses of MSRs CrInterceptControl asks for.
//
// Shapes   one row an MSR; a pure table.
// Threads  any; immutable.
// Trust    any number.
// Errors   nothing: no bit of CrInterceptControl is about that access.
// Source   Hyper-V TLFS, "HvRegisterCrInterceptControl"; MSR numbers: Intel SDM volume 4, AMD64 APM volume 2.
#ifndef VMM_DEVICES_HYPERV_VSM_MSR_INTERCEPTS_H_
#define VMM_DEVICES_HYPERV_VSM_MSR_INTERCEPTS_H_

#include <cstdint>
#include <optional>
#include <span>

#include "devices/hyperv/vsm/vsm_layout.h"

namespace vmm {

struct InterceptedMsr {
  uint32_t msr;
  std::optional<CrEvent> read;
  std::optional<CrEvent> write;
};

// By number.
[[nodiscard]] std::span<const InterceptedMsr> InterceptedMsrs() noexcept;
[[nodiscard]] std::optional<CrEvent> CrEventOf(uint32_t msr, bool write) noexcept;

constexpr uint64_t CrEventBit(CrEvent event) noexcept { return uint64_t{1} << static_cast<unsigned>(event); }

// The bits that are about MSRs. The others (CR0, CR4, XCR0, GDTR, IDTR, LDTR, TR) are about instructions of their own.
[[nodiscard]] uint64_t MsrCrEvents() noexcept;

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_VSM_MSR_INTERCEPTS_H_
