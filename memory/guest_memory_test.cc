#include "memory/guest_memory.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <optional>
#include <vector>

#include "base/status_matchers.h"
#include "memory/ram_mapping.h"

namespace vmm {
namespace {

class GuestMemoryTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(const MemoryLayout layout, MemoryLayout::Create(kRamBytes));
    ASSERT_OK_AND_ASSIGN(ram_, GuestRam::Create({.bytes = kRamBytes}));
    ASSERT_OK_AND_ASSIGN(memory_, GuestMemory::Create(*ram_, layout));
  }
  // Spills above the hole; nothing of it is touched but a few pages.
  static constexpr uint64_t kRamBytes = 3 * kGiB + 2 * kPageBytes;
  std::unique_ptr<GuestRam> ram_;
  std::unique_ptr<GuestMemory> memory_;
};

TEST_F(GuestMemoryTest, WhatIsWrittenIsRead) {
  ASSERT_TRUE(memory_->WriteObject(Gpa(0x1ffe), uint32_t{0x12345678}));
  uint32_t value = 0;
  ASSERT_TRUE(memory_->ReadObject(Gpa(0x1ffe), value));
  EXPECT_EQ(value, 0x12345678u);
}

TEST_F(GuestMemoryTest, TheLastByteOfEachRangeIsTheEnd) {
  for (const uint64_t end : {3 * kGiB, 4 * kGiB + 2 * kPageBytes}) {
    EXPECT_TRUE(memory_->WriteObject(Gpa(end - 4), uint32_t{1}));
    EXPECT_FALSE(memory_->WriteObject(Gpa(end - 3), uint32_t{1}));
    EXPECT_FALSE(memory_->WriteObject(Gpa(end), uint8_t{1}));
  }
}

TEST_F(GuestMemoryTest, SpansThatWrapAreRefused) {
  uint64_t value = 0;
  EXPECT_FALSE(memory_->ReadObject(Gpa(UINT64_MAX), value));
  EXPECT_FALSE(memory_->ReadObject(Gpa(UINT64_MAX - 7), value));
  EXPECT_FALSE(memory_->Contains(Gpa(1), UINT64_MAX));
  EXPECT_FALSE(memory_->Contains(Gpa(0), UINT64_MAX));
}

TEST_F(GuestMemoryTest, ASpanOverTheHoleIsRefusedWhole) {
  EXPECT_FALSE(memory_->Fill(Gpa(3 * kGiB - kPageBytes), std::byte{0xff}, kGiB + 2 * kPageBytes));
  uint8_t last = 1;
  ASSERT_TRUE(memory_->ReadObject(Gpa(3 * kGiB - 1), last));
  EXPECT_EQ(last, 0);
}

TEST_F(GuestMemoryTest, TwoViewsShowTheSameRam) {
  ASSERT_OK_AND_ASSIGN(const MemoryLayout layout, MemoryLayout::Create(kRamBytes));
  ASSERT_OK_AND_ASSIGN(const auto other, GuestMemory::Create(*ram_, layout));
  ASSERT_TRUE(memory_->WriteObject(kMmioHoleEnd, uint64_t{42}));
  uint64_t value = 0;
  ASSERT_TRUE(other->ReadObject(kMmioHoleEnd, value));
  EXPECT_EQ(value, 42u);
}

TEST_F(GuestMemoryTest, TheFileIsSealedAgainstResizing) {
  EXPECT_NE(::ftruncate(ram_->fd(), 0), 0);
  EXPECT_NE(::ftruncate(ram_->fd(), static_cast<off_t>(8 * kGiB)), 0);
  EXPECT_NE(::fcntl(ram_->fd(), F_ADD_SEALS, F_SEAL_WRITE), 0);
}

TEST(GuestRamTest, ASizeThatTheHostCannotBackIsRefusedWhenPrefaulting) {
  EXPECT_THAT(GuestRam::Create({.bytes = 1024 * kGiB, .prefault = true}),
              StatusIs(absl::StatusCode::kResourceExhausted, "back guest RAM"));
}

// RAM over the hole, with two reserved parts: one in the middle of the low range, one that ends it and begins the high one.
class ReservedRamTest : public testing::Test {
 protected:
  static constexpr uint64_t kRamBytes = 3 * kGiB + 4 * kMiB;
  static constexpr RamPart kOne{64 * kMiB, 2 * kMiB}, kTwo{3 * kGiB - 2 * kMiB, 4 * kMiB};

  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(const MemoryLayout layout, MemoryLayout::Create(kRamBytes));
    layout_ = layout;
    ASSERT_OK_AND_ASSIGN(ram_, GuestRam::Create({.bytes = kRamBytes, .reserved = {kOne, kTwo}}));
    ASSERT_OK_AND_ASSIGN(memory_, GuestMemory::Create(*ram_, layout));
  }
  std::optional<MemoryLayout> layout_;
  std::unique_ptr<GuestRam> ram_;
  std::unique_ptr<GuestMemory> memory_;
};

TEST_F(ReservedRamTest, IsOneRamToItsReader) {
  for (const uint64_t border : {kOne.ram_offset, kOne.ram_offset + kOne.bytes, kTwo.ram_offset}) {
    ASSERT_TRUE(memory_->WriteObject(Gpa(border - 4), uint64_t{0x1122334455667788}));
    uint64_t value = 0;
    ASSERT_TRUE(memory_->ReadObject(Gpa(border - 4), value));
    EXPECT_EQ(value, 0x1122334455667788u);
  }
  ASSERT_TRUE(memory_->WriteObject(kMmioHoleEnd, uint64_t{1}));
  ASSERT_TRUE(memory_->WriteObject(kMmioHoleEnd + 2 * kMiB, uint64_t{2}));
  uint64_t value = 0;
  ASSERT_TRUE(memory_->ReadObject(kMmioHoleEnd, value));
  EXPECT_EQ(value, 1u);
}

TEST_F(ReservedRamTest, TheDescriptorThatDevicesGetHoldsNoneOfIt) {
  const int fd = ram_->fd();
  EXPECT_EQ(::lseek(fd, 0, SEEK_END), static_cast<off_t>(kRamBytes - kOne.bytes - kTwo.bytes));
  ASSERT_TRUE(memory_->Fill(Gpa(kOne.ram_offset), std::byte{0x5a}, kOne.bytes));
  ASSERT_TRUE(memory_->Fill(Gpa(kTwo.ram_offset), std::byte{0x5a}, 2 * kMiB));
  ASSERT_TRUE(memory_->Fill(kMmioHoleEnd, std::byte{0x5a}, 2 * kMiB));
  // Nothing of that is data of this file, nor was any page of it made.
  EXPECT_EQ(::lseek(fd, 0, SEEK_DATA), -1);
  // What is not reserved is: one byte on either side.
  for (const uint64_t at : {kOne.ram_offset - 1, kOne.ram_offset + kOne.bytes}) ASSERT_TRUE(memory_->WriteObject(Gpa(at), uint8_t{7}));
  for (const off_t at : {kOne.ram_offset - 1, kOne.ram_offset}) {
    uint8_t byte = 0;
    ASSERT_EQ(::pread(fd, &byte, 1, at), 1);
    EXPECT_EQ(byte, 7);
  }
}

TEST_F(ReservedRamTest, DevicesAreGivenTheRest) {
  const std::vector<DeviceRam> given = RamForDevices(*ram_->files(), *layout_);
  ASSERT_EQ(given.size(), 3u);
  const std::vector<std::array<uint64_t, 3>> expected = {
      {0, kOne.ram_offset, 0},
      {kOne.ram_offset + kOne.bytes, kTwo.ram_offset - kOne.ram_offset - kOne.bytes, kOne.ram_offset},
      {(kMmioHoleEnd + 2 * kMiB).raw(), 2 * kMiB, kTwo.ram_offset - kOne.bytes}};
  for (size_t i = 0; i < given.size(); ++i) {
    EXPECT_EQ(given[i].fd, ram_->fd());
    EXPECT_EQ((std::array{given[i].start.raw(), given[i].bytes, given[i].fd_offset}), expected[i]) << i;
  }
}

TEST(GuestRamTest, ReservedPartsThatMakeNoSenseAreRefused) {
  constexpr uint64_t kBytes = 8 * kMiB;
  const std::vector<std::vector<RamPart>> cases = {
      {{0, kBytes}},                                                  // all
      {{kMiB, 0}},                                                    // nothing
      {{kMiB + 1, kMiB}},                                             // not whole pages
      {{7 * kMiB, 2 * kMiB}},                                         // over the end
      {{UINT64_MAX - kPageBytes + 1, kPageBytes}},                    // beyond it
      {{2 * kMiB, 2 * kMiB}, {3 * kMiB, kMiB}},                       // one in the other
      {{4 * kMiB, kMiB}, {2 * kMiB, kMiB}},                           // descending
  };
  for (const auto& reserved : cases) {
    EXPECT_THAT(GuestRam::Create({.bytes = kBytes, .reserved = reserved}), StatusIs(absl::StatusCode::kInvalidArgument, "reserve"));
  }
  EXPECT_THAT(GuestRam::Create({.bytes = kBytes, .huge_pages = HugePages::k2MiB, .reserved = {{kMiB, 2 * kMiB}}}),
              StatusIs(absl::StatusCode::kInvalidArgument, "reserve 2097152 bytes"));
}

}  // namespace
}  // namespace vmm
