#include "devices/hyperv/vsm/vsm_registers.h"

#include <bit>
#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/hypercall/hv_register_layout.h"
#include "devices/hyperv/hypercall/hv_vp_context_layout.h"
#include "devices/hyperv/vsm/tlb_locks.h"
#include "devices/hyperv/vsm/vp_registers.h"
#include "devices/hyperv/vsm/vsm_layout.h"
#include "devices/hyperv/vsm/vsm_partition.h"
#include "devices/hyperv/vsm/vsm_vp.h"

namespace vmm {
namespace {

using Name = HvRegisterName;
using Effect = VsmRegisters::Effect;
using Result = std::optional<HvStatus>;
constexpr Vtl kVtl2{2};
constexpr VpIndex kVp{1};
constexpr VpIndex kOtherVp{0};

constexpr Name Next(Name name, uint32_t by = 1) { return static_cast<Name>(static_cast<uint32_t>(name) + by); }
HvRegisterValue Value(const HvSegmentRegister& segment) { return std::bit_cast<HvRegisterValue>(segment); }
HvRegisterValue Value(const HvTableRegister& table) { return std::bit_cast<HvRegisterValue>(table); }

// Registers that hold whatever is written.
class FakeLowerRegisters final : public LowerVtlRegisters {
 public:
  [[nodiscard]] HvStatus Get(Vtl vtl, Name name, HvRegisterValue& value) noexcept override {
    value = values[{vtl, name}];
    return HvStatus::kSuccess;
  }
  [[nodiscard]] HvStatus Set(Vtl vtl, Name name, const HvRegisterValue& value) noexcept override {
    ++sets;
    if (answer == HvStatus::kSuccess) values[{vtl, name}] = value;
    return answer;
  }
  std::map<std::pair<Vtl, Name>, HvRegisterValue> values;
  HvStatus answer = HvStatus::kSuccess;
  int sets = 0;
};

// VTL0 and VTL1 are enabled, VTL2 may be.
class VsmRegistersTest : public testing::Test {
 protected:
  VsmRegistersTest() {
    EXPECT_EQ(partition_.Enable(kVtl0, 1, kHvEnableMbec), HvStatus::kSuccess);
    EXPECT_EQ(vp_.Enable(kVtl1, {}), HvStatus::kSuccess);
  }
  Result Set(Vtl caller, Vtl vtl, Name name, HvRegisterValue value) {
    return registers_.Set({caller, vtl}, name, value, effect_);
  }
  Result Set(Vtl caller, Vtl vtl, Name name, uint64_t low) { return Set(caller, vtl, name, HvRegisterValue{low, 0}); }
  // Of VTL0 by VTL1.
  Result SetLower(Name name, HvRegisterValue value) { return Set(kVtl1, kVtl0, name, value); }
  Result SetLower(Name name, uint64_t low) { return Set(kVtl1, kVtl0, name, low); }
  Result Get(Vtl caller, Vtl vtl, Name name) { return registers_.Get({caller, vtl}, name, value_); }

  VsmPartition partition_{{.maximum = kVtl2, .mbec = true}};
  VsmVp vp_;
  TlbLocks locks_{2};
  FakeLowerRegisters lower_;
  VsmRegisters registers_{kVp, partition_, vp_, locks_, lower_};
  Effect effect_;
  HvRegisterValue value_{};
};

constexpr HvStatus kOk = HvStatus::kSuccess;
constexpr HvStatus kDenied = HvStatus::kAccessDenied;
constexpr HvStatus kParameter = HvStatus::kInvalidParameter;
constexpr HvStatus kBadValue = HvStatus::kInvalidRegisterValue;
constexpr HvStatus kBadVtl = HvStatus::kInvalidVtlState;

// --- Which level ------------------------------------------------------------------------------------------------------------

TEST_F(VsmRegistersTest, HigherAndMissingLevelsHaveNone) {
  for (const Name name : {Name::kVsmVpStatus, Name::kRip, Name::kVsmVina, Name::kSint0}) {
    EXPECT_EQ(Get(kVtl0, kVtl1, name), kDenied);
    EXPECT_EQ(Set(kVtl0, kVtl1, name, 0), kDenied);
    EXPECT_EQ(Get(kVtl2, kVtl2, name), kBadVtl);
    EXPECT_EQ(Set(kVtl2, kVtl2, name, 0), kBadVtl);
  }
}

TEST_F(VsmRegistersTest, WhatIsNotOursIsTheLevelsOwn) {
  for (const Name name : {Name::kSint0, Name::kVpAssistPage, Name::kGuestOsId, Name::kPendingEvent1, Name{0xdead'beef}}) {
    EXPECT_EQ(Get(kVtl1, kVtl0, name), std::nullopt);
    EXPECT_EQ(Set(kVtl1, kVtl0, name, 0), std::nullopt);
    EXPECT_EQ(Get(kVtl1, kVtl1, name), std::nullopt);
  }
}

// --- Registers that every level reads ---------------------------------------------------------------------------------------

TEST_F(VsmRegistersTest, StatusAndCapabilitiesAreForEveryLevelToReadAndNoneToWrite) {
  for (const Vtl vtl : {kVtl0, kVtl1}) {
    EXPECT_EQ(Get(vtl, vtl, Name::kVsmVpStatus), kOk);
    EXPECT_EQ(value_, (HvRegisterValue{0x3'0000, 0}));
    EXPECT_EQ(Get(vtl, vtl, Name::kVsmPartitionStatus), kOk);
    EXPECT_EQ(value_, (HvRegisterValue{0x32'0003, 0}));
    EXPECT_EQ(Get(vtl, vtl, Name::kVsmCapabilities), kOk);
    EXPECT_EQ(value_, (HvRegisterValue{0x2'000e, 0}));
    for (const Name name : {Name::kVsmCodePageOffsets, Name::kVsmVpStatus, Name::kVsmPartitionStatus, Name::kVsmCapabilities}) {
      EXPECT_EQ(Set(vtl, vtl, name, 0), kParameter);
    }
  }
}

TEST_F(VsmRegistersTest, CodePageOffsetsAreTheCallersModes) {
  EXPECT_EQ(registers_.Get({.caller = kVtl0, .vtl = kVtl0}, Name::kVsmCodePageOffsets, value_), kOk);
  EXPECT_EQ(value_.low, 0x2'600fu);
  EXPECT_EQ(registers_.Get({.caller = kVtl0, .vtl = kVtl0, .long_mode = false}, Name::kVsmCodePageOffsets, value_), kOk);
  EXPECT_EQ(value_.low, 0x1'b004u);
}

// --- A level's own ----------------------------------------------------------------------------------------------------------

TEST_F(VsmRegistersTest, VinaIsForLevelsAboveVtl0) {
  EXPECT_EQ(Set(kVtl1, kVtl1, Name::kVsmVina, 0x7ff), kOk);
  EXPECT_EQ(Get(kVtl1, kVtl1, Name::kVsmVina), kOk);
  EXPECT_EQ(value_.low, 0x7ffu);
  EXPECT_EQ(Set(kVtl1, kVtl0, Name::kVsmVina, 0), kParameter);
  EXPECT_EQ(Get(kVtl0, kVtl0, Name::kVsmVina), kParameter);
  for (unsigned bit = 11; bit < 64; ++bit) EXPECT_EQ(Set(kVtl1, kVtl1, Name::kVsmVina, uint64_t{1} << bit), kParameter) << bit;
  EXPECT_EQ(vp_.vina(kVtl1), 0x7ffu);
}

TEST_F(VsmRegistersTest, PartitionConfigTellsOfTheDefaultToApply) {
  EXPECT_EQ(Set(kVtl1, kVtl1, Name::kVsmPartitionConfig, 0x1f), kOk);
  EXPECT_EQ(effect_, (Effect{.default_protection = 0xf}));
  EXPECT_EQ(Set(kVtl1, kVtl1, Name::kVsmPartitionConfig, 0x1f), kOk);
  EXPECT_EQ(effect_, Effect{});
  EXPECT_EQ(Get(kVtl1, kVtl1, Name::kVsmPartitionConfig), kOk);
  EXPECT_EQ(value_.low, 0x1fu);
  EXPECT_EQ(Set(kVtl1, kVtl1, Name::kVsmPartitionConfig, 0x1e), kBadValue);
  EXPECT_EQ(Set(kVtl1, kVtl0, Name::kVsmPartitionConfig, 0x1f), kParameter);
  EXPECT_EQ(Get(kVtl1, kVtl0, Name::kVsmPartitionConfig), kParameter);
}

TEST_F(VsmRegistersTest, InterceptRegistersAreForLevelsAboveVtl0) {
  for (const Name name : {Name::kCrInterceptControl, Name::kCrInterceptCr0Mask, Name::kCrInterceptCr4Mask,
                          Name::kCrInterceptMiscEnableMask}) {
    EXPECT_EQ(Get(kVtl1, kVtl1, name), kOk);
    EXPECT_EQ(value_.low, 0u);
    EXPECT_EQ(Set(kVtl1, kVtl1, name, 0x1ff'ffff), kOk);
    EXPECT_TRUE(effect_.intercepts_changed);
    EXPECT_EQ(Get(kVtl1, kVtl1, name), kOk);
    EXPECT_EQ(value_.low, 0x1ff'ffffu);
    EXPECT_EQ(Set(kVtl1, kVtl0, name, 0), kDenied);
    EXPECT_EQ(Get(kVtl0, kVtl0, name), kDenied);
    EXPECT_EQ(Set(kVtl1, kVtl1, name, ~uint64_t{0}), name == Name::kCrInterceptControl ? kBadValue : kOk);
  }
  EXPECT_EQ(vp_.cr_intercepts(kVtl1).control, 0x1ff'ffffu);
}

// A host that can make some intercepts only: what it cannot is refused, or accepted and counted where that was asked for.
TEST(UnenforceableInterceptTest, IsRefusedOrCounted) {
  constexpr uint64_t kCan = 0x40, kCannot = 0x1;
  for (const bool accept : {false, true}) {
    VsmPartition partition({.maximum = kVtl1, .cr_intercepts = kCan, .accept_unenforceable = accept});
    ASSERT_EQ(partition.Enable(kVtl0, 1, 0), HvStatus::kSuccess);
    VsmVp vp;
    ASSERT_EQ(vp.Enable(kVtl1, {}), HvStatus::kSuccess);
    TlbLocks locks(2);
    FakeLowerRegisters lower;
    VsmRegisters registers(kVp, partition, vp, locks, lower);
    Effect effect;
    const auto set = [&](uint64_t value) { return registers.Set({kVtl1, kVtl1}, Name::kCrInterceptControl, {value, 0}, effect); };
    EXPECT_EQ(set(kCan), kOk);
    EXPECT_TRUE(effect.intercepts_changed);
    EXPECT_EQ(partition.unenforced_intercepts(), 0u);
    EXPECT_EQ(set(kCan | kCannot), accept ? kOk : kBadValue);
    EXPECT_EQ(effect.intercepts_changed, accept);
    EXPECT_EQ(vp.cr_intercepts(kVtl1).control, accept ? kCan | kCannot : kCan);
    EXPECT_EQ(partition.unenforced_intercepts(), accept ? 1u : 0u);
    EXPECT_EQ(set(uint64_t{1} << 25), kBadValue);
    EXPECT_EQ(set(0), kOk);
  }
}

// --- VsmVpSecureConfig ------------------------------------------------------------------------------------------------------

TEST_F(VsmRegistersTest, SecureConfigIsTheTargetsOfALevelBelow) {
  EXPECT_EQ(Set(kVtl1, kVtl1, Name::kVsmVpSecureConfigVtl0, kHvSecureMbec), kOk);
  EXPECT_EQ(Get(kVtl1, kVtl1, Name::kVsmVpSecureConfigVtl0), kOk);
  EXPECT_EQ(value_.low, kHvSecureMbec);
  EXPECT_EQ(Get(kVtl0, kVtl0, Name::kVsmVpSecureConfigVtl0), kDenied);
  EXPECT_EQ(Set(kVtl1, kVtl0, Name::kVsmVpSecureConfigVtl0, 0), kDenied);
  EXPECT_EQ(Set(kVtl1, kVtl1, Next(Name::kVsmVpSecureConfigVtl0, 1), 0), kDenied);
  EXPECT_EQ(Set(kVtl1, kVtl1, Next(Name::kVsmVpSecureConfigVtl0, 3), 0), std::nullopt);
  for (unsigned bit = 2; bit < 64; ++bit) {
    EXPECT_EQ(Set(kVtl1, kVtl1, Name::kVsmVpSecureConfigVtl0, uint64_t{1} << bit), kBadValue) << bit;
  }
}

TEST_F(VsmRegistersTest, SecureConfigOfALevelThatIsNotThere) {
  ASSERT_EQ(partition_.Enable(kVtl1, 2, 0), kOk);
  VsmVp gap;
  ASSERT_EQ(gap.Enable(kVtl2, {}), kOk);
  VsmRegisters registers(kVp, partition_, gap, locks_, lower_);
  EXPECT_EQ(registers.Set({kVtl2, kVtl2}, Next(Name::kVsmVpSecureConfigVtl0), {}, effect_), kBadVtl);
  // VTL2 was enabled without it.
  EXPECT_EQ(registers.Set({kVtl2, kVtl2}, Name::kVsmVpSecureConfigVtl0, {kHvSecureMbec, 0}, effect_), kBadValue);
}

TEST_F(VsmRegistersTest, TlbLockHoldsUntilItIsGivenUp) {
  EXPECT_EQ(Set(kVtl1, kVtl1, Name::kVsmVpSecureConfigVtl0, kHvSecureMbec | kHvSecureTlbLocked), kOk);
  EXPECT_EQ(effect_, Effect{});
  EXPECT_TRUE(locks_.MustWait(kOtherVp, kVtl0));
  EXPECT_EQ(Set(kVtl1, kVtl1, Name::kVsmVpSecureConfigVtl0, kHvSecureMbec), kOk);
  EXPECT_EQ(effect_, Effect{.wake_flushes = true});
  EXPECT_FALSE(locks_.MustWait(kOtherVp, kVtl0));
}

// --- PendingEvent0 ----------------------------------------------------------------------------------------------------------

constexpr uint64_t Exception(uint64_t vector, bool error_code) {
  return kHvEventPending | vector << kHvEventVectorShift | (error_code ? kHvEventDeliverErrorCode : 0);
}

TEST_F(VsmRegistersTest, EventIsForALowerLevel) {
  EXPECT_EQ(SetLower(Name::kPendingEvent0, Exception(13, true)), kOk);
  EXPECT_EQ(Get(kVtl1, kVtl0, Name::kPendingEvent0), kOk);
  EXPECT_EQ(value_.low, Exception(13, true));
  EXPECT_EQ(Set(kVtl1, kVtl1, Name::kPendingEvent0, Exception(13, true)), kParameter);
  EXPECT_EQ(Get(kVtl0, kVtl0, Name::kPendingEvent0), kParameter);
  EXPECT_EQ(vp_.TakePendingException(kVtl0), (PendingException{13, 0, 0}));
}

TEST_F(VsmRegistersTest, EventThatIsNotPendingClears) {
  ASSERT_EQ(SetLower(Name::kPendingEvent0, Exception(6, false)), kOk);
  EXPECT_EQ(SetLower(Name::kPendingEvent0, 0xfffe), kOk);
  EXPECT_EQ(vp_.TakePendingException(kVtl0), std::nullopt);
}

TEST_F(VsmRegistersTest, ExceptionsAreTheArchitecturalOnesWithTheirErrorCodes) {
  for (uint64_t vector = 0; vector < 40; ++vector) {
    const bool has_code = vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21;
    const bool exists = vector <= 21 && vector != 2 && vector != 15 && vector != 20;
    EXPECT_EQ(SetLower(Name::kPendingEvent0, Exception(vector, has_code)), exists ? kOk : kBadValue) << vector;
    EXPECT_EQ(SetLower(Name::kPendingEvent0, Exception(vector, !has_code)), kBadValue) << vector;
  }
  EXPECT_EQ(SetLower(Name::kPendingEvent0, Exception(0x106, false)), kBadValue);
}

TEST_F(VsmRegistersTest, EventsAreExceptionsWithoutReservedBits) {
  for (uint64_t type = 1; type < 8; ++type) {
    EXPECT_EQ(SetLower(Name::kPendingEvent0, Exception(6, false) | type << kHvEventTypeShift), kBadValue) << type;
  }
  for (const unsigned bit : {4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15}) {
    EXPECT_EQ(SetLower(Name::kPendingEvent0, Exception(6, false) | uint64_t{1} << bit), kBadValue) << bit;
  }
}

// --- Architectural registers ------------------------------------------------------------------------------------------------

TEST_F(VsmRegistersTest, OwnAndOnlyOwnArchitecturalRegistersAreDenied) {
  for (const LowerRegister& row : AllLowerRegisters()) {
    EXPECT_EQ(Get(kVtl1, kVtl1, row.first), kDenied);
    EXPECT_EQ(Set(kVtl1, kVtl1, row.first, 0), kDenied);
    EXPECT_EQ(Get(kVtl0, kVtl0, row.last), kDenied);
    EXPECT_EQ(Get(kVtl1, kVtl0, row.first), kOk);
    EXPECT_EQ(Get(kVtl1, kVtl0, row.last), kOk);
  }
  EXPECT_EQ(lower_.sets, 0);
}

// The registers that the specification lists for trust levels, and those that real secure kernels use besides.
TEST_F(VsmRegistersTest, RegistersThatSecureKernelsNeedAreThere) {
  constexpr Name kNeeded[] = {
      Name::kRsp, Name::kRip, Name::kRflags, Name::kCr0, Name::kCr3, Name::kCr4, Name::kCr8, Name::kDr7, Name::kEs,
      Name::kCs, Name::kSs, Name::kDs, Name::kFs, Name::kGs, Name::kLdtr, Name::kTr, Name::kIdtr, Name::kGdtr,
      Name::kEfer, Name::kPat, Name::kKernelGsBase, Name::kSysenterCs, Name::kSysenterEip, Name::kSysenterEsp,
      Name::kStar, Name::kLstar, Name::kCstar, Name::kSfmask, Name::kTscAux};
  for (const Name name : kNeeded) {
    const LowerRegister* const found = FindLowerRegister(name);
    ASSERT_NE(found, nullptr) << static_cast<uint32_t>(name);
    EXPECT_EQ(found->storage, RegisterStorage::kPrivate) << static_cast<uint32_t>(name);
    EXPECT_NE(found->check, RegisterCheck::kReadOnly) << static_cast<uint32_t>(name);
  }
}

TEST_F(VsmRegistersTest, SharedRegistersAreRead) {
  for (const Name name : {Name::kRax, Name::kRbx, Name::kRbp, Name::kR8, Name::kR15, Name::kCr2, Name::kXcr0}) {
    EXPECT_EQ(FindLowerRegister(name)->storage, RegisterStorage::kShared);
    EXPECT_EQ(SetLower(name, uint64_t{1}), kParameter);
  }
  EXPECT_EQ(SetLower(Name::kTsc, uint64_t{1}), kParameter);
  EXPECT_EQ(SetLower(Name::kInitialApicId, uint64_t{1}), kParameter);
  EXPECT_EQ(SetLower(Name::kDr3, ~uint64_t{0}), kOk);
}

TEST_F(VsmRegistersTest, ApicBaseMayBeWrittenButNotChanged) {
  lower_.values[{kVtl0, Name::kApicBase}] = {0xfee0'0900, 0};
  EXPECT_EQ(SetLower(Name::kApicBase, uint64_t{0xfee0'0900}), kOk);
  EXPECT_EQ(SetLower(Name::kApicBase, uint64_t{0xfee0'0d00}), kParameter);
  EXPECT_EQ(lower_.sets, 0);
}

TEST_F(VsmRegistersTest, WhatTheProcessorRefusesIsRefused) {
  lower_.answer = kBadValue;
  EXPECT_EQ(SetLower(Name::kCr4, uint64_t{0x8000'0000}), kBadValue);
  EXPECT_EQ(lower_.sets, 1);
}

TEST_F(VsmRegistersTest, AddressesAreCanonicalInTheLevelsPaging) {
  constexpr uint64_t kOnlyFiveLevels = 0x0000'8000'0000'0000;
  constexpr uint64_t kNone = 0x0100'0000'0000'0000;
  for (const Name name : {Name::kRip, Name::kLstar, Name::kCstar, Name::kKernelGsBase, Name::kSysenterEip, Name::kSysenterEsp}) {
    lower_.values[{kVtl0, Name::kCr4}] = {0x20, 0};
    EXPECT_EQ(SetLower(name, uint64_t{0xffff'8000'0000'0000}), kOk);
    EXPECT_EQ(SetLower(name, kOnlyFiveLevels), kBadValue);
    lower_.values[{kVtl0, Name::kCr4}] = {0x1020, 0};
    EXPECT_EQ(SetLower(name, kOnlyFiveLevels), kOk);
    EXPECT_EQ(SetLower(name, kNone), kBadValue);
  }
}

TEST_F(VsmRegistersTest, ReservedAndFixedBitsAreChecked) {
  EXPECT_EQ(SetLower(Name::kRflags, uint64_t{0x246}), kOk);
  EXPECT_EQ(SetLower(Name::kRflags, uint64_t{0x244}), kBadValue);
  EXPECT_EQ(SetLower(Name::kRflags, uint64_t{0x40'0002}), kBadValue);
  EXPECT_EQ(SetLower(Name::kCr0, uint64_t{0x8005'0033}), kOk);
  EXPECT_EQ(SetLower(Name::kCr0, uint64_t{0x8000'0000}), kBadValue);
  EXPECT_EQ(SetLower(Name::kCr0, uint64_t{0x2000'0001}), kBadValue);
  EXPECT_EQ(SetLower(Name::kCr0, uint64_t{0x1'0000'0001}), kBadValue);
  EXPECT_EQ(SetLower(Name::kCr3, uint64_t{0x000f'ffff'ffff'f000}), kOk);
  EXPECT_EQ(SetLower(Name::kCr3, uint64_t{0x0010'0000'0000'0000}), kBadValue);
  EXPECT_EQ(SetLower(Name::kCr8, uint64_t{15}), kOk);
  EXPECT_EQ(SetLower(Name::kCr8, uint64_t{16}), kBadValue);
  EXPECT_EQ(SetLower(Name::kEfer, uint64_t{0xd01}), kOk);
  EXPECT_EQ(SetLower(Name::kEfer, uint64_t{0x2}), kBadValue);
  EXPECT_EQ(SetLower(Name::kPat, uint64_t{0x0007'0406'0007'0406}), kOk);
  EXPECT_EQ(SetLower(Name::kPat, uint64_t{0x0007'0406'0007'0402}), kBadValue);
  for (const Name name : {Name::kDr6, Name::kDr7, Name::kSfmask, Name::kTscAux, Name::kSysenterCs, Name::kCr4}) {
    EXPECT_EQ(SetLower(name, uint64_t{0xffff'ffff}), kOk);
    EXPECT_EQ(SetLower(name, uint64_t{0x1'0000'0000}), kBadValue);
  }
}

TEST_F(VsmRegistersTest, SegmentsAreWhatADescriptorCouldHaveLoaded) {
  const HvSegmentRegister good{.base = 0, .limit = 0xffff'ffff, .selector = 0x10, .attributes = 0xc093};
  EXPECT_EQ(SetLower(Name::kDs, Value(good)), kOk);
  EXPECT_EQ(SetLower(Name::kSs, Value(HvSegmentRegister{})), kOk);  // not present
  HvSegmentRegister bad = good;
  bad.attributes |= 0x100;
  EXPECT_EQ(SetLower(Name::kDs, Value(bad)), kBadValue);
  bad = good;
  bad.limit = 0xffff'fffe;
  EXPECT_EQ(SetLower(Name::kDs, Value(bad)), kBadValue);
  bad = good;
  bad.attributes = 0x4093;
  EXPECT_EQ(SetLower(Name::kDs, Value(bad)), kBadValue);
  bad = good;
  bad.attributes = 0xc083;  // a system segment
  EXPECT_EQ(SetLower(Name::kDs, Value(bad)), kBadValue);
  bad = good;
  bad.base = 0x8000'0000'0000'0000;
  EXPECT_EQ(SetLower(Name::kFs, Value(bad)), kBadValue);
}

TEST_F(VsmRegistersTest, SystemSegmentsHaveTheirTypes) {
  const HvSegmentRegister task{.base = 0x1000, .limit = 0x67, .selector = 0x18, .attributes = 0x8b};
  const HvSegmentRegister ldt{.base = 0x1000, .limit = 0x67, .selector = 0x20, .attributes = 0x82};
  EXPECT_EQ(SetLower(Name::kTr, Value(task)), kOk);
  EXPECT_EQ(SetLower(Name::kTr, Value(ldt)), kBadValue);
  EXPECT_EQ(SetLower(Name::kTr, Value(HvSegmentRegister{})), kBadValue);
  EXPECT_EQ(SetLower(Name::kLdtr, Value(ldt)), kOk);
  EXPECT_EQ(SetLower(Name::kLdtr, Value(task)), kBadValue);
  EXPECT_EQ(SetLower(Name::kLdtr, Value(HvSegmentRegister{})), kOk);
  EXPECT_EQ(SetLower(Name::kGdtr, Value(HvTableRegister{.limit = 0xffff, .base = 0xffff'8000'0000'0000})), kOk);
  EXPECT_EQ(SetLower(Name::kIdtr, Value(HvTableRegister{.limit = 0xffff, .base = 0x8000'0000'0000'0000})), kBadValue);
}

TEST(FindLowerRegisterTest, EveryNameOfARowAndNoOther) {
  uint32_t covered = 0;
  for (const LowerRegister& row : AllLowerRegisters()) {
    for (Name name = row.first; name <= row.last; name = Next(name)) {
      EXPECT_EQ(FindLowerRegister(name), &row);
      ++covered;
    }
  }
  uint32_t found = 0;
  for (uint32_t name = 0; name < 0x10'0000; ++name) {
    if (FindLowerRegister(static_cast<Name>(name)) != nullptr) ++found;
  }
  EXPECT_EQ(found, covered);
  EXPECT_EQ(covered, 18u + 6u + 6u + 10u + 14u);  // general, control, debug, segments and tables, MSRs
}

}  // namespace
}  // namespace vmm
