#include "devices/hyperv/vsm/msr_intercepts.h"

#include <cstdint>

#include "gtest/gtest.h"

namespace vmm {
namespace {

TEST(MsrInterceptsTest, AreTheOnesOfTheSpecification) {
  EXPECT_EQ(CrEventOf(0xc000'0082, true), CrEvent::kLstarWrite);
  EXPECT_EQ(CrEventOf(0xc000'0082, false), CrEvent::kLstarRead);
  EXPECT_EQ(CrEventOf(0x8f, true), CrEvent::kSgxControlWrite);
  EXPECT_EQ(CrEventOf(0x8f, false), std::nullopt);
  EXPECT_EQ(CrEventOf(0x1b, false), CrEvent::kApicBaseRead);
  for (const uint32_t msr : {0x0u, 0x1cu, 0x90u, 0x277u, 0xc000'0100u, 0xc000'0102u, 0x4000'0000u, ~0u}) {
    EXPECT_EQ(CrEventOf(msr, true), std::nullopt) << msr;
    EXPECT_EQ(CrEventOf(msr, false), std::nullopt) << msr;
  }
}

// CR0, CR4, XCR0, and the four descriptor table registers are no MSRs; all else is.
TEST(MsrInterceptsTest, BitsAreAllThatTheSpecificationHasButSeven) {
  constexpr uint64_t kOthers = 0x7 | uint64_t{0xf} << 15;
  EXPECT_EQ(MsrCrEvents(), kHvCrInterceptKnown & ~kOthers);
}

}  // namespace
}  // namespace vmm
