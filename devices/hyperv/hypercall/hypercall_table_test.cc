#include "devices/hyperv/hypercall/hypercall_table.h"

#include <cstdint>
#include <map>
#include <optional>

#include <gtest/gtest.h>

#include "devices/hyperv/hv_cpuid_layout.h"
#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hypercall/hypercall_layout.h"

namespace vmm {
namespace {

// The TLFS's numbers once more, not by the structures that the table's sizes are taken from.
struct Expected {
  HypercallKind kind;
  int header;
  bool variable;
  int output;
  int element_in;
  int element_out;
  std::optional<HvPrivilege> privilege;
};
constexpr HypercallKind kSimple = HypercallKind::kSimple;
constexpr HypercallKind kRep = HypercallKind::kRep;
const std::map<uint16_t, Expected> kExpected = {
    {0x0002, {kSimple, 24, false, 0, 0, 0, std::nullopt}},
    {0x0003, {kRep, 24, false, 0, 8, 0, std::nullopt}},
    {0x0008, {kSimple, 8, false, 0, 0, 0, std::nullopt}},
    {0x000b, {kSimple, 16, false, 0, 0, 0, std::nullopt}},
    {0x000c, {kRep, 16, false, 0, 8, 0, HvPrivilege::kVsm}},
    {0x000d, {kSimple, 16, false, 0, 0, 0, HvPrivilege::kVsm}},
    {0x000f, {kSimple, 240, false, 0, 0, 0, HvPrivilege::kVsm}},
    {0x0013, {kSimple, 32, true, 0, 0, 0, std::nullopt}},
    {0x0014, {kRep, 32, true, 0, 8, 0, std::nullopt}},
    {0x0015, {kSimple, 24, true, 0, 0, 0, std::nullopt}},
    {0x0046, {kSimple, 0, false, 8, 0, 0, HvPrivilege::kPartitionId}},
    {0x004d, {kSimple, 24, false, 0, 0, 0, HvPrivilege::kVsm}},
    {0x0050, {kRep, 16, false, 0, 4, 16, HvPrivilege::kVpRegisters}},
    {0x0051, {kRep, 16, false, 0, 32, 0, HvPrivilege::kVpRegisters}},
    {0x0052, {kSimple, 32, false, 16, 0, 0, HvPrivilege::kVsm}},
    {0x005c, {kSimple, 256, false, 0, 0, 0, HvPrivilege::kPostMessages}},
    {0x005d, {kSimple, 8, false, 0, 0, 0, HvPrivilege::kSignalEvents}},
    {0x0094, {kSimple, 32, false, 0, 0, 0, HvPrivilege::kVsm}},
    {0x0099, {kSimple, 240, false, 0, 0, 0, HvPrivilege::kStartVirtualProcessor}},
    {0x009a, {kRep, 16, false, 0, 4, 4, HvPrivilege::kStartVirtualProcessor}},
    {0x00ac, {kSimple, 32, false, 64, 0, 0, HvPrivilege::kVsm}},
    {0x8001, {kSimple, 0, false, 8, 0, 0, HvPrivilege::kExtendedHypercalls}},
};

TEST(HypercallTableTest, RowsAreAsTheSpecificationHasThem) {
  EXPECT_EQ(AllHypercalls().size(), kExpected.size());
  for (const auto& [code, expected] : kExpected) {
    const HypercallRow* const row = FindHypercall(code);
    ASSERT_NE(row, nullptr) << std::hex << code;
    EXPECT_EQ(static_cast<uint16_t>(row->code), code);
    EXPECT_EQ(row->kind, expected.kind) << row->name;
    EXPECT_NE(row->handler, nullptr) << row->name;
    EXPECT_EQ(row->header_bytes, expected.header) << row->name;
    EXPECT_EQ(row->variable_header, expected.variable) << row->name;
    EXPECT_EQ(row->output_bytes, expected.output) << row->name;
    EXPECT_EQ(row->input_element_bytes, expected.element_in) << row->name;
    EXPECT_EQ(row->output_element_bytes, expected.element_out) << row->name;
    EXPECT_EQ(row->privilege, expected.privilege) << row->name;
  }
}

TEST(HypercallTableTest, NoOtherCodeIsFound) {
  for (uint32_t code = 0; code <= 0xffff; ++code) {
    EXPECT_EQ(FindHypercall(static_cast<uint16_t>(code)) != nullptr, kExpected.contains(static_cast<uint16_t>(code))) << code;
  }
}

TEST(HypercallInputTest, FieldsAreWhereTheSpecificationHasThem) {
  const HypercallInput input(0x0abc'0def'07ff'0051);  // 59:48, 43:32, 26:16, 15:0
  EXPECT_EQ(input.code(), 0x51);
  EXPECT_TRUE(input.fast());
  EXPECT_EQ(input.variable_header_bytes(), 0x3ffu * 8);
  EXPECT_EQ(input.rep_count(), 0xdef);
  EXPECT_EQ(input.rep_start(), 0xabc);
  EXPECT_FALSE(input.has_reserved_bits());
  EXPECT_EQ(input.WithRepStart(0x123).raw(), 0x0123'0def'07ff'0051u);
  EXPECT_EQ(HypercallInput(0).WithRepStart(0xfff).raw(), 0x0fff'0000'0000'0000u);
}

TEST(HypercallInputTest, ResultHoldsStatusAndReps) {
  EXPECT_EQ(MakeHypercallResult(HvStatus::kSuccess, 0xfff), 0x0000'0fff'0000'0000u);
  EXPECT_EQ(MakeHypercallResult(HvStatus::kUnknownRegisterName, 1), 0x0000'0001'0000'0087u);
}

}  // namespace
}  // namespace vmm
