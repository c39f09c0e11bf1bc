#include "devices/hyperv/hypercall/hypercall_dispatcher.h"

#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

#include "devices/guest_interface.h"
#include "devices/hyperv/hv_cpuid_layout.h"
#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/hypercall/fake_hypercall_services.h"
#include "devices/hyperv/hypercall/hv_register_layout.h"
#include "devices/hyperv/hypercall/hypercall_layout.h"
#include "devices/hyperv/hypercall/hypercall_machine_for_test.h"
#include "devices/hyperv/hypercall/hypercall_parameters_layout.h"
#include "memory/gpa.h"
#include "memory/page_rights.h"
#include "memory/protection_map.h"
#include "memory/recording_listener.h"

namespace vmm {
namespace {

using Code = HypercallCode;
using Name = HvRegisterName;

constexpr HvVpRegistersInput kOwnRegisters{.partition_id = kHvPartitionIdSelf, .vp_index = kHvVpIndexSelf.raw()};

std::vector<Name> Names(uint32_t count) {
  std::vector<Name> names;
  for (uint32_t n = 0; n < count; ++n) names.push_back(Name(0x2'0000 + n));
  return names;
}

HvOffer OfferWithout(HvFeature feature) {
  HvOffer offer = OfferOfEverything();
  offer.features &= ~(uint32_t{1} << static_cast<unsigned>(feature));
  return offer;
}

// --- Who may call -------------------------------------------------------------------------------------------------------

TEST(HypercallDispatcherTest, UserModeIsUndefinedOpcode) {
  HypercallMachine m;
  for (const uint8_t cpl : {1, 2, 3}) {
    auto registers = HypercallMachine::Caller64(Control{Code::kGetPartitionId}.value(), 0, HypercallMachine::kOutput.raw());
    registers.cpl = cpl;
    EXPECT_EQ(m.Run(registers), kUndefinedOpcode);
    EXPECT_EQ(m.registers.rax, registers.rax);
  }
  EXPECT_EQ(m.dispatcher.stats().undefined, 3u);
}

TEST(HypercallDispatcherTest, RealModeIsUndefinedOpcode) {
  HypercallMachine m;
  auto registers = HypercallMachine::Caller32(Control{Code::kGetPartitionId}.value(), 0, HypercallMachine::kOutput.raw());
  registers.protected_mode = false;
  EXPECT_EQ(m.Run(registers), kUndefinedOpcode);
  EXPECT_TRUE(m.IsOutputUntouched());
}

TEST(HypercallDispatcherTest, SwitchesOfTrustLevelAreUndefinedOpcodeWhateverElseTheInputSays) {
  HypercallMachine m;
  for (const Code code : {Code::kVtlCall, Code::kVtlReturn}) {
    EXPECT_EQ(m.CallMemory({code}), kUndefinedOpcode);
    EXPECT_EQ(m.CallFast({code}), kUndefinedOpcode);
    EXPECT_EQ(m.CallMemory({.code = code, .reps = 1}), kUndefinedOpcode);
    EXPECT_EQ(m.Run(HypercallMachine::Caller32(Control{code}.value(), 0, 0)), kUndefinedOpcode);
  }
}

// --- Order of checks ----------------------------------------------------------------------------------------------------

TEST(HypercallDispatcherTest, UnknownCodesAreInvalidBeforeAnythingElse) {
  HypercallMachine m{HvOffer{}};
  for (const uint32_t code : {0x0000, 0x0001, 0x000c, 0x000d, 0x000e, 0x000f, 0x0010, 0x0052, 0x007e, 0x8002, 0x8041, 0xffff}) {
    EXPECT_EQ(m.CallMemory({Code(code)}), Failure(HvStatus::kInvalidHypercallCode)) << std::hex << code;
    EXPECT_EQ(m.CallMemory({.code = Code(code), .reps = 3, .raw = uint64_t{1} << 63}, Gpa(1), Gpa(1)),
              Failure(HvStatus::kInvalidHypercallCode));
    EXPECT_EQ(m.Run(HypercallMachine::Caller32(code, 0, 0)), Failure(HvStatus::kInvalidHypercallCode));
  }
}

TEST(HypercallDispatcherTest, MissingPrivilegeIsDeniedBeforeTheInputIsLookedAt) {
  HypercallMachine m{HvOffer{}};
  for (const Code code : {Code::kGetPartitionId, Code::kGetVpRegisters, Code::kSetVpRegisters, Code::kPostMessage,
                          Code::kSignalEvent, Code::kStartVirtualProcessor, Code::kGetVpIndexFromApicId,
                          Code::kExtQueryCapabilities}) {
    EXPECT_EQ(m.CallMemory({code}), Failure(HvStatus::kAccessDenied));
    EXPECT_EQ(m.CallMemory({.code = code, .raw = uint64_t{1} << 27}, Gpa(1), Gpa(1)), Failure(HvStatus::kAccessDenied));
    EXPECT_EQ(m.CallFast({code}), Failure(HvStatus::kAccessDenied));
  }
}

TEST(HypercallDispatcherTest, EachPrivilegeOpensItsOwnCallsOnly) {
  HypercallMachine m{HvOffer{}.With(HvPrivilege::kSignalEvents)};
  EXPECT_EQ(m.CallFast({Code::kSignalEvent}), Success());
  EXPECT_EQ(m.CallMemory({Code::kPostMessage}), Failure(HvStatus::kAccessDenied));
}

TEST(HypercallDispatcherTest, ReservedBitsOfTheInputAreInvalidBeforeAlignment) {
  HypercallMachine m;
  for (const unsigned bit : {27, 28, 29, 30, 31, 44, 45, 46, 47, 60, 61, 62, 63}) {
    EXPECT_EQ(m.CallMemory({.code = Code::kNotifyLongSpinWait, .raw = uint64_t{1} << bit}, Gpa(1)),
              Failure(HvStatus::kInvalidHypercallInput))
        << bit;
  }
}

TEST(HypercallDispatcherTest, SimpleCallsHaveNoReps) {
  HypercallMachine m;
  EXPECT_EQ(m.CallFast({.code = Code::kNotifyLongSpinWait, .reps = 1}), Failure(HvStatus::kInvalidHypercallInput));
  EXPECT_EQ(m.CallFast({.code = Code::kNotifyLongSpinWait, .start = 1}), Failure(HvStatus::kInvalidHypercallInput));
  EXPECT_EQ(m.CallFast({.code = Code::kNotifyLongSpinWait, .reps = 2, .start = 1}), Failure(HvStatus::kInvalidHypercallInput));
}

TEST(HypercallDispatcherTest, RepCallsHaveAStartBelowTheirCount) {
  HypercallMachine m;
  EXPECT_EQ(m.CallMemory({Code::kGetVpRegisters}), Failure(HvStatus::kInvalidHypercallInput));
  EXPECT_EQ(m.CallMemory({.code = Code::kGetVpRegisters, .start = 1}), Failure(HvStatus::kInvalidHypercallInput));
  EXPECT_EQ(m.CallMemory({.code = Code::kGetVpRegisters, .reps = 2, .start = 2}), Failure(HvStatus::kInvalidHypercallInput));
  EXPECT_EQ(m.CallMemory({.code = Code::kGetVpRegisters, .reps = 2, .start = 0xfff}), Failure(HvStatus::kInvalidHypercallInput));
}

TEST(HypercallDispatcherTest, VariableHeaderIsInvalidWhereTheCallHasNone) {
  HypercallMachine m;
  EXPECT_EQ(m.CallMemory({.code = Code::kSendSyntheticClusterIpi, .variable = 1}), Failure(HvStatus::kInvalidHypercallInput));
  EXPECT_EQ(m.CallMemory({.code = Code::kGetVpRegisters, .reps = 1, .variable = 0x3ff}),
            Failure(HvStatus::kInvalidHypercallInput));
}

// --- Memory form --------------------------------------------------------------------------------------------------------

TEST(HypercallDispatcherTest, SimpleOutputGoesToMemory) {
  HypercallMachine m;
  EXPECT_EQ(m.CallMemory({Code::kGetPartitionId}), Success());
  EXPECT_EQ(m.Output<uint64_t>(), FakeHypercallServices::kPartitionId);
  EXPECT_TRUE(m.IsOutputUntouched(8));
  EXPECT_EQ(m.xmm.loads, 0);
}

TEST(HypercallDispatcherTest, OnlyTheResultRegisterChangesFor64BitCallers) {
  HypercallMachine m;
  const auto before = HypercallMachine::Caller64(Control{Code::kGetPartitionId}.value(), 3, HypercallMachine::kOutput.raw());
  EXPECT_EQ(m.Run(before), Success());
  EXPECT_EQ(m.registers.rax, 0u);
  EXPECT_EQ(m.registers.rbx, before.rbx);
  EXPECT_EQ(m.registers.rcx, before.rcx);
  EXPECT_EQ(m.registers.rdx, before.rdx);
  EXPECT_EQ(m.registers.rsi, before.rsi);
  EXPECT_EQ(m.registers.rdi, before.rdi);
  EXPECT_EQ(m.registers.r8, before.r8);
}

TEST(HypercallDispatcherTest, OnlyTheResultRegistersChangeFor32BitCallers) {
  HypercallMachine m;
  m.PutInput(kOwnRegisters);
  m.PutList(16, Names(2));
  const auto before = HypercallMachine::Caller32(Control{.code = Code::kGetVpRegisters, .reps = 2}.value(),
                                                 HypercallMachine::kInput.raw(), HypercallMachine::kOutput.raw());
  EXPECT_EQ(m.Run(before), Success(2));
  EXPECT_EQ(m.registers.rax, 0u);
  EXPECT_EQ(m.registers.rdx, 2u);
  EXPECT_EQ(m.registers.rbx, before.rbx);
  EXPECT_EQ(m.registers.rcx, before.rcx);
  EXPECT_EQ(m.registers.rsi, before.rsi);
  EXPECT_EQ(m.registers.rdi, before.rdi);
  EXPECT_EQ(m.registers.r8, before.r8);
  EXPECT_EQ(m.Output<HvRegisterValue>(16), FakeHypercallServices::ValueOf(Name(0x2'0001)));
}

TEST(HypercallDispatcherTest, ThirtyTwoBitAddressesHaveHighHalves) {
  HypercallMachine m;
  EXPECT_EQ(m.Run(HypercallMachine::Caller32(Control{Code::kGetPartitionId}.value(), 0, 0x1'0000'0000)),
            Failure(HvStatus::kInvalidHypercallInput));
  EXPECT_EQ(m.Run(HypercallMachine::Caller32(Control{Code::kNotifyLongSpinWait}.value(), 0x1'0000'0000, 0)),
            Failure(HvStatus::kInvalidHypercallInput));
}

TEST(HypercallDispatcherTest, BlocksAreAlignedTo8) {
  HypercallMachine m;
  for (const uint64_t off : {1, 2, 4, 7}) {
    EXPECT_EQ(m.CallMemory({Code::kNotifyLongSpinWait}, HypercallMachine::kInput + off), Failure(HvStatus::kInvalidAlignment));
    EXPECT_EQ(m.CallMemory({Code::kGetPartitionId}, Gpa(0), HypercallMachine::kOutput + off),
              Failure(HvStatus::kInvalidAlignment));
  }
  EXPECT_EQ(m.CallMemory({Code::kNotifyLongSpinWait}, HypercallMachine::kInput + 8), Success());
  EXPECT_TRUE(m.IsOutputUntouched());
}

TEST(HypercallDispatcherTest, BlocksEndInTheirPage) {
  HypercallMachine m;
  m.PutInput(HvSendIpiInput{.vector = 0x40, .processor_mask = 1}, kPageBytes - 16);
  EXPECT_EQ(m.CallMemory({Code::kSendSyntheticClusterIpi}, HypercallMachine::kInput + (kPageBytes - 16)), Success());
  EXPECT_EQ(m.CallMemory({Code::kSendSyntheticClusterIpi}, HypercallMachine::kInput + (kPageBytes - 8)),
            Failure(HvStatus::kInvalidAlignment));
  m.PutInput(kOwnRegisters);
  m.PutList(16, Names(2));
  EXPECT_EQ(m.CallMemory({.code = Code::kGetVpRegisters, .reps = 2}, HypercallMachine::kInput,
                         HypercallMachine::kOutput + (kPageBytes - 32)),
            Success(2));
  EXPECT_EQ(m.CallMemory({.code = Code::kGetVpRegisters, .reps = 2}, HypercallMachine::kInput,
                         HypercallMachine::kOutput + (kPageBytes - 24)),
            Failure(HvStatus::kInvalidAlignment));
}

TEST(HypercallDispatcherTest, RepCountsAreLimitedByThePage) {
  HypercallMachine m;
  m.PutInput(kOwnRegisters);
  m.PutList(16, Names(257));
  EXPECT_EQ(m.CallMemory({.code = Code::kGetVpRegisters, .reps = 256}), Success(256));
  EXPECT_EQ(m.CallMemory({.code = Code::kGetVpRegisters, .reps = 257}), Failure(HvStatus::kInvalidAlignment));
  EXPECT_EQ(m.CallMemory({.code = Code::kGetVpRegisters, .reps = 4095, .start = 4000}),
            Failure(HvStatus::kInvalidAlignment, 4000));
  m.PutList(16, std::vector<HvSetVpRegistersElement>(127));
  EXPECT_EQ(m.CallMemory({.code = Code::kSetVpRegisters, .reps = 127}), Success(127));
  EXPECT_EQ(m.CallMemory({.code = Code::kSetVpRegisters, .reps = 128}), Failure(HvStatus::kInvalidAlignment));
  EXPECT_EQ(m.CallMemory({.code = Code::kFlushVirtualAddressListEx, .reps = 4095, .variable = 0x3ff}),
            Failure(HvStatus::kInvalidAlignment));
}

TEST(HypercallDispatcherTest, BlocksOutsideRamAreInvalidInput) {
  HypercallMachine m;
  for (const uint64_t gpa : {HypercallMachine::kRamBytes, uint64_t{0xfee0'0000}, ~uint64_t{7}, uint64_t{1} << 63}) {
    EXPECT_EQ(m.CallMemory({Code::kNotifyLongSpinWait}, Gpa(gpa)), Failure(HvStatus::kInvalidHypercallInput)) << std::hex << gpa;
    EXPECT_EQ(m.CallMemory({Code::kGetPartitionId}, Gpa(0), Gpa(gpa)), Failure(HvStatus::kInvalidHypercallInput));
  }
  EXPECT_EQ(m.CallMemory({Code::kGetPartitionId}, Gpa(0), Gpa(HypercallMachine::kRamBytes - 8)), Success());
}

TEST(HypercallDispatcherTest, OutputOutsideRamIsRefusedBeforeTheCallIsMade) {
  HypercallMachine m;
  m.PutInput(kOwnRegisters);
  EXPECT_EQ(m.CallMemory({.code = Code::kGetVpRegisters, .reps = 1}, HypercallMachine::kInput, Gpa(HypercallMachine::kRamBytes)),
            Failure(HvStatus::kInvalidHypercallInput));
  EXPECT_TRUE(m.services.got.empty());
}

// What VTL1 lets VTL0 do with the page of a block.
void Protect(HypercallMachine& m, Gpa block, PageRights rights) {
  RecordingListener listener;
  ASSERT_EQ(m.map->Set(1, block.page(), 1, rights, listener), ProtectionResult::kDone);
}

TEST(HypercallDispatcherTest, InputThatTheCallerMayNotReadIsNotReadForIt) {
  HypercallMachine m;
  m.PutInput(HvSignalEventInput{.connection_id = 7});
  Protect(m, HypercallMachine::kInput, PageRights::None());
  EXPECT_EQ(m.CallMemory({Code::kSignalEvent}), Failure(HvStatus::kInvalidHypercallInput));
  EXPECT_TRUE(m.services.signalled.empty());
  Protect(m, HypercallMachine::kInput, PageRights(PageRights::kRead));
  EXPECT_EQ(m.CallMemory({Code::kSignalEvent}), Success());
  EXPECT_FALSE(m.services.signalled.empty());
}

TEST(HypercallDispatcherTest, OutputThatTheCallerMayNotWriteIsNotWrittenForItAndTheCallNotMade) {
  for (const PageRights rights : {PageRights::None(), PageRights(PageRights::kRead), PageRights(0xd)}) {
    HypercallMachine m;
    m.PutInput(kOwnRegisters);
    m.PutList(16, Names(1));
    Protect(m, HypercallMachine::kOutput, rights);
    EXPECT_EQ(m.CallMemory({.code = Code::kGetVpRegisters, .reps = 1}), Failure(HvStatus::kInvalidHypercallInput));
    EXPECT_TRUE(m.services.got.empty());
    EXPECT_TRUE(m.IsOutputUntouched());
  }
}

TEST(HypercallDispatcherTest, OutputThatIsTakenAwayDuringTheCallIsNotWritten) {
  HypercallMachine m;
  m.PutInput(kOwnRegisters);
  m.PutList(16, Names(1));
  m.services.on_register = [&m] { Protect(m, HypercallMachine::kOutput, PageRights::None()); };
  EXPECT_EQ(m.CallMemory({.code = Code::kGetVpRegisters, .reps = 1}), Failure(HvStatus::kInvalidHypercallInput));
  EXPECT_TRUE(m.IsOutputUntouched());
}

TEST(HypercallDispatcherTest, TheLevelThatProtectsUsesItsPages) {
  HypercallMachine m(OfferOfEverything(), kVtl1);
  m.PutInput(HvSignalEventInput{.connection_id = 7});
  Protect(m, HypercallMachine::kInput, PageRights::None());
  EXPECT_EQ(m.CallMemory({Code::kSignalEvent}), Success());
}

TEST(HypercallDispatcherTest, InputAndOutputMayBeOnePlace) {
  HypercallMachine m;
  m.PutInput(HvVpIndexFromApicIdInput{.partition_id = kHvPartitionIdSelf});
  m.PutInput(uint32_t{3}, 16);
  EXPECT_EQ(m.CallMemory({.code = Code::kGetVpIndexFromApicId, .reps = 1}, HypercallMachine::kInput, HypercallMachine::kInput),
            Success(1));
  uint32_t index = 0;
  ASSERT_TRUE(m.memory->ReadObject(HypercallMachine::kInput, index));
  EXPECT_EQ(index, 3u);
}

TEST(HypercallDispatcherTest, WhoOverlapsACallThatContinuesSpoilsItsOwnParameters) {
  HypercallMachine m;
  m.PutInput(kOwnRegisters);
  m.PutList(16, Names(17));
  // The first portion's output is where the header was.
  EXPECT_EQ(m.CallMemory({.code = Code::kGetVpRegisters, .reps = 17}, HypercallMachine::kInput, HypercallMachine::kInput),
            Failure(HvStatus::kAccessDenied, 16));
}

TEST(HypercallDispatcherTest, AlignmentOfBothComesBeforeRam) {
  HypercallMachine m;
  m.PutInput(kOwnRegisters);
  const Control control{.code = Code::kGetVpRegisters, .reps = 2};
  EXPECT_EQ(m.CallMemory(control, Gpa(HypercallMachine::kRamBytes), HypercallMachine::kOutput + 4),
            Failure(HvStatus::kInvalidAlignment));
  EXPECT_EQ(m.CallMemory(control, Gpa(HypercallMachine::kRamBytes + 1)), Failure(HvStatus::kInvalidAlignment));
  EXPECT_EQ(m.CallMemory(control, HypercallMachine::kInput, HypercallMachine::kInput + 1), Failure(HvStatus::kInvalidAlignment));
}

TEST(HypercallDispatcherTest, AddressesOfWhatACallHasNotAreIgnored) {
  HypercallMachine m;
  EXPECT_EQ(m.CallMemory({Code::kGetPartitionId}, Gpa(~uint64_t{0})), Success());
  EXPECT_EQ(m.CallMemory({Code::kNotifyLongSpinWait}, HypercallMachine::kInput, Gpa(~uint64_t{0})), Success());
}

TEST(HypercallDispatcherTest, RefusedCallsWriteNothing) {
  HypercallMachine m;
  EXPECT_EQ(m.CallMemory({.code = Code::kGetPartitionId, .reps = 1}), Failure(HvStatus::kInvalidHypercallInput));
  EXPECT_TRUE(m.IsOutputUntouched());
}

TEST(HypercallDispatcherTest, InputIsReadOnce) {
  HypercallMachine m;
  m.PutInput(kOwnRegisters);
  m.PutList(16, Names(3));
  // Another processor of the guest rewrites the list while the first element is done.
  m.services.on_register = [&] { m.PutList(16, std::vector<Name>(3, FakeHypercallServices::kUnknownName)); };
  EXPECT_EQ(m.CallMemory({.code = Code::kGetVpRegisters, .reps = 3}), Success(3));
  EXPECT_EQ(m.Output<HvRegisterValue>(32), FakeHypercallServices::ValueOf(Name(0x2'0002)));
}

// --- Reps ---------------------------------------------------------------------------------------------------------------

TEST(HypercallDispatcherTest, FailureSaysHowManyElementsAreDoneAndGivesTheirOutput) {
  HypercallMachine m;
  m.PutInput(kOwnRegisters);
  m.PutList(16, std::vector<Name>{Name::kRax, Name::kRip, FakeHypercallServices::kUnknownName, Name::kRsp});
  EXPECT_EQ(m.CallMemory({.code = Code::kGetVpRegisters, .reps = 4}), Failure(HvStatus::kInvalidParameter, 2));
  EXPECT_EQ(m.registers.rax, 0x2'0000'0005u);
  EXPECT_EQ(m.Output<HvRegisterValue>(0), FakeHypercallServices::ValueOf(Name::kRax));
  EXPECT_EQ(m.Output<HvRegisterValue>(16), FakeHypercallServices::ValueOf(Name::kRip));
  EXPECT_TRUE(m.IsOutputUntouched(32));
}

TEST(HypercallDispatcherTest, FailureOfTheFirstElementGivesNothing) {
  HypercallMachine m;
  m.PutInput(kOwnRegisters);
  m.PutList(16, std::vector<Name>{FakeHypercallServices::kUnknownName, Name::kRsp});
  EXPECT_EQ(m.CallMemory({.code = Code::kGetVpRegisters, .reps = 2}), Failure(HvStatus::kInvalidParameter, 0));
  EXPECT_TRUE(m.IsOutputUntouched());
}

TEST(HypercallDispatcherTest, GuestMaySkipElementsWithTheStartIndex) {
  HypercallMachine m;
  m.PutInput(kOwnRegisters);
  m.PutList(16, std::vector<Name>{Name::kRax, FakeHypercallServices::kUnknownName, Name::kRip, Name::kRsp});
  EXPECT_EQ(m.CallMemory({.code = Code::kGetVpRegisters, .reps = 4, .start = 2}), Success(4));
  EXPECT_EQ(m.services.got.size(), 2u);
  EXPECT_TRUE(m.IsOutputUntouched(0, 32));
  EXPECT_EQ(m.Output<HvRegisterValue>(32), FakeHypercallServices::ValueOf(Name::kRip));
  EXPECT_EQ(m.Output<HvRegisterValue>(48), FakeHypercallServices::ValueOf(Name::kRsp));
  EXPECT_TRUE(m.IsOutputUntouched(64));
}

TEST(HypercallDispatcherTest, FailureBehindTheStartIndexCountsAbsolutely) {
  HypercallMachine m;
  m.PutInput(kOwnRegisters);
  m.PutList(16, std::vector<Name>{Name::kRax, Name::kRbx, Name::kRip, FakeHypercallServices::kUnknownName});
  EXPECT_EQ(m.CallMemory({.code = Code::kGetVpRegisters, .reps = 4, .start = 2}), Failure(HvStatus::kInvalidParameter, 3));
  EXPECT_EQ(m.CallMemory({.code = Code::kGetVpRegisters, .reps = 4, .start = 3}), Failure(HvStatus::kInvalidParameter, 3));
}

TEST(HypercallDispatcherTest, LongRepCallsContinueWhereTheyWereFor64BitCallers) {
  HypercallMachine m;
  m.PutInput(kOwnRegisters);
  m.PutList(16, Names(40));
  auto registers = HypercallMachine::Caller64(Control{.code = Code::kGetVpRegisters, .reps = 40}.value(),
                                              HypercallMachine::kInput.raw(), HypercallMachine::kOutput.raw());
  const auto before = registers;
  EXPECT_EQ(m.Step(registers), Again(16));
  EXPECT_EQ(registers.rcx, before.rcx | uint64_t{16} << 48);
  EXPECT_EQ(registers.rax, before.rax);
  EXPECT_EQ(registers.rdx, before.rdx);
  EXPECT_EQ(registers.r8, before.r8);
  // What is done can be seen.
  EXPECT_EQ(m.Output<HvRegisterValue>(15 * 16), FakeHypercallServices::ValueOf(Name(0x2'000f)));
  EXPECT_TRUE(m.IsOutputUntouched(16 * 16));
  EXPECT_EQ(m.Step(registers), Again(32));
  EXPECT_EQ(m.Step(registers), Success(40));
  EXPECT_EQ(registers.rax, uint64_t{40} << 32);
  for (uint32_t n = 0; n < 40; ++n) {
    EXPECT_EQ(m.Output<HvRegisterValue>(n * 16), FakeHypercallServices::ValueOf(Name(0x2'0000 + n))) << n;
  }
  EXPECT_EQ(m.services.got.size(), 40u);
  EXPECT_TRUE(m.IsOutputUntouched(40 * 16));
  EXPECT_EQ(m.dispatcher.stats().continued, 2u);
  EXPECT_EQ(m.dispatcher.stats().succeeded, 1u);
}

TEST(HypercallDispatcherTest, LongRepCallsContinueWhereTheyWereFor32BitCallers) {
  HypercallMachine m;
  m.PutInput(kOwnRegisters);
  m.PutList(16, Names(20));
  const uint64_t control = Control{.code = Code::kGetVpRegisters, .reps = 20}.value();
  auto registers = HypercallMachine::Caller32(control, HypercallMachine::kInput.raw(), HypercallMachine::kOutput.raw());
  EXPECT_EQ(m.Step(registers), Again(16));
  EXPECT_EQ(registers.rax, control & 0xffff'ffff);
  EXPECT_EQ(registers.rdx, uint64_t{16} << 16 | 20);
  EXPECT_EQ(m.Step(registers), Success(20));
  EXPECT_EQ(registers.rax, 0u);
  EXPECT_EQ(registers.rdx, 20u);
  EXPECT_EQ(m.services.got.size(), 20u);
}

TEST(HypercallDispatcherTest, ExactlyOnePortionIsNotContinued) {
  HypercallMachine m;
  m.PutInput(kOwnRegisters);
  m.PutList(16, Names(17));
  EXPECT_EQ(m.CallMemory({.code = Code::kGetVpRegisters, .reps = 16}), Success(16));
  EXPECT_EQ(m.executions, 1);
  EXPECT_EQ(m.CallMemory({.code = Code::kGetVpRegisters, .reps = 17}), Success(17));
  EXPECT_EQ(m.executions, 2);
}

TEST(HypercallDispatcherTest, ParametersAreCheckedAnewWhereACallContinues) {
  HypercallMachine m;
  m.PutInput(kOwnRegisters);
  m.PutList(16, Names(40));
  auto registers = HypercallMachine::Caller64(Control{.code = Code::kGetVpRegisters, .reps = 40}.value(),
                                              HypercallMachine::kInput.raw(), HypercallMachine::kOutput.raw());
  EXPECT_EQ(m.Step(registers), Again(16));
  HvVpRegistersInput other = kOwnRegisters;
  other.vp_index = 99;
  m.PutInput(other);
  EXPECT_EQ(m.Step(registers), Failure(HvStatus::kInvalidVpIndex, 16));
}

TEST(HypercallDispatcherTest, FailureInALaterPortionCountsTheEarlierOnes) {
  HypercallMachine m;
  m.PutInput(kOwnRegisters);
  auto names = Names(40);
  names[35] = FakeHypercallServices::kUnknownName;
  m.PutList(16, names);
  EXPECT_EQ(m.CallMemory({.code = Code::kGetVpRegisters, .reps = 40}), Failure(HvStatus::kInvalidParameter, 35));
  EXPECT_EQ(m.executions, 3);
  EXPECT_EQ(m.Output<HvRegisterValue>(34 * 16), FakeHypercallServices::ValueOf(Name(0x2'0022)));
  EXPECT_TRUE(m.IsOutputUntouched(35 * 16));
}

// --- Fast form ----------------------------------------------------------------------------------------------------------

TEST(HypercallDispatcherTest, FastInputComesFromRdxAndR8) {
  HypercallMachine m;
  // Vector 0x41, mask 0b101.
  EXPECT_EQ(m.CallFast({Code::kSendSyntheticClusterIpi}, 0x41, 5), Success());
  EXPECT_EQ(m.services.partition.interrupts,
            (std::vector<FakePartitionHost::Interrupt>{{VpIndex(0), 0x41}, {VpIndex(2), 0x41}}));
  EXPECT_EQ(m.registers.rdx, 0x41u);
  EXPECT_EQ(m.registers.r8, 5u);
  EXPECT_EQ(m.xmm.loads, 0);
}

TEST(HypercallDispatcherTest, FastInputOf32BitCallersComesFromFourRegisters) {
  HypercallMachine m;
  m.services.partition.count = 64;
  Control control{.code = Code::kSendSyntheticClusterIpi, .fast = true};
  EXPECT_EQ(m.Run(HypercallMachine::Caller32(control.value(), 0x41, uint64_t{1} << 40 | 2)), Success());
  EXPECT_EQ(m.services.partition.interrupts,
            (std::vector<FakePartitionHost::Interrupt>{{VpIndex(1), 0x41}, {VpIndex(40), 0x41}}));
  control.code = Code::kSignalEvent;
  EXPECT_EQ(m.Run(HypercallMachine::Caller32(control.value(), uint64_t{3} << 32 | 7, 0)), Success());
  EXPECT_EQ(m.services.signalled, (std::vector<FakeHypercallServices::Signalled>{{7, 3}}));
}

TEST(HypercallDispatcherTest, FastInputGoesOnInXmmRegisters) {
  HypercallMachine m;
  // Ex: vector; format; mask of banks 0 and 1; their banks.
  m.services.partition.count = 128;
  m.xmm.values[0] = {0b11, uint64_t{1} << 3};
  m.xmm.values[1] = {uint64_t{1} << 5, 0};
  EXPECT_EQ(m.CallFast({.code = Code::kSendSyntheticClusterIpiEx, .variable = 2}, 0x42, kHvVpSetSparse4k), Success());
  EXPECT_EQ(m.services.partition.interrupts,
            (std::vector<FakePartitionHost::Interrupt>{{VpIndex(3), 0x42}, {VpIndex(69), 0x42}}));
  EXPECT_EQ(m.xmm.loads, 1);
  EXPECT_EQ(m.xmm.stores, 0);
}

TEST(HypercallDispatcherTest, XmmInputOf32BitCallersFollowsTheFourRegisters) {
  HypercallMachine m;
  m.xmm.values[0] = {0b1, 0b1010};
  const Control control{.code = Code::kSendSyntheticClusterIpiEx, .variable = 1, .fast = true};
  EXPECT_EQ(m.Run(HypercallMachine::Caller32(control.value(), 0x42, kHvVpSetSparse4k)), Success());
  EXPECT_EQ(m.services.partition.interrupts,
            (std::vector<FakePartitionHost::Interrupt>{{VpIndex(1), 0x42}, {VpIndex(3), 0x42}}));
}

TEST(HypercallDispatcherTest, XmmInputThatIsNotOfferedIsUndefinedOpcode) {
  HypercallMachine m{OfferWithout(HvFeature::kXmmInput)};
  m.xmm.values[0] = {1, 1};
  EXPECT_EQ(m.CallFast({.code = Code::kSendSyntheticClusterIpiEx, .variable = 1}, 0x42), kUndefinedOpcode);
  EXPECT_EQ(m.CallFast({.code = Code::kFlushVirtualAddressSpace}, 0, kHvFlushAllProcessors), kUndefinedOpcode);
  EXPECT_EQ(m.xmm.loads, 0);
  EXPECT_EQ(m.services.partition.flushes, 0);
  // Two registers are always there.
  EXPECT_EQ(m.CallFast({.code = Code::kSendSyntheticClusterIpi}, 0x42, 1), Success());
}

TEST(HypercallDispatcherTest, FastInputHasSevenSlots) {
  HypercallMachine m;
  // 24 bytes of header and 11 banks are 112; one more is too much.
  m.xmm.values[0][0] = 0x7ff;
  EXPECT_EQ(m.CallFast({.code = Code::kSendSyntheticClusterIpiEx, .variable = 11}, 0x42), Success());
  EXPECT_EQ(m.CallFast({.code = Code::kSendSyntheticClusterIpiEx, .variable = 12}, 0x42),
            Failure(HvStatus::kInvalidHypercallInput));
  EXPECT_EQ(m.CallFast({Code::kPostMessage}), Failure(HvStatus::kInvalidHypercallInput));
  EXPECT_EQ(m.CallFast({Code::kStartVirtualProcessor}), Failure(HvStatus::kInvalidHypercallInput));
  EXPECT_EQ(m.CallFast({.code = Code::kSetVpRegisters, .reps = 4}, kHvPartitionIdSelf, kHvVpIndexSelf.raw()),
            Failure(HvStatus::kInvalidHypercallInput));
  EXPECT_EQ(m.CallFast({.code = Code::kSetVpRegisters, .reps = 3}, kHvPartitionIdSelf, kHvVpIndexSelf.raw()), Success(3));
}

TEST(HypercallDispatcherTest, TooLargeForAnyRegistersIsInvalidInputAlsoWithoutXmm) {
  HypercallMachine m{OfferWithout(HvFeature::kXmmInput)};
  EXPECT_EQ(m.CallFast({Code::kPostMessage}), Failure(HvStatus::kInvalidHypercallInput));
}

TEST(HypercallDispatcherTest, FastOutputWithoutInputIsInRdx) {
  HypercallMachine m;
  EXPECT_EQ(m.CallFast({Code::kGetPartitionId}, 0x111, 0x222), Success());
  EXPECT_EQ(m.registers.rdx, FakeHypercallServices::kPartitionId);
  EXPECT_EQ(m.registers.r8, 0x222u);
  EXPECT_EQ(m.xmm.loads, 0);
  EXPECT_EQ(m.xmm.stores, 0);
}

TEST(HypercallDispatcherTest, FastOutputBeginsInTheSlotBehindTheInput) {
  HypercallMachine m;
  m.xmm.values = {{{uint64_t{0x2'0001} << 32 | 0x2'0000, 0x2'0002}, {5, 5}, {6, 6}, {7, 7}, {8, 8}, {9, 9}}};
  const XmmRegisters before = m.xmm.values;
  EXPECT_EQ(m.CallFast({.code = Code::kGetVpRegisters, .reps = 3}, kHvPartitionIdSelf, kHvVpIndexSelf.raw()), Success(3));
  EXPECT_EQ(m.registers.rdx, kHvPartitionIdSelf);
  EXPECT_EQ(m.registers.r8, kHvVpIndexSelf.raw());
  EXPECT_EQ(m.xmm.values[0], before[0]);
  for (uint32_t n = 0; n < 3; ++n) {
    const HvRegisterValue value = FakeHypercallServices::ValueOf(Name(0x2'0000 + n));
    EXPECT_EQ(m.xmm.values[1 + n], (std::array<uint64_t, 2>{value.low, value.high})) << n;
  }
  EXPECT_EQ(m.xmm.values[4], before[4]);
  EXPECT_EQ(m.xmm.values[5], before[5]);
}

TEST(HypercallDispatcherTest, FastOutputFillsTheLastSlotAndNoMore) {
  HypercallMachine m;
  // 16 + 4 x 4 bytes in two slots, four values in the next four; five names need three slots, and five more are too many.
  EXPECT_EQ(m.CallFast({.code = Code::kGetVpRegisters, .reps = 4}, kHvPartitionIdSelf, kHvVpIndexSelf.raw()), Success(4));
  EXPECT_EQ(m.CallFast({.code = Code::kGetVpRegisters, .reps = 5}, kHvPartitionIdSelf, kHvVpIndexSelf.raw()),
            Failure(HvStatus::kInvalidHypercallInput));
}

TEST(HypercallDispatcherTest, FastFailureGivesTheElementsThatAreDone) {
  HypercallMachine m;
  m.xmm.values = {{{uint64_t{0xdead'0000} << 32 | 0x2'0000, 0x2'0002}, {5, 5}, {6, 6}, {7, 7}, {8, 8}, {9, 9}}};
  EXPECT_EQ(m.CallFast({.code = Code::kGetVpRegisters, .reps = 3}, kHvPartitionIdSelf, kHvVpIndexSelf.raw()),
            Failure(HvStatus::kInvalidParameter, 1));
  EXPECT_EQ(m.xmm.values[1][0], FakeHypercallServices::ValueOf(Name::kRax).low);
  EXPECT_EQ(m.xmm.values[2], (std::array<uint64_t, 2>{6, 6}));
}

TEST(HypercallDispatcherTest, FastOutputOfFourBytesKeepsTheRestOfItsRegister) {
  HypercallMachine m;
  m.xmm.values[0] = {2, 0xff};  // an APIC id
  m.xmm.values[1] = {0x1111'2222'3333'4444, 0x5555'6666'7777'8888};
  EXPECT_EQ(m.CallFast({.code = Code::kGetVpIndexFromApicId, .reps = 1}, kHvPartitionIdSelf, 0), Success(1));
  EXPECT_EQ(m.xmm.values[1], (std::array<uint64_t, 2>{0x1111'2222'0000'0002, 0x5555'6666'7777'8888}));
}

TEST(HypercallDispatcherTest, FastOutputThatIsNotOfferedIsInvalidInput) {
  HypercallMachine m{OfferWithout(HvFeature::kXmmOutput)};
  EXPECT_EQ(m.CallFast({Code::kGetPartitionId}), Failure(HvStatus::kInvalidHypercallInput));
  EXPECT_EQ(m.CallFast({.code = Code::kGetVpRegisters, .reps = 1}, kHvPartitionIdSelf, kHvVpIndexSelf.raw()),
            Failure(HvStatus::kInvalidHypercallInput));
  EXPECT_EQ(m.CallMemory({Code::kGetPartitionId}), Success());
}

TEST(HypercallDispatcherTest, FastOutputIsNotFor32BitCallers) {
  HypercallMachine m;
  const Control control{.code = Code::kGetPartitionId, .fast = true};
  EXPECT_EQ(m.Run(HypercallMachine::Caller32(control.value(), 0, 0)), Failure(HvStatus::kInvalidHypercallInput));
}

TEST(HypercallDispatcherTest, FastCallsIgnoreWhereAddressesWouldBe) {
  HypercallMachine m;
  EXPECT_EQ(m.CallFast({Code::kNotifyLongSpinWait}, ~uint64_t{0}, ~uint64_t{0}), Success());
}

TEST(HypercallDispatcherTest, XmmRegistersThatTheHostCannotReachFailTheCall) {
  HypercallMachine m;
  m.xmm.broken = true;
  EXPECT_EQ(m.CallFast({.code = Code::kSendSyntheticClusterIpiEx}, 0x42), Failure(HvStatus::kOperationFailed));
  m.xmm.broken = false;
  m.xmm.broken_store = true;
  EXPECT_EQ(m.CallFast({.code = Code::kGetVpRegisters, .reps = 1}, kHvPartitionIdSelf, kHvVpIndexSelf.raw()),
            Failure(HvStatus::kOperationFailed));
}

TEST(HypercallDispatcherTest, CountsWhatBecameOfCalls) {
  HypercallMachine m;
  static_cast<void>(m.CallFast({Code::kNotifyLongSpinWait}));
  static_cast<void>(m.CallFast({Code::kNotifyLongSpinWait}));
  static_cast<void>(m.CallFast({Code(0x7777)}));
  static_cast<void>(m.CallFast({Code::kVtlCall}));
  const auto stats = m.dispatcher.stats();
  EXPECT_EQ(stats.succeeded, 2u);
  EXPECT_EQ(stats.failed, 1u);
  EXPECT_EQ(stats.undefined, 1u);
  EXPECT_EQ(stats.continued, 0u);
}

}  // namespace
}  // namespace vmm
