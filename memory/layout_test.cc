#include "memory/layout.h"

#include "base/status_matchers.h"

namespace vmm {
namespace {

TEST(MemoryLayoutTest, SmallRamIsOneRangeBelowTheHole) {
  ASSERT_OK_AND_ASSIGN(const MemoryLayout layout, MemoryLayout::Create(256 * kMiB));
  ASSERT_EQ(layout.ram().size(), 1u);
  EXPECT_EQ(layout.ram()[0].start, Gpa(0));
  EXPECT_EQ(layout.ram()[0].bytes, 256 * kMiB);
  EXPECT_EQ(layout.high_mmio_start(), kMmioHoleEnd);
}

TEST(MemoryLayoutTest, RamThatJustFillsTheLowPartDoesNotSpill) {
  ASSERT_OK_AND_ASSIGN(const MemoryLayout layout, MemoryLayout::Create(3 * kGiB));
  EXPECT_EQ(layout.ram().size(), 1u);
}

TEST(MemoryLayoutTest, RamAboveTheHoleContinuesAtFourGiB) {
  ASSERT_OK_AND_ASSIGN(const MemoryLayout layout, MemoryLayout::Create(3 * kGiB + kPageBytes));
  ASSERT_EQ(layout.ram().size(), 2u);
  EXPECT_EQ(layout.ram()[1].start, kMmioHoleEnd);
  EXPECT_EQ(layout.ram()[1].bytes, kPageBytes);
  EXPECT_EQ(layout.ram()[1].ram_offset, 3 * kGiB);
  EXPECT_EQ(layout.high_mmio_start(), Gpa(5 * kGiB));
}

TEST(MemoryLayoutTest, SaysWhereInRamARangeIs) {
  ASSERT_OK_AND_ASSIGN(const MemoryLayout layout, MemoryLayout::Create(3 * kGiB + 2 * kPageBytes));
  EXPECT_EQ(layout.RamOffset(Gpa(kPageBytes), kPageBytes), kPageBytes);
  EXPECT_EQ(layout.RamOffset(kMmioHoleEnd + kPageBytes, kPageBytes), 3 * kGiB + kPageBytes);
  EXPECT_EQ(layout.RamOffset(Gpa(3 * kGiB - kPageBytes), 2 * kPageBytes), std::nullopt);
  EXPECT_EQ(layout.RamOffset(kMmioHoleStart, kPageBytes), std::nullopt);
  EXPECT_EQ(layout.RamOffset(Gpa(kPageBytes), UINT64_MAX), std::nullopt);
  EXPECT_EQ(layout.RamOffset(Gpa(UINT64_MAX), 2), std::nullopt);
}

TEST(MemoryLayoutTest, RefusesSizesThatCannotBe) {
  for (const uint64_t bytes : {uint64_t{0}, kMiB - kPageBytes, kMiB + 1, 1024 * kGiB + kPageBytes, UINT64_MAX}) {
    EXPECT_THAT(MemoryLayout::Create(bytes), StatusIs(absl::StatusCode::kInvalidArgument, "lay out guest RAM"));
  }
}

}  // namespace
}  // namespace vmm
