// The bits of the Hyper-V CPUID leaves that this project gives or asks for, and what a partition offers.
//
// Source   Hyper-V TLFS, "Feature and Interface Discovery".
#ifndef VMM_DEVICES_HYPERV_HV_CPUID_LAYOUT_H_
#define VMM_DEVICES_HYPERV_HV_CPUID_LAYOUT_H_

#include <cstdint>

namespace vmm {

// 0x40000003: EAX is bits 31:0 of the privileges, EBX bits 63:32.
enum class HvPrivilege : uint8_t {
  kVpRuntime = 0,
  kTimeRefCount = 1,
  kSynicRegs = 2,
  kSyntheticTimerRegs = 3,
  kIntrCtrlRegs = 4,
  kHypercallMsrs = 5,
  kVpIndex = 6,
  kReset = 7,
  kReferenceTsc = 9,
  kGuestIdle = 10,
  kFrequencyRegs = 11,
  kPartitionId = 32 + 1,
  kPostMessages = 32 + 4,
  kSignalEvents = 32 + 5,
  kVsm = 32 + 16,
  kVpRegisters = 32 + 17,
  kFastHypercallOutput = 32 + 19,
  kExtendedHypercalls = 32 + 20,
  kStartVirtualProcessor = 32 + 21,
};

// 0x40000003 EDX.
enum class HvFeature : uint8_t {
  kXmmInput = 4,
  kGuestIdle = 5,
  kFrequencyRegs = 8,
  kCrashRegs = 10,
  kXmmOutput = 15,
  kSintPolling = 17,
  kHypercallLock = 18,
  kDirectTimers = 19,
};

// 0x40000004 EAX.
enum class HvRecommendation : uint8_t {
  kRemoteTlbFlush = 2,
  kApicMsrs = 3,
  kResetMsr = 4,
  kRelaxedTiming = 5,
  kNoAutoEoi = 9,
  kClusterIpi = 10,
  kExProcessorMasks = 11,
};

// What a partition offers: the same on all its VPs, fixed when the machine is made.
struct HvOffer {
  uint64_t privileges = 0;
  uint32_t features = 0;
  uint32_t recommendations = 0;
  uint32_t spin_retries = 0xffff'ffff;  // never notify
  uint32_t max_vps = 1;

  [[nodiscard]] constexpr bool Has(HvPrivilege bit) const noexcept { return ((privileges >> static_cast<unsigned>(bit)) & 1) != 0; }
  [[nodiscard]] constexpr bool Has(HvFeature bit) const noexcept { return ((features >> static_cast<unsigned>(bit)) & 1) != 0; }
  constexpr HvOffer& With(HvPrivilege bit) noexcept { privileges |= uint64_t{1} << static_cast<unsigned>(bit); return *this; }
  constexpr HvOffer& With(HvFeature bit) noexcept { features |= uint32_t{1} << static_cast<unsigned>(bit); return *this; }
  constexpr HvOffer& With(HvRecommendation bit) noexcept {
    recommendations |= uint32_t{1} << static_cast<unsigned>(bit);
    return *this;
  }
};

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_HV_CPUID_LAYOUT_H_
