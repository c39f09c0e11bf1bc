#include "devices/hyperv/vsm/vsm_partition.h"

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/hypercall/hv_vp_context_layout.h"
#include "devices/hyperv/hypercall/vp_context_for_test.h"
#include "devices/hyperv/vsm/enable_vp_vtl.h"
#include "devices/hyperv/vsm/tlb_locks.h"
#include "devices/hyperv/vsm/vsm_layout.h"
#include "devices/hyperv/vsm/vsm_vp.h"

namespace vmm {
namespace {

constexpr Vtl kVtl2{2};
constexpr bool kOwnVp = true;
constexpr bool kOtherVp = false;
constexpr VsmOffer kThreeLevels{.maximum = kVtl2};
constexpr VsmOffer kMbec{.mbec = true};
using ConfigWrite = VsmPartition::ConfigWrite;

constexpr uint64_t Config(uint32_t protection, uint64_t flags = kHvConfigEnableProtection) {
  return uint64_t{protection} << kHvConfigDefaultShift | flags;
}

// --- Enabling on the partition ----------------------------------------------------------------------------------------------

TEST(VsmPartitionTest, BeginsWithVtl0AndSaysWhatMayBe) {
  EXPECT_EQ(VsmPartition({}).status(), 0x1'0001u);
  EXPECT_EQ(VsmPartition(kThreeLevels).status(), 0x2'0001u);
}

TEST(VsmPartitionTest, CapabilitiesAreCountedFromTheBottom) {
  EXPECT_EQ(VsmPartition({}).capabilities(), 1u << 17);
  EXPECT_EQ(VsmPartition({.dr6_shared = true}).capabilities(), 1u << 17 | 1u);
  EXPECT_EQ(VsmPartition(kMbec).capabilities(), 1u << 17 | 0b11u << 1);
}

TEST(VsmPartitionTest, EnablingIsSeenInTheStatus) {
  VsmPartition partition({});
  EXPECT_EQ(partition.Enable(kVtl0, 1, 0), HvStatus::kSuccess);
  EXPECT_EQ(partition.status(), 0x1'0003u);
  EXPECT_TRUE(partition.IsEnabled(kVtl1));
}

TEST(VsmPartitionTest, MbecIsSeenInTheStatusOfTheLevelAndOfThoseBelow) {
  VsmPartition partition(kMbec);
  EXPECT_EQ(partition.Enable(kVtl0, 1, kHvEnableMbec), HvStatus::kSuccess);
  EXPECT_EQ(partition.status(), 0x31'0003u);
  EXPECT_TRUE(partition.IsMbecEnabled(kVtl1));
}

TEST(VsmPartitionTest, LevelsThatMayNotBeAreDenied) {
  VsmPartition partition({});
  for (const uint8_t vtl : {0, 2, 3, 15, 255}) EXPECT_EQ(partition.Enable(kVtl0, vtl, 0), HvStatus::kAccessDenied) << int{vtl};
}

TEST(VsmPartitionTest, EnabledLevelIsNotEnabledAgain) {
  VsmPartition partition({});
  EXPECT_EQ(partition.Enable(kVtl0, 1, 0), HvStatus::kSuccess);
  EXPECT_EQ(partition.Enable(kVtl0, 1, 0xff), HvStatus::kInvalidVtlState);
  EXPECT_EQ(partition.Enable(kVtl1, 1, 0), HvStatus::kInvalidVtlState);
}

TEST(VsmPartitionTest, FlagsThatAreNotOfferedAreRefused) {
  VsmPartition plain({});
  for (unsigned bit = 0; bit < 8; ++bit) {
    EXPECT_EQ(plain.Enable(kVtl0, 1, static_cast<uint8_t>(1 << bit)), HvStatus::kInvalidParameter) << bit;
    if (bit == 0) continue;
    VsmPartition with_mbec(kMbec);
    EXPECT_EQ(with_mbec.Enable(kVtl0, 1, static_cast<uint8_t>(1 << bit)), HvStatus::kInvalidParameter) << bit;
  }
  EXPECT_EQ(plain.status(), 0x1'0001u);
}

TEST(VsmPartitionTest, HigherLevelIsEnabledByTheNextBelow) {
  VsmPartition partition(kThreeLevels);
  EXPECT_EQ(partition.Enable(kVtl0, 1, 0), HvStatus::kSuccess);
  EXPECT_EQ(partition.Enable(kVtl0, 2, 0), HvStatus::kAccessDenied);
  EXPECT_EQ(partition.Enable(kVtl1, 2, 0), HvStatus::kSuccess);
}

TEST(VsmPartitionTest, LevelsNeedNotBeConsecutiveAndLowerOnesAreForAnyAbove) {
  VsmPartition partition(kThreeLevels);
  EXPECT_EQ(partition.Enable(kVtl0, 2, 0), HvStatus::kSuccess);
  EXPECT_EQ(partition.status(), 0x2'0005u);
  EXPECT_EQ(partition.Enable(kVtl2, 1, 0), HvStatus::kSuccess);
}

TEST(VsmPartitionTest, ResetForgetsEverything) {
  VsmPartition partition(kMbec);
  ASSERT_EQ(partition.Enable(kVtl0, 1, kHvEnableMbec), HvStatus::kSuccess);
  ASSERT_EQ(partition.SetConfig(kVtl1, Config(3)).status, HvStatus::kSuccess);
  ASSERT_EQ(partition.ClaimVp(kVtl0, kOwnVp, kVtl1), HvStatus::kSuccess);
  partition.Reset();
  EXPECT_EQ(partition.status(), 0x1'0001u);
  EXPECT_EQ(partition.config(kVtl1), kHvConfigReset);
  ASSERT_EQ(partition.Enable(kVtl0, 1, 0), HvStatus::kSuccess);
  EXPECT_EQ(partition.MayEnableVp(kVtl0, kOwnVp, 1), HvStatus::kSuccess);
}

// --- Enabling on a VP -------------------------------------------------------------------------------------------------------

class EnableVpVtlTest : public testing::Test {
 protected:
  EnableVpVtlTest() { EXPECT_EQ(partition_.Enable(kVtl0, 1, 0), HvStatus::kSuccess); }
  HvStatus Enable(VsmVp& vp, Vtl caller, bool own_vp, uint8_t vtl = 1,
                  const HvInitialVpContext& context = LongModeContext()) {
    return EnableVpVtl(partition_, vp, caller, own_vp, vtl, context);
  }

  VsmPartition partition_{kThreeLevels};
  VsmVp vp0_;
  VsmVp vp1_;
};

TEST_F(EnableVpVtlTest, LowerLevelMayOnceAndOnItsOwnVp) {
  EXPECT_EQ(Enable(vp1_, kVtl0, kOtherVp), HvStatus::kAccessDenied);
  EXPECT_EQ(Enable(vp0_, kVtl0, kOwnVp), HvStatus::kSuccess);
  EXPECT_TRUE(vp0_.IsEnabled(kVtl1));
  EXPECT_EQ(Enable(vp1_, kVtl0, kOwnVp), HvStatus::kAccessDenied);
  EXPECT_FALSE(vp1_.IsEnabled(kVtl1));
}

TEST_F(EnableVpVtlTest, LevelEnablesItselfOnOtherVps) {
  ASSERT_EQ(Enable(vp0_, kVtl0, kOwnVp), HvStatus::kSuccess);
  EXPECT_EQ(Enable(vp1_, kVtl1, kOtherVp), HvStatus::kSuccess);
  EXPECT_TRUE(vp1_.IsEnabled(kVtl1));
  EXPECT_EQ(Enable(vp1_, kVtl1, kOtherVp), HvStatus::kVtlAlreadyEnabled);
  EXPECT_EQ(Enable(vp0_, kVtl1, kOwnVp), HvStatus::kVtlAlreadyEnabled);
}

TEST_F(EnableVpVtlTest, ChecksComeInTheirOrder) {
  HvInitialVpContext bad = LongModeContext();
  bad.rflags = 0;
  EXPECT_EQ(Enable(vp0_, kVtl0, kOtherVp, 0, bad), HvStatus::kInvalidParameter);
  EXPECT_EQ(Enable(vp0_, kVtl0, kOtherVp, 3, bad), HvStatus::kInvalidParameter);
  EXPECT_EQ(Enable(vp0_, kVtl0, kOtherVp, 2, bad), HvStatus::kInvalidVtlState);
  EXPECT_EQ(Enable(vp0_, kVtl0, kOtherVp, 1, bad), HvStatus::kAccessDenied);
  EXPECT_EQ(Enable(vp0_, kVtl0, kOwnVp, 1, bad), HvStatus::kInvalidRegisterValue);
  // What was refused has not used up the first time.
  EXPECT_EQ(Enable(vp0_, kVtl0, kOwnVp), HvStatus::kSuccess);
  EXPECT_EQ(Enable(vp0_, kVtl1, kOwnVp, 1, bad), HvStatus::kVtlAlreadyEnabled);
}

TEST_F(EnableVpVtlTest, RealModeIsVtl0sAlone) {
  EXPECT_EQ(Enable(vp0_, kVtl0, kOwnVp, 1, RealModeContext()), HvStatus::kInvalidRegisterValue);
}

// What the driver of a real VTL0 kernel passes: a null SS, a code segment of length 0, no LDTR and IDTR.
TEST_F(EnableVpVtlTest, UnusableSegmentsAreAccepted) {
  constexpr HvSegmentRegister kData{.selector = 0x10, .attributes = 0x4093};
  const HvInitialVpContext context{.rip = 0xffff'ffff'8100'0000,
                                   .rsp = 0xffff'ffff'8200'0fff,
                                   .rflags = 2,
                                   .cs = {.selector = 8, .attributes = 0x209b},
                                   .ds = kData,
                                   .es = kData,
                                   .fs = kData,
                                   .gs = kData,
                                   .tr = {.base = 0xffff'ffff'8200'2000, .limit = 0x67, .selector = 0x18, .attributes = 0x8b},
                                   .gdtr = {.limit = 0x27, .base = 0xffff'ffff'8200'1000},
                                   .efer = 0xd01,
                                   .cr0 = 0x8001'0033,
                                   .cr3 = 0x1000'0000,
                                   .cr4 = 0xb0,
                                   .pat = 0x0007'0406'0007'0406};
  EXPECT_EQ(Enable(vp0_, kVtl0, kOwnVp, 1, context), HvStatus::kSuccess);
}

TEST_F(EnableVpVtlTest, OfManyFirstTimesOneSucceeds) {
  std::atomic<int> successes{0};
  std::vector<std::thread> threads;
  std::array<VsmVp, 4> vps;
  for (VsmVp& vp : vps) {
    threads.emplace_back([&] {
      const HvStatus status = Enable(vp, kVtl0, kOwnVp);
      if (status == HvStatus::kSuccess) ++successes;
      EXPECT_EQ(vp.IsEnabled(kVtl1), status == HvStatus::kSuccess);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(successes, 1);
}

// --- VsmPartitionConfig -----------------------------------------------------------------------------------------------------

class VsmConfigTest : public testing::Test {
 protected:
  VsmConfigTest() { EXPECT_EQ(partition_.Enable(kVtl0, 1, 0), HvStatus::kSuccess); }
  VsmPartition partition_{kThreeLevels};
};

TEST_F(VsmConfigTest, BeginsWithoutProtectionAndZeroesMemory) {
  EXPECT_EQ(partition_.config(kVtl1), 0x3eu);
  EXPECT_TRUE(partition_.MustZeroMemory());
  EXPECT_FALSE(VsmPartition({}).MustZeroMemory());
}

TEST_F(VsmConfigTest, NeedsTheLevel) {
  EXPECT_EQ(partition_.SetConfig(kVtl2, Config(0xf)), ConfigWrite{HvStatus::kInvalidVtlState});
  EXPECT_EQ(partition_.SetConfig(kVtl0, Config(0xf)), ConfigWrite{HvStatus::kInvalidVtlState});
}

TEST_F(VsmConfigTest, ProtectionBeginsOnceWithTheDefault) {
  EXPECT_EQ(partition_.SetConfig(kVtl1, Config(0x3, 0)), (ConfigWrite{HvStatus::kSuccess, std::nullopt}));
  EXPECT_EQ(partition_.SetConfig(kVtl1, Config(0xf)), (ConfigWrite{HvStatus::kSuccess, 0xfu}));
  EXPECT_EQ(partition_.SetConfig(kVtl1, Config(0xf)), (ConfigWrite{HvStatus::kSuccess, std::nullopt}));
  EXPECT_EQ(partition_.config(kVtl1), 0x1fu);
}

TEST_F(VsmConfigTest, ProtectionIsNotTakenBackNorItsDefaultChanged) {
  ASSERT_EQ(partition_.SetConfig(kVtl1, Config(0xf)).status, HvStatus::kSuccess);
  EXPECT_EQ(partition_.SetConfig(kVtl1, Config(0xf, 0)), ConfigWrite{HvStatus::kInvalidRegisterValue});
  EXPECT_EQ(partition_.SetConfig(kVtl1, Config(0x3)), ConfigWrite{HvStatus::kInvalidRegisterValue});
  EXPECT_EQ(partition_.config(kVtl1), 0x1fu);
}

TEST_F(VsmConfigTest, DefaultIsReadableWritableAndLegal) {
  for (uint32_t protection = 0; protection <= 0xf; ++protection) {
    VsmPartition partition({});
    ASSERT_EQ(partition.Enable(kVtl0, 1, 0), HvStatus::kSuccess);
    const bool legal = protection == 0x3 || protection == 0xf;
    EXPECT_EQ(partition.SetConfig(kVtl1, Config(protection)).status,
              legal ? HvStatus::kSuccess : HvStatus::kInvalidRegisterValue) << protection;
    VsmPartition with_mbec(kMbec);
    ASSERT_EQ(with_mbec.Enable(kVtl0, 1, kHvEnableMbec), HvStatus::kSuccess);
    EXPECT_EQ(with_mbec.SetConfig(kVtl1, Config(protection)).status,
              legal || protection == 0xb ? HvStatus::kSuccess : HvStatus::kInvalidRegisterValue) << protection;
  }
}

TEST_F(VsmConfigTest, BitsThatAreNotOfferedAreRefused) {
  for (unsigned bit = 7; bit < 64; ++bit) {
    EXPECT_EQ(partition_.SetConfig(kVtl1, Config(0xf) | uint64_t{1} << bit), ConfigWrite{HvStatus::kInvalidRegisterValue}) << bit;
  }
}

TEST_F(VsmConfigTest, StartupAndZeroingMayChangeLater) {
  ASSERT_EQ(partition_.SetConfig(kVtl1, Config(0xf)).status, HvStatus::kSuccess);
  EXPECT_FALSE(partition_.MustZeroMemory());
  EXPECT_EQ(partition_.MayStart(kVtl0), HvStatus::kSuccess);
  EXPECT_EQ(partition_.SetConfig(kVtl1, Config(0xf) | kHvConfigDenyStartup | kHvConfigZeroMemory),
            (ConfigWrite{HvStatus::kSuccess, std::nullopt}));
  EXPECT_TRUE(partition_.MustZeroMemory());
  EXPECT_EQ(partition_.MayStart(kVtl0), HvStatus::kAccessDenied);
  EXPECT_EQ(partition_.MayStart(kVtl1), HvStatus::kSuccess);
}

// --- Protections ------------------------------------------------------------------------------------------------------------

TEST(IsLegalProtectionTest, CombinationsAreTheSpecifications) {
  for (uint32_t flags = 0; flags <= 0xf; ++flags) {
    const bool legal = flags == 0 || flags == 0x1 || flags == 0x3 || flags == 0xd || flags == 0xf;
    EXPECT_EQ(IsLegalProtection(flags, /*mbec=*/false), legal) << flags;
    EXPECT_EQ(IsLegalProtection(flags, /*mbec=*/true), legal || flags == 0x9 || flags == 0xb) << flags;
  }
  for (unsigned bit = 4; bit < 32; ++bit) EXPECT_FALSE(IsLegalProtection(0xf | 1u << bit, true)) << bit;
}

TEST(CheckProtectionTest, ChecksComeInTheirOrder) {
  VsmPartition partition(kThreeLevels);
  ASSERT_EQ(partition.Enable(kVtl0, 2, 0), HvStatus::kSuccess);
  constexpr uint32_t kBad = 0x10;
  EXPECT_EQ(partition.CheckProtection(kVtl0, kVtl1, kBad), HvStatus::kAccessDenied);
  EXPECT_EQ(partition.CheckProtection(kVtl0, kVtl0, kBad), HvStatus::kInvalidParameter);
  EXPECT_EQ(partition.CheckProtection(kVtl2, kVtl0, kBad), HvStatus::kInvalidParameter);
  EXPECT_EQ(partition.CheckProtection(kVtl2, kVtl2, kBad), HvStatus::kAccessDenied);  // protection is not enabled
  EXPECT_EQ(partition.CheckProtection(kVtl2, kVtl1, kBad), HvStatus::kInvalidVtlState);
  ASSERT_EQ(partition.SetConfig(kVtl2, Config(0xf)).status, HvStatus::kSuccess);
  EXPECT_EQ(partition.CheckProtection(kVtl2, kVtl2, kBad), HvStatus::kInvalidRegisterValue);
  EXPECT_EQ(partition.CheckProtection(kVtl2, kVtl2, kHvProtectRead), HvStatus::kSuccess);
}

TEST(CheckProtectionTest, LowerLevelsPagesNeedNoEnabling) {
  VsmPartition partition(kThreeLevels);
  ASSERT_EQ(partition.Enable(kVtl0, 1, 0), HvStatus::kSuccess);
  ASSERT_EQ(partition.Enable(kVtl1, 2, 0), HvStatus::kSuccess);
  EXPECT_EQ(partition.CheckProtection(kVtl2, kVtl1, 0), HvStatus::kSuccess);
}

// --- TLB locks --------------------------------------------------------------------------------------------------------------

TEST(TlbLocksTest, FlushOfTheLockedLevelWaits) {
  TlbLocks locks(4);
  EXPECT_FALSE(locks.MustWait(VpIndex(1), kVtl0));
  locks.Acquire(VpIndex(0), kVtl1, kVtl0);
  EXPECT_TRUE(locks.MustWait(VpIndex(1), kVtl0));
  EXPECT_FALSE(locks.MustWait(VpIndex(1), kVtl1));
  EXPECT_TRUE(locks.Release(VpIndex(0), kVtl1, VtlBit(kVtl0)));
  EXPECT_FALSE(locks.MustWait(VpIndex(1), kVtl0));
}

TEST(TlbLocksTest, NobodyIsWokenWhereNobodyWaits) {
  TlbLocks locks(2);
  locks.Acquire(VpIndex(0), kVtl1, kVtl0);
  EXPECT_FALSE(locks.Release(VpIndex(0), kVtl1, VtlBit(kVtl0)));
  locks.Acquire(VpIndex(0), kVtl1, kVtl0);
  EXPECT_TRUE(locks.MustWait(VpIndex(1), kVtl0));
  EXPECT_FALSE(locks.Release(VpIndex(0), kVtl2, VtlBit(kVtl0)));
  EXPECT_FALSE(locks.Release(VpIndex(0), kVtl1, VtlBit(kVtl1)));
  EXPECT_TRUE(locks.Release(VpIndex(0), kVtl1, VtlBit(kVtl0)));
  EXPECT_FALSE(locks.Release(VpIndex(0), kVtl1, VtlBit(kVtl0)));
}

TEST(TlbLocksTest, AVpDoesNotWaitForItself) {
  TlbLocks locks(2);
  locks.Acquire(VpIndex(0), kVtl1, kVtl0);
  EXPECT_FALSE(locks.MustWait(VpIndex(0), kVtl0));
}

TEST(TlbLocksTest, EachOwnersLockCounts) {
  TlbLocks locks(2);
  locks.Acquire(VpIndex(0), kVtl1, kVtl0);
  locks.Acquire(VpIndex(0), kVtl2, kVtl0);
  EXPECT_TRUE(locks.MustWait(VpIndex(1), kVtl0));
  EXPECT_TRUE(locks.Release(VpIndex(0), kVtl1, VtlBit(kVtl0)));
  EXPECT_TRUE(locks.MustWait(VpIndex(1), kVtl0));
  EXPECT_TRUE(locks.ReleaseAll(VpIndex(0)));
  EXPECT_FALSE(locks.MustWait(VpIndex(1), kVtl0));
  EXPECT_FALSE(locks.ReleaseAll(VpIndex(0)));
}

}  // namespace
}  // namespace vmm
