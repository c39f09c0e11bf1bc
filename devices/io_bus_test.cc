#include "devices/io_bus.h"

#include <array>

#include "base/status_matchers.h"

namespace vmm {
namespace {

class RecordingDevice final : public IoDevice {
 public:
  void Read(uint64_t offset, std::span<std::byte> data) noexcept override {
    last_offset = offset;
    for (std::byte& b : data) b = std::byte{0x5a};
  }
  void Write(uint64_t offset, std::span<const std::byte> data) noexcept override {
    last_offset = offset;
    writes += data.size();
  }
  uint64_t last_offset = UINT64_MAX;
  size_t writes = 0;
};

TEST(IoBusTest, TheDeviceSeesTheOffsetInItsRange) {
  IoBus bus;
  RecordingDevice low, high;
  ASSERT_OK(bus.Add(0x2f8, 8, "low", low));
  ASSERT_OK(bus.Add(0x3f8, 8, "high", high));
  std::array<std::byte, 1> data{};
  EXPECT_TRUE(bus.Read(0x3ff, data));
  EXPECT_EQ(high.last_offset, 7u);
  EXPECT_EQ(low.last_offset, UINT64_MAX);
  EXPECT_EQ(data[0], std::byte{0x5a});
}

TEST(IoBusTest, ReadsThatNobodyAnswersAreOnes) {
  IoBus bus;
  RecordingDevice device;
  ASSERT_OK(bus.Add(0x3f8, 8, "serial", device));
  std::array<std::byte, 4> data{};
  for (const uint64_t address : {uint64_t{0}, uint64_t{0x3f7}, uint64_t{0x400}, uint64_t{0x3fd}, UINT64_MAX}) {
    data.fill(std::byte{0});
    EXPECT_FALSE(bus.Read(address, data)) << address;
    EXPECT_EQ(data[3], std::byte{0xff});
  }
  EXPECT_FALSE(bus.Write(0x3fd, data));
  EXPECT_EQ(device.writes, 0u);
}

TEST(IoBusTest, AddRefusesOverlapsNamingTheOther) {
  IoBus bus;
  RecordingDevice device;
  ASSERT_OK(bus.Add(0x100, 0x10, "first", device));
  for (const auto& [start, bytes] : {std::pair<uint64_t, uint64_t>{0x100, 1}, {0x10f, 1}, {0xff, 2}, {0, 0x1000}}) {
    EXPECT_THAT(bus.Add(start, bytes, "second", device), StatusIs(absl::StatusCode::kAlreadyExists, "first"));
  }
  EXPECT_OK(bus.Add(0x110, 1, "above", device));
  EXPECT_OK(bus.Add(0xff, 1, "below", device));
}

TEST(IoBusTest, AddRefusesEmptyAndWrappingRanges) {
  IoBus bus;
  RecordingDevice device;
  EXPECT_THAT(bus.Add(1, 0, "empty", device), StatusIs(absl::StatusCode::kInvalidArgument, "empty"));
  EXPECT_THAT(bus.Add(UINT64_MAX, 2, "wrap", device), StatusIs(absl::StatusCode::kInvalidArgument, "wraps"));
}

}  // namespace
}  // namespace vmm
