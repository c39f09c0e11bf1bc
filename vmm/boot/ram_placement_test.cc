#include "vmm/boot/ram_placement.h"

#include "base/status_matchers.h"

namespace vmm {
namespace {

RamPlacement Placement(uint64_t ram_bytes, std::span<const ReservedRange> reserved = {}) {
  auto layout = MemoryLayout::Create(ram_bytes);
  EXPECT_OK(layout);
  return RamPlacement(*layout, reserved);
}
constexpr Gpa kNoLimit{UINT64_MAX};

TEST(RamPlacementTest, ARangeIsClaimedOnce) {
  RamPlacement placement = Placement(8 * kMiB);
  EXPECT_TRUE(placement.Claim(Gpa(2 * kMiB), kMiB));
  EXPECT_FALSE(placement.Claim(Gpa(2 * kMiB), 1));
  EXPECT_FALSE(placement.Claim(Gpa(3 * kMiB - 1), 2));
  EXPECT_FALSE(placement.Claim(Gpa(2 * kMiB - 1), 2));
  EXPECT_FALSE(placement.Claim(Gpa(1 * kMiB), 4 * kMiB));
  EXPECT_TRUE(placement.Claim(Gpa(kMiB), kMiB));
  EXPECT_TRUE(placement.Claim(Gpa(3 * kMiB), 5 * kMiB));
  EXPECT_EQ(placement.LargestFreeBytes(kNoLimit), 0u);
  EXPECT_EQ(placement.Lowest(1, 1), std::nullopt);
}

TEST(RamPlacementTest, NothingBelowOneMegabyteOrPastRam) {
  RamPlacement placement = Placement(8 * kMiB);
  EXPECT_FALSE(placement.Claim(Gpa(kMiB - 1), 2));
  EXPECT_FALSE(placement.Claim(Gpa(0), 1));
  EXPECT_FALSE(placement.Claim(Gpa(8 * kMiB - 1), 2));
  EXPECT_FALSE(placement.Claim(Gpa(8 * kMiB), 1));
  EXPECT_FALSE(placement.Claim(Gpa(2 * kMiB), UINT64_MAX));
  EXPECT_FALSE(placement.Claim(Gpa(UINT64_MAX), 2));
}

TEST(RamPlacementTest, LowestAndHighestAreAlignedAndFree) {
  RamPlacement placement = Placement(8 * kMiB);
  ASSERT_TRUE(placement.Claim(Gpa(kMiB), 1));
  ASSERT_TRUE(placement.Claim(Gpa(8 * kMiB - 1), 1));
  EXPECT_EQ(placement.Lowest(kMiB, kMiB), Gpa(2 * kMiB));
  EXPECT_EQ(placement.Lowest(1, 1), Gpa(kMiB + 1));
  EXPECT_EQ(placement.Highest(1, kPageBytes, kNoLimit), Gpa(8 * kMiB - kPageBytes));
  EXPECT_EQ(placement.Highest(kPageBytes, kPageBytes, kNoLimit), Gpa(8 * kMiB - 2 * kPageBytes));
  EXPECT_EQ(placement.Highest(kPageBytes, kPageBytes, Gpa(4 * kMiB + 1)), Gpa(4 * kMiB - kPageBytes));
  EXPECT_EQ(placement.Highest(8 * kMiB, kPageBytes, kNoLimit), std::nullopt);
  EXPECT_EQ(placement.Highest(1, 1, Gpa(kMiB)), std::nullopt);
}

TEST(RamPlacementTest, AlignmentThatLeavesTheStretchIsRefused) {
  const RamPlacement placement = Placement(8 * kMiB);
  EXPECT_EQ(placement.Lowest(1, uint64_t{1} << 31), std::nullopt);
  EXPECT_EQ(placement.Highest(1, uint64_t{1} << 31, kNoLimit), std::nullopt);
}

TEST(RamPlacementTest, ReservedRangesAreNotFree) {
  const ReservedRange reserved[] = {{Gpa(2 * kMiB), 4 * kMiB}};
  RamPlacement placement = Placement(8 * kMiB, reserved);
  EXPECT_FALSE(placement.Claim(Gpa(5 * kMiB), 1));
  EXPECT_EQ(placement.Lowest(2 * kMiB, 1), Gpa(6 * kMiB));
  EXPECT_EQ(placement.LargestFreeBytes(kNoLimit), 2 * kMiB);
  EXPECT_EQ(placement.LargestFreeBytes(Gpa(7 * kMiB)), kMiB);
}

TEST(RamPlacementTest, AMachineWithoutHighRamHasNoPlace) {
  RamPlacement placement = Placement(kMiB);
  EXPECT_FALSE(placement.Claim(Gpa(kMiB), 1));
  EXPECT_TRUE(placement.Claim(Gpa(kMiB), 0));
  EXPECT_EQ(placement.LargestFreeBytes(kNoLimit), 0u);
}

}  // namespace
}  // namespace vmm
