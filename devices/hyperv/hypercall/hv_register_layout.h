// The names of virtual processors' registers, as Get/SetVpRegisters use them.
//
// Shapes   a name is 32 bits, a value 16 bytes; registers of 64 bits or less use the low half, the rest is 0.
// Source   Hyper-V TLFS, "HV_REGISTER_NAME"; numbers of the VSM registers as "Virtual Secure Mode" has them.
#ifndef VMM_DEVICES_HYPERV_HYPERCALL_HV_REGISTER_LAYOUT_H_
#define VMM_DEVICES_HYPERV_HYPERCALL_HV_REGISTER_LAYOUT_H_

#include <cstdint>

namespace vmm {

struct HvRegisterValue {
  uint64_t low;
  uint64_t high;
  constexpr bool operator==(const HvRegisterValue&) const = default;
};
static_assert(sizeof(HvRegisterValue) == 16);

// What a guest wrote where a register's name belongs: any number. The enumerators are those that this project knows.
enum class HvRegisterName : uint32_t {
  kExplicitSuspend = 0x0000'0000,
  kInternalActivityState = 0x0000'0004,
  kHypervisorVersion = 0x0000'0100,
  kPrivilegesAndFeatures = 0x0000'0200,
  kFeatures = 0x0000'0201,
  kLimits = 0x0000'0202,
  kHardwareFeatures = 0x0000'0203,
  kCrashP0 = 0x0000'0210,  // to P4, 0x214
  kCrashP4 = 0x0000'0214,
  kCrashCtl = 0x0000'0215,
  kTscFrequency = 0x0000'0240,
  kApicFrequency = 0x0000'0241,
  kGuestIdle = 0x0000'0250,

  kPendingInterruption = 0x0001'0002,
  kInterruptState = 0x0001'0003,
  kPendingEvent0 = 0x0001'0004,
  kPendingEvent1 = 0x0001'0005,
  kDeliverabilityNotifications = 0x0001'0006,

  // RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15: the order of their encoding.
  kRax = 0x0002'0000,
  kRcx = 0x0002'0001,
  kRdx = 0x0002'0002,
  kRbx = 0x0002'0003,
  kRsp = 0x0002'0004,
  kRbp = 0x0002'0005,
  kRsi = 0x0002'0006,
  kRdi = 0x0002'0007,
  kR8 = 0x0002'0008,
  kR15 = 0x0002'000f,
  kRip = 0x0002'0010,
  kRflags = 0x0002'0011,
  kXmm0 = 0x0003'0000,  // to XMM15
  kFpControlStatus = 0x0003'0018,
  kXmmControlStatus = 0x0003'0019,
  kCr0 = 0x0004'0000,
  kCr2 = 0x0004'0001,
  kCr3 = 0x0004'0002,
  kCr4 = 0x0004'0003,
  kCr8 = 0x0004'0004,
  kXcr0 = 0x0004'0005,
  kDr0 = 0x0005'0000,  // to DR3
  kDr3 = 0x0005'0003,
  kDr6 = 0x0005'0004,
  kDr7 = 0x0005'0005,
  kEs = 0x0006'0000,
  kCs = 0x0006'0001,
  kSs = 0x0006'0002,
  kDs = 0x0006'0003,
  kFs = 0x0006'0004,
  kGs = 0x0006'0005,
  kLdtr = 0x0006'0006,
  kTr = 0x0006'0007,
  kIdtr = 0x0007'0000,
  kGdtr = 0x0007'0001,
  kTsc = 0x0008'0000,
  kEfer = 0x0008'0001,
  kKernelGsBase = 0x0008'0002,
  kApicBase = 0x0008'0003,
  kPat = 0x0008'0004,
  kSysenterCs = 0x0008'0005,
  kSysenterEip = 0x0008'0006,
  kSysenterEsp = 0x0008'0007,
  kStar = 0x0008'0008,
  kLstar = 0x0008'0009,
  kCstar = 0x0008'000a,
  kSfmask = 0x0008'000b,
  kInitialApicId = 0x0008'000c,
  kTscAux = 0x0008'007b,

  kVpRuntime = 0x0009'0000,
  kHypercall = 0x0009'0001,
  kGuestOsId = 0x0009'0002,
  kVpIndex = 0x0009'0003,
  kTimeRefCount = 0x0009'0004,
  kEoi = 0x0009'0010,
  kIcr = 0x0009'0011,
  kTpr = 0x0009'0012,
  kVpAssistPage = 0x0009'0013,
  kReferenceTsc = 0x0009'0017,
  kSint0 = 0x000a'0000,  // to SINT15
  kSint15 = 0x000a'000f,
  kScontrol = 0x000a'0010,
  kSversion = 0x000a'0011,
  kSiefp = 0x000a'0012,
  kSimp = 0x000a'0013,
  kEom = 0x000a'0014,
  kStimer0Config = 0x000b'0000,  // CONFIG and COUNT of four timers in turn
  kStimer3Count = 0x000b'0007,

  kVsmCodePageOffsets = 0x000d'0002,
  kVsmVpStatus = 0x000d'0003,
  kVsmPartitionStatus = 0x000d'0004,
  kVsmVina = 0x000d'0005,
  kVsmCapabilities = 0x000d'0006,
  kVsmPartitionConfig = 0x000d'0007,
  kVsmVpSecureConfigVtl0 = 0x000d'0010,  // one for each lower level
  kCrInterceptControl = 0x000e'0000,
  kCrInterceptCr0Mask = 0x000e'0001,
  kCrInterceptCr4Mask = 0x000e'0002,
  kCrInterceptMiscEnableMask = 0x000e'0003,
};

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_HYPERCALL_HV_REGISTER_LAYOUT_H_
