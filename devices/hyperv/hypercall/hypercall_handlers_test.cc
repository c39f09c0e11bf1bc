// What each hypercall does with its parameters: one group a .cc file of handlers, through the dispatcher.
#include <cstdint>
#include <cstring>
#include <vector>

#include <gtest/gtest.h>

#include "devices/hyperv/hv_cpuid_layout.h"
#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/hypercall/fake_hypercall_services.h"
#include "devices/hyperv/hypercall/hv_register_layout.h"
#include "devices/hyperv/hypercall/hv_vp_context_layout.h"
#include "devices/hyperv/hypercall/hypercall_layout.h"
#include "devices/hyperv/hypercall/hypercall_machine_for_test.h"
#include "devices/hyperv/hypercall/hypercall_parameters_layout.h"
#include "devices/hyperv/hypercall/vp_context_for_test.h"
#include "devices/hyperv/synic/hv_message_layout.h"

namespace vmm {
namespace {

using Code = HypercallCode;
using Name = HvRegisterName;
using Interrupts = std::vector<FakePartitionHost::Interrupt>;

constexpr uint8_t UseVtl(uint8_t level) { return kHvInputVtlUseTarget | level; }

// --- Flush --------------------------------------------------------------------------------------------------------------

TEST(FlushCallsTest, FlushesForAMaskWhateverTheAddressSpace) {
  HypercallMachine m;
  for (const uint64_t space : {uint64_t{0}, uint64_t{0x1000}, ~uint64_t{0}}) {
    m.PutInput(HvFlushInput{.address_space = space, .processor_mask = 1});
    EXPECT_EQ(m.CallMemory({Code::kFlushVirtualAddressSpace}), Success());
  }
  EXPECT_EQ(m.services.partition.flushes, 3);
}

TEST(FlushCallsTest, EmptyMaskNeedsAllProcessors) {
  HypercallMachine m;
  m.PutInput(HvFlushInput{.flags = kHvFlushAllAddressSpaces});
  EXPECT_EQ(m.CallMemory({Code::kFlushVirtualAddressSpace}), Failure(HvStatus::kInvalidParameter));
  EXPECT_EQ(m.services.partition.flushes, 0);
  m.PutInput(HvFlushInput{.flags = kHvFlushAllProcessors});
  EXPECT_EQ(m.CallMemory({Code::kFlushVirtualAddressSpace}), Success());
  EXPECT_EQ(m.services.partition.flushes, 1);
}

TEST(FlushCallsTest, MaskMayNameProcessorsThatAreNotThere) {
  HypercallMachine m;
  m.PutInput(HvFlushInput{.processor_mask = uint64_t{1} << 63});
  EXPECT_EQ(m.CallMemory({Code::kFlushVirtualAddressSpace}), Success());
}

TEST(FlushCallsTest, SpaceFlagsAreThree) {
  HypercallMachine m;
  for (unsigned bit = 0; bit < 64; ++bit) {
    m.PutInput(HvFlushInput{.flags = uint64_t{1} << bit, .processor_mask = 1});
    EXPECT_EQ(m.CallMemory({Code::kFlushVirtualAddressSpace}),
              bit <= 2 ? Success() : Failure(HvStatus::kInvalidParameter)) << bit;
    m.PutInput(HvFlushExInput{.flags = uint64_t{1} << bit, .processors = {.format = kHvVpSetAll}});
    EXPECT_EQ(m.CallMemory({Code::kFlushVirtualAddressSpaceEx}),
              bit <= 2 ? Success() : Failure(HvStatus::kInvalidParameter)) << bit;
  }
}

TEST(FlushCallsTest, ListFlagsHaveRangesAndNoNonGlobal) {
  HypercallMachine m;
  for (unsigned bit = 0; bit < 64; ++bit) {
    const bool known = bit <= 3 && bit != 2;
    m.PutInput(HvFlushInput{.flags = uint64_t{1} << bit, .processor_mask = 1});
    m.PutInput(HvGvaRange{0}, 24);
    EXPECT_EQ(m.CallMemory({.code = Code::kFlushVirtualAddressList, .reps = 1}),
              known ? Success(1) : Failure(HvStatus::kInvalidParameter))
        << bit;
    m.PutInput(HvFlushExInput{.flags = uint64_t{1} << bit, .processors = {.format = kHvVpSetAll}});
    m.PutInput(HvGvaRange{0}, 32);
    EXPECT_EQ(m.CallMemory({.code = Code::kFlushVirtualAddressListEx, .reps = 1}),
              known ? Success(1) : Failure(HvStatus::kInvalidParameter))
        << bit;
  }
}

TEST(FlushCallsTest, WholeListIsOneFlush) {
  HypercallMachine m;
  m.PutInput(HvFlushInput{.processor_mask = 1});
  m.PutList(24, std::vector<HvGvaRange>(509, 0x7fff'ffff'ffff'ffff));
  EXPECT_EQ(m.CallMemory({.code = Code::kFlushVirtualAddressList, .reps = 509}), Success(509));
  EXPECT_EQ(m.executions, 1);
  EXPECT_EQ(m.services.partition.flushes, 1);
  EXPECT_EQ(m.CallMemory({.code = Code::kFlushVirtualAddressList, .reps = 510}), Failure(HvStatus::kInvalidAlignment));
}

TEST(FlushCallsTest, ListMayStartInTheMiddle) {
  HypercallMachine m;
  m.PutInput(HvFlushInput{.processor_mask = 1});
  EXPECT_EQ(m.CallMemory({.code = Code::kFlushVirtualAddressList, .reps = 5, .start = 3}), Success(5));
}

TEST(FlushCallsTest, BadLargeRangeStopsBehindTheFlushOfThoseBefore) {
  HypercallMachine m;
  m.PutInput(HvFlushInput{.flags = kHvFlushExtendedRanges, .processor_mask = 1});
  const HvGvaRange good = 0x7fff'0020'0000 | uint64_t{1} << 12 | kHvGvaRangeLarge | 0x7ff;
  m.PutList(24, std::vector<HvGvaRange>{good, 0x1234'5000 | uint64_t{1} << 13, good | uint64_t{1} << 20, good});
  EXPECT_EQ(m.CallMemory({.code = Code::kFlushVirtualAddressList, .reps = 4}), Failure(HvStatus::kInvalidParameter, 2));
  EXPECT_EQ(m.services.partition.flushes, 1);
  EXPECT_EQ(m.CallMemory({.code = Code::kFlushVirtualAddressList, .reps = 4, .start = 2}),
            Failure(HvStatus::kInvalidParameter, 2));
  EXPECT_EQ(m.services.partition.flushes, 1);
  // The same bits are a page number and a count in the ordinary format.
  m.PutInput(HvFlushInput{.processor_mask = 1});
  EXPECT_EQ(m.CallMemory({.code = Code::kFlushVirtualAddressList, .reps = 4}), Success(4));
}

TEST(FlushCallsTest, SparseSetsBanksAreTheVariableHeader) {
  HypercallMachine m;
  m.PutInput(HvFlushExInput{.processors = {.valid_banks = uint64_t{1} << 63 | 1}});
  m.PutList(32, std::vector<uint64_t>{0, 4});
  EXPECT_EQ(m.CallMemory({.code = Code::kFlushVirtualAddressSpaceEx, .variable = 2}), Success());
  for (const uint16_t wrong : {0, 1, 3}) {
    EXPECT_EQ(m.CallMemory({.code = Code::kFlushVirtualAddressSpaceEx, .variable = wrong}),
              Failure(HvStatus::kInvalidHypercallInput));
    EXPECT_EQ(m.CallMemory({.code = Code::kFlushVirtualAddressListEx, .reps = 1, .variable = wrong}),
              Failure(HvStatus::kInvalidHypercallInput));
  }
  EXPECT_EQ(m.services.partition.flushes, 1);
}

TEST(FlushCallsTest, SparseSetWithoutProcessorsNeedsAllProcessors) {
  HypercallMachine m;
  m.PutInput(HvFlushExInput{});
  EXPECT_EQ(m.CallMemory({Code::kFlushVirtualAddressSpaceEx}), Failure(HvStatus::kInvalidParameter));
  m.PutInput(HvFlushExInput{.processors = {.valid_banks = 1}});
  m.PutInput(uint64_t{0}, 32);
  EXPECT_EQ(m.CallMemory({.code = Code::kFlushVirtualAddressSpaceEx, .variable = 1}), Failure(HvStatus::kInvalidParameter));
  EXPECT_EQ(m.CallMemory({.code = Code::kFlushVirtualAddressListEx, .reps = 1, .variable = 1}),
            Failure(HvStatus::kInvalidParameter));
  m.PutInput(HvFlushExInput{.flags = kHvFlushAllProcessors});
  EXPECT_EQ(m.CallMemory({Code::kFlushVirtualAddressSpaceEx}), Success());
}

TEST(FlushCallsTest, SetFormatsAreTwoUnlessAllProcessorsAreMeant) {
  HypercallMachine m;
  for (const uint64_t format : {uint64_t{2}, ~uint64_t{0}}) {
    m.PutInput(HvFlushExInput{.processors = {.format = format}});
    EXPECT_EQ(m.CallMemory({Code::kFlushVirtualAddressSpaceEx}), Failure(HvStatus::kInvalidParameter));
    EXPECT_EQ(m.CallMemory({.code = Code::kFlushVirtualAddressListEx, .reps = 1}), Failure(HvStatus::kInvalidParameter));
    m.PutInput(HvFlushExInput{.flags = kHvFlushAllProcessors, .processors = {.format = format}});
    EXPECT_EQ(m.CallMemory({Code::kFlushVirtualAddressSpaceEx}), Success());
  }
  m.PutInput(HvFlushExInput{.processors = {.format = kHvVpSetAll}});
  EXPECT_EQ(m.CallMemory({Code::kFlushVirtualAddressSpaceEx}), Success());
}

TEST(FlushCallsTest, ListOfTheExCallIsBehindItsBanks) {
  HypercallMachine m;
  m.PutInput(HvFlushExInput{.flags = kHvFlushExtendedRanges, .processors = {.valid_banks = 3}});
  // The banks would be bad ranges.
  m.PutList(32, std::vector<uint64_t>{~uint64_t{0}, ~uint64_t{0}, 0x1000, ~uint64_t{0}});
  EXPECT_EQ(m.CallMemory({.code = Code::kFlushVirtualAddressListEx, .reps = 1, .variable = 2}), Success(1));
  EXPECT_EQ(m.CallMemory({.code = Code::kFlushVirtualAddressListEx, .reps = 2, .variable = 2}),
            Failure(HvStatus::kInvalidParameter, 1));
}

TEST(FlushCallsTest, FastListBeginsInTheHighHalfOfXmm0) {
  HypercallMachine m;
  m.xmm.values[0] = {/*mask=*/1, /*list=*/0x1000};
  m.xmm.values[1] = {~uint64_t{0}, 0};  // a bad range
  EXPECT_EQ(m.CallFast({.code = Code::kFlushVirtualAddressList, .reps = 1}, 0, kHvFlushExtendedRanges), Success(1));
  EXPECT_EQ(m.CallFast({.code = Code::kFlushVirtualAddressList, .reps = 2}, 0, kHvFlushExtendedRanges),
            Failure(HvStatus::kInvalidParameter, 1));
}

// --- IPI ----------------------------------------------------------------------------------------------------------------

TEST(IpiCallsTest, SendsToEachOfTheMaskThatIsThere) {
  HypercallMachine m;
  m.PutInput(HvSendIpiInput{.vector = 0xff, .processor_mask = ~uint64_t{0b0100}});
  EXPECT_EQ(m.CallMemory({Code::kSendSyntheticClusterIpi}), Success());
  EXPECT_EQ(m.services.partition.interrupts, (Interrupts{{VpIndex(0), 0xff}, {VpIndex(1), 0xff}, {VpIndex(3), 0xff}}));
}

TEST(IpiCallsTest, NobodyIsASuccess) {
  HypercallMachine m;
  EXPECT_EQ(m.CallFast({Code::kSendSyntheticClusterIpi}, 0x20, 0), Success());
  EXPECT_EQ(m.CallFast({Code::kSendSyntheticClusterIpiEx}, 0x20, kHvVpSetSparse4k), Success());
  EXPECT_EQ(m.CallFast({Code::kSendSyntheticClusterIpi}, 0x20, uint64_t{1} << 4), Success());
  EXPECT_TRUE(m.services.partition.interrupts.empty());
}

TEST(IpiCallsTest, VectorsAreFrom16To255) {
  HypercallMachine m;
  for (const uint32_t vector : {0u, 2u, 15u, 256u, 0x110u, ~0u}) {
    m.PutInput(HvSendIpiInput{.vector = vector, .processor_mask = 1});
    EXPECT_EQ(m.CallMemory({Code::kSendSyntheticClusterIpi}), Failure(HvStatus::kInvalidParameter)) << vector;
    m.PutInput(HvSendIpiExInput{.vector = vector, .processors = {.format = kHvVpSetAll}});
    EXPECT_EQ(m.CallMemory({Code::kSendSyntheticClusterIpiEx}), Failure(HvStatus::kInvalidParameter)) << vector;
  }
  EXPECT_TRUE(m.services.partition.interrupts.empty());
  EXPECT_EQ(m.CallFast({Code::kSendSyntheticClusterIpi}, 16, 1), Success());
  EXPECT_EQ(m.CallFast({Code::kSendSyntheticClusterIpi}, 255, 1), Success());
}

TEST(IpiCallsTest, TargetLevelIsTheCallersOrLower) {
  HypercallMachine m;
  const struct {
    uint8_t target_vtl;
    HypercallAnswer answer;
  } cases[] = {
      {0x00, Success()},
      {0x01, Success()},  // bits 3:0 mean nothing without bit 4
      {0x0f, Success()},
      {UseVtl(0), Success()},
      {UseVtl(1), Failure(HvStatus::kAccessDenied)},
      {UseVtl(2), Failure(HvStatus::kAccessDenied)},
      {UseVtl(3), Failure(HvStatus::kInvalidParameter)},
      {UseVtl(15), Failure(HvStatus::kInvalidParameter)},
      {0x20, Failure(HvStatus::kInvalidParameter)},
      {0x80, Failure(HvStatus::kInvalidParameter)},
      {0x40 | UseVtl(1), Failure(HvStatus::kInvalidParameter)},
  };
  for (const auto& c : cases) {
    m.PutInput(HvSendIpiInput{.vector = 0x20, .target_vtl = c.target_vtl, .processor_mask = 1});
    EXPECT_EQ(m.CallMemory({Code::kSendSyntheticClusterIpi}), c.answer) << static_cast<int>(c.target_vtl);
    m.PutInput(HvSendIpiExInput{.vector = 0x20, .target_vtl = c.target_vtl, .processors = {.format = kHvVpSetAll}});
    EXPECT_EQ(m.CallMemory({Code::kSendSyntheticClusterIpiEx}), c.answer) << static_cast<int>(c.target_vtl);
  }
}

TEST(IpiCallsTest, ReservedBytesAreZero) {
  HypercallMachine m;
  for (const uint64_t bit : {40, 47, 48, 63}) {
    EXPECT_EQ(m.CallFast({Code::kSendSyntheticClusterIpi}, uint64_t{1} << bit | 0x20, 1), Failure(HvStatus::kInvalidParameter));
    EXPECT_EQ(m.CallFast({Code::kSendSyntheticClusterIpiEx}, uint64_t{1} << bit | 0x20, kHvVpSetAll),
              Failure(HvStatus::kInvalidParameter));
  }
}

TEST(IpiCallsTest, AllMeansAll) {
  HypercallMachine m;
  m.services.partition.count = 200;
  m.PutInput(HvSendIpiExInput{.vector = 0x33, .processors = {.format = kHvVpSetAll}});
  EXPECT_EQ(m.CallMemory({Code::kSendSyntheticClusterIpiEx}), Success());
  ASSERT_EQ(m.services.partition.interrupts.size(), 200u);
  EXPECT_EQ(m.services.partition.interrupts[199], (FakePartitionHost::Interrupt{VpIndex(199), 0x33}));
}

TEST(IpiCallsTest, SparseBanksAreTakenLowestFirst) {
  HypercallMachine m;
  m.services.partition.count = 4096;
  m.PutInput(HvSendIpiExInput{.vector = 0x33, .processors = {.valid_banks = uint64_t{1} << 63 | uint64_t{1} << 5 | 1}});
  m.PutList(24, std::vector<uint64_t>{uint64_t{1} << 63, 1, uint64_t{1} << 63 | 2});
  EXPECT_EQ(m.CallMemory({.code = Code::kSendSyntheticClusterIpiEx, .variable = 3}), Success());
  EXPECT_EQ(m.services.partition.interrupts,
            (Interrupts{{VpIndex(63), 0x33}, {VpIndex(320), 0x33}, {VpIndex(4033), 0x33}, {VpIndex(4095), 0x33}}));
}

TEST(IpiCallsTest, HostileSparseSetReachesOnlyThoseThatAreThere) {
  HypercallMachine m;
  m.services.partition.count = 65;
  m.PutInput(HvSendIpiExInput{.vector = 0x33, .processors = {.valid_banks = ~uint64_t{0}}});
  m.PutList(24, std::vector<uint64_t>(64, ~uint64_t{0}));
  EXPECT_EQ(m.CallMemory({.code = Code::kSendSyntheticClusterIpiEx, .variable = 64}), Success());
  ASSERT_EQ(m.services.partition.interrupts.size(), 65u);
  EXPECT_EQ(m.services.partition.interrupts.back().vp, VpIndex(64));
  for (const uint16_t wrong : {0, 63, 65}) {
    EXPECT_EQ(m.CallMemory({.code = Code::kSendSyntheticClusterIpiEx, .variable = wrong}),
              Failure(HvStatus::kInvalidHypercallInput));
  }
  // 24 + 8 x 1023 bytes fit no page.
  EXPECT_EQ(m.CallMemory({.code = Code::kSendSyntheticClusterIpiEx, .variable = 0x3ff}), Failure(HvStatus::kInvalidAlignment));
}

TEST(IpiCallsTest, SetFormatsAreTwo) {
  HypercallMachine m;
  EXPECT_EQ(m.CallFast({Code::kSendSyntheticClusterIpiEx}, 0x33, 2), Failure(HvStatus::kInvalidParameter));
  EXPECT_TRUE(m.services.partition.interrupts.empty());
}

// --- Messages and events ------------------------------------------------------------------------------------------------

HvPostMessageInput MessageInput(uint32_t payload_size) {
  HvPostMessageInput input{.connection_id = 0x12'3456, .message_type = 1, .payload_size = payload_size};
  std::memset(input.payload, 0x5a, sizeof(input.payload));
  return input;
}

TEST(MessageCallsTest, PostsTypeSizeAndThePayloadAndNoMore) {
  HypercallMachine m;
  m.PutInput(MessageInput(3));
  EXPECT_EQ(m.CallMemory({Code::kPostMessage}), Success());
  ASSERT_EQ(m.services.posted.size(), 1u);
  const auto& posted = m.services.posted[0];
  EXPECT_EQ(posted.poster, HypercallMachine::kVp);
  EXPECT_EQ(posted.connection, 0x12'3456u);
  EXPECT_EQ(posted.message.header.type, HvMessageType::kVmBus);
  EXPECT_EQ(posted.message.header.payload_size, 3);
  EXPECT_EQ(posted.message.header.flags, 0);
  EXPECT_EQ(posted.message.header.origination_id, 0u);
  EXPECT_EQ(posted.message.payload[2], 0x5a);
  EXPECT_EQ(posted.message.payload[3], 0);
}

TEST(MessageCallsTest, PayloadIsUpTo240Bytes) {
  HypercallMachine m;
  m.PutInput(MessageInput(240));
  EXPECT_EQ(m.CallMemory({Code::kPostMessage}), Success());
  EXPECT_EQ(m.services.posted[0].message.payload[239], 0x5a);
  for (const uint32_t size : {241u, 256u, 0x100u + 3, ~0u}) {
    m.PutInput(MessageInput(size));
    EXPECT_EQ(m.CallMemory({Code::kPostMessage}), Failure(HvStatus::kInvalidParameter)) << size;
  }
  EXPECT_EQ(m.services.posted.size(), 1u);
}

TEST(MessageCallsTest, TypesAreNeitherNoneNorTheHypervisors) {
  HypercallMachine m;
  for (const uint32_t type : {0u, 0x8000'0000u, 0x8000'0010u, ~0u}) {
    auto input = MessageInput(0);
    input.message_type = type;
    m.PutInput(input);
    EXPECT_EQ(m.CallMemory({Code::kPostMessage}), Failure(HvStatus::kInvalidParameter)) << type;
  }
  auto input = MessageInput(0);
  input.message_type = 0x7fff'ffff;
  m.PutInput(input);
  EXPECT_EQ(m.CallMemory({Code::kPostMessage}), Success());
}

TEST(MessageCallsTest, ReservedFieldsAreZero) {
  HypercallMachine m;
  auto input = MessageInput(0);
  input.reserved = 1;
  m.PutInput(input);
  EXPECT_EQ(m.CallMemory({Code::kPostMessage}), Failure(HvStatus::kInvalidParameter));
  EXPECT_EQ(m.CallFast({Code::kSignalEvent}, uint64_t{1} << 48 | 2), Failure(HvStatus::kInvalidParameter));
  EXPECT_EQ(m.CallFast({Code::kSignalEvent}, uint64_t{1} << 63 | 2), Failure(HvStatus::kInvalidParameter));
  EXPECT_TRUE(m.services.posted.empty());
  EXPECT_TRUE(m.services.signalled.empty());
}

TEST(MessageCallsTest, SignalsConnectionAndFlag) {
  HypercallMachine m;
  EXPECT_EQ(m.CallFast({Code::kSignalEvent}, uint64_t{0x7ff} << 32 | 0xffff'ffff), Success());
  m.PutInput(HvSignalEventInput{.connection_id = 2, .flag_number = 9});
  EXPECT_EQ(m.CallMemory({Code::kSignalEvent}), Success());
  EXPECT_EQ(m.services.signalled, (std::vector<FakeHypercallServices::Signalled>{{0xffff'ffff, 0x7ff}, {2, 9}}));
}

TEST(MessageCallsTest, WhatThePartitionSaysIsTheAnswer) {
  HypercallMachine m;
  m.PutInput(MessageInput(1));
  for (const HvStatus status : {HvStatus::kInvalidConnectionId, HvStatus::kInvalidPortId, HvStatus::kInsufficientBuffers,
                                HvStatus::kInvalidSynicState, HvStatus::kInvalidVpIndex}) {
    m.services.answer = status;
    EXPECT_EQ(m.CallMemory({Code::kPostMessage}), Failure(status));
    EXPECT_EQ(m.CallFast({Code::kSignalEvent}, 1), Failure(status));
  }
}

// --- Registers ----------------------------------------------------------------------------------------------------------

constexpr HvVpRegistersInput kOwn{.partition_id = kHvPartitionIdSelf, .vp_index = kHvVpIndexSelf.raw()};

struct RegisterCase {
  const char* name;
  HvVpRegistersInput input;
  HvStatus status;
};
const RegisterCase kRegisterCases[] = {
    {"another partition", {.partition_id = 1, .vp_index = 99, .target_vtl = 0xff}, HvStatus::kAccessDenied},
    {"no processor", {.partition_id = kHvPartitionIdSelf, .vp_index = 4, .target_vtl = 0xff}, HvStatus::kInvalidVpIndex},
    {"any processor", {.partition_id = kHvPartitionIdSelf, .vp_index = kHvAnyVp.raw()}, HvStatus::kInvalidVpIndex},
    {"a higher level",
     {.partition_id = kHvPartitionIdSelf, .vp_index = 0, .target_vtl = UseVtl(1), .reserved = {1}},
     HvStatus::kAccessDenied},
    {"no level", {.partition_id = kHvPartitionIdSelf, .vp_index = 0, .target_vtl = UseVtl(3)}, HvStatus::kInvalidParameter},
    {"reserved bits of the level",
     {.partition_id = kHvPartitionIdSelf, .vp_index = 0, .target_vtl = 0x20},
     HvStatus::kInvalidParameter},
    {"reserved bytes", {.partition_id = kHvPartitionIdSelf, .vp_index = 0, .reserved = {0, 0, 1}}, HvStatus::kInvalidParameter},
};

TEST(RegisterCallsTest, TargetIsCheckedInTheOrderOfTheStructure) {
  HypercallMachine m;
  for (const RegisterCase& c : kRegisterCases) {
    m.PutInput(c.input);
    EXPECT_EQ(m.CallMemory({.code = Code::kGetVpRegisters, .reps = 1}), Failure(c.status)) << c.name;
    EXPECT_EQ(m.CallMemory({.code = Code::kSetVpRegisters, .reps = 2, .start = 1}), Failure(c.status, 1)) << c.name;
  }
  EXPECT_TRUE(m.services.got.empty());
  EXPECT_TRUE(m.services.set.empty());
}

TEST(RegisterCallsTest, SelfIsTheCallerAndOthersMayBeNamed) {
  HypercallMachine m;
  m.PutInput(Name::kCr3, 16);
  for (const uint64_t partition : {kHvPartitionIdSelf, FakeHypercallServices::kPartitionId}) {
    for (const uint32_t vp : {kHvVpIndexSelf.raw(), 0u, 3u}) {
      m.services.got.clear();
      m.PutInput(HvVpRegistersInput{.partition_id = partition, .vp_index = vp, .target_vtl = UseVtl(0)});
      EXPECT_EQ(m.CallMemory({.code = Code::kGetVpRegisters, .reps = 1}), Success(1));
      const VpIndex expected = vp == kHvVpIndexSelf.raw() ? HypercallMachine::kVp : VpIndex(vp);
      EXPECT_EQ(m.services.got, (std::vector<FakeHypercallServices::RegisterAccess>{
                                    {expected, kVtl0, Name::kCr3, FakeHypercallServices::ValueOf(Name::kCr3)}}));
    }
  }
}

TEST(RegisterCallsTest, LevelBitsMeanNothingWithoutUseTarget) {
  HypercallMachine m;
  auto input = kOwn;
  input.target_vtl = 0x0f;
  m.PutInput(input);
  EXPECT_EQ(m.CallMemory({.code = Code::kGetVpRegisters, .reps = 1}), Success(1));
  EXPECT_EQ(m.services.got[0].vtl, kVtl0);
}

TEST(RegisterCallsTest, SetsNameAndAllOfTheValue) {
  HypercallMachine m;
  m.PutInput(kOwn);
  m.PutList(16, std::vector<HvSetVpRegistersElement>{{.name = Name::kRip, .value = {1, 2}},
                                                     {.name = Name::kCs, .value = {3, 4}}});
  EXPECT_EQ(m.CallMemory({.code = Code::kSetVpRegisters, .reps = 2}), Success(2));
  EXPECT_EQ(m.services.set,
            (std::vector<FakeHypercallServices::RegisterAccess>{{HypercallMachine::kVp, kVtl0, Name::kRip, {1, 2}},
                                                                {HypercallMachine::kVp, kVtl0, Name::kCs, {3, 4}}}));
  EXPECT_TRUE(m.IsOutputUntouched());
}

TEST(RegisterCallsTest, SetStopsAtTheFirstBadElement) {
  HypercallMachine m;
  m.PutInput(kOwn);
  m.PutList(16, std::vector<HvSetVpRegistersElement>{
                    {.name = Name::kRip}, {.name = FakeHypercallServices::kUnknownName}, {.name = Name::kRsp}});
  EXPECT_EQ(m.CallMemory({.code = Code::kSetVpRegisters, .reps = 3}), Failure(HvStatus::kInvalidParameter, 1));
  EXPECT_EQ(m.services.set.size(), 1u);
  for (const size_t field : {0, 1, 2}) {
    HvSetVpRegistersElement element{.name = Name::kRip};
    element.reserved[field] = 1;
    m.PutInput(element, 16);
    EXPECT_EQ(m.CallMemory({.code = Code::kSetVpRegisters, .reps = 3}), Failure(HvStatus::kInvalidParameter, 0));
  }
  EXPECT_EQ(m.services.set.size(), 1u);
}

TEST(RegisterCallsTest, FastSetHasElementsOfTwoSlots) {
  HypercallMachine m;
  m.xmm.values[0] = {static_cast<uint64_t>(Name::kRip), 0};
  m.xmm.values[1] = {0x11, 0x12};
  m.xmm.values[2] = {static_cast<uint64_t>(Name::kRsp), 0};
  m.xmm.values[3] = {0x21, 0x22};
  EXPECT_EQ(m.CallFast({.code = Code::kSetVpRegisters, .reps = 2}, kHvPartitionIdSelf, kHvVpIndexSelf.raw()), Success(2));
  ASSERT_EQ(m.services.set.size(), 2u);
  EXPECT_EQ(m.services.set[1], (FakeHypercallServices::RegisterAccess{HypercallMachine::kVp, kVtl0, Name::kRsp, {0x21, 0x22}}));
}

TEST(RegisterCallsTest, WhatThePartitionSaysOfAnElementIsTheAnswer) {
  HypercallMachine m;
  m.PutInput(kOwn);
  for (const HvStatus status : {HvStatus::kInvalidRegisterValue, HvStatus::kAccessDenied, HvStatus::kUnknownRegisterName}) {
    m.services.answer = status;
    EXPECT_EQ(m.CallMemory({.code = Code::kGetVpRegisters, .reps = 1}), Failure(status));
    EXPECT_EQ(m.CallMemory({.code = Code::kSetVpRegisters, .reps = 1}), Failure(status));
  }
  EXPECT_TRUE(m.IsOutputUntouched());
}

// --- Processors ---------------------------------------------------------------------------------------------------------

HvStartVirtualProcessorInput StartInput(uint32_t vp) {
  return {.partition_id = kHvPartitionIdSelf, .vp_index = vp, .context = LongModeContext()};
}

TEST(ProcessorCallsTest, StartsAnotherProcessorWithItsContext) {
  HypercallMachine m;
  const auto input = StartInput(2);
  m.PutInput(input);
  EXPECT_EQ(m.CallMemory({Code::kStartVirtualProcessor}), Success());
  ASSERT_EQ(m.services.started.size(), 1u);
  EXPECT_EQ(m.services.started[0].vp, VpIndex(2));
  EXPECT_EQ(m.services.started[0].vtl, kVtl0);
  EXPECT_EQ(std::memcmp(&m.services.started[0].context, &input.context, sizeof(input.context)), 0);
}

TEST(ProcessorCallsTest, StartIsCheckedInTheOrderOfTheStructure) {
  HypercallMachine m;
  auto input = StartInput(99);
  input.partition_id = 1;
  input.target_vtl = 3;
  input.reserved[0] = 1;
  input.context.rflags = 0;
  const auto call = [&] {
    m.PutInput(input);
    return m.CallMemory({Code::kStartVirtualProcessor});
  };
  EXPECT_EQ(call(), Failure(HvStatus::kInvalidPartitionId));
  input.partition_id = FakeHypercallServices::kPartitionId;
  EXPECT_EQ(call(), Failure(HvStatus::kInvalidVpIndex));
  input.vp_index = 4;
  EXPECT_EQ(call(), Failure(HvStatus::kInvalidVpIndex));
  input.vp_index = 3;
  EXPECT_EQ(call(), Failure(HvStatus::kInvalidParameter));
  input.target_vtl = 1;
  EXPECT_EQ(call(), Failure(HvStatus::kAccessDenied));
  input.target_vtl = 2;
  EXPECT_EQ(call(), Failure(HvStatus::kAccessDenied));
  input.target_vtl = 0;
  EXPECT_EQ(call(), Failure(HvStatus::kInvalidParameter));
  input.reserved[0] = 0;
  EXPECT_EQ(call(), Failure(HvStatus::kInvalidRegisterValue));
  EXPECT_TRUE(m.services.started.empty());
  input.context.rflags = 2;
  EXPECT_EQ(call(), Success());
  m.services.answer = HvStatus::kInvalidVpState;
  EXPECT_EQ(call(), Failure(HvStatus::kInvalidVpState));
}

TEST(ProcessorCallsTest, NobodyStartsItself) {
  HypercallMachine m;
  for (const uint32_t vp : {HypercallMachine::kVp.raw(), kHvVpIndexSelf.raw(), kHvAnyVp.raw()}) {
    m.PutInput(StartInput(vp));
    EXPECT_EQ(m.CallMemory({Code::kStartVirtualProcessor}), Failure(HvStatus::kInvalidVpIndex));
  }
}

TEST(ProcessorCallsTest, ApicIdsArePackedAndAreIndices) {
  HypercallMachine m;
  m.PutInput(HvVpIndexFromApicIdInput{.partition_id = kHvPartitionIdSelf});
  m.PutList(16, std::vector<uint32_t>{3, 0, 2});
  EXPECT_EQ(m.CallMemory({.code = Code::kGetVpIndexFromApicId, .reps = 3}), Success(3));
  EXPECT_EQ(m.Output<uint32_t>(0), 3u);
  EXPECT_EQ(m.Output<uint32_t>(4), 0u);
  EXPECT_EQ(m.Output<uint32_t>(8), 2u);
  EXPECT_TRUE(m.IsOutputUntouched(12));
}

TEST(ProcessorCallsTest, UnknownApicIdIsInvalidParameterAtItsElement) {
  HypercallMachine m;
  m.PutInput(HvVpIndexFromApicIdInput{.partition_id = kHvPartitionIdSelf});
  m.PutList(16, std::vector<uint32_t>{1, 4, 2});
  EXPECT_EQ(m.CallMemory({.code = Code::kGetVpIndexFromApicId, .reps = 3}), Failure(HvStatus::kInvalidParameter, 1));
  EXPECT_EQ(m.Output<uint32_t>(0), 1u);
  EXPECT_TRUE(m.IsOutputUntouched(4));
}

TEST(ProcessorCallsTest, ApicIdsAreOfThisPartitionAndLevel) {
  HypercallMachine m;
  const auto call = [&](const HvVpIndexFromApicIdInput& input) {
    m.PutInput(input);
    return m.CallMemory({.code = Code::kGetVpIndexFromApicId, .reps = 1});
  };
  EXPECT_EQ(call({.partition_id = 1, .target_vtl = 9}), Failure(HvStatus::kInvalidPartitionId));
  EXPECT_EQ(call({.partition_id = kHvPartitionIdSelf, .target_vtl = 9}), Failure(HvStatus::kInvalidParameter));
  EXPECT_EQ(call({.partition_id = kHvPartitionIdSelf, .target_vtl = 1}), Failure(HvStatus::kAccessDenied));
  EXPECT_EQ(call({.partition_id = kHvPartitionIdSelf, .reserved = {0, 0, 0, 0, 0, 0, 1}}), Failure(HvStatus::kInvalidParameter));
  EXPECT_EQ(call({.partition_id = FakeHypercallServices::kPartitionId}), Success(1));
}

TEST(ProcessorCallsTest, SpinningIsAlwaysFine) {
  HypercallMachine m{HvOffer{}};
  EXPECT_EQ(m.CallFast({Code::kNotifyLongSpinWait}, ~uint64_t{0}), Success());
  EXPECT_EQ(m.CallMemory({Code::kNotifyLongSpinWait}), Success());
}

// --- Partition ----------------------------------------------------------------------------------------------------------

TEST(PartitionCallsTest, NoExtendedCallIsThere) {
  HypercallMachine m;
  EXPECT_EQ(m.CallMemory({Code::kExtQueryCapabilities}), Success());
  EXPECT_EQ(m.Output<uint64_t>(), 0u);
  EXPECT_TRUE(m.IsOutputUntouched(8));
  EXPECT_EQ(m.CallMemory({Code(0x8002)}), Failure(HvStatus::kInvalidHypercallCode));
}

TEST(PartitionCallsTest, PartitionIdIsGiven) {
  HypercallMachine m;
  EXPECT_EQ(m.CallMemory({Code::kGetPartitionId}), Success());
  EXPECT_EQ(m.Output<uint64_t>(), FakeHypercallServices::kPartitionId);
}

}  // namespace
}  // namespace vmm
