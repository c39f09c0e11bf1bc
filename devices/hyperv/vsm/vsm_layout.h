// The bits of the registers of Virtual Secure Mode, its protection flags, and the VP assist page.
//
// Shapes   registers are 64 bits, a pending event 128; the page is 4096 bytes, its fields used here end at 32.
// Threads  plain numbers and data.
// Trust    the assist page is the guest's to write, at any time: VpAssistPage (vp_assist_page.h) is how it is touched.
// Source   Hyper-V TLFS, "Virtual Secure Mode" and "Virtual Processors". Where its tables count a register's bits from the top
//          (VsmCapabilities), they are counted from the bottom here, as Linux, OpenVMM and Microsoft's own guests do.
#ifndef VMM_DEVICES_HYPERV_VSM_VSM_LAYOUT_H_
#define VMM_DEVICES_HYPERV_VSM_VSM_LAYOUT_H_

#include <cstddef>
#include <cstdint>

#include "devices/hyperv/hv_types.h"

namespace vmm {

// A set of levels: bit n is level n.
using VtlSet = uint16_t;
constexpr VtlSet VtlBit(Vtl vtl) noexcept { return static_cast<VtlSet>(1u << vtl.raw()); }
constexpr bool Has(VtlSet set, Vtl vtl) noexcept { return (set & VtlBit(vtl)) != 0; }
constexpr VtlSet VtlsBelow(Vtl vtl) noexcept { return static_cast<VtlSet>(VtlBit(vtl) - 1); }

// VsmCodePageOffsets: 11:0 of the call, 23:12 of the return.
inline constexpr unsigned kHvVsmReturnOffsetShift = 12;

// VsmVpStatus: 3:0 active level, 4 ActiveMbecEnabled, 31:16 enabled on this VP.
inline constexpr uint64_t kHvVpStatusActiveMbec = 1 << 4;
inline constexpr unsigned kHvVpStatusEnabledShift = 16;

// VsmPartitionStatus: 15:0 enabled, 19:16 the highest that may be, 35:20 with MBEC.
inline constexpr unsigned kHvPartitionStatusMaximumShift = 16;
inline constexpr unsigned kHvPartitionStatusMbecShift = 20;

// VsmCapabilities: 0 Dr6Shared, 16:1 MbecVtlMask, 17 DenyLowerVtlStartup.
inline constexpr uint64_t kHvVsmDr6Shared = 1;
inline constexpr unsigned kHvVsmMbecShift = 1;
inline constexpr uint64_t kHvVsmCanDenyStartup = 1 << 17;

// VsmPartitionConfig: 0 EnableVtlProtection, 4:1 DefaultVtlProtectionMask, 5 ZeroMemoryOnReset, 6 DenyLowerVtlStartup. What is
// above are intercepts that a VTL2 may want; none is offered.
inline constexpr uint64_t kHvConfigEnableProtection = 1;
inline constexpr unsigned kHvConfigDefaultShift = 1;
inline constexpr uint64_t kHvConfigDefaultMask = 0xf << kHvConfigDefaultShift;
inline constexpr uint64_t kHvConfigZeroMemory = 1 << 5;
inline constexpr uint64_t kHvConfigDenyStartup = 1 << 6;
inline constexpr uint64_t kHvConfigKnown = 0x7f;
inline constexpr uint64_t kHvConfigReset = kHvConfigDefaultMask | kHvConfigZeroMemory;

// VsmVpSecureConfigVtlN: 0 MbecEnabled, 1 TlbLocked.
inline constexpr uint64_t kHvSecureMbec = 1;
inline constexpr uint64_t kHvSecureTlbLocked = 2;

// VsmVina: 7:0 vector, 8 Enabled, 9 AutoReset, 10 AutoEoi.
inline constexpr uint64_t kHvVinaEnabled = 1 << 8;
inline constexpr uint64_t kHvVinaAutoReset = 1 << 9;
inline constexpr uint64_t kHvVinaAutoEoi = 1 << 10;
inline constexpr uint64_t kHvVinaKnown = 0x7ff;

// CrInterceptControl, by bit.
enum class CrEvent : uint8_t {
  kCr0Write = 0,
  kCr4Write = 1,
  kXcr0Write = 2,
  kMiscEnableRead = 3,
  kMiscEnableWrite = 4,
  kLstarRead = 5,
  kLstarWrite = 6,
  kStarRead = 7,
  kStarWrite = 8,
  kCstarRead = 9,
  kCstarWrite = 10,
  kApicBaseRead = 11,
  kApicBaseWrite = 12,
  kEferRead = 13,
  kEferWrite = 14,
  kGdtrWrite = 15,
  kIdtrWrite = 16,
  kLdtrWrite = 17,
  kTrWrite = 18,
  kSysenterCsWrite = 19,
  kSysenterEipWrite = 20,
  kSysenterEspWrite = 21,
  kSfmaskWrite = 22,
  kTscAuxWrite = 23,
  kSgxControlWrite = 24,
};
inline constexpr uint64_t kHvCrInterceptKnown = (uint64_t{1} << 25) - 1;

// PendingEvent0, low half: 0 pending, 3:1 type, 8 deliver the error code, 31:16 vector, 63:32 error code. High half: parameter,
// CR2 of a page fault or DR6 of a debug exception.
inline constexpr uint64_t kHvEventPending = 1;
inline constexpr unsigned kHvEventTypeShift = 1;
inline constexpr uint64_t kHvEventTypeMask = 7;
inline constexpr uint64_t kHvEventTypeException = 0;
inline constexpr uint64_t kHvEventDeliverErrorCode = 1 << 8;
inline constexpr unsigned kHvEventVectorShift = 16;
inline constexpr unsigned kHvEventErrorCodeShift = 32;
inline constexpr uint64_t kHvEventReserved = 0xfef0;

// What ModifyVtlProtectionMask and the default mask say of a page. Bits 2 and 3 are kernel and user execution in this order, as
// Linux and OpenVMM have it; a section of version 6.0b has them swapped.
inline constexpr uint32_t kHvProtectRead = 1;
inline constexpr uint32_t kHvProtectWrite = 2;
inline constexpr uint32_t kHvProtectKernelExecute = 4;
inline constexpr uint32_t kHvProtectUserExecute = 8;
inline constexpr uint32_t kHvProtectAll = 0xf;

// EnablePartitionVtl.
inline constexpr uint8_t kHvEnableMbec = 1;

// Why a level was entered, in the VP assist page of the level that was.
enum class VtlEntryReason : uint32_t {
  kReserved = 0,
  kVtlCall = 1,
  kInterrupt = 2,  // also for an intercept: its message comes by SINT0
  kIntercept = 3,  // with the intercept page, which is not offered
};

inline constexpr uint8_t kHvVinaAsserted = 1;

struct HvVpAssistPage {
  uint32_t apic_assist;
  uint32_t reserved0;
  uint32_t entry_reason;
  uint8_t vina_status;  // bit 0 asserted
  uint8_t reserved1[3];
  uint64_t vtl_return_rax;  // a 32-bit level has EAX and ECX here
  uint64_t vtl_return_rcx;  // and EDX in the low half here
};
static_assert(offsetof(HvVpAssistPage, entry_reason) == 8);
static_assert(offsetof(HvVpAssistPage, vina_status) == 12);
static_assert(offsetof(HvVpAssistPage, vtl_return_rax) == 16);
static_assert(offsetof(HvVpAssistPage, vtl_return_rcx) == 24);
static_assert(sizeof(HvVpAssistPage) == 32);

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_VSM_VSM_LAYOUT_H_
