#include "memory/guest_view.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "base/status_matchers.h"
#include "memory/guest_memory.h"

namespace vmm {
namespace {

// Spills above the hole; nothing of it is touched but a few pages.
constexpr uint64_t kRamBytes = 3 * kGiB + 2 * kPageBytes;
constexpr uint32_t kOverlays = 4;
constexpr Gpfn kPage{0x123};
constexpr Gpfn kOther{0x456};

class GuestViewTest : public testing::Test {
 protected:
  void SetUp() override { Make({.bytes = kRamBytes}); }

  void Make(const GuestRamOptions& options) {
    view_.reset();
    ASSERT_OK_AND_ASSIGN(const MemoryLayout layout, MemoryLayout::Create(options.bytes));
    ASSERT_OK_AND_ASSIGN(const auto ram, GuestRam::Create(options));
    ASSERT_OK_AND_ASSIGN(memory_, GuestMemory::Create(*ram, layout));
    ASSERT_OK_AND_ASSIGN(view_, GuestView::Create(*ram, layout, kOverlays));
  }

  std::unique_ptr<ViewOverlay> NewPage(uint8_t content) {
    auto page = view_->NewPage();
    EXPECT_OK(page.status());
    std::memset((*page)->data(), content, kPageBytes);
    return *std::move(page);
  }

  // What a processor would see: first and last byte, which are the same in all that these tests write.
  uint8_t Seen(Gpfn page) {
    const std::byte* const host = FindInRam(view_->UnsafeMappings(), Gpa(page), kPageBytes);
    EXPECT_EQ(host[0], host[kPageBytes - 1]);
    return static_cast<uint8_t>(host[0]);
  }
  uint8_t InRam(Gpfn page) {
    uint8_t value = 0;
    EXPECT_TRUE(memory_->ReadObject(Gpa(page), value));
    return value;
  }
  void FillRam(Gpfn page, uint8_t content) { ASSERT_TRUE(memory_->Fill(Gpa(page), std::byte{content}, kPageBytes)); }

  // The kernel's own answer to a write there, without a signal: read(2) into the page.
  bool GuestCanWrite(Gpfn page) {
    const int zero = ::open("/dev/zero", O_RDONLY | O_CLOEXEC);
    std::byte* const host = FindInRam(view_->UnsafeMappings(), Gpa(page), kPageBytes);
    const bool written = ::read(zero, host, 1) == 1;
    EXPECT_TRUE(written || errno == EFAULT);
    ::close(zero);
    return written;
  }

  // How many pieces the kernel keeps of the view's mapping that holds `page`.
  size_t Pieces(Gpfn page) {
    for (const RamMapping& mapping : view_->UnsafeMappings()) {
      if (Gpa(page) < mapping.range.start || Gpa(page) - mapping.range.start >= mapping.range.bytes) continue;
      const auto start = reinterpret_cast<uintptr_t>(mapping.host);
      std::ifstream maps("/proc/self/maps");
      size_t pieces = 0;
      for (std::string line; std::getline(maps, line);) {
        uintptr_t from = 0;
        uintptr_t to = 0;
        if (std::sscanf(line.c_str(), "%" SCNxPTR "-%" SCNxPTR, &from, &to) != 2) continue;
        if (from < start + mapping.range.bytes && to > start) ++pieces;
      }
      return pieces;
    }
    return 0;
  }

  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<GuestView> view_;
};

TEST_F(GuestViewTest, ShowsTheRamThatTheMonitorWrites) {
  FillRam(kPage, 0x11);
  EXPECT_EQ(Seen(kPage), 0x11);
  FindInRam(view_->UnsafeMappings(), Gpa(kOther), kPageBytes)[0] = std::byte{0x22};
  EXPECT_EQ(InRam(kOther), 0x22);
}

TEST_F(GuestViewTest, ANewPageIsZeroAndNowhere) {
  ASSERT_OK_AND_ASSIGN(const auto page, view_->NewPage());
  EXPECT_EQ(std::vector<std::byte>(page->data(), page->data() + kPageBytes), std::vector<std::byte>(kPageBytes));
  EXPECT_EQ(page->place(), std::nullopt);
  page->Remove();
  EXPECT_EQ(page->place(), std::nullopt);
}

TEST_F(GuestViewTest, AnOverlayIsSeenAndRamBeneathIsUntouchedAndComesBack) {
  FillRam(kPage, 0x11);
  const auto page = NewPage(0xaa);
  ASSERT_TRUE(page->Place(kPage, ViewAccess::kReadWrite));
  EXPECT_EQ(page->place(), kPage);
  EXPECT_EQ(Seen(kPage), 0xaa);
  EXPECT_EQ(InRam(kPage), 0x11);
  // The guest writes: ours, not RAM.
  std::memset(FindInRam(view_->UnsafeMappings(), Gpa(kPage), kPageBytes), 0xbb, kPageBytes);
  EXPECT_EQ(page->data()[7], std::byte{0xbb});
  EXPECT_EQ(InRam(kPage), 0x11);
  // The monitor writes to RAM meanwhile: found when the overlay goes.
  FillRam(kPage, 0x12);
  EXPECT_EQ(Seen(kPage), 0xbb);
  page->Remove();
  EXPECT_EQ(page->place(), std::nullopt);
  EXPECT_EQ(Seen(kPage), 0x12);
  EXPECT_TRUE(GuestCanWrite(kPage));
}

TEST_F(GuestViewTest, ContentIsKeptAcrossRemoveAndPlaceAndIsMovedByPlace) {
  FillRam(kPage, 0x11);
  FillRam(kOther, 0x22);
  const auto page = NewPage(0xaa);
  std::byte* const data = page->data();
  ASSERT_TRUE(page->Place(kPage, ViewAccess::kReadWrite));
  page->Remove();
  std::memset(page->data(), 0xab, kPageBytes);  // written while it is nowhere
  ASSERT_TRUE(page->Place(kPage, ViewAccess::kReadWrite));
  EXPECT_EQ(Seen(kPage), 0xab);
  ASSERT_TRUE(page->Place(kOther, ViewAccess::kReadWrite));
  EXPECT_EQ(page->place(), kOther);
  EXPECT_EQ(Seen(kPage), 0x11);
  EXPECT_EQ(Seen(kOther), 0xab);
  EXPECT_EQ(page->data(), data);
}

TEST_F(GuestViewTest, NeighboursOfAnOverlayAreRam) {
  for (uint64_t n = kPage.raw() - 1; n <= kPage.raw() + 1; ++n) FillRam(Gpfn(n), static_cast<uint8_t>(n));
  const auto page = NewPage(0xaa);
  ASSERT_TRUE(page->Place(kPage, ViewAccess::kReadWrite));
  EXPECT_EQ(Seen(Gpfn(kPage.raw() - 1)), 0x22);
  EXPECT_EQ(Seen(Gpfn(kPage.raw() + 1)), 0x24);
}

TEST_F(GuestViewTest, OnlyReadWriteCanBeWritten) {
  const auto page = NewPage(0xaa);
  for (const ViewAccess access : {ViewAccess::kRead, ViewAccess::kReadExecute}) {
    ASSERT_TRUE(page->Place(kPage, access));
    EXPECT_EQ(Seen(kPage), 0xaa);
    EXPECT_FALSE(GuestCanWrite(kPage));
    EXPECT_TRUE(GuestCanWrite(kOther));
    page->data()[0] = std::byte{0xaa};  // ours always can
  }
  ASSERT_TRUE(page->Place(kPage, ViewAccess::kReadWrite));
  EXPECT_TRUE(GuestCanWrite(kPage));
}

TEST_F(GuestViewTest, CountsReadOnlyOverlaysThatAreSomewhere) {
  EXPECT_FALSE(view_->has_read_only_overlay());
  const auto page = NewPage(0xaa);
  const auto other = NewPage(0xbb);
  uint64_t changes = view_->overlay_changes();
  ASSERT_TRUE(page->Place(kPage, ViewAccess::kReadWrite));
  EXPECT_FALSE(view_->has_read_only_overlay());
  EXPECT_EQ(view_->overlay_changes(), ++changes);
  ASSERT_TRUE(page->Place(kPage, ViewAccess::kRead));
  ASSERT_TRUE(other->Place(kOther, ViewAccess::kReadExecute));
  EXPECT_TRUE(view_->has_read_only_overlay());
  EXPECT_EQ(view_->overlay_changes(), changes += 2);
  ASSERT_TRUE(page->Place(kOther, ViewAccess::kReadWrite));
  EXPECT_TRUE(view_->has_read_only_overlay());
  other->Remove();
  EXPECT_FALSE(view_->has_read_only_overlay());
  EXPECT_EQ(view_->overlay_changes(), changes += 2);
  other->Remove();  // is nowhere: no change
  EXPECT_EQ(view_->overlay_changes(), changes);
  ASSERT_FALSE(other->Place(Gpfn(UINT64_MAX), ViewAccess::kRead));
  EXPECT_FALSE(view_->has_read_only_overlay());
}

TEST_F(GuestViewTest, OfSeveralOnOnePageTheLastPlacedIsSeenThenTheOnesBefore) {
  FillRam(kPage, 0x11);
  const auto first = NewPage(0xa1);
  const auto second = NewPage(0xa2);
  const auto third = NewPage(0xa3);
  ASSERT_TRUE(first->Place(kPage, ViewAccess::kReadWrite));
  ASSERT_TRUE(second->Place(kPage, ViewAccess::kRead));
  ASSERT_TRUE(third->Place(kPage, ViewAccess::kReadWrite));
  EXPECT_EQ(Seen(kPage), 0xa3);
  third->Remove();
  EXPECT_EQ(Seen(kPage), 0xa2);
  EXPECT_FALSE(GuestCanWrite(kPage));  // with its own access
  ASSERT_TRUE(view_->OverlayAt(kPage).has_value());
  EXPECT_EQ(view_->OverlayAt(kPage)->bytes, second->data());
  EXPECT_EQ(view_->OverlayAt(kPage)->access, ViewAccess::kRead);
  ASSERT_TRUE(first->Place(kPage, ViewAccess::kReadWrite));  // again: on top now
  EXPECT_EQ(Seen(kPage), 0xa1);
  second->Remove();  // from beneath
  EXPECT_EQ(Seen(kPage), 0xa1);
  EXPECT_EQ(view_->OverlayAt(kPage)->bytes, first->data());
  EXPECT_EQ(view_->OverlayAt(Gpfn(kPage.raw() + 1)), std::nullopt);
  first->Remove();
  EXPECT_EQ(Seen(kPage), 0x11);
  EXPECT_EQ(view_->OverlayAt(kPage), std::nullopt);
}

TEST_F(GuestViewTest, TheSamePageTwiceIsOnce) {
  FillRam(kPage, 0x11);
  const auto page = NewPage(0xaa);
  ASSERT_TRUE(page->Place(kPage, ViewAccess::kReadWrite));
  ASSERT_TRUE(page->Place(kPage, ViewAccess::kReadWrite));
  EXPECT_EQ(Seen(kPage), 0xaa);
  page->Remove();
  EXPECT_EQ(Seen(kPage), 0x11);
}

TEST_F(GuestViewTest, TheLastPageOfEachRangeCanBeOverlaid) {
  const auto page = NewPage(0xaa);
  for (const uint64_t end : {3 * kGiB, 4 * kGiB + 2 * kPageBytes}) {
    const Gpfn last(end / kPageBytes - 1);
    FillRam(last, 0x11);
    ASSERT_TRUE(page->Place(last, ViewAccess::kReadWrite));
    EXPECT_EQ(Seen(last), 0xaa);
    page->Remove();
    EXPECT_EQ(Seen(last), 0x11);
  }
  ASSERT_TRUE(page->Place(Gpfn(0), ViewAccess::kReadWrite));
  EXPECT_EQ(Seen(Gpfn(0)), 0xaa);
}

TEST_F(GuestViewTest, WhatIsNotRamIsRefusedAndLeavesThePageNowhere) {
  FillRam(kPage, 0x11);
  const auto page = NewPage(0xaa);
  const uint64_t end = 4 * kGiB / kPageBytes + 2;
  // Beyond RAM; both ends of the hole; numbers whose address wraps to a page of RAM, and those that fill 64 bits.
  for (const uint64_t number : {end, end + 1, 3 * kGiB / kPageBytes, 4 * kGiB / kPageBytes - 1, uint64_t{1} << 40,
                                (uint64_t{1} << 52) + kPage.raw(), (uint64_t{1} << 63) + kPage.raw(), (uint64_t{1} << 52) - 1,
                                UINT64_MAX / kPageBytes, UINT64_MAX}) {
    for (const ViewAccess access : {ViewAccess::kReadWrite, ViewAccess::kRead}) {
      ASSERT_TRUE(page->Place(kPage, access));
      EXPECT_FALSE(page->Place(Gpfn(number), access)) << number;
      EXPECT_EQ(page->place(), std::nullopt);
      EXPECT_EQ(Seen(kPage), 0x11);
      EXPECT_FALSE(view_->has_read_only_overlay());
    }
    EXPECT_FALSE(view_->DropPage(Gpfn(number))) << number;
  }
}

TEST_F(GuestViewTest, GivesOutNoMorePagesThanItWasMadeWith) {
  std::vector<std::unique_ptr<ViewOverlay>> pages;
  for (uint32_t n = 0; n < kOverlays; ++n) pages.push_back(NewPage(0xaa));
  for (uint32_t n = 1; n < kOverlays; ++n) EXPECT_EQ(pages[n]->data() - pages[0]->data(), n * int64_t{kPageBytes});
  EXPECT_THAT(view_->NewPage().status(), StatusIs(absl::StatusCode::kResourceExhausted, "make an overlay page: all 4"));
}

TEST_F(GuestViewTest, APageThatDiesIsTakenAwayAndItsPlaceIsZeroForTheNext) {
  FillRam(kPage, 0x11);
  std::vector<std::unique_ptr<ViewOverlay>> pages;
  for (uint32_t n = 0; n < kOverlays; ++n) pages.push_back(NewPage(0xaa));
  ASSERT_TRUE(pages[2]->Place(kPage, ViewAccess::kRead));
  pages[2].reset();
  EXPECT_EQ(Seen(kPage), 0x11);
  EXPECT_FALSE(view_->has_read_only_overlay());
  ASSERT_OK_AND_ASSIGN(const auto next, view_->NewPage());
  EXPECT_EQ(next->data()[0], std::byte{0});
  EXPECT_EQ(next->data()[kPageBytes - 1], std::byte{0});
  EXPECT_EQ(next->place(), std::nullopt);
}

TEST_F(GuestViewTest, ViewsOfTheSameRamHaveOverlaysOfTheirOwn) {
  ASSERT_OK_AND_ASSIGN(const MemoryLayout layout, MemoryLayout::Create(kRamBytes));
  ASSERT_OK_AND_ASSIGN(const auto ram, GuestRam::Create({.bytes = kRamBytes}));
  ASSERT_OK_AND_ASSIGN(const auto one, GuestView::Create(*ram, layout, 1));
  ASSERT_OK_AND_ASSIGN(const auto two, GuestView::Create(*ram, layout, 1));
  ASSERT_OK_AND_ASSIGN(const auto page, one->NewPage());
  page->data()[0] = std::byte{0xaa};
  ASSERT_TRUE(page->Place(kPage, ViewAccess::kReadWrite));
  EXPECT_EQ(FindInRam(one->UnsafeMappings(), Gpa(kPage), 1)[0], std::byte{0xaa});
  EXPECT_EQ(FindInRam(two->UnsafeMappings(), Gpa(kPage), 1)[0], std::byte{0});
}

// Each overlay costs the process mappings, of which it has not many.
TEST_F(GuestViewTest, TheMappingIsWholeAgainWhenTheOverlaysAreGone) {
  for (const HugePages huge_pages : {HugePages::kNone, HugePages::kTransparent}) {
    Make({.bytes = kRamBytes, .huge_pages = huge_pages, .mergeable = huge_pages == HugePages::kNone});
    FillRam(kPage, 0x11);
    ASSERT_EQ(Pieces(kPage), 1u);
    const auto page = NewPage(0xaa);
    ASSERT_TRUE(page->Place(kPage, ViewAccess::kRead));
    EXPECT_EQ(Pieces(kPage), 3u);
    EXPECT_EQ(Seen(kPage), 0xaa);
    page->Remove();
    EXPECT_EQ(Pieces(kPage), 1u);
    EXPECT_EQ(Seen(kPage), 0x11);
  }
}

TEST_F(GuestViewTest, LockedRamIsLockedAgainWhenAnOverlayGoes) {
  constexpr uint64_t kBytes = 1 * kMiB;
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_MEMLOCK, &limit), 0);
  if (limit.rlim_cur < 2 * kBytes) GTEST_SKIP() << "RLIMIT_MEMLOCK is " << limit.rlim_cur;
  Make({.bytes = kBytes, .lock = true});
  constexpr Gpfn kLocked{3};
  FillRam(kLocked, 0x11);
  const auto page = NewPage(0xaa);
  ASSERT_TRUE(page->Place(kLocked, ViewAccess::kRead));
  EXPECT_EQ(Seen(kLocked), 0xaa);
  EXPECT_TRUE(view_->DropPage(kLocked));
  page->Remove();
  EXPECT_EQ(Seen(kLocked), 0x11);
  EXPECT_EQ(Pieces(kLocked), 1u);  // the same flags all over, the lock among them
  EXPECT_TRUE(view_->DropPage(kLocked));
  EXPECT_EQ(Seen(kLocked), 0x11);
}

TEST_F(GuestViewTest, PrefaultBacksTheViewAndNotTheMonitorsMapping) {
  constexpr uint64_t kBytes = 1 * kMiB;
  Make({.bytes = kBytes, .prefault = true});
  const auto backed = [](std::byte* host) {
    std::vector<uint64_t> entries(kBytes / kPageBytes);
    const int pagemap = ::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    const auto offset = static_cast<off_t>(reinterpret_cast<uintptr_t>(host) / kPageBytes * sizeof(uint64_t));
    EXPECT_EQ(::pread(pagemap, entries.data(), entries.size() * sizeof(uint64_t), offset),
              static_cast<ssize_t>(entries.size() * sizeof(uint64_t)));
    ::close(pagemap);
    size_t present = 0;
    for (const uint64_t entry : entries) present += entry >> 63;
    return present;
  };
  EXPECT_EQ(backed(view_->UnsafeMappings()[0].host), kBytes / kPageBytes);
  EXPECT_EQ(backed(memory_->UnsafeMappings()[0].host), 0u);
  FillRam(Gpfn(0x20), 0x11);
  EXPECT_EQ(backed(memory_->UnsafeMappings()[0].host), 1u);
  memory_->ForgetTouched();
  EXPECT_EQ(backed(memory_->UnsafeMappings()[0].host), 0u);
  EXPECT_EQ(InRam(Gpfn(0x20)), 0x11);

  // A part, on demand; sizes that wrap or leave RAM back what there is.
  Make({.bytes = kBytes});
  std::byte* const host = view_->UnsafeMappings()[0].host;
  EXPECT_EQ(backed(host), 0u);
  view_->Prefault(Gpa(0x1fff), 2);
  EXPECT_EQ(backed(host), 2u);
  view_->Prefault(Gpa(kBytes), UINT64_MAX);
  view_->Prefault(Gpa(UINT64_MAX), UINT64_MAX);
  view_->Prefault(Gpa(kBytes - 1), UINT64_MAX);
  view_->Prefault(Gpa(0), 0);
  EXPECT_EQ(backed(host), 3u);
  view_->Prefault(Gpa(1), UINT64_MAX);
  EXPECT_EQ(backed(host), kBytes / kPageBytes);
}

TEST_F(GuestViewTest, ADroppedPageKeepsItsContents) {
  FillRam(kPage, 0x11);
  EXPECT_EQ(Seen(kPage), 0x11);
  EXPECT_TRUE(view_->DropPage(kPage));
  EXPECT_EQ(Seen(kPage), 0x11);
  const auto page = NewPage(0xaa);
  ASSERT_TRUE(page->Place(kPage, ViewAccess::kRead));
  EXPECT_TRUE(view_->DropPage(kPage));
  EXPECT_EQ(Seen(kPage), 0xaa);
  EXPECT_FALSE(GuestCanWrite(kPage));
  EXPECT_EQ(Pieces(kPage), 3u);  // nothing but the page was touched
}

TEST_F(GuestViewTest, ReservedHugePagesCannotBeOverlaid) {
  auto ram = GuestRam::Create({.bytes = 4 * kMiB, .huge_pages = HugePages::k2MiB});
  if (!ram.ok()) GTEST_SKIP() << "no reserved huge pages on this host: " << ram.status();
  ASSERT_OK_AND_ASSIGN(const MemoryLayout layout, MemoryLayout::Create(4 * kMiB));
  ASSERT_OK_AND_ASSIGN(const auto view, GuestView::Create(**ram, layout, kOverlays));
  EXPECT_FALSE(view->CanOverlay());
  EXPECT_THAT(view->NewPage().status(), StatusIs(absl::StatusCode::kFailedPrecondition, "reserved huge pages"));
  view->UnsafeMappings()[0].host[2 * kMiB + 5] = std::byte{0x11};
  EXPECT_TRUE(view->DropPage(Gpfn(2 * kMiB / kPageBytes + 1)));
  EXPECT_EQ(view->UnsafeMappings()[0].host[2 * kMiB + 5], std::byte{0x11});
}

TEST_F(GuestViewTest, CreateRefusesMoreOverlaysThanAProcessHasMappingsFor) {
  ASSERT_OK_AND_ASSIGN(const MemoryLayout layout, MemoryLayout::Create(1 * kMiB));
  ASSERT_OK_AND_ASSIGN(const auto ram, GuestRam::Create({.bytes = 1 * kMiB}));
  EXPECT_THAT(GuestView::Create(*ram, layout, GuestView::kMaxOverlayPages + 1).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, "8193 overlay pages"));
  ASSERT_OK_AND_ASSIGN(const auto none, GuestView::Create(*ram, layout, 0));
  EXPECT_TRUE(none->CanOverlay());
  EXPECT_THAT(none->NewPage().status(), StatusIs(absl::StatusCode::kResourceExhausted, "all 0"));
}

// Beneath an overlay is the file that the page belongs to, in a reserved part and beside it.
TEST_F(GuestViewTest, RamUnderAnOverlayComesBackFromItsOwnFile) {
  Make({.bytes = 64 * kMiB, .reserved = {{16 * kMiB, 2 * kMiB}}});
  const uint64_t first = 16 * kMiB / kPageBytes, end = 18 * kMiB / kPageBytes;
  for (const uint64_t raw : {first - 1, first, end - 1, end}) FillRam(Gpfn(raw), static_cast<uint8_t>(raw & 0xff));
  for (const uint64_t raw : {first - 1, first, end - 1, end}) {
    const auto page = NewPage(0xee);
    ASSERT_TRUE(page->Place(Gpfn(raw), ViewAccess::kRead));
    EXPECT_EQ(Seen(Gpfn(raw)), 0xee);
    page->Remove();
    EXPECT_EQ(Seen(Gpfn(raw)), static_cast<uint8_t>(raw & 0xff));
    FillRam(Gpfn(raw), 0x33);
    EXPECT_EQ(Seen(Gpfn(raw)), 0x33);
  }
}

}  // namespace
}  // namespace vmm
