#include "vmm/hyperv/translate.h"

#include <memory>
#include <optional>
#include <vector>

#include "base/status_matchers.h"
#include "devices/hyperv/hypercall/hypercall_parameters_layout.h"
#include "gtest/gtest.h"
#include "memory/gpa.h"
#include "memory/guest_memory.h"
#include "memory/guest_ram.h"
#include "memory/guest_view.h"
#include "memory/layout.h"
#include "memory/page_rights.h"
#include "memory/protection_enforcer.h"
#include "memory/protection_map.h"
#include "vcpu/fake_page_tables.h"
#include "vmm/hyperv/enforced_view.h"

namespace vmm {
namespace {

using Code = HvTranslationCode;

constexpr uint64_t kRead = kHvTranslateValidateRead, kWrite = kHvTranslateValidateWrite, kExecute = kHvTranslateValidateExecute;
constexpr uint64_t kLinearPage = 0x12345, kGuestPage = 0x300;

class TranslatePageTest : public testing::Test {
 protected:
  void SetUp() override {
    constexpr uint64_t kBytes = 16 * kMiB;
    ASSERT_OK_AND_ASSIGN(const MemoryLayout layout, MemoryLayout::Create(kBytes));
    ASSERT_OK_AND_ASSIGN(const auto ram, GuestRam::Create({.bytes = kBytes}));
    ASSERT_OK_AND_ASSIGN(memory_, GuestMemory::Create(*ram, layout));
    ASSERT_OK_AND_ASSIGN(view_, GuestView::Create(*ram, layout, 1, 8));
    ASSERT_OK_AND_ASSIGN(map_, ProtectionMap::Create(layout, 2));
    ASSERT_OK_AND_ASSIGN(protections_, ProtectionEnforcer::Create(*map_, {view_.get()}, Unenforceable::kRefuse));
    tables_.emplace(*memory_, Gpa(0x10'0000));
    state_.paging = {.cr0 = 0x8001'0001, .cr3 = tables_->cr3(), .cr4 = 0x20, .efer = 0xd00, .rflags = 2};
    state_.pat = 0x0007'0406'0007'0406;
  }
  void Map(uint64_t flags) { tables_->Map(kLinearPage * kPageBytes, kGuestPage * kPageBytes, flags); }
  void Protect(uint64_t page, PageRights rights) {
    ASSERT_EQ(protections_->Protect(1, rights, std::vector<uint64_t>{page}).status, ProtectStatus::kDone);
  }
  Code Translate(uint64_t flags, Vtl vtl = kVtl0) {
    last_ = TranslatePage(state_, flags, kLinearPage, *memory_, EnforcedView(*protections_, *view_, vtl));
    EXPECT_EQ(last_.status, HvStatus::kSuccess);
    return last_.code;
  }

  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<GuestView> view_;
  std::unique_ptr<ProtectionMap> map_;
  std::unique_ptr<ProtectionEnforcer> protections_;
  std::optional<FakePageTables> tables_;
  TranslationState state_;
  GvaTranslation last_{};
};

TEST_F(TranslatePageTest, TellsPageAndCacheType) {
  Map(FakePageTables::kAll);
  EXPECT_EQ(Translate(kRead | kWrite | kExecute), Code::kSuccess);
  EXPECT_EQ(last_.gpa_page, kGuestPage);
  EXPECT_EQ(last_.cache_type, 6);
  Map(FakePageTables::kAll | 0x10);  // PCD: entry 2
  EXPECT_EQ(Translate(kRead), Code::kSuccess);
  EXPECT_EQ(last_.cache_type, 7);
}

TEST_F(TranslatePageTest, FaultsOfTheTables) {
  EXPECT_EQ(Translate(kRead), Code::kPageNotPresent);
  Map(FakePageTables::kPresent);
  EXPECT_EQ(Translate(kRead), Code::kSuccess);
  EXPECT_EQ(Translate(kWrite), Code::kPrivilegeViolation);
  EXPECT_EQ(Translate(kRead | kHvTranslateUser), Code::kPrivilegeViolation);
  EXPECT_EQ(Translate(kRead | kHvTranslateUser | kHvTranslatePrivilegeExempt), Code::kSuccess);
  state_.cpl = 3;
  EXPECT_EQ(Translate(kRead), Code::kPrivilegeViolation);
  EXPECT_EQ(Translate(kRead | kHvTranslateSupervisor), Code::kSuccess);
  Map(FakePageTables::kAll | uint64_t{1} << 52);  // available to software
  EXPECT_EQ(Translate(kRead), Code::kSuccess);
  tables_->Map(kLinearPage * kPageBytes, 64 * kMiB);
  EXPECT_EQ(Translate(kRead), Code::kGpaUnmapped);
}

TEST_F(TranslatePageTest, ProtectionsAreTheLevelsOwn) {
  Map(FakePageTables::kAll);
  Protect(kGuestPage, PageRights(0xd));
  EXPECT_EQ(Translate(kRead | kExecute), Code::kSuccess);
  EXPECT_EQ(Translate(kWrite), Code::kGpaNoWriteAccess);
  EXPECT_EQ(Translate(kWrite, kVtl1), Code::kSuccess);
  Protect(kGuestPage, PageRights::None());
  EXPECT_EQ(Translate(kRead), Code::kGpaNoReadAccess);
  EXPECT_EQ(Translate(kRead, kVtl1), Code::kSuccess);
}

// Rights beneath an overlay are not asked; it has its own.
TEST_F(TranslatePageTest, AnOverlayIsTold) {
  Map(0x7);
  EXPECT_EQ(Translate(kRead), Code::kSuccess);
  EXPECT_FALSE(last_.overlay);
  Protect(kGuestPage, PageRights::None());
  EXPECT_EQ(Translate(kRead), Code::kGpaNoReadAccess);
  ASSERT_OK_AND_ASSIGN(const auto overlay, view_->NewPage());
  ASSERT_TRUE(overlay->Place(Gpfn(kGuestPage), ViewAccess::kReadWrite));
  EXPECT_EQ(Translate(kRead | kWrite), Code::kSuccess);
  EXPECT_TRUE(last_.overlay);
  EXPECT_EQ(last_.gpa_page, kGuestPage);
  ASSERT_TRUE(overlay->Place(Gpfn(kGuestPage), ViewAccess::kRead));
  EXPECT_EQ(Translate(kRead), Code::kSuccess);
  EXPECT_EQ(Translate(kWrite), Code::kGpaNoWriteAccess);
  overlay->Remove();
  EXPECT_EQ(Translate(kRead), Code::kGpaNoReadAccess);
}

TEST_F(TranslatePageTest, APageTableThatTheLevelMayNotReadEndsTheWalk) {
  Map(FakePageTables::kAll);
  Protect(tables_->EntryAt(kLinearPage * kPageBytes, 2).page().raw(), PageRights::None());
  EXPECT_EQ(Translate(kRead), Code::kGpaNoReadAccess);
  EXPECT_EQ(Translate(kRead, kVtl1), Code::kSuccess);
}

TEST_F(TranslatePageTest, SetsAccessedAndDirtyWhereAsked) {
  Map(FakePageTables::kPresent | FakePageTables::kWritable);
  const Gpa leaf = tables_->EntryAt(kLinearPage * kPageBytes, 1);
  EXPECT_EQ(Translate(kWrite), Code::kSuccess);
  EXPECT_EQ(tables_->Get(leaf) & (FakePageTables::kAccessed | FakePageTables::kDirty), 0u);
  EXPECT_EQ(Translate(kWrite | kHvTranslateSetAccessedDirty), Code::kSuccess);
  EXPECT_EQ(tables_->Get(leaf) & (FakePageTables::kAccessed | FakePageTables::kDirty),
            FakePageTables::kAccessed | FakePageTables::kDirty);
}

}  // namespace
}  // namespace vmm
