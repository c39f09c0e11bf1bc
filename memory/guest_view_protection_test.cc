// Protections of pages in a view, alone and together with overlays: what the kernel says of each page of the mapping is compared with
// what it is to be.
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/status_matchers.h"
#include "memory/fake_page_attributes.h"
#include "memory/guest_ram.h"
#include "memory/guest_view.h"
#include "memory/layout.h"
#include "memory/page_access.h"
#include "memory/ram_mapping.h"

namespace vmm {
namespace {

constexpr PageAccess kRw = PageAccess::kReadWrite;
constexpr PageAccess kR = PageAccess::kRead;
constexpr PageAccess kNone = PageAccess::kNone;

class GuestViewProtectionTest : public testing::Test {
 protected:
  static constexpr uint32_t kOverlays = 6;
  static constexpr uint32_t kPieces = 64;

  void SetUp() override { Make({.bytes = 1 * kMiB}); }
  void Make(const GuestRamOptions& options, uint32_t pieces = kPieces) {
    view_.reset();
    attributes_ = {};
    ASSERT_OK_AND_ASSIGN(const MemoryLayout layout, MemoryLayout::Create(options.bytes));
    ASSERT_OK_AND_ASSIGN(const auto ram, GuestRam::Create(options));
    ASSERT_OK_AND_ASSIGN(view_, GuestView::Create(*ram, layout, kOverlays, pieces, &attributes_));
  }
  ViewProtect Protect(uint64_t first, uint64_t pages, PageAccess access) { return view_->Protect(Gpfn(first), pages, access).outcome; }

  // One page of the view, as /proc/self/maps has it.
  struct Page {
    PageAccess access;
    bool overlay;
    uint64_t file_page;
    bool operator==(const Page&) const = default;
  };
  // All of the first range, and in how many pieces it is.
  std::vector<Page> Mapped(size_t* pieces = nullptr) {
    const RamMapping& mapping = view_->UnsafeMappings().front();
    const auto start = reinterpret_cast<uintptr_t>(mapping.host);
    std::vector<Page> pages;
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) {
      uintptr_t from = 0, to = 0;
      uint64_t offset = 0;
      char rights[5] = {};
      if (std::sscanf(line.c_str(), "%" SCNxPTR "-%" SCNxPTR " %4s %" SCNx64, &from, &to, rights, &offset) != 4) continue;
      if (from >= start + mapping.range.bytes || to <= start) continue;
      if (pieces != nullptr) ++*pieces;
      const bool overlay = line.find("guest-overlays") != std::string::npos;
      EXPECT_TRUE(overlay || line.find("guest-ram") != std::string::npos) << line;
      EXPECT_NE(rights[2], 'x') << line;
      const PageAccess access = rights[1] == 'w' ? kRw : rights[0] == 'r' ? kR : kNone;
      for (uintptr_t page = from; page < to; page += kPageBytes) pages.push_back({access, overlay, (offset + (page - from)) / kPageBytes});
    }
    EXPECT_EQ(pages.size(), mapping.range.bytes / kPageBytes);
    return pages;
  }
  PageAccess Access(uint64_t page) { return Mapped().at(page).access; }
  size_t Pieces() {
    size_t pieces = 0;
    (void)Mapped(&pieces);
    return pieces;
  }

  FakePageAttributes attributes_;
  std::unique_ptr<GuestView> view_;
};

TEST_F(GuestViewProtectionTest, PagesHaveTheAccessThatTheyAreGivenAndNeighboursTheirs) {
  EXPECT_EQ(Protect(5, 3, kNone), ViewProtect::kDone);
  EXPECT_EQ(Protect(6, 1, kR), ViewProtect::kDone);
  const std::vector<PageAccess> expected = {kRw, kNone, kR, kNone, kRw};
  for (uint64_t n = 0; n < expected.size(); ++n) EXPECT_EQ(Access(4 + n), expected[n]) << n;
  EXPECT_EQ(Pieces(), 5u);
  EXPECT_EQ(view_->protected_pieces(), 4u);
  EXPECT_EQ(attributes_.private_pages, (std::set<uint64_t>{5, 7}));
  EXPECT_EQ(Protect(0, 256, kRw), ViewProtect::kDone);
  EXPECT_EQ(Pieces(), 1u);  // the kernel has joined them
  EXPECT_TRUE(attributes_.private_pages.empty());
}

// As the kernel, or KVM for the guest, would access it: no signal, EFAULT.
TEST_F(GuestViewProtectionTest, TheKernelIsStoppedToo) {
  std::byte* const host = view_->UnsafeMappings().front().host + 5 * kPageBytes;
  char byte = 'x';
  const auto copy = [&](bool to_guest) {
    iovec ours{&byte, 1};
    iovec guest{host, 1};
    return (to_guest ? ::process_vm_writev(::getpid(), &ours, 1, &guest, 1, 0) : ::process_vm_readv(::getpid(), &ours, 1, &guest, 1, 0)) == 1;
  };
  if (!copy(true)) GTEST_SKIP() << "no process_vm_writev here";
  struct {
    PageAccess access;
    bool read, write;
  } constexpr kRows[] = {{kNone, false, false}, {kR, true, false}, {kRw, true, true}};
  for (const auto& row : kRows) {
    ASSERT_EQ(Protect(5, 1, row.access), ViewProtect::kDone);
    EXPECT_EQ(copy(false), row.read);
    EXPECT_EQ(copy(true), row.write);
  }
}

TEST_F(GuestViewProtectionTest, RunAtSaysWhatIsThere) {
  ASSERT_EQ(Protect(5, 3, kNone), ViewProtect::kDone);
  const auto run = view_->RunAt(Gpfn(5), 100);
  EXPECT_EQ(run.access, kNone);
  EXPECT_EQ(run.pages, 3u);
  EXPECT_EQ(view_->RunAt(Gpfn(5), 2).pages, 2u);
  EXPECT_EQ(view_->RunAt(Gpfn(8), 10).access, kRw);
  EXPECT_EQ(view_->RunAt(Gpfn(256), 1).pages, 0u);
  EXPECT_EQ(view_->RunAt(Gpfn(255), 2).pages, 0u);
}

TEST_F(GuestViewProtectionTest, AnOverlayHasItsOwnAccessAndThePageBeneathItsOwnWhenItGoes) {
  ASSERT_OK_AND_ASSIGN(const auto overlay, view_->NewPage());
  ASSERT_EQ(Protect(5, 1, kNone), ViewProtect::kDone);
  ASSERT_TRUE(overlay->Place(Gpfn(5), ViewAccess::kReadWrite));
  EXPECT_EQ(Mapped().at(5), (Page{kRw, true, 0}));
  EXPECT_FALSE(attributes_.private_pages.contains(5));  // or the overlay could not be seen
  overlay->Remove();
  EXPECT_EQ(Mapped().at(5), (Page{kNone, false, 5}));
  EXPECT_TRUE(attributes_.private_pages.contains(5));
}

TEST_F(GuestViewProtectionTest, ProtectionsChangedBeneathAnOverlayHoldWhenItGoes) {
  ASSERT_OK_AND_ASSIGN(const auto overlay, view_->NewPage());
  ASSERT_TRUE(overlay->Place(Gpfn(5), ViewAccess::kRead));
  for (const PageAccess access : {kNone, kRw, kR}) {
    ASSERT_EQ(Protect(3, 5, access), ViewProtect::kDone);
    EXPECT_EQ(Access(4), access);
    EXPECT_EQ(Mapped().at(5), (Page{kR, true, 0}));
    EXPECT_EQ(Access(6), access);
    EXPECT_EQ(attributes_.private_pages, access == kNone ? (std::set<uint64_t>{3, 4, 6, 7}) : std::set<uint64_t>{});
    overlay->Remove();
    EXPECT_EQ(Mapped().at(5), (Page{access, false, 5}));
    EXPECT_EQ(attributes_.private_pages.contains(5), access == kNone);
    ASSERT_TRUE(overlay->Place(Gpfn(5), ViewAccess::kRead));
  }
}

TEST_F(GuestViewProtectionTest, AnOverlayThatTheAttributeWouldHideIsNotPlaced) {
  ASSERT_OK_AND_ASSIGN(const auto overlay, view_->NewPage());
  ASSERT_EQ(Protect(5, 1, kNone), ViewProtect::kDone);
  attributes_.calls_until_refusal = 0;
  EXPECT_FALSE(overlay->Place(Gpfn(5), ViewAccess::kReadWrite));
  EXPECT_EQ(overlay->place(), std::nullopt);
  EXPECT_EQ(Mapped().at(5), (Page{kNone, false, 5}));
}

TEST_F(GuestViewProtectionTest, WithoutTheAttributeThePageThatAnOverlayLeavesIsProtectedByItsMapping) {
  ASSERT_OK_AND_ASSIGN(const auto overlay, view_->NewPage());
  ASSERT_EQ(Protect(5, 1, kNone), ViewProtect::kDone);
  ASSERT_TRUE(overlay->Place(Gpfn(5), ViewAccess::kReadWrite));
  attributes_.calls_until_refusal = 0;
  overlay->Remove();
  EXPECT_EQ(Mapped().at(5), (Page{kNone, false, 5}));
  EXPECT_EQ(Protect(5, 1, kRw), ViewProtect::kDone);
  EXPECT_EQ(Access(5), kRw);
}

TEST_F(GuestViewProtectionTest, AnAttributeThatIsRefusedLeavesThePagesAsTheyWere) {
  attributes_.calls_until_refusal = 0;
  const auto refused = view_->Protect(Gpfn(5), 2, kNone);
  EXPECT_EQ(refused.outcome, ViewProtect::kHostRefused);
  EXPECT_EQ(refused.pages, 0u);
  EXPECT_EQ(Access(5), kRw);
  ASSERT_EQ(Protect(5, 2, kNone), ViewProtect::kDone);
  attributes_.calls_until_refusal = 0;
  EXPECT_EQ(Protect(5, 2, kRw), ViewProtect::kHostRefused);
  EXPECT_EQ(Access(5), kNone);
  EXPECT_TRUE(attributes_.private_pages.contains(5));
}

TEST_F(GuestViewProtectionTest, WhatIsNotRamIsRefusedWhateverItWrapsTo) {
  for (const auto& [first, pages] : {std::pair<uint64_t, uint64_t>{256, 1}, {255, 2}, {0, 257}, {uint64_t{1} << 52, 1}, {5, UINT64_MAX},
                                     {5, uint64_t{1} << 52}, {UINT64_MAX, 1}, {UINT64_MAX, UINT64_MAX}}) {
    EXPECT_EQ(Protect(first, pages, kNone), ViewProtect::kNotRam) << first;
    EXPECT_FALSE(view_->HasRoomFor(Gpfn(first), pages, kNone));
  }
  EXPECT_EQ(Protect(UINT64_MAX, 0, kNone), ViewProtect::kDone);
  EXPECT_EQ(Pieces(), 1u);
}

TEST_F(GuestViewProtectionTest, AlternatingPagesEndWithAStatusAndChangeNothing) {
  uint64_t page = 1;
  while (view_->HasRoomFor(Gpfn(page), 1, kNone) && Protect(page, 1, kNone) == ViewProtect::kDone) page += 2;
  EXPECT_EQ(page, 1 + kPieces);  // two borders each
  while (page < 255 && Protect(page, 1, kR) == ViewProtect::kDone) page += 2;
  const auto before = Mapped();
  EXPECT_EQ(Protect(page, 1, kR), ViewProtect::kTooManyPieces);
  EXPECT_EQ(Mapped(), before);
  EXPECT_LE(Pieces(), kPieces + 5u);
  EXPECT_EQ(Protect(0, 256, kR), ViewProtect::kDone);  // fewer pieces are always to be had
  EXPECT_EQ(Pieces(), 1u);
}

// The most that may be configured, on the kernel's own count. Where the host grants a process fewer, Create says so.
TEST_F(GuestViewProtectionTest, AsManyPiecesAsCanBeConfiguredAreToBeHad) {
  Make({.bytes = 512 * kMiB}, GuestView::kMaxProtectedPieces);
  if (view_ == nullptr) return;
  uint64_t protected_pages = 0;
  for (uint64_t page = 1; page < 512 * kMiB / kPageBytes; page += 2) {
    if (Protect(page, 1, kR) != ViewProtect::kDone) break;
    ++protected_pages;
  }
  EXPECT_GE(protected_pages, GuestView::kMaxProtectedPieces / 2);
  EXPECT_LE(Pieces(), GuestView::kMaxProtectedPieces + 10u);
  view_->ResetProtections();
  EXPECT_EQ(Pieces(), 1u);
}

TEST_F(GuestViewProtectionTest, TransparentHugePagesArePlainOnesHere) {
  Make({.bytes = 8 * kMiB, .huge_pages = HugePages::kTransparent});
  std::memset(view_->UnsafeMappings().front().host, 0x11, 8 * kMiB);
  ASSERT_EQ(Protect(513, 1, kNone), ViewProtect::kDone);
  EXPECT_EQ(Access(512), kRw);
  EXPECT_EQ(Access(513), kNone);
  EXPECT_EQ(Access(514), kRw);
  ASSERT_EQ(Protect(513, 1, kRw), ViewProtect::kDone);
  EXPECT_EQ(view_->UnsafeMappings().front().host[513 * kPageBytes], std::byte{0x11});
  EXPECT_EQ(Pieces(), 1u);
}

TEST_F(GuestViewProtectionTest, CreateRefusesWhatCannotBeProtected) {
  ASSERT_OK_AND_ASSIGN(const MemoryLayout layout, MemoryLayout::Create(4 * kMiB));
  ASSERT_OK_AND_ASSIGN(const auto ram, GuestRam::Create({.bytes = 4 * kMiB}));
  EXPECT_THAT(GuestView::Create(*ram, layout, 0, GuestView::kMaxProtectedPieces + 1).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, "32769 pieces: more than 32768"));
  const auto huge = GuestRam::Create({.bytes = 4 * kMiB, .huge_pages = HugePages::k2MiB});
  if (!huge.ok()) GTEST_SKIP() << "no reserved huge pages on this host: " << huge.status();
  EXPECT_THAT(GuestView::Create(**huge, layout, 0, 8).status(),
              StatusIs(absl::StatusCode::kFailedPrecondition, "reserved huge pages, of which no part can be protected"));
}

TEST_F(GuestViewProtectionTest, AViewThatIsMadeForNoneRefusesAll) {
  Make({.bytes = 1 * kMiB}, 0);
  EXPECT_EQ(Protect(5, 1, kNone), ViewProtect::kTooManyPieces);
  EXPECT_FALSE(view_->HasRoomFor(Gpfn(5), 1, kNone));
  EXPECT_EQ(view_->RunAt(Gpfn(5), 3).pages, 3u);
  view_->ResetProtections();
}

// Anything in any order, against a model of arrays: what the kernel has mapped for each page, attributes, and what is refused.
TEST_F(GuestViewProtectionTest, RandomSequencesAgreeWithAModel) {
  constexpr uint64_t kPages = 256;
  for (const unsigned seed : {1u, 2u, 3u}) {
    Make({.bytes = 1 * kMiB}, 24);
    std::minstd_rand random(seed);
    std::vector<PageAccess> ram(kPages, kRw);
    struct Placed {
      std::optional<uint64_t> at;
      PageAccess access = kRw;
      int order = 0;
    };
    std::vector<Placed> placed(kOverlays);
    std::vector<std::unique_ptr<ViewOverlay>> overlays;
    for (uint32_t n = 0; n < kOverlays; ++n) overlays.push_back(*view_->NewPage());
    uint64_t refused = 0;
    for (int step = 1; step <= 600; ++step) {
      // Few places, so that things meet.
      const uint64_t place = random() % 4 == 0 ? random() % kPages : random() % 40;
      const size_t n = random() % kOverlays;
      switch (random() % 4) {
        case 0: {
          const PageAccess access = random() % 2 == 0 ? kRw : kR;
          ASSERT_TRUE(overlays[n]->Place(Gpfn(place), access == kRw ? ViewAccess::kReadWrite : ViewAccess::kReadExecute));
          placed[n] = {place, access, step};
          break;
        }
        case 1:
          overlays[n]->Remove();
          placed[n] = {};
          break;
        default: {
          const uint64_t pages = std::min(1 + random() % (random() % 8 == 0 ? 100 : 4), kPages - place);
          const auto access = static_cast<PageAccess>(random() % 3);
          const bool room = view_->HasRoomFor(Gpfn(place), pages, access);
          if (!room) {
            ++refused;
            break;
          }
          ASSERT_EQ(Protect(place, pages, access), ViewProtect::kDone);
          std::fill_n(ram.begin() + static_cast<ptrdiff_t>(place), pages, access);
          break;
        }
      }
      if (step % 10 != 0) continue;
      std::vector<Page> expected;
      std::set<uint64_t> hidden;
      for (uint64_t page = 0; page < kPages; ++page) {
        size_t top = kOverlays;
        for (size_t k = 0; k < kOverlays; ++k) {
          if (placed[k].at == page && (top == kOverlays || placed[k].order > placed[top].order)) top = k;
        }
        expected.push_back(top == kOverlays ? Page{ram[page], false, page} : Page{placed[top].access, true, top});
        if (top == kOverlays && ram[page] == kNone) hidden.insert(page);
      }
      size_t pieces = 0;
      ASSERT_EQ(Mapped(&pieces), expected) << "seed " << seed << " step " << step;
      ASSERT_EQ(attributes_.private_pages, hidden) << "seed " << seed << " step " << step;
      ASSERT_LE(pieces, 1u + 24 + 2 * kOverlays);
    }
    EXPECT_GT(refused, 0u);
    overlays.clear();
    view_->ResetProtections();
    EXPECT_EQ(Pieces(), 1u);
    EXPECT_TRUE(attributes_.private_pages.empty());
  }
}

}  // namespace
}  // namespace vmm
