#include "memory/withdrawn_pages.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstring>
#include <fstream>
#include <random>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "absl/status/status.h"
#include "base/owned_fd.h"
#include "base/status_matchers.h"
#include "memory/fake_page_attributes.h"
#include "memory/page_rights.h"
#include "memory/protection_enforcer.h"
#include "memory/protection_map.h"
#include "memory/ram_mapping.h"

namespace vmm {
namespace {

constexpr uint64_t kRamBytes = 16 * kMiB;
constexpr RamPart kReserved{4 * kMiB, 2 * kMiB};
constexpr uint64_t kReservedPage = kReserved.ram_offset / kPageBytes;
constexpr PageRights kNone = PageRights::None();
constexpr PageRights kReadExecute(0xd);
constexpr PageRights kAll;
constexpr unsigned kVtl1 = 1;
constexpr uint32_t kPieces = 64;

class WithdrawnPagesTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(layout_, MemoryLayout::Create(kRamBytes));
    ASSERT_OK_AND_ASSIGN(ram_, GuestRam::Create({.bytes = kRamBytes, .reserved = {kReserved}, .withdrawable = true}));
    ASSERT_OK_AND_ASSIGN(memory_, GuestMemory::Create(*ram_, *layout_));
    ASSERT_OK_AND_ASSIGN(views_[0], GuestView::Create(*ram_, *layout_, 4, kPieces));
    ASSERT_OK_AND_ASSIGN(views_[1], GuestView::Create(*ram_, *layout_, 4));
    ASSERT_OK_AND_ASSIGN(withdrawn_, WithdrawnPages::Create(*ram_, *layout_, *memory_, {views_[0].get(), views_[1].get()}, kPieces));
    ASSERT_OK_AND_ASSIGN(map_, ProtectionMap::Create(*layout_, 2));
    ASSERT_OK_AND_ASSIGN(enforcer_, ProtectionEnforcer::Create(*map_, {views_[0].get()}, Unenforceable::kRefuse, withdrawn_.get()));
    // As a device process has it: all that it is given.
    for (const DeviceRam& part : RamForDevices(*ram_->files(), *layout_)) {
      void* const map = ::mmap(nullptr, part.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, part.fd, static_cast<off_t>(part.fd_offset));
      ASSERT_NE(map, MAP_FAILED);
      of_device_.push_back({part, static_cast<std::byte*>(map)});
    }
  }
  void TearDown() override {
    for (const auto& [part, map] : of_device_) ::munmap(map, part.bytes);
  }

  void Protect(uint64_t first, uint64_t count, PageRights rights) {
    std::vector<uint64_t> pages;
    for (uint64_t page = first; page < first + count; ++page) pages.push_back(page);
    const ProtectionEnforcer::Result result = enforcer_->Protect(kVtl1, rights, pages);
    ASSERT_EQ(result.status, ProtectStatus::kDone);
    ASSERT_EQ(result.done, count);
  }
  // A word of a page, as one of those who use RAM sees it.
  uint64_t& InView(unsigned level, uint64_t page, uint64_t word = 0) {
    return reinterpret_cast<uint64_t*>(FindInRam(views_[level]->UnsafeMappings(), Gpa(Gpfn(page)), kPageBytes))[word];
  }
  uint64_t& OfDevice(uint64_t page, uint64_t word = 0) {
    for (const auto& [part, map] : of_device_) {
      const uint64_t distance = Gpa(Gpfn(page)).raw() - part.start.raw();
      if (distance < part.bytes) return reinterpret_cast<uint64_t*>(map + distance)[word];
    }
    ADD_FAILURE() << "no device has page " << page;
    std::abort();
  }
  uint64_t OfMonitor(uint64_t page) {
    uint64_t value = 0;
    EXPECT_TRUE(memory_->ReadObject(Gpa(Gpfn(page)), value));
    return value;
  }
  void Store(uint64_t page, uint64_t value) { EXPECT_TRUE(memory_->WriteObject(Gpa(Gpfn(page)), value)); }

  std::optional<MemoryLayout> layout_;
  std::unique_ptr<GuestRam> ram_;
  std::unique_ptr<GuestMemory> memory_;
  std::array<std::unique_ptr<GuestView>, 2> views_;
  std::unique_ptr<WithdrawnPages> withdrawn_;
  std::unique_ptr<ProtectionMap> map_;
  std::unique_ptr<ProtectionEnforcer> enforcer_;
  std::vector<std::pair<DeviceRam, std::byte*>> of_device_;
};

size_t Mappings() {
  std::ifstream maps("/proc/self/maps");
  size_t count = 0;
  for (std::string line; std::getline(maps, line);) count += line.find("guest-ram") != std::string::npos;
  return count;
}

TEST_F(WithdrawnPagesTest, OfAPageWithoutAccessDevicesHaveNothing) {
  Store(10, 0x5ec7e7);
  ASSERT_EQ(OfDevice(10), 0x5ec7e7u);
  Protect(10, 1, kNone);
  EXPECT_EQ(OfDevice(10), 0u);
  EXPECT_EQ(OfMonitor(10), 0x5ec7e7u);
  EXPECT_EQ(InView(1, 10), 0x5ec7e7u);
  EXPECT_EQ(withdrawn_->stats().pages, 1u);
  EXPECT_EQ(enforcer_->stats().withdrawn_pages, 1u);
  // What a device puts there reaches nobody, whatever it meant to forge; what VTL1 and the monitor store reaches no device.
  OfDevice(10) = 0xbad;
  EXPECT_EQ(OfMonitor(10), 0x5ec7e7u);
  InView(1, 10) = 0x111;
  EXPECT_EQ(OfMonitor(10), 0x111u);
  Store(10, 0x222);
  EXPECT_EQ(InView(1, 10), 0x222u);
  EXPECT_EQ(OfDevice(10), 0xbadu);
  // Given back with the guest's content.
  Protect(10, 1, kAll);
  for (const unsigned level : {0, 1}) EXPECT_EQ(InView(level, 10), 0x222u);
  EXPECT_EQ(OfDevice(10), 0x222u);
  OfDevice(10) = 0x333;
  for (const unsigned level : {0, 1}) EXPECT_EQ(InView(level, 10), 0x333u);
  EXPECT_EQ(OfMonitor(10), 0x333u);
  EXPECT_EQ(withdrawn_->stats().pages, 0u);
  EXPECT_EQ(withdrawn_->stats().moved, 2u);
}

TEST_F(WithdrawnPagesTest, OfAPageThatMayOnlyBeReadDevicesHaveACopy) {
  Store(10, 1);
  Protect(10, 1, kReadExecute);
  EXPECT_EQ(OfDevice(10), 1u);
  EXPECT_EQ(InView(0, 10), 1u);
  OfDevice(10) = 0xbad;
  for (const unsigned level : {0, 1}) EXPECT_EQ(InView(level, 10), 1u);
  InView(1, 10) = 2;
  EXPECT_EQ(InView(0, 10), 2u);
  EXPECT_EQ(OfDevice(10), 0xbadu);
  // The copy is made anew when VTL1 says it again, taken away with the right to read, and there again with it.
  Protect(10, 1, kReadExecute);
  EXPECT_EQ(OfDevice(10), 2u);
  Protect(10, 1, kNone);
  EXPECT_EQ(OfDevice(10), 0u);
  InView(1, 10) = 3;
  Protect(10, 1, kReadExecute);
  EXPECT_EQ(OfDevice(10), 3u);
  EXPECT_EQ(withdrawn_->stats().pages, 1u);
  EXPECT_EQ(withdrawn_->stats().moved, 1u);
}

TEST_F(WithdrawnPagesTest, NeighboursStayWhereTheyAreAndReservedPagesWhereTheyWere) {
  for (uint64_t page = kReservedPage - 4; page < kReservedPage + 4; ++page) Store(page, page);
  Protect(kReservedPage - 2, 4, kNone);
  EXPECT_EQ(withdrawn_->stats().pages, 2u);
  EXPECT_EQ(OfDevice(kReservedPage - 3), kReservedPage - 3);
  EXPECT_EQ(OfDevice(kReservedPage - 2), 0u);
  EXPECT_EQ(OfDevice(kReservedPage - 1), 0u);
  OfDevice(kReservedPage - 3) = 0x77;
  EXPECT_EQ(InView(0, kReservedPage - 3), 0x77u);
  for (uint64_t page = kReservedPage - 2; page < kReservedPage + 4; ++page) EXPECT_EQ(InView(1, page), page);
  Protect(kReservedPage - 2, 4, kAll);
  for (uint64_t page = kReservedPage - 2; page < kReservedPage; ++page) EXPECT_EQ(OfDevice(page), page);
  EXPECT_EQ(withdrawn_->stats().pages, 0u);
}

TEST_F(WithdrawnPagesTest, MappingsAreJoinedAgain) {
  Store(0, 1);
  const size_t before = Mappings();
  Protect(100, 50, kNone);
  Protect(150, 50, kNone);
  // In VTL0's view, VTL1's and the monitor's: what is before, in and behind.
  EXPECT_EQ(Mappings(), before + 2 * WithdrawnPages::MappingsForABorder(2));
  Protect(120, 10, kReadExecute);
  EXPECT_EQ(Mappings(), before + 2 * WithdrawnPages::MappingsForABorder(2) + 2);
  Protect(100, 100, kAll);
  EXPECT_EQ(Mappings(), before);
}

TEST_F(WithdrawnPagesTest, WhatLiesOverAPageStaysAndThePageBeneathIsTheMovedOne) {
  for (const unsigned level : {0, 1}) {
    const uint64_t page = 20 + level;
    Store(page, 5);
    ASSERT_OK_AND_ASSIGN(const auto overlay, views_[level]->NewPage());
    ASSERT_TRUE(overlay->Place(Gpfn(page), ViewAccess::kReadWrite));
    InView(level, page) = 6;
    Protect(page, 1, kReadExecute);
    EXPECT_EQ(InView(level, page), 6u);
    EXPECT_EQ(OfMonitor(page), 5u);
    InView(level, page) = 7;
    overlay->Remove();
    Store(page, 8);
    EXPECT_EQ(InView(level, page), 8u) << level;
    EXPECT_EQ(OfDevice(page), 5u);
    ASSERT_TRUE(overlay->Place(Gpfn(page), ViewAccess::kReadWrite));
    Protect(page, 1, kAll);
    overlay->Remove();
    EXPECT_EQ(InView(level, page), 8u) << level;
    EXPECT_EQ(OfDevice(page), 8u);
  }
}

TEST_F(WithdrawnPagesTest, MovesAreSeenByWhoFailed) {
  const uint64_t before = views_[1]->moves();
  EXPECT_EQ(before % 2, 0u);
  Protect(10, 1, kNone);
  EXPECT_EQ(views_[1]->moves(), before + 2);
  Protect(10, 1, kReadExecute);  // does not move
  EXPECT_EQ(views_[1]->moves(), before + 2);
  // One that fails changes nothing.
  uint64_t within = 0;
  EXPECT_FALSE(views_[1]->Move(Gpfn(30), 1, [&] {
    within = views_[1]->moves();
    return false;
  }));
  EXPECT_EQ(within, before + 3);
  EXPECT_EQ(views_[1]->moves(), before + 4);
  InView(1, 30) = 9;
  EXPECT_EQ(OfDevice(30), 9u);
}

// As KVM's copies for the guest do: false where the mapping does not let it.
bool StoreBySystemCall(uint64_t* place, uint64_t value) {
  const OwnedFd source(::memfd_create("source", MFD_CLOEXEC));
  EXPECT_EQ(::pwrite(source.get(), &value, sizeof(value), 0), static_cast<ssize_t>(sizeof(value)));
  return ::pread(source.get(), place, sizeof(value), 0) == static_cast<ssize_t>(sizeof(value));
}

TEST_F(WithdrawnPagesTest, AViewLetsNothingBeWrittenFromTheStartOfAMoveToItsEnd) {
  EXPECT_TRUE(StoreBySystemCall(&InView(1, 30), 1));
  EXPECT_TRUE(views_[1]->Move(Gpfn(30), 1, [&] {
    EXPECT_FALSE(StoreBySystemCall(&InView(1, 30), 2));
    EXPECT_TRUE(StoreBySystemCall(&InView(1, 31), 3));
    return true;
  }));
  // Others may not show the new place yet.
  EXPECT_FALSE(StoreBySystemCall(&InView(1, 30), 2));
  EXPECT_EQ(InView(1, 30), 1u);
  EXPECT_EQ(views_[1]->moves() % 2, 1u);
  views_[1]->EndMove(Gpfn(30), 1);
  EXPECT_TRUE(StoreBySystemCall(&InView(1, 30), 4));
  // A page that the level may not write is not to be written after its move either.
  Protect(30, 1, kReadExecute);
  EXPECT_FALSE(StoreBySystemCall(&InView(0, 30), 5));
  EXPECT_TRUE(StoreBySystemCall(&InView(1, 30), 5));
  EXPECT_EQ(InView(0, 30), 5u);
}

TEST_F(WithdrawnPagesTest, AnOverlayThatGoesWhileThePageMovesDoesNotOpenIt) {
  ASSERT_OK_AND_ASSIGN(const auto overlay, views_[1]->NewPage());
  ASSERT_TRUE(overlay->Place(Gpfn(30), ViewAccess::kReadWrite));
  EXPECT_TRUE(views_[1]->Move(Gpfn(29), 3, [] { return true; }));
  overlay->Remove();
  EXPECT_FALSE(StoreBySystemCall(&InView(1, 30), 1));
  views_[1]->EndMove(Gpfn(29), 3);
  EXPECT_TRUE(StoreBySystemCall(&InView(1, 30), 1));
}

TEST_F(WithdrawnPagesTest, APageIsInMemoryTwiceOnlyWhileItIsWithdrawn) {
  const auto pages = [](int fd) {
    struct stat about {};
    EXPECT_EQ(::fstat(fd, &about), 0);
    return static_cast<uint64_t>(about.st_blocks) * 512 / kPageBytes;
  };
  for (uint64_t page = 0; page < 64; ++page) Store(page, page + 1);
  const uint64_t before = pages(ram_->fd());
  const int withdrawn = ram_->files()->withdrawn_fd();
  Protect(0, 32, kNone);
  Protect(32, 32, kReadExecute);
  EXPECT_EQ(pages(ram_->fd()), before);
  EXPECT_EQ(pages(withdrawn), 64u);
  Protect(0, 64, kAll);
  EXPECT_EQ(pages(ram_->fd()), before);
  EXPECT_EQ(pages(withdrawn), 0u);
}

TEST_F(WithdrawnPagesTest, WhatDevicesHaveWrittenToClearedPagesIsCounted) {
  for (uint64_t page = 0; page < 300; ++page) Store(page, 1);
  Protect(10, 200, kNone);
  Protect(210, 10, kReadExecute);
  EXPECT_EQ(withdrawn_->stats().written, 0u);
  OfDevice(12) = 1;
  OfDevice(150, 511) = 1;
  EXPECT_EQ(OfDevice(70), 0u);  // a read
  OfDevice(215) = 1;            // a copy
  OfDevice(250) = 1;            // not withdrawn
  EXPECT_EQ(withdrawn_->stats().written, 2u);
  EXPECT_EQ(enforcer_->stats().written_pages, 2u);
  // Kept when the page comes back, or is cleared anew; and no page is counted twice for it.
  Protect(10, 20, kAll);
  EXPECT_EQ(withdrawn_->stats().written, 2u);
  OfDevice(12) = 3;
  EXPECT_EQ(withdrawn_->stats().written, 2u);
  Protect(150, 1, kNone);
  EXPECT_EQ(OfDevice(150, 511), 0u);
  EXPECT_EQ(withdrawn_->stats().written, 2u);
  OfDevice(150) = 1;
  EXPECT_EQ(withdrawn_->stats().written, 3u);
  Protect(150, 1, kReadExecute);
  EXPECT_EQ(OfDevice(150), 1u);  // the guest's
  EXPECT_EQ(withdrawn_->stats().written, 3u);
  Protect(10, 250, kAll);
  EXPECT_EQ(withdrawn_->stats().written, 3u);
}

// The host refuses to change VTL0's view when devices have the page again: it is withdrawn again, with what the guest has.
TEST_F(WithdrawnPagesTest, APageThatCannotBeGivenBackIsWithdrawnAgain) {
  FakePageAttributes attributes;
  ASSERT_OK_AND_ASSIGN(const auto ram, GuestRam::Create({.bytes = kRamBytes, .withdrawable = true}));
  ASSERT_OK_AND_ASSIGN(const auto memory, GuestMemory::Create(*ram, *layout_));
  ASSERT_OK_AND_ASSIGN(const auto vtl0, GuestView::Create(*ram, *layout_, 1, kPieces, &attributes));
  ASSERT_OK_AND_ASSIGN(const auto vtl1, GuestView::Create(*ram, *layout_, 1));
  ASSERT_OK_AND_ASSIGN(const auto withdrawn, WithdrawnPages::Create(*ram, *layout_, *memory, {vtl0.get(), vtl1.get()}, kPieces));
  ASSERT_OK_AND_ASSIGN(const auto map, ProtectionMap::Create(*layout_, 2));
  ASSERT_OK_AND_ASSIGN(const auto enforcer, ProtectionEnforcer::Create(*map, {vtl0.get()}, Unenforceable::kRefuse, withdrawn.get()));
  uint64_t word = 0x5ec7e7;
  ASSERT_TRUE(memory->WriteObject(Gpa(Gpfn(10)), word));
  const std::array<uint64_t, 1> page{10};
  ASSERT_EQ(enforcer->Protect(kVtl1, kNone, page).status, ProtectStatus::kDone);
  attributes.calls_until_refusal = 0;
  EXPECT_EQ(enforcer->Protect(kVtl1, kAll, page).status, ProtectStatus::kHostRefused);
  EXPECT_EQ(withdrawn->stats().pages, 1u);
  EXPECT_EQ(vtl0->RunAt(Gpfn(10), 1).access, PageAccess::kNone);
  uint64_t of_device = 1;
  ASSERT_EQ(::pread(ram->fd(), &of_device, sizeof(of_device), 10 * kPageBytes), static_cast<ssize_t>(sizeof(of_device)));
  EXPECT_EQ(of_device, 0u);
  word = 0;
  ASSERT_TRUE(memory->ReadObject(Gpa(Gpfn(10)), word));
  EXPECT_EQ(word, 0x5ec7e7u);
  EXPECT_EQ(enforcer->changes() % 2, 0u);
  ASSERT_EQ(enforcer->Protect(kVtl1, kAll, page).status, ProtectStatus::kDone);
  ASSERT_EQ(::pread(ram->fd(), &of_device, sizeof(of_device), 10 * kPageBytes), static_cast<ssize_t>(sizeof(of_device)));
  EXPECT_EQ(of_device, 0x5ec7e7u);
}

TEST_F(WithdrawnPagesTest, ResetGivesAllBack) {
  Store(10, 1);
  Store(4000, 2);
  Protect(10, 1, kNone);
  Protect(4000, 1, kReadExecute);
  enforcer_->Reset();
  EXPECT_EQ(withdrawn_->stats().pages, 0u);
  EXPECT_EQ(OfDevice(10), 1u);
  OfDevice(4000) = 3;
  EXPECT_EQ(InView(0, 4000), 3u);
}

TEST_F(WithdrawnPagesTest, RandomStepsAgreeWithAModel) {
  constexpr uint64_t kFirst = kReservedPage - 12, kCount = 16;  // four of them reserved
  struct Page {
    uint64_t content = 0, of_device = 0;
    PageRights rights = kAll;
  };
  std::array<Page, kCount> model{};
  std::mt19937_64 random(20261126);
  for (int step = 0; step < 4000; ++step) {
    const uint64_t at = random() % kCount, value = random();
    Page& page = model[at];
    const bool reserved = kFirst + at >= kReservedPage;
    switch (random() % 5) {
      case 0: {
        const PageRights rights[] = {kNone, kReadExecute, kAll};
        const PageRights chosen = rights[random() % 3];
        const uint64_t count = 1 + random() % (kCount - at);
        ASSERT_NO_FATAL_FAILURE(Protect(kFirst + at, count, chosen));
        for (uint64_t i = at; i < at + count; ++i) {
          model[i].rights = chosen;
          model[i].of_device = chosen == kNone ? 0 : model[i].content;
        }
        break;
      }
      case 1: InView(1, kFirst + at) = page.content = value; break;
      case 2:
        Store(kFirst + at, value);
        page.content = value;
        break;
      case 3:
        if (page.rights == kAll) InView(0, kFirst + at) = page.content = value;
        break;
      default:
        if (reserved) break;
        OfDevice(kFirst + at) = page.of_device = value;
        if (page.rights == kAll) page.content = value;
        break;
    }
    if (page.rights == kAll) page.of_device = page.content;
    for (uint64_t i = 0; i < kCount; ++i) {
      ASSERT_EQ(InView(1, kFirst + i), model[i].content) << step;
      ASSERT_EQ(OfMonitor(kFirst + i), model[i].content) << step;
      if (model[i].rights != kNone) {
        ASSERT_EQ(InView(0, kFirst + i), model[i].content) << step;
      }
      if (kFirst + i < kReservedPage) {
        ASSERT_EQ(OfDevice(kFirst + i), model[i].of_device) << step << " " << i;
      }
    }
  }
}

// VTL1 stores, the monitor stores, and both look at once, while the page goes back and forth: a store that went to the page that is left
// would be missed. VTL1 by a system call that stores into its view: it fails where the view is read-only, as KVM_RUN does, and is made
// again.
TEST_F(WithdrawnPagesTest, NoStoreIsLostWhilePagesMove) {
  constexpr uint64_t kPage = 50;
  constexpr int kMoves = 400;
  std::atomic<bool> over = false;
  std::atomic<uint64_t> retries = 0, stores = 0;
  const auto vtl1 = [&](uint64_t word) {
    const OwnedFd source(::memfd_create("source", MFD_CLOEXEC));
    uint64_t* const place = &InView(1, kPage, word);
    for (uint64_t value = 1; !over; ++value) {
      EXPECT_EQ(::pwrite(source.get(), &value, sizeof(value), 0), static_cast<ssize_t>(sizeof(value)));
      while (::pread(source.get(), place, sizeof(value), 0) != static_cast<ssize_t>(sizeof(value))) retries.fetch_add(1);
      const uint64_t seen = std::atomic_ref(*place).load();
      if (seen != value) return ADD_FAILURE() << "VTL1 stored " << value << " and found " << seen;
      uint64_t of_monitor = 0;
      if (!memory_->ReadObject(Gpa(Gpfn(kPage)) + 8 * word, of_monitor)) return ADD_FAILURE();
      if (of_monitor != value) return ADD_FAILURE() << "VTL1 stored " << value << " and the monitor found " << of_monitor;
      stores.fetch_add(1);
    }
  };
  const auto monitor = [&](uint64_t word) {
    const Gpa place = Gpa(Gpfn(kPage)) + 8 * word;
    for (uint64_t value = 1; !over; ++value) {
      uint64_t expected = value - 1;
      const bool swap = value % 2 == 0;
      if (swap ? !memory_->CompareExchange(place, expected, value) : !memory_->WriteObject(place, value)) return ADD_FAILURE();
      uint64_t seen = 0;
      if (!memory_->ReadObject(place, seen)) return ADD_FAILURE();
      if (seen != value || (swap && expected != value - 1)) return ADD_FAILURE() << "the monitor stored " << value << " and found " << seen;
      stores.fetch_add(1);
    }
  };
  std::vector<std::thread> threads;
  threads.emplace_back(vtl1, 0);
  threads.emplace_back(vtl1, 1);
  threads.emplace_back(monitor, 2);
  const PageRights rights[] = {kNone, kAll, kReadExecute, kAll};
  for (int move = 0; move < kMoves; ++move) {
    Protect(kPage, 1, rights[move % 4]);
    std::this_thread::yield();
  }
  over = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(withdrawn_->stats().moved, static_cast<uint64_t>(kMoves));
  EXPECT_GT(stores.load(), 0u);
  RecordProperty("retries", std::to_string(retries.load()));
}

TEST(WithdrawnPages, NeedsRamThatIsMadeForIt) {
  ASSERT_OK_AND_ASSIGN(const MemoryLayout layout, MemoryLayout::Create(kRamBytes));
  ASSERT_OK_AND_ASSIGN(const auto ram, GuestRam::Create({.bytes = kRamBytes}));
  ASSERT_OK_AND_ASSIGN(const auto memory, GuestMemory::Create(*ram, layout));
  EXPECT_EQ(WithdrawnPages::Create(*ram, layout, *memory, {}, kPieces).status().code(), absl::StatusCode::kFailedPrecondition);
  // More than any host grants a process.
  ASSERT_OK_AND_ASSIGN(const auto withdrawable, GuestRam::Create({.bytes = kRamBytes, .withdrawable = true}));
  EXPECT_THAT(WithdrawnPages::Create(*withdrawable, layout, *memory, {}, UINT32_MAX).status(),
              StatusIs(absl::StatusCode::kFailedPrecondition, "vm.max_map_count"));
  EXPECT_EQ(GuestRam::Create({.bytes = kRamBytes, .huge_pages = HugePages::k2MiB, .withdrawable = true}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace vmm
