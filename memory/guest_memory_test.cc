#include "memory/guest_memory.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>

#include "base/status_matchers.h"

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

}  // namespace
}  // namespace vmm
