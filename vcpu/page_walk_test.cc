#include "vcpu/page_walk.h"

#include <memory>
#include <random>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>

#include "memory/guest_ram.h"
#include "memory/layout.h"

namespace vmm {
namespace {

constexpr uint64_t kRamBytes = 16 * kMiB;
constexpr uint64_t kPg = 0x8000'0001;  // PG and PE
constexpr uint64_t kWp = 0x1'0000;
constexpr uint64_t kPse = 0x10;
constexpr uint64_t kPae = 0x20;
constexpr uint64_t kLa57 = 0x1000;
constexpr uint64_t kSmep = 0x10'0000;
constexpr uint64_t kSmap = 0x20'0000;
constexpr uint64_t kLong = 0x500;  // LME, LMA
constexpr uint64_t kNxe = 0x800;
constexpr uint64_t kAc = 0x4'0000;
constexpr uint64_t kNx = uint64_t{1} << 63;

// {gpa, is a write, level}
using Seen = std::vector<std::tuple<uint64_t, bool, unsigned>>;
Seen SeenBy(const PageWalk& walk) {
  Seen seen;
  for (const TableAccess& access : walk.accesses()) seen.emplace_back(access.gpa.raw(), access.write, access.level);
  return seen;
}

class PageWalkTest : public testing::Test {
 protected:
  void Put64(uint64_t gpa, uint64_t value) { ASSERT_TRUE(memory_->WriteObject(Gpa(gpa), value)); }
  void Put32(uint64_t gpa, uint32_t value) { ASSERT_TRUE(memory_->WriteObject(Gpa(gpa), value)); }
  uint64_t Get64(uint64_t gpa) {
    uint64_t value = 0;
    EXPECT_TRUE(memory_->ReadObject(Gpa(gpa), value));
    return value;
  }
  // Four levels: tables at 0x1000, 0x2000, 0x3000, 0x4000; linear 0x40'2030'4567 is mapped to 0xa000 + 0x567.
  void PutFourLevels(uint64_t flags, uint64_t leaf_flags) {
    paging_ = {.cr0 = kPg | kWp, .cr3 = 0x1000, .cr4 = kPae, .efer = kLong | kNxe, .physical_bits = 48};
    Put64(0x1000 + 0 * 8, 0x2000 | flags);
    Put64(0x2000 + 0x100 * 8, 0x3000 | flags);
    Put64(0x3000 + 0x101 * 8, 0x4000 | flags);
    Put64(0x4000 + 0x104 * 8, 0xa000 | leaf_flags);
  }
  static constexpr uint64_t kLinear = 0x40'2030'4567;

  PageWalk Walk(uint64_t linear, WalkAccess access = WalkAccess::kRead, WalkPrivilege privilege = WalkPrivilege::kSupervisor) {
    return WalkPageTables(*memory_, paging_, linear, access, privilege);
  }

  std::unique_ptr<GuestMemory> memory_ =
      *GuestMemory::Create(**GuestRam::Create({.bytes = kRamBytes}), *MemoryLayout::Create(kRamBytes));
  PagingState paging_;
};

TEST_F(PageWalkTest, WithoutPagingTheAddressIsPhysical) {
  const PageWalk walk = Walk(0x1234'5678'9abc);
  EXPECT_EQ(walk.fault, WalkFault::kNone);
  EXPECT_EQ(walk.gpa, Gpa(0x5678'9abc));
  EXPECT_EQ(walk.access_count, 0);
}

TEST_F(PageWalkTest, FourLevelsAreReadFromTheTop) {
  PutFourLevels(0x63, 0x63);
  const PageWalk walk = Walk(kLinear);
  EXPECT_EQ(walk.fault, WalkFault::kNone);
  EXPECT_EQ(walk.gpa, Gpa(0xa567));
  EXPECT_EQ(walk.page_bytes, 4096u);
  EXPECT_EQ(SeenBy(walk), (Seen{{0x1000, false, 4}, {0x2800, false, 3}, {0x3808, false, 2}, {0x4820, false, 1}}));
}

TEST_F(PageWalkTest, FiveLevelsAreReadFromTheTop) {
  PutFourLevels(0x63, 0x63);
  Put64(0x5000 + 8, 0x1063);
  paging_.cr3 = 0x5000;
  paging_.cr4 |= kLa57;
  const PageWalk walk = Walk(kLinear | uint64_t{1} << 48);
  EXPECT_EQ(walk.fault, WalkFault::kNone);
  EXPECT_EQ(walk.gpa, Gpa(0xa567));
  EXPECT_EQ(SeenBy(walk),
            (Seen{{0x5008, false, 5}, {0x1000, false, 4}, {0x2800, false, 3}, {0x3808, false, 2}, {0x4820, false, 1}}));
}

TEST_F(PageWalkTest, ClearBitsAreWrittenBehindTheReadOfTheirEntry) {
  PutFourLevels(0x03, 0x03);
  const PageWalk read = Walk(kLinear);
  EXPECT_EQ(SeenBy(read), (Seen{{0x1000, false, 4},
                                {0x1000, true, 4},
                                {0x2800, false, 3},
                                {0x2800, true, 3},
                                {0x3808, false, 2},
                                {0x3808, true, 2},
                                {0x4820, false, 1},
                                {0x4820, true, 1}}));
  EXPECT_EQ(read.accesses().back().value, 0xa003u);
  EXPECT_EQ(read.accesses().back().new_value, 0xa023u);
  EXPECT_EQ(Walk(kLinear, WalkAccess::kWrite).accesses().back().new_value, 0xa063u);
  EXPECT_EQ(Get64(0x4820), 0xa003u);  // a walk alone writes nothing
}

TEST_F(PageWalkTest, DirtyAloneIsWrittenWhereAccessedIsSet) {
  PutFourLevels(0x23, 0x23);
  EXPECT_EQ(Walk(kLinear).access_count, 4);
  const PageWalk write = Walk(kLinear, WalkAccess::kWrite);
  EXPECT_EQ(write.access_count, 5);
  EXPECT_EQ(write.accesses().back().new_value, 0xa063u);
}

TEST_F(PageWalkTest, SetAccessedDirtyWritesTheBits) {
  PutFourLevels(0x03, 0x03);
  EXPECT_TRUE(SetAccessedDirty(*memory_, Walk(kLinear, WalkAccess::kWrite)));
  EXPECT_EQ(Get64(0x1000), 0x2023u);
  EXPECT_EQ(Get64(0x3808), 0x4023u);
  EXPECT_EQ(Get64(0x4820), 0xa063u);
  EXPECT_EQ(Walk(kLinear, WalkAccess::kWrite).access_count, 4);
}

TEST_F(PageWalkTest, SetAccessedDirtyLeavesAnEntryThatChanged) {
  PutFourLevels(0x23, 0x03);
  const PageWalk walk = Walk(kLinear);
  Put64(0x4820, 0xb003);
  EXPECT_FALSE(SetAccessedDirty(*memory_, walk));
  EXPECT_EQ(Get64(0x4820), 0xb003u);
}

TEST_F(PageWalkTest, MissingEntryIsNotPresentAndEndsTheWalk) {
  PutFourLevels(0x63, 0x63);
  Put64(0x3808, 0x4062);
  const PageWalk walk = Walk(kLinear, WalkAccess::kWrite, WalkPrivilege::kUser);
  EXPECT_EQ(walk.fault, WalkFault::kNotPresent);
  EXPECT_EQ(walk.error_code, 0x6u);
  EXPECT_EQ(walk.access_count, 3);
}

TEST_F(PageWalkTest, LargePagesKeepTheLowBits) {
  PutFourLevels(0x63, 0x63);
  Put64(0x3808, 0x0060'00e3);
  PageWalk walk = Walk(kLinear);
  EXPECT_EQ(walk.gpa, Gpa(0x0060'0000 + 0x10'4567));
  EXPECT_EQ(walk.page_bytes, 2 * kMiB);
  Put64(0x2800, 0x4000'00e3);
  walk = Walk(kLinear);
  EXPECT_EQ(walk.gpa, Gpa(0x4000'0000 + 0x2030'4567));
  EXPECT_EQ(walk.page_bytes, kGiB);
  EXPECT_EQ(walk.access_count, 2);
}

TEST_F(PageWalkTest, PatIndexIsOfTheLeaf) {
  PutFourLevels(0x63, 0x63 | 0x98);
  EXPECT_EQ(Walk(kLinear).pat_index, 7);
  Put64(0x3808, 0x0060'10f3);
  EXPECT_EQ(Walk(kLinear).pat_index, 6);
}

TEST_F(PageWalkTest, ReservedBits) {
  struct Case {
    uint64_t gpa, entry;
    bool reserved;
  };
  for (const Case& c : {
           Case{0x1000, 0x20e3, true},                              // PS at level 4
           Case{0x2800, 0x4000'20e3, true},                         // 1 GiB, bit 13
           Case{0x2800, 0x4000'10e3, false},                        // 1 GiB, bit 12 is PAT
           Case{0x3808, 0x0060'20e3, true},                         // 2 MiB, bit 13
           Case{0x3808, 0x0070'00e3, true},                         // 2 MiB, bit 20
           Case{0x4820, 0xa063 | uint64_t{1} << 48, true},          // MAXPHYADDR is 48
           Case{0x4820, 0xa063 | uint64_t{1} << 47, false},
           Case{0x4820, 0xa063 | uint64_t{0x7ff} << 52, false},     // ignored
       }) {
    PutFourLevels(0x63, 0x63);
    Put64(c.gpa, c.entry);
    const PageWalk walk = Walk(kLinear);
    EXPECT_EQ(walk.fault, c.reserved ? WalkFault::kReservedBit : WalkFault::kNone) << std::hex << c.gpa << " " << c.entry;
    EXPECT_EQ(walk.error_code, c.reserved ? 0x9u : 0u);
  }
  PutFourLevels(0x63, 0x63 | kNx);
  paging_.efer = kLong;
  EXPECT_EQ(Walk(kLinear).fault, WalkFault::kReservedBit);
  PutFourLevels(0x63, 0x63);
  Put64(0x2800, 0x4000'00e3);
  paging_.gigabyte_pages = false;
  EXPECT_EQ(Walk(kLinear).fault, WalkFault::kReservedBit);
}

TEST_F(PageWalkTest, Permissions) {
  struct Case {
    uint64_t upper, leaf;
    WalkAccess access;
    WalkPrivilege privilege;
    uint64_t cr0, cr4, rflags;
    uint32_t error_code;  // 0: permitted
  };
  constexpr auto kR = WalkAccess::kRead;
  constexpr auto kW = WalkAccess::kWrite;
  constexpr auto kX = WalkAccess::kExecute;
  constexpr auto kU = WalkPrivilege::kUser;
  constexpr auto kS = WalkPrivilege::kSupervisor;
  constexpr auto kSys = WalkPrivilege::kSystem;
  constexpr auto kE = WalkPrivilege::kExempt;
  for (const Case& c : {
           Case{0x67, 0x67, kR, kU, kWp, 0, 0, 0},
           Case{0x67, 0x63, kR, kU, kWp, 0, 0, 0x5},
           Case{0x63, 0x67, kR, kU, kWp, 0, 0, 0x5},
           Case{0x63, 0x67, kR, kE, kWp, 0, 0, 0},
           Case{0x67, 0x65, kW, kU, kWp, 0, 0, 0x7},
           Case{0x65, 0x67, kW, kU, 0, 0, 0, 0x7},
           Case{0x63, 0x61, kW, kS, kWp, 0, 0, 0x3},
           Case{0x63, 0x61, kW, kS, 0, 0, 0, 0},
           Case{0x63, 0x63 | kNx, kX, kS, kWp, 0, 0, 0x11},
           Case{0x67 | kNx, 0x67, kX, kU, kWp, 0, 0, 0x15},
           Case{0x67, 0x67, kX, kS, kWp, kSmep, 0, 0x11},
           Case{0x67, 0x67, kX, kE, kWp, kSmep, 0, 0},
           Case{0x67, 0x67, kX, kS, kWp, kSmap, 0, 0},
           Case{0x67, 0x67, kX, kU, kWp, kSmep | kSmap, 0, 0},
           Case{0x67, 0x67, kR, kS, kWp, kSmap, 0, 0x1},
           Case{0x67, 0x67, kR, kS, kWp, kSmap, kAc, 0},
           Case{0x67, 0x67, kR, kSys, kWp, kSmap, kAc, 0x1},
           Case{0x67, 0x67, kW, kU, kWp, kSmap, 0, 0},
           Case{0x67, 0x67, kR, kE, kWp, kSmap, 0, 0},
           Case{0x67, 0x63, kR, kS, kWp, kSmap, 0, 0},
       }) {
    PutFourLevels(c.upper, c.leaf);
    paging_.cr0 = kPg | c.cr0;
    paging_.cr4 = kPae | c.cr4;
    paging_.rflags = c.rflags;
    const PageWalk walk = Walk(kLinear, c.access, c.privilege);
    EXPECT_EQ(walk.fault, c.error_code != 0 ? WalkFault::kProtection : WalkFault::kNone)
        << std::hex << c.upper << " " << c.leaf << " " << int(c.access) << " " << int(c.privilege) << " " << c.cr4;
    EXPECT_EQ(walk.error_code, c.error_code);
  }
}

TEST_F(PageWalkTest, AFaultOfPermissionLeavesTheLeafsBits) {
  PutFourLevels(0x03, 0x03);
  const PageWalk walk = Walk(kLinear, WalkAccess::kRead, WalkPrivilege::kUser);
  EXPECT_EQ(walk.fault, WalkFault::kProtection);
  EXPECT_EQ(walk.access_count, 7);
  EXPECT_FALSE(walk.accesses().back().write);
}

TEST_F(PageWalkTest, NonCanonicalAddressesReadNoTable) {
  PutFourLevels(0x63, 0x63);
  for (const uint64_t linear : {uint64_t{0x8000'0000'0000}, uint64_t{0xffff'7fff'ffff'ffff}}) {
    const PageWalk walk = Walk(linear);
    EXPECT_EQ(walk.fault, WalkFault::kNotCanonical);
    EXPECT_EQ(walk.access_count, 0);
  }
  EXPECT_EQ(Walk(0xffff'8000'0000'0000).fault, WalkFault::kNotPresent);
  paging_.cr4 |= kLa57;
  EXPECT_EQ(Walk(0x8000'0000'0000).fault, WalkFault::kNotPresent);
  EXPECT_EQ(Walk(uint64_t{1} << 56).fault, WalkFault::kNotCanonical);
}

TEST_F(PageWalkTest, TablesOutsideRamEndTheWalk) {
  PutFourLevels(0x63, 0x63);
  Put64(0x2800, 0x7fff'ffff'f063);
  const PageWalk walk = Walk(kLinear);
  EXPECT_EQ(walk.fault, WalkFault::kTableNotRam);
  EXPECT_EQ(walk.access_count, 3);
  EXPECT_EQ(walk.accesses().back().gpa, Gpa(0x7fff'ffff'f808));
}

TEST_F(PageWalkTest, ATableThatIsItsOwnParentIsReadFourTimes) {
  PutFourLevels(0x63, 0x63);
  Put64(0x1ff8, 0x1063);
  const PageWalk walk = Walk(0xffff'ffff'ffff'f123);
  EXPECT_EQ(walk.fault, WalkFault::kNone);
  EXPECT_EQ(walk.gpa, Gpa(0x1123));
  EXPECT_EQ(SeenBy(walk), (Seen{{0x1ff8, false, 4}, {0x1ff8, false, 3}, {0x1ff8, false, 2}, {0x1ff8, false, 1}}));
}

TEST_F(PageWalkTest, PaeTopEntriesHaveNoRightsAndNoAccessedBit) {
  paging_ = {.cr0 = kPg | kWp, .cr3 = 0x1060, .cr4 = kPae, .efer = kNxe, .physical_bits = 40};
  Put64(0x1060 + 3 * 8, 0x2001);
  Put64(0x2000 + 8, 0x3007);
  Put64(0x3000 + 16, (uint64_t{1} << 39) | 0x5007);
  const PageWalk walk = Walk(0xc020'2123, WalkAccess::kWrite, WalkPrivilege::kUser);
  EXPECT_EQ(walk.fault, WalkFault::kNone);
  EXPECT_EQ(walk.gpa, Gpa((uint64_t{1} << 39) | 0x5123));
  EXPECT_EQ(SeenBy(walk),
            (Seen{{0x1078, false, 3}, {0x2008, false, 2}, {0x2008, true, 2}, {0x3010, false, 1}, {0x3010, true, 1}}));
  Put64(0x1060 + 3 * 8, 0x2003);
  EXPECT_EQ(Walk(0xc020'2123).fault, WalkFault::kReservedBit);
  Put64(0x1060 + 3 * 8, 0x2001);
  Put64(0x3000 + 16, (uint64_t{1} << 52) | 0x5007);
  EXPECT_EQ(Walk(0xc020'2123).fault, WalkFault::kReservedBit);
}

TEST_F(PageWalkTest, ThirtyTwoBitTablesHaveFourByteEntries) {
  paging_ = {.cr0 = kPg | kWp, .cr3 = 0x1000, .cr4 = 0};
  Put32(0x1000 + 0x3ff * 4, 0x2003);
  Put32(0x2000 + 0x3fe * 4, 0x9003);
  const PageWalk walk = Walk(0xffff'efff, WalkAccess::kWrite);
  EXPECT_EQ(walk.fault, WalkFault::kNone);
  EXPECT_EQ(walk.gpa, Gpa(0x9fff));
  EXPECT_EQ(SeenBy(walk), (Seen{{0x1ffc, false, 2}, {0x1ffc, true, 2}, {0x2ff8, false, 1}, {0x2ff8, true, 1}}));
  EXPECT_EQ(walk.accesses()[0].bytes, 4);
  EXPECT_TRUE(SetAccessedDirty(*memory_, walk));
  EXPECT_EQ(Get64(0x2ff8) & 0xffff'ffff, 0x9063u);
}

TEST_F(PageWalkTest, FourMebibytePagesReachForty) {
  paging_ = {.cr0 = kPg, .cr3 = 0x1000, .cr4 = kPse, .physical_bits = 40};
  Put32(0x1000 + 4, 0x0080'0000 | 0xff << 13 | 0xe3);
  const PageWalk walk = Walk(0x0051'2345);
  EXPECT_EQ(walk.gpa, Gpa(0xff'0080'0000 + 0x11'2345));
  EXPECT_EQ(walk.page_bytes, 4 * kMiB);
  Put32(0x1000 + 4, 0x0080'0000 | 1 << 21 | 0xe3);
  EXPECT_EQ(Walk(0x0051'2345).fault, WalkFault::kReservedBit);
  paging_.physical_bits = 36;
  Put32(0x1000 + 4, 0x0080'0000 | 1 << 17 | 0xe3);
  EXPECT_EQ(Walk(0x0051'2345).fault, WalkFault::kReservedBit);
  paging_.cr4 = 0;  // PS is ignored: a table at 0x820000
  EXPECT_EQ(Walk(0x0051'2345).fault, WalkFault::kNotPresent);
}

TEST_F(PageWalkTest, FetchIsToldInTheErrorCodeOnlyWithNxOrSmep) {
  paging_ = {.cr0 = kPg, .cr3 = 0x1000};
  EXPECT_EQ(Walk(0, WalkAccess::kExecute).error_code, 0u);
  paging_.cr4 = kSmep;
  EXPECT_EQ(Walk(0, WalkAccess::kExecute).error_code, 0x10u);
}

// Whatever the entries hold, a walk is short, reads each entry once from the top, and stays in what it says.
TEST_F(PageWalkTest, RandomTablesAreWalkedInBounds) {
  std::mt19937_64 random(4);
  for (uint64_t gpa = 0; gpa < 64 * kPageBytes; gpa += 8) {
    // Mostly tables within these 64 pages, so that walks go deep.
    const uint64_t target = random() % 8 == 0 ? random() & 0xf'ffff'ffff'f000 : (random() % 64) * kPageBytes;
    Put64(gpa, target | (random() & 0xe7e) | (random() % 16 != 0) | (random() % 16 == 0 ? 0x80 : 0));
  }
  unsigned mapped = 0;
  for (int i = 0; i < 200'000; ++i) {
    paging_ = {.cr0 = kPg | (random() & kWp),
               .cr3 = (random() % 64) * kPageBytes,
               .cr4 = random() & (kPse | kPae | kLa57 | kSmep | kSmap),
               .efer = random() & kNxe,
               .physical_bits = static_cast<uint8_t>(random())};
    if ((paging_.cr4 & kPae) != 0 && random() % 2 == 0) paging_.efer |= kLong;
    uint64_t linear = random();
    if ((paging_.efer & kLong) == 0) {
      linear &= 0xffff'ffff;
    } else {
      linear = static_cast<uint64_t>(static_cast<int64_t>(linear << 16) >> 16);
    }
    const PageWalk walk = Walk(linear, static_cast<WalkAccess>(random() % 3), static_cast<WalkPrivilege>(random() % 4));
    ASSERT_LE(walk.access_count, PageWalk::kMaxAccesses);
    unsigned reads = 0;
    unsigned level = 6;
    for (const TableAccess& access : walk.accesses()) {
      ASSERT_EQ(access.gpa.raw() % access.bytes, 0u);
      if (access.write) {
        ASSERT_EQ(access.level, level);
        ASSERT_EQ(access.new_value & ~access.value & ~uint64_t{0x60}, 0u);
        ASSERT_NE(access.new_value, access.value);
      } else {
        ASSERT_LT(access.level, level);
        level = access.level;
        ++reads;
      }
    }
    ASSERT_GE(reads, 1u);
    ASSERT_LE(reads, 5u);
    if (walk.fault != WalkFault::kNone) continue;
    ++mapped;
    ASSERT_EQ(walk.gpa.raw() % walk.page_bytes, linear % walk.page_bytes);
  }
  EXPECT_GT(mapped, 1000u);
}

}  // namespace
}  // namespace vmm
