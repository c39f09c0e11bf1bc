#include "memory/level_memory.h"

#include <array>

#include "base/status_matchers.h"
#include "memory/guest_ram.h"
#include "memory/layout.h"
#include "memory/recording_listener.h"

namespace vmm {
namespace {

constexpr uint64_t kRamBytes = 1 * kMiB;
constexpr Gpa kPage{0x5000};

class LevelMemoryTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(const MemoryLayout layout, MemoryLayout::Create(kRamBytes));
    ASSERT_OK_AND_ASSIGN(const auto ram, GuestRam::Create({.bytes = kRamBytes}));
    ASSERT_OK_AND_ASSIGN(memory_, GuestMemory::Create(*ram, layout));
    ASSERT_OK_AND_ASSIGN(map_, ProtectionMap::Create(layout, 2));
    vtl0_.emplace(*memory_, *map_, gate_, 0);
    vtl1_.emplace(*memory_, *map_, gate_, 1);
    ASSERT_TRUE(memory_->Fill(Gpa(0), std::byte{0x11}, kRamBytes));
  }
  void Protect(PageRights rights) {
    ASSERT_EQ(map_->Set(1, kPage.page(), 1, rights, listener_), ProtectionResult::kDone);
  }
  uint8_t InRam(Gpa gpa) {
    uint8_t value = 0;
    EXPECT_TRUE(memory_->ReadObject(gpa, value));
    return value;
  }

  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<ProtectionMap> map_;
  AccessGate gate_;
  std::optional<LevelMemory> vtl0_, vtl1_;
  RecordingListener listener_;
};

TEST_F(LevelMemoryTest, CopiesWhatTheLevelMayAndNothingElse) {
  struct {
    PageRights rights;
    bool read, write;
  } constexpr kRows[] = {{PageRights::None(), false, false}, {PageRights(0x1), true, false}, {PageRights(0xd), true, false},
                         {PageRights(0x3), true, true},      {PageRights(), true, true}};
  for (const auto& row : kRows) {
    Protect(row.rights);
    uint32_t value = 0x2222'2222;
    EXPECT_EQ(vtl0_->ReadObject(kPage + 8, value), row.read) << int{row.rights.bits()};
    EXPECT_EQ(value, row.read ? 0x1111'1111u : 0x2222'2222u);
    EXPECT_EQ(vtl0_->CanRead(kPage + 8, 4), row.read);
    EXPECT_EQ(vtl0_->CanWrite(kPage + 8, 4), row.write);
    EXPECT_EQ(vtl0_->Rights(kPage.page()), row.rights);
    EXPECT_EQ(vtl0_->WriteObject(kPage + 16, uint8_t{0x33}), row.write);
    EXPECT_EQ(InRam(kPage + 16), row.write ? 0x33 : 0x11);
    // The level that protects is not restricted by it.
    EXPECT_TRUE(vtl1_->ReadObject(kPage + 8, value));
    EXPECT_TRUE(vtl1_->WriteObject(kPage + 16, uint8_t{0x11}));
  }
}

TEST_F(LevelMemoryTest, ASpanNeedsAllOfItsPages) {
  Protect(PageRights::None());
  std::array<std::byte, 8> eight{};
  std::array<std::byte, 3 * kPageBytes> three_pages{};
  EXPECT_TRUE(vtl0_->Read(Gpa(kPage.raw() - 8), eight));
  EXPECT_FALSE(vtl0_->Read(Gpa(kPage.raw() - 7), eight));
  EXPECT_FALSE(vtl0_->Read(kPage + (kPageBytes - 1), eight));
  EXPECT_TRUE(vtl0_->Read(kPage + kPageBytes, eight));
  EXPECT_FALSE(vtl0_->Read(Gpa(kPage.raw() - kPageBytes), three_pages));
  EXPECT_FALSE(vtl0_->Write(Gpa(kPage.raw() - kPageBytes), three_pages));
  EXPECT_EQ(InRam(Gpa(kPage.raw() - 1)), 0x11);  // nothing of it was written
}

TEST_F(LevelMemoryTest, WhatIsNotRamIsRefusedWhateverItWrapsTo) {
  uint64_t value = 0;
  for (const uint64_t address : {kRamBytes, kRamBytes - 4, uint64_t{1} << 52, UINT64_MAX, UINT64_MAX - 7}) {
    EXPECT_FALSE(vtl0_->ReadObject(Gpa(address), value)) << address;
    EXPECT_FALSE(vtl0_->WriteObject(Gpa(address), value)) << address;
    EXPECT_FALSE(vtl0_->CanRead(Gpa(address), 8));
  }
  EXPECT_FALSE(vtl0_->CanRead(kPage, UINT64_MAX));
}

TEST_F(LevelMemoryTest, WithoutLevelsAllOfRamIsOpen) {
  Protect(PageRights::None());
  const LevelMemory plain(*memory_);
  uint8_t value = 0;
  EXPECT_TRUE(plain.ReadObject(kPage, value));
  EXPECT_TRUE(plain.WriteObject(kPage, value));
  EXPECT_EQ(plain.Rights(kPage.page()), PageRights());
  EXPECT_FALSE(plain.ReadObject(Gpa(kRamBytes), value));
}

}  // namespace
}  // namespace vmm
