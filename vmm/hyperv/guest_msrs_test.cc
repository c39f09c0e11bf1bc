#include "vmm/hyperv/guest_msrs.h"

#include <cstdint>
#include <optional>

#include "gtest/gtest.h"

namespace vmm {
namespace {

constexpr uint32_t kEfer = 0xc000'0080;
constexpr uint32_t kApicBase = 0x1b;
constexpr uint32_t kMiscEnable = 0x1a0;

TEST(GuestMsrsTest, EferKeepsLongModeActiveAndItsModeWhilePaging) {
  EXPECT_EQ(AsGuestWrites(kEfer, 0xd01, 0x901, true), 0xd01u);
  EXPECT_EQ(AsGuestWrites(kEfer, 0xd01, 0x500, true), 0x500u);
  EXPECT_EQ(AsGuestWrites(kEfer, 0xd01, 0xc01, true), std::nullopt);
  EXPECT_EQ(AsGuestWrites(kEfer, 0x900, 0x800, false), 0x800u);
  EXPECT_EQ(AsGuestWrites(kEfer, 0, 0x400, false), 0u);
}

TEST(GuestMsrsTest, EferHasNoVirtualizationAndNoReservedBits) {
  for (const unsigned bit : {1u, 7u, 9u, 12u, 13u, 15u, 16u, 32u, 63u}) {
    EXPECT_EQ(AsGuestWrites(kEfer, 0xd01, 0xd01 | uint64_t{1} << bit, true), std::nullopt) << bit;
  }
}

TEST(GuestMsrsTest, AnApicChangesItsModeAsAProcessorsDoes) {
  constexpr uint64_t kPage = 0xfee0'0000;
  EXPECT_EQ(AsGuestWrites(kApicBase, kPage | 0x800, kPage | 0xc00, true), kPage | 0xc00);
  EXPECT_EQ(AsGuestWrites(kApicBase, kPage | 0x800, kPage, true), kPage);
  EXPECT_EQ(AsGuestWrites(kApicBase, kPage | 0xc00, kPage, true), kPage);
  EXPECT_EQ(AsGuestWrites(kApicBase, kPage | 0xc00, kPage | 0x800, true), std::nullopt);
  EXPECT_EQ(AsGuestWrites(kApicBase, kPage, kPage | 0xc00, true), std::nullopt);
  EXPECT_EQ(AsGuestWrites(kApicBase, kPage | 0x800, kPage | 0x400, true), std::nullopt);
}

TEST(GuestMsrsTest, MiscEnableHasBitsThatCannotBeWritten) {
  EXPECT_EQ(AsGuestWrites(kMiscEnable, 0x1800, 0x1801, true), 0x1801u);
  EXPECT_EQ(AsGuestWrites(kMiscEnable, 0x1800, 0x1880, true), 0x1800u);
  EXPECT_EQ(AsGuestWrites(kMiscEnable, 0x1800, 0x0800, true), std::nullopt);
}

TEST(GuestMsrsTest, OthersAreAsWrittenAndSgxIsNotThere) {
  for (const uint32_t msr : {0x174u, 0x176u, 0xc000'0081u, 0xc000'0084u, 0xc000'0103u}) {
    EXPECT_EQ(AsGuestWrites(msr, 1, ~uint64_t{0}, true), ~uint64_t{0}) << msr;
  }
  for (const uint32_t msr : {0x8cu, 0x8fu, 0x173u, 0x177u, 0xc000'0100u, 0u, ~0u}) {
    EXPECT_EQ(AsGuestWrites(msr, 0, 0, true), std::nullopt) << msr;
  }
}

}  // namespace
}  // namespace vmm
