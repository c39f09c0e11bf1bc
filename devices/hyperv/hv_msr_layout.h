// The numbers and bits of the Hyper-V MSRs.
//
// Source   Hyper-V TLFS, "Hypervisor Synthetic MSRs" and the sections of each register.
#ifndef VMM_DEVICES_HYPERV_HV_MSR_LAYOUT_H_
#define VMM_DEVICES_HYPERV_HV_MSR_LAYOUT_H_

#include <cstdint>

namespace vmm {

// Every MSR of the interface is in here; what is not listed below is #GP.
inline constexpr uint32_t kHvMsrFirst = 0x4000'0000;
inline constexpr uint32_t kHvMsrCount = 0x200;

inline constexpr uint32_t kHvMsrGuestOsId = 0x4000'0000;
inline constexpr uint32_t kHvMsrHypercall = 0x4000'0001;
inline constexpr uint32_t kHvMsrVpIndex = 0x4000'0002;
inline constexpr uint32_t kHvMsrReset = 0x4000'0003;
inline constexpr uint32_t kHvMsrVpRuntime = 0x4000'0010;
inline constexpr uint32_t kHvMsrTimeRefCount = 0x4000'0020;
inline constexpr uint32_t kHvMsrReferenceTsc = 0x4000'0021;
inline constexpr uint32_t kHvMsrTscFrequency = 0x4000'0022;
inline constexpr uint32_t kHvMsrApicFrequency = 0x4000'0023;
inline constexpr uint32_t kHvMsrEoi = 0x4000'0070;
inline constexpr uint32_t kHvMsrIcr = 0x4000'0071;
inline constexpr uint32_t kHvMsrTpr = 0x4000'0072;
inline constexpr uint32_t kHvMsrVpAssistPage = 0x4000'0073;
inline constexpr uint32_t kHvMsrScontrol = 0x4000'0080;
inline constexpr uint32_t kHvMsrSversion = 0x4000'0081;
inline constexpr uint32_t kHvMsrSiefp = 0x4000'0082;
inline constexpr uint32_t kHvMsrSimp = 0x4000'0083;
inline constexpr uint32_t kHvMsrEom = 0x4000'0084;
inline constexpr uint32_t kHvMsrSint0 = 0x4000'0090;         // to 0x9f
inline constexpr uint32_t kHvMsrStimer0Config = 0x4000'00b0;  // CONFIG and COUNT of four timers in turn, to 0xb7
inline constexpr uint32_t kHvMsrStimer3Count = 0x4000'00b7;
inline constexpr uint32_t kHvMsrGuestIdle = 0x4000'00f0;
inline constexpr uint32_t kHvMsrCrashP0 = 0x4000'0100;  // to P4, 0x104
inline constexpr uint32_t kHvMsrCrashP4 = 0x4000'0104;
inline constexpr uint32_t kHvMsrCrashCtl = 0x4000'0105;

// GUEST_OS_ID: 0 says "none", and the hypercall page goes.

// HYPERCALL, REFERENCE_TSC, VP_ASSIST_PAGE, SIEFP, SIMP: 63:12 guest page number, 0 Enable, rest preserved.
inline constexpr uint64_t kHvOverlayEnable = 1;
inline constexpr unsigned kHvOverlayPageShift = 12;
inline constexpr uint64_t kHvHypercallLocked = 2;  // HYPERCALL only: immutable until the partition is reset

// RESET: 0 Reset, 63:1 zero.
inline constexpr uint64_t kHvResetNow = 1;

// SCONTROL: 0 Enable, rest preserved.
inline constexpr uint64_t kHvScontrolEnable = 1;
inline constexpr uint64_t kHvSynicVersion = 1;

// SINTx: 7:0 vector, 16 Masked, 17 AutoEOI, 18 Polling, rest preserved.
inline constexpr uint64_t kHvSintVectorMask = 0xff;
inline constexpr uint64_t kHvSintMasked = uint64_t{1} << 16;
inline constexpr uint64_t kHvSintAutoEoi = uint64_t{1} << 17;
inline constexpr uint64_t kHvSintPolling = uint64_t{1} << 18;
inline constexpr uint64_t kHvSintReset = kHvSintMasked;
inline constexpr uint8_t kHvFirstVector = 16;  // the lowest that an interrupt may have

// STIMERx_CONFIG: 0 Enable, 1 Periodic, 2 Lazy, 3 AutoEnable, 11:4 vector, 12 DirectMode, 19:16 SINT, rest zero.
inline constexpr uint64_t kHvStimerEnable = 1;
inline constexpr uint64_t kHvStimerPeriodic = 2;
inline constexpr uint64_t kHvStimerLazy = 4;
inline constexpr uint64_t kHvStimerAutoEnable = 8;
inline constexpr unsigned kHvStimerVectorShift = 4;
inline constexpr uint64_t kHvStimerDirect = uint64_t{1} << 12;
inline constexpr unsigned kHvStimerSintShift = 16;
inline constexpr uint64_t kHvStimerReserved = ~uint64_t{0xf'1fff};
inline constexpr uint32_t kHvStimerCount = 4;

// CRASH_CTL: 63 CrashNotify, 62 CrashMessage (P3 is the address of a text, P4 its length, at most a page).
inline constexpr uint64_t kHvCrashNotify = uint64_t{1} << 63;
inline constexpr uint64_t kHvCrashMessage = uint64_t{1} << 62;

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_HV_MSR_LAYOUT_H_
