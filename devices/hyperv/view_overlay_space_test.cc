#include "devices/hyperv/view_overlay_space.h"

#include <unistd.h>

#include <cerrno>
#include <optional>

#include "base/status_matchers.h"
#include "memory/access_gate.h"
#include "memory/guest_memory.h"
#include "memory/guest_ram.h"
#include "memory/layout.h"
#include "memory/level_memory.h"
#include "memory/page_rights.h"
#include "memory/protection_map.h"
#include "memory/ram_mapping.h"
#include "memory/recording_listener.h"

namespace vmm {
namespace {

class ViewOverlaySpaceTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(const MemoryLayout layout, MemoryLayout::Create(1 * kMiB));
    ASSERT_OK_AND_ASSIGN(const auto ram, GuestRam::Create({.bytes = 1 * kMiB}));
    ASSERT_OK_AND_ASSIGN(view_, GuestView::Create(*ram, layout, 1));
    ASSERT_OK_AND_ASSIGN(memory_, GuestMemory::Create(*ram, layout));
    ASSERT_OK_AND_ASSIGN(map_, ProtectionMap::Create(layout, 2));
    level_.emplace(*memory_, *map_, gate_, 0);
  }
  std::byte& Seen(Gpfn page) { return *FindInRam(view_->UnsafeMappings(), Gpa(page), 1); }
  // Asked of the kernel, which answers instead of a signal.
  bool CanWrite(Gpfn page) {
    int pipe[2];
    EXPECT_EQ(::pipe(pipe), 0);
    EXPECT_EQ(::write(pipe[1], "x", 1), 1);
    const bool can = ::read(pipe[0], &Seen(page), 1) == 1;
    EXPECT_TRUE(can || errno == EFAULT);
    ::close(pipe[0]);
    ::close(pipe[1]);
    return can;
  }
  std::unique_ptr<GuestView> view_;
  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<ProtectionMap> map_;
  AccessGate gate_;
  std::optional<LevelMemory> level_;
};

TEST_F(ViewOverlaySpaceTest, APageIsSeenWhereItIsPlacedWithItsAccess) {
  ViewOverlaySpace space(*view_, *level_);
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<OverlayPage> page, space.NewPage());
  page->data()[0] = std::byte{0xaa};
  const struct {
    OverlayPage::Access access;
    bool writable;
  } kCases[] = {{OverlayPage::Access::kReadExecute, false}, {OverlayPage::Access::kRead, false}, {OverlayPage::Access::kReadWrite, true}};
  for (const auto& [access, writable] : kCases) {
    ASSERT_TRUE(page->Place(Gpfn(7), access));
    EXPECT_EQ(page->place(), Gpfn(7));
    EXPECT_EQ(Seen(Gpfn(7)), std::byte{0xaa});
    EXPECT_EQ(CanWrite(Gpfn(7)), writable);
    EXPECT_EQ(view_->has_read_only_overlay(), !writable);
  }
  EXPECT_EQ(page->data()[0], std::byte{'x'});
  EXPECT_FALSE(page->Place(Gpfn(0x100), OverlayPage::Access::kReadWrite));
  EXPECT_EQ(page->place(), std::nullopt);
  EXPECT_EQ(Seen(Gpfn(7)), std::byte{0});
}

TEST_F(ViewOverlaySpaceTest, MayPlaceGoesByTheLevelsRights) {
  ViewOverlaySpace space(*view_, *level_);
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<OverlayPage> page, space.NewPage());
  RecordingListener listener;
  const struct {
    PageRights rights;
    bool to_read, to_write;
  } kCases[] = {{PageRights::None(), false, false}, {PageRights(0x1), true, false}, {PageRights(0xd), true, false}, {PageRights(0x3), true, true}};
  for (const auto& [rights, to_read, to_write] : kCases) {
    ASSERT_EQ(map_->Set(1, Gpfn(7), 1, rights, listener), ProtectionResult::kDone);
    EXPECT_EQ(page->MayPlace(Gpfn(7), OverlayPage::Access::kRead), to_read);
    EXPECT_EQ(page->MayPlace(Gpfn(7), OverlayPage::Access::kReadExecute), to_read);
    EXPECT_EQ(page->MayPlace(Gpfn(7), OverlayPage::Access::kReadWrite), to_write);
  }
  EXPECT_TRUE(page->MayPlace(Gpfn(0x100), OverlayPage::Access::kReadWrite));  // not RAM: Place says so
}

TEST_F(ViewOverlaySpaceTest, PagesComeFromTheViewAndGoBackToIt) {
  ViewOverlaySpace space(*view_, *level_);
  {
    ASSERT_OK_AND_ASSIGN(const auto page, space.NewPage());
    ASSERT_TRUE(page->Place(Gpfn(7), OverlayPage::Access::kRead));
    EXPECT_THAT(space.NewPage().status(), StatusIs(absl::StatusCode::kResourceExhausted, "all 1 of this view"));
  }
  EXPECT_FALSE(view_->has_read_only_overlay());
  EXPECT_OK(space.NewPage().status());
}

}  // namespace
}  // namespace vmm
