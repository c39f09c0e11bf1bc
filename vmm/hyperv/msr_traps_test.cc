#include "vmm/hyperv/msr_traps.h"

#include <cstdint>
#include <span>
#include <vector>

#include "devices/hyperv/vsm/msr_intercepts.h"
#include "gtest/gtest.h"

namespace vmm {
namespace {

constexpr kvm::MsrRange kAlways[] = {{.base = 0x4000'0000, .count = 0x70}, {.base = 0x4000'0073, .count = 0x100}};

class MsrTrapsTest : public testing::Test {
 protected:
  [[nodiscard]] bool Traps(uint32_t msr, bool write) const {
    for (const kvm::MsrRange& range : filter_) {
      if (msr >= range.base && msr < range.base + range.count && (write ? range.write : range.read)) return true;
    }
    return false;
  }

  bool refuses_ = false;
  uint32_t swaps_ = 0;
  std::vector<kvm::MsrRange> filter_;
  MsrTraps traps_{4, kAlways, [this](std::span<const kvm::MsrRange> ranges) {
                    if (refuses_) return false;
                    ++swaps_;
                    filter_.assign(ranges.begin(), ranges.end());
                    return true;
                  }};
};

TEST_F(MsrTrapsTest, HasWhatWasAskedForAndWhatWasThere) {
  EXPECT_TRUE(traps_.Set(VpIndex(0), CrEventBit(CrEvent::kLstarWrite)));
  EXPECT_TRUE(Traps(0xc000'0082, true));
  EXPECT_FALSE(Traps(0xc000'0082, false));
  EXPECT_FALSE(Traps(0x174, true));
  EXPECT_FALSE(Traps(0xc000'0102, true));
  EXPECT_TRUE(Traps(0x4000'0000, true));
  EXPECT_TRUE(Traps(0x4000'0073, false));
  EXPECT_TRUE(traps_.Set(VpIndex(0), CrEventBit(CrEvent::kEferRead)));
  EXPECT_FALSE(Traps(0xc000'0082, true));
  EXPECT_TRUE(Traps(0xc000'0080, false));
}

TEST_F(MsrTrapsTest, IsTheUnionOfAllProcessors) {
  EXPECT_TRUE(traps_.Set(VpIndex(0), CrEventBit(CrEvent::kStarWrite)));
  EXPECT_TRUE(traps_.Set(VpIndex(3), CrEventBit(CrEvent::kApicBaseWrite)));
  EXPECT_TRUE(Traps(0xc000'0081, true));
  EXPECT_TRUE(Traps(0x1b, true));
  EXPECT_TRUE(traps_.Set(VpIndex(0), 0));
  EXPECT_FALSE(Traps(0xc000'0081, true));
  EXPECT_TRUE(Traps(0x1b, true));
  EXPECT_EQ(swaps_, 3u);
  // Nothing new: no swap.
  EXPECT_TRUE(traps_.Set(VpIndex(1), CrEventBit(CrEvent::kApicBaseWrite)));
  EXPECT_EQ(swaps_, 3u);
}

TEST_F(MsrTrapsTest, EveryEventIsTrappedAndFitsInKvmsFilter) {
  EXPECT_TRUE(traps_.Set(VpIndex(0), MsrCrEvents()));
  EXPECT_LE(filter_.size(), std::size(kAlways) + MsrTraps::kMostRanges);
  for (const InterceptedMsr& row : InterceptedMsrs()) {
    EXPECT_TRUE(Traps(row.msr, true)) << row.msr;
    EXPECT_TRUE(!row.read || Traps(row.msr, false)) << row.msr;
  }
}

TEST_F(MsrTrapsTest, ARefusalChangesNothing) {
  EXPECT_TRUE(traps_.Set(VpIndex(0), CrEventBit(CrEvent::kStarWrite)));
  refuses_ = true;
  EXPECT_FALSE(traps_.Set(VpIndex(0), CrEventBit(CrEvent::kLstarRead)));
  refuses_ = false;
  // As before the refusal: VP 1's wish is the same, so nothing is to be swapped.
  EXPECT_TRUE(traps_.Set(VpIndex(1), CrEventBit(CrEvent::kStarWrite)));
  EXPECT_EQ(swaps_, 1u);
  EXPECT_TRUE(Traps(0xc000'0081, true));
}

}  // namespace
}  // namespace vmm
