#include "devices/hyperv/cpuid/hv_cpuid.h"

namespace vmm {
namespace {

// Four bytes as they stand in a register.
constexpr uint32_t Text(const char (&text)[5]) {
  uint32_t value = 0;
  for (unsigned i = 0; i < 4; ++i) value |= static_cast<uint32_t>(static_cast<unsigned char>(text[i])) << 8 * i;
  return value;
}

// The first version that has all of the interface given here: Windows Server 2016's, which KVM reports of itself too.
constexpr uint32_t kBuild = 14393;
constexpr uint32_t kMajor = 10;
constexpr uint32_t kMinor = 0;

}  // namespace

HvCpuid HvCpuidLeaves(const HvOffer& offer, uint32_t hardware) noexcept {
  return {{
      // "Hv#1" below is what tells the interface; Linux looks at this name.
      {0x4000'0000, kHvCpuidLast, Text("Micr"), Text("osof"), Text("t Hv")},
      {0x4000'0001, Text("Hv#1"), 0, 0, 0},
      {0x4000'0002, kBuild, kMajor << 16 | kMinor, 0, 0},
      {0x4000'0003, static_cast<uint32_t>(offer.privileges), static_cast<uint32_t>(offer.privileges >> 32), 0, offer.features},
      // ECX 0: as many physical address bits as leaf 0x80000008 says.
      {0x4000'0004, offer.recommendations, offer.spin_retries, 0, 0},
      {0x4000'0005, offer.max_vps, offer.max_vps, 0, 0},
      {0x4000'0006, hardware, 0, 0, 0},
  }};
}

HvOffer StandardHvOffer(const HvOfferOptions& options) noexcept {
  HvOffer offer;
  for (const HvPrivilege privilege :
       {HvPrivilege::kVpRuntime, HvPrivilege::kTimeRefCount, HvPrivilege::kSynicRegs, HvPrivilege::kSyntheticTimerRegs,
        HvPrivilege::kIntrCtrlRegs, HvPrivilege::kHypercallMsrs, HvPrivilege::kVpIndex, HvPrivilege::kReset,
        HvPrivilege::kReferenceTsc, HvPrivilege::kFrequencyRegs, HvPrivilege::kPostMessages, HvPrivilege::kSignalEvents,
        HvPrivilege::kVpRegisters, HvPrivilege::kFastHypercallOutput, HvPrivilege::kExtendedHypercalls,
        HvPrivilege::kStartVirtualProcessor}) {
    offer.With(privilege);
  }
  for (const HvFeature feature : {HvFeature::kXmmInput, HvFeature::kFrequencyRegs, HvFeature::kCrashRegs, HvFeature::kXmmOutput,
                                  HvFeature::kSintPolling, HvFeature::kHypercallLock, HvFeature::kDirectTimers}) {
    offer.With(feature);
  }
  if (options.vsm) offer.With(HvPrivilege::kVsm);
  if (options.partition_id) offer.With(HvPrivilege::kPartitionId);
  if (options.remote_tlb_flush) offer.With(HvRecommendation::kRemoteTlbFlush);
  if (options.apic_msrs) offer.With(HvRecommendation::kApicMsrs);
  if (options.reset_msr) offer.With(HvRecommendation::kResetMsr);
  if (options.relaxed_timing) offer.With(HvRecommendation::kRelaxedTiming);
  if (options.no_auto_eoi) offer.With(HvRecommendation::kNoAutoEoi);
  if (options.cluster_ipi) offer.With(HvRecommendation::kClusterIpi);
  if (options.ex_processor_masks) offer.With(HvRecommendation::kExProcessorMasks);
  offer.spin_retries = options.spin_retries;
  offer.max_vps = options.max_vps;
  return offer;
}

}  // namespace vmm
