// The Hyper-V CPUID leaves, and that the MSRs are what they promise.
#include "devices/hyperv/hv_cpuid_layout.h"
#include "devices/hyperv/hv_msr_layout.h"
#include "tests/guests/runtime/cpu.h"
#include "tests/guests/runtime/interrupts.h"
#include "tests/guests/runtime/smp.h"
#include "tests/guests/runtime/test.h"

namespace guest {
namespace {

using namespace vmm;

constexpr uint32_t kFirstLeaf = 0x4000'0000;
constexpr uint32_t kLastLeaf = 0x4000'0006;

// What a TEST machine offers: no more and no less.
constexpr HvOffer Expected() {
  HvOffer offer;
  offer.With(HvPrivilege::kVpRuntime).With(HvPrivilege::kTimeRefCount).With(HvPrivilege::kSynicRegs);
  offer.With(HvPrivilege::kSyntheticTimerRegs).With(HvPrivilege::kIntrCtrlRegs).With(HvPrivilege::kHypercallMsrs);
  offer.With(HvPrivilege::kVpIndex).With(HvPrivilege::kReset).With(HvPrivilege::kReferenceTsc).With(HvPrivilege::kFrequencyRegs);
  offer.With(HvPrivilege::kPostMessages).With(HvPrivilege::kSignalEvents).With(HvPrivilege::kVpRegisters);
  offer.With(HvPrivilege::kFastHypercallOutput).With(HvPrivilege::kExtendedHypercalls).With(HvPrivilege::kStartVirtualProcessor);
  offer.With(HvFeature::kXmmInput).With(HvFeature::kFrequencyRegs).With(HvFeature::kCrashRegs).With(HvFeature::kXmmOutput);
  offer.With(HvFeature::kSintPolling).With(HvFeature::kHypercallLock).With(HvFeature::kDirectTimers);
  return offer;
}

HvOffer Offer() {
  const CpuidResult features = Cpuid(0x4000'0003);
  return {.privileges = uint64_t{features.ebx} << 32 | features.eax, .features = features.edx};
}

TEST(AHypervisorIsPresent) {
  OnEachCpu([] { EXPECT_EQ(Cpuid(1).ecx >> 31, 1u); });
}

TEST(TheInterfaceIsHyperV) {
  const CpuidResult vendor = Cpuid(kFirstLeaf);
  EXPECT_EQ(vendor.eax, kLastLeaf);
  EXPECT_EQ(vendor.ebx, 0x7263'694du);  // "Micr"
  EXPECT_EQ(vendor.ecx, 0x666f'736fu);  // "osof"
  EXPECT_EQ(vendor.edx, 0x7648'2074u);  // "t Hv"
  const CpuidResult interface = Cpuid(kFirstLeaf + 1);
  EXPECT_EQ(interface.eax, 0x3123'7648u);  // "Hv#1"
  EXPECT_EQ(interface.ebx | interface.ecx | interface.edx, 0u);
  const CpuidResult version = Cpuid(kFirstLeaf + 2);
  EXPECT_EQ(version.eax, 14393u);
  EXPECT_EQ(version.ebx, 10u << 16);
}

TEST(PrivilegesAndFeaturesAreTheOnesOffered) {
  EXPECT_EQ(Offer().privileges, Expected().privileges);
  EXPECT_EQ(Offer().features, Expected().features);
  EXPECT_EQ(Cpuid(0x4000'0003).ecx, 0u);
}

TEST(WhatIsRecommendedIsOffered) {
  const CpuidResult recommendations = Cpuid(0x4000'0004);
  const HvOffer said{.recommendations = recommendations.eax};
  HvOffer expected;
  expected.With(HvRecommendation::kRemoteTlbFlush).With(HvRecommendation::kRelaxedTiming).With(HvRecommendation::kNoAutoEoi);
  expected.With(HvRecommendation::kClusterIpi).With(HvRecommendation::kExProcessorMasks);
  EXPECT_EQ(said.recommendations, expected.recommendations);
  EXPECT_EQ(recommendations.ebx, 0xfffu);
  EXPECT_EQ(recommendations.ecx, 0u);
  EXPECT_EQ(recommendations.edx, 0u);
}

TEST(LimitsAreTheMachines) {
  const CpuidResult limits = Cpuid(0x4000'0005);
  EXPECT_EQ(limits.eax, CpuCount());
  EXPECT_EQ(limits.ebx, CpuCount());
  EXPECT_EQ(limits.ecx | limits.edx, 0u);
}

TEST(LeavesAreTheSameOnAllProcessors) {
  for (uint32_t leaf = kFirstLeaf; leaf <= kLastLeaf; ++leaf) {
    const Context context("leaf", leaf);
    const CpuidResult here = Cpuid(leaf);
    OnEachCpu([&] {
      const CpuidResult there = Cpuid(leaf);
      const bool same = there.eax == here.eax && there.ebx == here.ebx && there.ecx == here.ecx && there.edx == here.edx;
      EXPECT_TRUE(same);
    });
  }
}

// A guest that looks for hypervisors at every 0x100th leaf takes the last: KVM's must not be there.
TEST(NoOtherHypervisorHasLeaves) {
  for (uint32_t leaf = kFirstLeaf + 0x100; leaf < kFirstLeaf + 0x1'0000; leaf += 0x100) {
    const CpuidResult result = Cpuid(leaf);
    if (result.ebx != 0x4b4d'564b) continue;  // "KVMK"
    const Context context("leaf", leaf);
    EXPECT_NE(result.ebx, 0x4b4d'564bu);
  }
  EXPECT_EQ(Cpuid(kFirstLeaf + 7).eax, 0u);
  EXPECT_EQ(Cpuid(kFirstLeaf + 0xa).eax, 0u);
  EXPECT_EQ(Cpuid(kFirstLeaf + 0xc).eax, 0u);
}

// One register for each privilege that registers have: to be read if and only if the bit is set.
TEST(RegistersAnswerIfTheirBitIsSet) {
  struct Promise {
    uint32_t msr;
    bool promised;
  };
  const HvOffer offer = Offer();
  const bool frequencies = offer.Has(HvPrivilege::kFrequencyRegs) && offer.Has(HvFeature::kFrequencyRegs);
  const Promise promises[] = {
      {kHvMsrVpRuntime, offer.Has(HvPrivilege::kVpRuntime)},
      {kHvMsrTimeRefCount, offer.Has(HvPrivilege::kTimeRefCount)},
      {kHvMsrScontrol, offer.Has(HvPrivilege::kSynicRegs)},
      {kHvMsrSint0 + 15, offer.Has(HvPrivilege::kSynicRegs)},
      {kHvMsrStimer0Config, offer.Has(HvPrivilege::kSyntheticTimerRegs)},
      {kHvMsrStimer3Count, offer.Has(HvPrivilege::kSyntheticTimerRegs)},
      {kHvMsrIcr, offer.Has(HvPrivilege::kIntrCtrlRegs)},
      {kHvMsrTpr, offer.Has(HvPrivilege::kIntrCtrlRegs)},
      {kHvMsrVpAssistPage, offer.Has(HvPrivilege::kIntrCtrlRegs)},
      {kHvMsrGuestOsId, offer.Has(HvPrivilege::kHypercallMsrs)},
      {kHvMsrHypercall, offer.Has(HvPrivilege::kHypercallMsrs)},
      {kHvMsrVpIndex, offer.Has(HvPrivilege::kVpIndex)},
      {kHvMsrReset, offer.Has(HvPrivilege::kReset)},
      {kHvMsrReferenceTsc, offer.Has(HvPrivilege::kReferenceTsc)},
      {kHvMsrTscFrequency, frequencies},
      {kHvMsrApicFrequency, frequencies},
      {kHvMsrCrashP0, offer.Has(HvFeature::kCrashRegs)},
      {kHvMsrCrashCtl, offer.Has(HvFeature::kCrashRegs)},
      {kHvMsrGuestIdle, offer.Has(HvPrivilege::kGuestIdle)},
      {0x4000'0106, (offer.privileges >> 13 & 1) != 0},  // reenlightenment
      {0x4000'0118, (offer.privileges >> 15 & 1) != 0},  // TSC invariant
      {0x4000'0114, (offer.features >> 23 & 1) != 0},    // time-unhalted timer
      {0x4000'00f1, (offer.features >> 11 & 1) != 0},    // debug registers
  };
  for (const Promise& promise : promises) {
    const Context context("msr", promise.msr);
    uint64_t value;
    EXPECT_EQ(TryReadMsr(promise.msr, value).vector, promise.promised ? kNoFault : kGeneralProtection);
  }
}

TEST(DirectTimersAndTheLockAreAsTheirBitsSay) {
  const HvOffer offer = Offer();
  ASSERT_TRUE(offer.Has(HvFeature::kDirectTimers));
  EXPECT_NO_FAULT(WriteMsr(kHvMsrStimer0Config, kHvStimerDirect));
  EXPECT_EQ(ReadMsr(kHvMsrStimer0Config), kHvStimerDirect);
  WriteMsr(kHvMsrStimer0Config, 0);
  EXPECT_TRUE(offer.Has(HvFeature::kHypercallLock));  // hv_overlay_test locks it
}

}  // namespace
}  // namespace guest
