// The hypercalls of Virtual Secure Mode, and what it changes in others, through the dispatcher.
#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

#include "devices/guest_interface.h"
#include "devices/hyperv/hv_cpuid_layout.h"
#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/hypercall/fake_hypercall_services.h"
#include "devices/hyperv/hypercall/hypercall_layout.h"
#include "devices/hyperv/hypercall/hypercall_machine_for_test.h"
#include "devices/hyperv/hypercall/hypercall_parameters_layout.h"
#include "devices/hyperv/hypercall/hypercall_table.h"
#include "devices/hyperv/hypercall/vp_context_for_test.h"
#include "devices/hyperv/hypercall/vsm_services.h"

namespace vmm {
namespace {

using Code = HypercallCode;
constexpr Vtl kVtl2{2};
constexpr uint32_t kSelf = 0xffff'fffe;
constexpr uint64_t kOwn = kHvPartitionIdSelf;
constexpr uint64_t kForeign = 0x9999;

constexpr uint8_t UseVtl(uint8_t level) { return kHvInputVtlUseTarget | level; }

// Called from `vtl`, with the levels in `levels`.
struct VsmMachine {
  explicit VsmMachine(Vtl vtl, uint16_t levels = 0b11) : m(OfferOfEverything().With(HvPrivilege::kVsm), vtl) {
    m.services.has_vsm = true;
    m.services.levels.levels = levels;
  }
  template <typename T>
  HypercallAnswer Call(Code code, const T& input) {
    m.PutInput(input);
    return m.CallMemory({code});
  }
  FakeVsmServices& levels() { return m.services.levels; }

  HypercallMachine m;
};

// --- Without it -------------------------------------------------------------------------------------------------------------

TEST(WithoutVsmTest, ItsCallsAreUnknownCodes) {
  for (const bool has_services : {false, true}) {
    const HvOffer offer = has_services ? OfferOfEverything() : OfferOfEverything().With(HvPrivilege::kVsm);
    HypercallMachine m(offer);
    m.services.has_vsm = has_services;
    int calls = 0;
    for (const HypercallRow& row : AllHypercalls()) {
      if (row.privilege != HvPrivilege::kVsm) continue;
      ++calls;
      EXPECT_EQ(m.CallMemory({row.code}), Failure(HvStatus::kInvalidHypercallCode)) << row.name;
      EXPECT_EQ(m.CallMemory({.code = row.code, .raw = uint64_t{1} << 63}), Failure(HvStatus::kInvalidHypercallCode)) << row.name;
    }
    EXPECT_EQ(calls, 7);
    EXPECT_EQ(m.CallMemory({Code::kVtlCall}), kUndefinedOpcode);
    EXPECT_EQ(m.CallMemory({Code::kVtlReturn}), kUndefinedOpcode);
  }
}

// --- VTL call and return ----------------------------------------------------------------------------------------------------

TEST(VtlSwitchCallTest, RegistersGoToTheLevelsAndStayAsTheyWere) {
  VsmMachine v(kVtl0);
  HypercallRegisters made = HypercallMachine::Caller64(0x11, 0xd, 0x8);
  made.rax = 0;
  EXPECT_EQ(v.m.Step(made), kSwitchVtl);
  EXPECT_EQ(v.levels().called, (VtlSwitchRequest{0x11, 0}));
  EXPECT_EQ(made.rcx, 0x11u);
  EXPECT_EQ(made.rax, 0u);
  EXPECT_EQ(made.rdx, 0xdu);
  EXPECT_EQ(v.m.dispatcher.stats().switched, 1u);
}

TEST(VtlSwitchCallTest, WholeWordsAreHandedOn) {
  VsmMachine v(kVtl1);
  HypercallRegisters made = HypercallMachine::Caller64(0x8000'0000'0001'0012, 0, 0);
  made.rax = 0xffff'0000'0000'0001;
  EXPECT_EQ(v.m.Step(made), kSwitchVtl);
  EXPECT_EQ(v.levels().returned, (VtlSwitchRequest{0x8000'0000'0001'0012, 0xffff'0000'0000'0001}));
}

TEST(VtlSwitchCallTest, Code32HasItsWordsInOtherRegisters) {
  VsmMachine v(kVtl1);
  HypercallRegisters made = HypercallMachine::Caller32(0x12, 0, 0);
  made.rcx = 0xbad0'0000'0000'0001;
  EXPECT_EQ(v.m.Step(made), kSwitchVtl);
  EXPECT_EQ(v.levels().returned, (VtlSwitchRequest{0x12, 1}));
}

TEST(VtlSwitchCallTest, RefusedIsAnUndefinedOpcode) {
  VsmMachine v(kVtl0);
  v.levels().may_switch = false;
  EXPECT_EQ(v.m.CallMemory({Code::kVtlCall}), kUndefinedOpcode);
  EXPECT_EQ(v.m.CallMemory({Code::kVtlReturn}), kUndefinedOpcode);
}

TEST(VtlSwitchCallTest, UserModeDoesNotGetThere) {
  VsmMachine v(kVtl0);
  HypercallRegisters made = HypercallMachine::Caller64(0x11, 0, 0);
  made.cpl = 3;
  EXPECT_EQ(v.m.Step(made), kUndefinedOpcode);
  EXPECT_EQ(v.levels().called, VtlSwitchRequest{});
}

// --- Enabling ---------------------------------------------------------------------------------------------------------------

TEST(EnablePartitionVtlTest, NumberAndFlagsAreHandedOn) {
  VsmMachine v(kVtl0);
  EXPECT_EQ(v.Call(Code::kEnablePartitionVtl, HvEnablePartitionVtlInput{.partition_id = kOwn, .target_vtl = 9, .flags = 0x81}),
            Success());
  EXPECT_EQ(v.levels().enabled, (std::vector<FakeVsmServices::Enabled>{{VpIndex(0), 9, 0x81, 0}}));
  v.levels().answer = HvStatus::kInvalidVtlState;
  EXPECT_EQ(v.Call(Code::kEnablePartitionVtl, HvEnablePartitionVtlInput{.partition_id = kOwn, .target_vtl = 1}),
            Failure(HvStatus::kInvalidVtlState));
}

TEST(EnablePartitionVtlTest, ForeignPartitionAndReservedBytesAreRefused) {
  VsmMachine v(kVtl0);
  EXPECT_EQ(v.Call(Code::kEnablePartitionVtl, HvEnablePartitionVtlInput{.partition_id = kForeign, .reserved = {1}}),
            Failure(HvStatus::kInvalidPartitionId));
  for (unsigned byte = 0; byte < 6; ++byte) {
    HvEnablePartitionVtlInput input{.partition_id = kOwn, .target_vtl = 1};
    input.reserved[byte] = 1;
    EXPECT_EQ(v.Call(Code::kEnablePartitionVtl, input), Failure(HvStatus::kInvalidParameter)) << byte;
  }
  EXPECT_TRUE(v.levels().enabled.empty());
}

TEST(EnableVpVtlCallTest, ProcessorIsResolvedAndTheRestHandedOn) {
  VsmMachine v(kVtl1);
  for (const uint32_t vp : {kSelf, 3u}) {
    EXPECT_EQ(v.Call(Code::kEnableVpVtl, HvStartVirtualProcessorInput{
                                             .partition_id = kOwn, .vp_index = vp, .target_vtl = 7, .context = {.rip = 0x44}}),
              Success());
  }
  EXPECT_EQ(v.levels().enabled,
            (std::vector<FakeVsmServices::Enabled>{{HypercallMachine::kVp, 7, 0, 0x44}, {VpIndex(3), 7, 0, 0x44}}));
}

TEST(EnableVpVtlCallTest, ChecksComeInTheirOrder) {
  VsmMachine v(kVtl0);
  HvStartVirtualProcessorInput input{.partition_id = kForeign, .vp_index = 4, .reserved = {0, 0, 1}};
  EXPECT_EQ(v.Call(Code::kEnableVpVtl, input), Failure(HvStatus::kInvalidPartitionId));
  input.partition_id = kOwn;
  EXPECT_EQ(v.Call(Code::kEnableVpVtl, input), Failure(HvStatus::kInvalidVpIndex));
  input.vp_index = 0xffff'ffff;
  EXPECT_EQ(v.Call(Code::kEnableVpVtl, input), Failure(HvStatus::kInvalidVpIndex));
  input.vp_index = 0;
  EXPECT_EQ(v.Call(Code::kEnableVpVtl, input), Failure(HvStatus::kInvalidParameter));
  EXPECT_TRUE(v.levels().enabled.empty());
}

TEST(StartVirtualProcessorTest, LevelsAreAskedBeforeTheContextIsLookedAt) {
  VsmMachine v(kVtl1);
  HvStartVirtualProcessorInput input{.partition_id = kOwn, .vp_index = 0};
  v.levels().answer = HvStatus::kInvalidVpState;
  EXPECT_EQ(v.Call(Code::kStartVirtualProcessor, input), Failure(HvStatus::kInvalidVpState));
  v.levels().answer = HvStatus::kSuccess;
  EXPECT_EQ(v.Call(Code::kStartVirtualProcessor, input), Failure(HvStatus::kInvalidRegisterValue));
  input.context = LongModeContext();
  input.target_vtl = 1;
  EXPECT_EQ(v.Call(Code::kStartVirtualProcessor, input), Success());
  ASSERT_EQ(v.m.services.started.size(), 1u);
  EXPECT_EQ(v.m.services.started[0].vtl, kVtl1);
}

// --- Protections ------------------------------------------------------------------------------------------------------------

HypercallAnswer Protect(VsmMachine& v, const HvModifyVtlProtectionInput& input, const std::vector<uint64_t>& pages,
                        uint16_t start = 0) {
  v.m.PutInput(input);
  v.m.PutList(16, pages);
  return v.m.CallMemory({.code = Code::kModifyVtlProtectionMask, .reps = static_cast<uint16_t>(pages.size()), .start = start});
}

TEST(ModifyVtlProtectionMaskTest, ProtectsForTheCallerUnlessALevelIsNamed) {
  VsmMachine v(kVtl1);
  for (const uint8_t target : {uint8_t{0}, uint8_t{1}, UseVtl(1)}) {
    v.levels().Forget();
    EXPECT_EQ(Protect(v, {.partition_id = kOwn, .flags = 5, .target_vtl = target}, {0x10, 0x11}), Success(2));
    EXPECT_EQ(v.levels().pages, (std::vector<FakeVsmServices::Protected>{{kVtl1, 5, 0x10}, {kVtl1, 5, 0x11}})) << int{target};
  }
}

TEST(ModifyVtlProtectionMaskTest, NamingVtl0MeansTheCallerWhereItRestrictsVtl0Alone) {
  VsmMachine v(kVtl1);
  EXPECT_EQ(Protect(v, {.partition_id = kOwn, .flags = 0, .target_vtl = UseVtl(0)}, {7}), Success(1));
  EXPECT_EQ(v.levels().pages, (std::vector<FakeVsmServices::Protected>{{kVtl1, 0, 7}}));
  VsmMachine alone(kVtl2, 0b101);
  EXPECT_EQ(Protect(alone, {.partition_id = kOwn, .target_vtl = UseVtl(0)}, {7}), Success(1));
  EXPECT_EQ(alone.levels().pages[0].owner, kVtl2);
  VsmMachine both(kVtl2, 0b111);
  EXPECT_EQ(Protect(both, {.partition_id = kOwn, .target_vtl = UseVtl(0)}, {7}), Failure(HvStatus::kInvalidParameter));
  EXPECT_EQ(Protect(both, {.partition_id = kOwn, .target_vtl = UseVtl(1)}, {7}), Success(1));
  EXPECT_EQ(both.levels().pages[0].owner, kVtl1);
}

TEST(ModifyVtlProtectionMaskTest, Vtl0HasNothingToProtect) {
  VsmMachine v(kVtl0);
  EXPECT_EQ(Protect(v, {.partition_id = kOwn}, {7}), Failure(HvStatus::kInvalidParameter));
  EXPECT_EQ(Protect(v, {.partition_id = kOwn, .target_vtl = UseVtl(0)}, {7}), Failure(HvStatus::kInvalidParameter));
  EXPECT_EQ(Protect(v, {.partition_id = kOwn, .target_vtl = UseVtl(1)}, {7}), Failure(HvStatus::kAccessDenied));
}

TEST(ModifyVtlProtectionMaskTest, ChecksComeInTheirOrder) {
  VsmMachine v(kVtl1);
  HvModifyVtlProtectionInput input{.partition_id = kForeign, .target_vtl = 0x20, .reserved = {0, 1}};
  EXPECT_EQ(Protect(v, input, {7}), Failure(HvStatus::kAccessDenied));
  input.partition_id = kOwn;
  EXPECT_EQ(Protect(v, input, {7}), Failure(HvStatus::kInvalidParameter));
  input.target_vtl = UseVtl(2);
  EXPECT_EQ(Protect(v, input, {7}), Failure(HvStatus::kAccessDenied));
  input.target_vtl = UseVtl(3);
  EXPECT_EQ(Protect(v, input, {7}), Failure(HvStatus::kInvalidParameter));
  input.target_vtl = 0;
  EXPECT_EQ(Protect(v, input, {7}), Failure(HvStatus::kInvalidParameter));
  input.reserved[1] = 0;
  v.levels().answer = HvStatus::kInvalidRegisterValue;
  EXPECT_EQ(Protect(v, input, {7}), Failure(HvStatus::kInvalidRegisterValue));
  EXPECT_EQ(v.levels().protections, 0);
}

TEST(ModifyVtlProtectionMaskTest, FailsAtThePageThatFails) {
  VsmMachine v(kVtl1);
  EXPECT_EQ(Protect(v, {.partition_id = kOwn}, {1, 2, FakeVsmServices::kBadPage, 4}), Failure(HvStatus::kInvalidParameter, 2));
  EXPECT_EQ(v.levels().pages.size(), 2u);
  EXPECT_EQ(Protect(v, {.partition_id = kOwn}, {1, 2, FakeVsmServices::kBadPage, 4}, /*start=*/3), Success(4));
}

TEST(ModifyVtlProtectionMaskTest, FullPageIsDoneInFourExecutions) {
  VsmMachine v(kVtl1);
  std::vector<uint64_t> pages(510);
  for (size_t i = 0; i < pages.size(); ++i) pages[i] = 0x1000 + i;
  EXPECT_EQ(Protect(v, {.partition_id = kOwn, .flags = 1}, pages), Success(510));
  EXPECT_EQ(v.m.executions, 4);
  EXPECT_EQ(v.levels().protections, 4);
  ASSERT_EQ(v.levels().pages.size(), 510u);
  for (size_t i = 0; i < pages.size(); ++i) EXPECT_EQ(v.levels().pages[i].page, 0x1000 + i);
  EXPECT_EQ(Protect(v, {.partition_id = kOwn}, std::vector<uint64_t>(511)), Failure(HvStatus::kInvalidAlignment));
}

// --- Translation ------------------------------------------------------------------------------------------------------------

constexpr uint64_t Flags(uint64_t flags, uint8_t input_vtl = 0) { return flags | uint64_t{input_vtl} << 56; }

TEST(TranslateVirtualAddressTest, AnswersInBothForms) {
  VsmMachine v(kVtl1);
  v.levels().translation = {.status = HvStatus::kSuccess, .cache_type = 6, .overlay = true, .gpa_page = 0x1234};
  const HvTranslateInput input{.partition_id = kOwn, .vp_index = kSelf, .control_flags = Flags(1, UseVtl(0)), .gva_page = 0x55};
  EXPECT_EQ(v.Call(Code::kTranslateVirtualAddress, input), Success());
  EXPECT_EQ(v.m.Output<uint64_t>(0), uint64_t{1} << 40 | uint64_t{6} << 32);
  EXPECT_EQ(v.m.Output<uint64_t>(8), 0x1234u);
  EXPECT_EQ(v.Call(Code::kTranslateVirtualAddressEx, input), Success());
  EXPECT_EQ(v.m.Output<uint64_t>(0), uint64_t{1} << 40 | uint64_t{6} << 32);
  for (unsigned at = 8; at < 48; at += 8) EXPECT_EQ(v.m.Output<uint64_t>(at), 0u) << at;
  EXPECT_EQ(v.m.Output<uint64_t>(48), 0x1234u);
  EXPECT_EQ(v.m.Output<uint64_t>(56), 0u);
  EXPECT_EQ(v.levels().translated[1], (FakeVsmServices::Translated{HypercallMachine::kVp, kVtl0, 1, 0x55}));
}

TEST(TranslateVirtualAddressTest, FailedWalkIsASuccessfulCallWithoutAPage) {
  VsmMachine v(kVtl1);
  v.levels().translation = {.status = HvStatus::kSuccess, .code = HvTranslationCode::kGpaNoReadAccess, .gpa_page = 0x1234};
  const HvTranslateInput input{.partition_id = kOwn, .vp_index = 0, .control_flags = Flags(1)};
  EXPECT_EQ(v.Call(Code::kTranslateVirtualAddress, input), Success());
  EXPECT_EQ(v.m.Output<uint64_t>(0), 5u);
  EXPECT_EQ(v.m.Output<uint64_t>(8), 0u);
  EXPECT_EQ(v.levels().translated[0].vtl, kVtl1);  // the caller's own
}

TEST(TranslateVirtualAddressTest, RefusedCallWritesNothing) {
  VsmMachine v(kVtl1);
  v.levels().translation = {.status = HvStatus::kInvalidVtlState};
  const HvTranslateInput input{.partition_id = kOwn, .vp_index = 0, .control_flags = Flags(1)};
  EXPECT_EQ(v.Call(Code::kTranslateVirtualAddress, input), Failure(HvStatus::kInvalidVtlState));
  EXPECT_EQ(v.Call(Code::kTranslateVirtualAddressEx, input), Failure(HvStatus::kInvalidVtlState));
  EXPECT_TRUE(v.m.IsOutputUntouched());
}

TEST(TranslateVirtualAddressTest, FlagsAreTenAndOneOfThreeIsNeeded) {
  VsmMachine v(kVtl1);
  for (unsigned bit = 0; bit < 56; ++bit) {
    const uint64_t with_read = Flags(1 | uint64_t{1} << bit);
    EXPECT_EQ(v.Call(Code::kTranslateVirtualAddress, HvTranslateInput{.partition_id = kOwn, .control_flags = with_read}),
              bit < 10 ? Success() : Failure(HvStatus::kInvalidParameter)) << bit;
    const uint64_t alone = Flags(uint64_t{1} << bit);
    EXPECT_EQ(v.Call(Code::kTranslateVirtualAddress, HvTranslateInput{.partition_id = kOwn, .control_flags = alone}),
              bit < 3 ? Success() : Failure(HvStatus::kInvalidParameter)) << bit;
  }
}

TEST(TranslateVirtualAddressTest, ChecksComeInTheirOrder) {
  VsmMachine v(kVtl1);
  HvTranslateInput input{.partition_id = kForeign, .vp_index = 4, .reserved = 1, .control_flags = Flags(0, UseVtl(2))};
  EXPECT_EQ(v.Call(Code::kTranslateVirtualAddress, input), Failure(HvStatus::kAccessDenied));
  input.partition_id = kOwn;
  EXPECT_EQ(v.Call(Code::kTranslateVirtualAddress, input), Failure(HvStatus::kInvalidVpIndex));
  input.vp_index = 3;
  EXPECT_EQ(v.Call(Code::kTranslateVirtualAddress, input), Failure(HvStatus::kInvalidParameter));
  input.reserved = 0;
  EXPECT_EQ(v.Call(Code::kTranslateVirtualAddress, input), Failure(HvStatus::kAccessDenied));
  input.control_flags = Flags(0);
  EXPECT_EQ(v.Call(Code::kTranslateVirtualAddress, input), Failure(HvStatus::kInvalidParameter));
  EXPECT_TRUE(v.levels().translated.empty());
}

// --- Interrupts and intercepts ----------------------------------------------------------------------------------------------

TEST(AssertVirtualInterruptTest, FixedAndNmiGoToLowerLevels) {
  VsmMachine v(kVtl1);
  HvAssertVirtualInterruptInput input{.partition_id = kOwn, .destination = 0x3, .vector = 0xff};
  EXPECT_EQ(v.Call(Code::kAssertVirtualInterrupt, input), Success());
  input.control = kHvInterruptNmi | kHvInterruptControlLevel | kHvInterruptControlLogical;
  EXPECT_EQ(v.Call(Code::kAssertVirtualInterrupt, input), Success());
  EXPECT_EQ(v.levels().asserted, (std::vector<FakeVsmServices::Asserted>{
                                     {kVtl0, {.nmi = false, .level = false, .logical = false, .vector = 0xff, .destination = 3}},
                                     {kVtl0, {.nmi = true, .level = true, .logical = true, .vector = 0, .destination = 3}}}));
}

TEST(AssertVirtualInterruptTest, OwnAndHigherLevelsAreDenied) {
  HvAssertVirtualInterruptInput input{.partition_id = kOwn, .vector = 0x40};
  VsmMachine lowest(kVtl0);
  EXPECT_EQ(lowest.Call(Code::kAssertVirtualInterrupt, input), Failure(HvStatus::kAccessDenied));
  VsmMachine v(kVtl1);
  input.target_vtl = 1;
  EXPECT_EQ(v.Call(Code::kAssertVirtualInterrupt, input), Failure(HvStatus::kAccessDenied));
  input.target_vtl = 2;
  EXPECT_EQ(v.Call(Code::kAssertVirtualInterrupt, input), Failure(HvStatus::kAccessDenied));
  input.target_vtl = 3;
  EXPECT_EQ(v.Call(Code::kAssertVirtualInterrupt, input), Failure(HvStatus::kInvalidParameter));
}

TEST(AssertVirtualInterruptTest, TypesVectorsAndReservedBitsAreChecked) {
  VsmMachine v(kVtl1);
  const HvAssertVirtualInterruptInput good{.partition_id = kOwn, .vector = 0x10};
  EXPECT_EQ(v.Call(Code::kAssertVirtualInterrupt, good), Success());
  const auto refused = [&](auto change, HvStatus status = HvStatus::kInvalidParameter) {
    HvAssertVirtualInterruptInput input = good;
    change(input);
    EXPECT_EQ(v.Call(Code::kAssertVirtualInterrupt, input), Failure(status));
  };
  refused([](auto& i) { i.partition_id = kForeign; }, HvStatus::kInvalidPartitionId);
  for (const uint32_t type : {1u, 2u, 3u, 5u, 6u, 7u, 8u, 9u, 0x100u}) refused([&](auto& i) { i.control = type; });
  for (const uint32_t vector : {0u, 0xfu, 0x100u, 0x1010u}) refused([&](auto& i) { i.vector = vector; });
  for (unsigned bit = 34; bit < 64; ++bit) refused([&](auto& i) { i.control = uint64_t{1} << bit; });
  refused([](auto& i) { i.reserved0 = 1; });
  refused([](auto& i) { i.reserved1 = 1; });
  EXPECT_EQ(v.levels().asserted.size(), 1u);
}

TEST(InstallInterceptTest, PortsOnlyAndFromHigherLevelsOnly) {
  VsmMachine v(kVtl1);
  const HvInstallInterceptInput good{.partition_id = kOwn, .access = 3, .parameter = 0x3f8};
  EXPECT_EQ(v.Call(Code::kInstallIntercept, good), Success());
  HvInstallInterceptInput none = good;
  none.access = 0;
  EXPECT_EQ(v.Call(Code::kInstallIntercept, none), Success());
  EXPECT_EQ(v.levels().ports, (std::vector<FakeVsmServices::Port>{{0x3f8, true, true}, {0x3f8, false, false}}));
  const auto refused = [&](auto change, HvStatus status) {
    HvInstallInterceptInput input = good;
    change(input);
    EXPECT_EQ(v.Call(Code::kInstallIntercept, input), Failure(status));
  };
  refused([](auto& i) { i.partition_id = kForeign; }, HvStatus::kInvalidPartitionId);
  refused([](auto& i) { i.access = 4; }, HvStatus::kInvalidParameter);
  refused([](auto& i) { i.parameter = 0x1'0000; }, HvStatus::kInvalidParameter);
  for (uint32_t type = 1; type < 0x20; ++type) refused([&](auto& i) { i.type = type; }, HvStatus::kInvalidParameter);
  VsmMachine lowest(kVtl0);
  EXPECT_EQ(lowest.Call(Code::kInstallIntercept, good), Failure(HvStatus::kAccessDenied));
}

// --- What it changes in other calls -----------------------------------------------------------------------------------------

TEST(VsmFlushTest, WaitsForALockAndIsDoneWhenMadeAgain) {
  VsmMachine v(kVtl0);
  v.levels().tlb_locked = true;
  v.m.PutInput(HvFlushInput{.flags = kHvFlushAllProcessors});
  HypercallRegisters made = HypercallMachine::Caller64(0x2, HypercallMachine::kInput.raw(), 0);
  const HypercallRegisters before = made;
  EXPECT_EQ(v.m.Step(made), kBlocked);
  EXPECT_EQ(made.rax, before.rax);
  EXPECT_EQ(made.rcx, before.rcx);
  EXPECT_EQ(v.m.services.partition.flushes, 0);
  v.levels().tlb_locked = false;
  EXPECT_EQ(v.m.Step(made), Success());
  EXPECT_EQ(v.m.services.partition.flushes, 1);
}

TEST(VsmFlushTest, EveryFormWaits) {
  VsmMachine v(kVtl0);
  v.levels().tlb_locked = true;
  v.m.PutInput(HvFlushInput{.flags = kHvFlushAllProcessors});
  EXPECT_EQ(v.m.CallMemory({.code = Code::kFlushVirtualAddressList, .reps = 2}), kBlocked);
  v.m.PutInput(HvFlushExInput{.flags = kHvFlushAllProcessors});
  EXPECT_EQ(v.m.CallMemory({Code::kFlushVirtualAddressSpaceEx}), kBlocked);
  EXPECT_EQ(v.m.CallMemory({.code = Code::kFlushVirtualAddressListEx, .reps = 2, .start = 1}), kBlocked);
  EXPECT_EQ(v.m.services.partition.flushes, 0);
}

TEST(VsmFlushTest, MalformedOnesDoNotWait) {
  VsmMachine v(kVtl0);
  v.levels().tlb_locked = true;
  v.m.PutInput(HvFlushInput{});
  EXPECT_EQ(v.m.CallMemory({Code::kFlushVirtualAddressSpace}), Failure(HvStatus::kInvalidParameter));
}

TEST(VsmIpiTest, ExplicitLevelMustBeEnabledAndNotAboveTheCaller) {
  VsmMachine v(kVtl1);
  const auto send = [](VsmMachine& from, uint8_t vtl) {
    return from.Call(Code::kSendSyntheticClusterIpi, HvSendIpiInput{.vector = 0x40, .target_vtl = vtl, .processor_mask = 1});
  };
  EXPECT_EQ(send(v, UseVtl(0)), Success());
  EXPECT_EQ(send(v, UseVtl(1)), Success());
  EXPECT_EQ(send(v, UseVtl(2)), Failure(HvStatus::kAccessDenied));
  VsmMachine lowest(kVtl0);
  EXPECT_EQ(send(lowest, UseVtl(1)), Failure(HvStatus::kAccessDenied));
  VsmMachine gap(kVtl2, 0b101);
  EXPECT_EQ(send(gap, UseVtl(1)), Failure(HvStatus::kInvalidVtlState));
  EXPECT_EQ(send(gap, UseVtl(0)), Success());
}

TEST(VsmRegisterCallTest, LowerLevelsRegistersAreNamedByTheTarget) {
  VsmMachine v(kVtl1);
  v.m.PutInput(HvVpRegistersInput{.partition_id = kOwn, .vp_index = kSelf, .target_vtl = UseVtl(0)});
  v.m.PutInput(HvRegisterName::kRip, 16);
  EXPECT_EQ(v.m.CallMemory({.code = Code::kGetVpRegisters, .reps = 1}), Success(1));
  ASSERT_EQ(v.m.services.got.size(), 1u);
  EXPECT_EQ(v.m.services.got[0].vtl, kVtl0);
}

}  // namespace
}  // namespace vmm
