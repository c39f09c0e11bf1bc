#include "devices/platform/rtc/cmos_rtc.h"

#include <array>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace vmm {
namespace {

constexpr int64_t kSecond = 1'000'000'000;
constexpr int64_t kThursday = 1'709'251'199;  // 2024-02-29, a Thursday, 23:59:59 UTC

class CmosRtcTest : public testing::Test {
 protected:
  uint8_t Get(uint8_t index) {
    Out(0, index);
    std::byte value{0xff};
    rtc_.Read(1, std::span(&value, 1));
    return std::to_integer<uint8_t>(value);
  }
  void Set(uint8_t index, uint8_t value) {
    Out(0, index);
    Out(1, value);
  }
  void Out(uint64_t offset, uint8_t value) {
    const std::byte byte{value};
    rtc_.Write(offset, std::span(&byte, 1));
  }
  std::vector<int> Time() {
    return {Get(kCmosCentury), Get(kCmosYear), Get(kCmosMonth), Get(kCmosDayOfMonth), Get(kCmosHours), Get(kCmosMinutes), Get(kCmosSeconds)};
  }

  int64_t now_ = kThursday * kSecond;
  CmosRtc rtc_{[this] { return now_; }};
};

TEST_F(CmosRtcTest, ShowsTheHostsTimeInBcdAnd24Hours) {
  EXPECT_EQ(Get(kCmosRegisterB), kCmos24Hours);
  EXPECT_EQ(Time(), (std::vector<int>{0x20, 0x24, 0x02, 0x29, 0x23, 0x59, 0x59}));
  EXPECT_EQ(Get(kCmosDayOfWeek), 5);  // Thursday
  now_ += kSecond;
  EXPECT_EQ(Time(), (std::vector<int>{0x20, 0x24, 0x03, 0x01, 0x00, 0x00, 0x00}));
}

TEST_F(CmosRtcTest, ShowsBinaryAnd12HoursWhereAskedTo) {
  Set(kCmosRegisterB, kCmosBinary);
  EXPECT_EQ(Time(), (std::vector<int>{20, 24, 2, 29, 11 | kCmosPm, 59, 59}));
  now_ += kSecond;
  EXPECT_EQ(Get(kCmosHours), 12);  // midnight
  now_ += 12 * 3600 * kSecond;
  EXPECT_EQ(Get(kCmosHours), 12 | kCmosPm);  // noon
}

TEST_F(CmosRtcTest, AnUpdateIsAnnouncedBeforeTheSecondChanges) {
  EXPECT_EQ(Get(kCmosRegisterA), kCmosDividerRunning);
  now_ += kSecond - 244'000;
  EXPECT_EQ(Get(kCmosRegisterA), kCmosDividerRunning | kCmosUpdateInProgress);
  now_ += 244'000;
  EXPECT_EQ(Get(kCmosRegisterA), kCmosDividerRunning);
}

TEST_F(CmosRtcTest, TheGuestSetsATimeThatGoesOn) {
  Set(kCmosRegisterB, kCmos24Hours | kCmosSet);
  now_ += 5 * kSecond;
  EXPECT_EQ(Get(kCmosSeconds), 0x59);  // it stands
  Set(kCmosCentury, 0x19);
  Set(kCmosYear, 0x99);
  Set(kCmosMonth, 0x12);
  Set(kCmosDayOfMonth, 0x31);
  EXPECT_EQ(Get(kCmosRegisterA), kCmosDividerRunning);
  Set(kCmosRegisterB, kCmos24Hours);
  EXPECT_EQ(Time(), (std::vector<int>{0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59}));
  now_ += 2 * kSecond;
  EXPECT_EQ(Time(), (std::vector<int>{0x20, 0x00, 0x01, 0x01, 0x00, 0x00, 0x01}));
}

TEST_F(CmosRtcTest, ATimeThatIsSetBeginsThen) {
  now_ += kSecond / 3;
  Set(kCmosRegisterB, kCmos24Hours | kCmosSet);
  Set(kCmosSeconds, 0x10);
  Set(kCmosRegisterB, kCmos24Hours);
  now_ += kSecond - 1;
  EXPECT_EQ(Get(kCmosSeconds), 0x10);
  now_ += 1;
  EXPECT_EQ(Get(kCmosSeconds), 0x11);
}

TEST_F(CmosRtcTest, TheLastYearThereIsCanBeSet) {
  Set(kCmosRegisterB, kCmos24Hours | kCmosSet);
  Set(kCmosCentury, 0x99);
  Set(kCmosYear, 0x99);
  Set(kCmosRegisterB, kCmos24Hours);
  EXPECT_EQ(Get(kCmosCentury), 0x99);
  EXPECT_EQ(Get(kCmosYear), 0x99);
}

TEST_F(CmosRtcTest, WithoutSetARegisterIsSetAlone) {
  Set(kCmosMinutes, 0x10);
  EXPECT_EQ(Time(), (std::vector<int>{0x20, 0x24, 0x02, 0x29, 0x23, 0x10, 0x59}));
}

TEST_F(CmosRtcTest, NumbersThatAreNoDateAreTakenAndCounted) {
  for (int value = 0; value < 256; ++value) {
    for (const uint8_t index : {kCmosSeconds, kCmosMinutes, kCmosHours, kCmosDayOfMonth, kCmosMonth, kCmosYear, kCmosCentury}) {
      Set(kCmosRegisterB, kCmosSet | kCmos24Hours | (value % 2 == 0 ? kCmosBinary : 0));
      Set(index, static_cast<uint8_t>(value));
      Set(kCmosRegisterB, kCmos24Hours | kCmosBinary);
      EXPECT_LT(Get(kCmosHours), 24);
      EXPECT_LT(Get(kCmosMonth), 13);
      EXPECT_GT(Get(kCmosMonth), 0);
    }
  }
}

TEST_F(CmosRtcTest, OtherBytesAreMemory) {
  Set(0x40, 0xab);
  Set(0x80 | 0x41, 0xcd);  // bit 7 of the index masks NMIs
  EXPECT_EQ(Get(0x40), 0xab);
  EXPECT_EQ(Get(0x41), 0xcd);
}

TEST_F(CmosRtcTest, RegistersCAndDAreReadOnly) {
  Set(kCmosRegisterC, 0xff);
  Set(kCmosRegisterD, 0);
  EXPECT_EQ(Get(kCmosRegisterC), 0);
  EXPECT_EQ(Get(kCmosRegisterD), kCmosValid);
}

TEST_F(CmosRtcTest, WiderAccessesAndTheIndexPortReadOnes) {
  std::array<std::byte, 2> wide{std::byte{0xff}, std::byte{0xff}};
  rtc_.Read(0, wide);
  EXPECT_EQ(wide[1], std::byte{0xff});
  std::byte index{0xff};
  rtc_.Read(0, std::span(&index, 1));
  EXPECT_EQ(index, std::byte{0xff});
}

TEST(CmosRtcThreadsTest, ManyProcessorsMayUseIt) {
  CmosRtc rtc;
  const auto use = [&rtc] {
    for (int n = 0; n < 2000; ++n) {
      const std::byte index{static_cast<uint8_t>(n)};
      std::byte value{0};
      rtc.Write(0, std::span(&index, 1));
      rtc.Read(1, std::span(&value, 1));
      rtc.Write(1, std::span(&value, 1));
    }
  };
  std::thread other(use);
  use();
  other.join();
}

}  // namespace
}  // namespace vmm
