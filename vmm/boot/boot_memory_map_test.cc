#include "vmm/boot/boot_memory_map.h"

#include "base/status_matchers.h"
#include "vmm/boot/boot_layout.h"

namespace vmm {
namespace {

constexpr MemoryMapType kRam = MemoryMapType::kRam;
constexpr MemoryMapType kReserved = MemoryMapType::kReserved;

MemoryLayout Layout(uint64_t bytes) {
  auto layout = MemoryLayout::Create(bytes);
  EXPECT_OK(layout);
  return *std::move(layout);
}

TEST(BootMemoryMapTest, SmallMachine) {
  ASSERT_OK_AND_ASSIGN(const auto map, BuildBootMemoryMap(Layout(64 * kMiB), {}));
  EXPECT_THAT(map, testing::ElementsAre(MemoryMapEntry{Gpa(0), 0x9fc00, kRam},
                                        MemoryMapEntry{Gpa(0x9fc00), 0x60400, kReserved},
                                        MemoryMapEntry{Gpa(kMiB), 63 * kMiB, kRam},
                                        MemoryMapEntry{Gpa(0xe000'0000), kEcamBytes, kReserved},
                                        MemoryMapEntry{Gpa(0xfec0'0000), 0x140'0000, kReserved}));
}

TEST(BootMemoryMapTest, RamAboveFourGigabytes) {
  ASSERT_OK_AND_ASSIGN(const auto map, BuildBootMemoryMap(Layout(4 * kGiB), {}));
  EXPECT_THAT(map, testing::ElementsAre(MemoryMapEntry{Gpa(0), 0x9fc00, kRam},
                                        MemoryMapEntry{Gpa(0x9fc00), 0x60400, kReserved},
                                        MemoryMapEntry{Gpa(kMiB), 3 * kGiB - kMiB, kRam},
                                        MemoryMapEntry{Gpa(0xe000'0000), kEcamBytes, kReserved},
                                        MemoryMapEntry{Gpa(0xfec0'0000), 0x140'0000, kReserved},
                                        MemoryMapEntry{Gpa(4 * kGiB), kGiB, kRam}));
}

TEST(BootMemoryMapTest, NoRamAboveOneMegabyteHasNoEmptyEntry) {
  ASSERT_OK_AND_ASSIGN(const auto map, BuildBootMemoryMap(Layout(kMiB), {}));
  EXPECT_EQ(map.size(), 4u);
  EXPECT_EQ(map[2].start, kEcamBase);
}

TEST(BootMemoryMapTest, ReservedRangesAreCutOutOfRam) {
  const ReservedRange reserved[] = {{Gpa(4 * kGiB), kMiB}, {Gpa(2 * kMiB), kMiB}, {Gpa(63 * kMiB), kMiB}};
  ASSERT_OK_AND_ASSIGN(const auto map, BuildBootMemoryMap(Layout(4 * kGiB), reserved));
  EXPECT_THAT(map, testing::ElementsAre(MemoryMapEntry{Gpa(0), 0x9fc00, kRam},
                                        MemoryMapEntry{Gpa(0x9fc00), 0x60400, kReserved},
                                        MemoryMapEntry{Gpa(kMiB), kMiB, kRam},
                                        MemoryMapEntry{Gpa(2 * kMiB), kMiB, kReserved},
                                        MemoryMapEntry{Gpa(3 * kMiB), 60 * kMiB, kRam},
                                        MemoryMapEntry{Gpa(63 * kMiB), kMiB, kReserved},
                                        MemoryMapEntry{Gpa(64 * kMiB), 3 * kGiB - 64 * kMiB, kRam},
                                        MemoryMapEntry{Gpa(0xe000'0000), kEcamBytes, kReserved},
                                        MemoryMapEntry{Gpa(0xfec0'0000), 0x140'0000, kReserved},
                                        MemoryMapEntry{Gpa(4 * kGiB), kMiB, kReserved},
                                        MemoryMapEntry{Gpa(4 * kGiB + kMiB), kGiB - kMiB, kRam}));
}

TEST(BootMemoryMapTest, RefusesBadReservedRanges) {
  const struct {
    ReservedRange range;
    const char* why;
  } kCases[] = {
      {{Gpa(2 * kMiB), 0}, "not whole pages"},          {{Gpa(2 * kMiB), 100}, "not whole pages"},
      {{Gpa(2 * kMiB + 1), kPageBytes}, "not whole pages"}, {{Gpa(0x9f000), kMiB}, "begins below 1 MiB"},
      {{Gpa(63 * kMiB), 2 * kMiB}, "not RAM"},          {{Gpa(64 * kMiB), kPageBytes}, "not RAM"},
      {{Gpa(2 * kMiB), ~uint64_t{0xfff}}, "not RAM"},
  };
  for (const auto& c : kCases) {
    EXPECT_THAT(BuildBootMemoryMap(Layout(64 * kMiB), {&c.range, 1}), StatusIs(absl::StatusCode::kInvalidArgument, c.why));
  }
}

TEST(BootMemoryMapTest, RefusesOverlappingReservedRanges) {
  const ReservedRange reserved[] = {{Gpa(4 * kMiB), kMiB}, {Gpa(3 * kMiB), kMiB + kPageBytes}};
  EXPECT_THAT(BuildBootMemoryMap(Layout(64 * kMiB), reserved),
              StatusIs(absl::StatusCode::kInvalidArgument, "overlaps the range at 0x300000"));
}

TEST(BootMemoryMapTest, RefusesMoreRangesThanTheZeroPageHolds) {
  std::vector<ReservedRange> reserved;
  for (uint64_t i = 0; i < 61; ++i) reserved.push_back({Gpa((2 + 2 * i) * kMiB), kMiB});
  ASSERT_OK_AND_ASSIGN(auto map, BuildBootMemoryMap(Layout(256 * kMiB), reserved));
  EXPECT_EQ(map.size(), 127u);
  reserved.push_back({Gpa(200 * kMiB), kMiB});
  EXPECT_THAT(BuildBootMemoryMap(Layout(256 * kMiB), reserved),
              StatusIs(absl::StatusCode::kResourceExhausted, "the zero page holds 128"));
}

}  // namespace
}  // namespace vmm
