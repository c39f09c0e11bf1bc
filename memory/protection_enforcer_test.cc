#include "memory/protection_enforcer.h"

#include <vector>

#include "absl/status/status.h"
#include "base/status_matchers.h"
#include "memory/fake_page_attributes.h"
#include "memory/guest_ram.h"
#include "memory/layout.h"

namespace vmm {
namespace {

constexpr uint64_t kRamBytes = 16 * kMiB;
constexpr uint64_t kPages = kRamBytes / kPageBytes;
constexpr uint32_t kPieces = 8;

constexpr PageRights kNone = PageRights::None();
constexpr PageRights kR(0x1);
constexpr PageRights kRw(0x3);
constexpr PageRights kRux(0x9);
constexpr PageRights kRx(0xd);
constexpr PageRights kRwux(0xb);
constexpr PageRights kAll;

class ProtectionEnforcerTest : public testing::Test {
 protected:
  void SetUp() override { Make(2, Unenforceable::kRefuse, /*with_attributes=*/true); }

  void Make(unsigned levels, Unenforceable unenforceable, bool with_attributes) {
    enforcer_.reset();
    views_.clear();
    attributes_ = std::vector<FakePageAttributes>(levels - 1);
    ASSERT_OK_AND_ASSIGN(const MemoryLayout layout, MemoryLayout::Create(kRamBytes));
    ASSERT_OK_AND_ASSIGN(const auto ram, GuestRam::Create({.bytes = kRamBytes}));
    ASSERT_OK_AND_ASSIGN(map_, ProtectionMap::Create(layout, levels));
    std::vector<GuestView*> list;
    for (unsigned level = 0; level + 1 < levels; ++level) {
      ASSERT_OK_AND_ASSIGN(auto view, GuestView::Create(*ram, layout, 1, kPieces, with_attributes ? &attributes_[level] : nullptr));
      list.push_back(view.get());
      views_.push_back(std::move(view));
    }
    ASSERT_OK_AND_ASSIGN(enforcer_, ProtectionEnforcer::Create(*map_, list, unenforceable));
  }

  ProtectionEnforcer::Result Protect(unsigned owner, PageRights rights, std::vector<uint64_t> pages) {
    return enforcer_->Protect(owner, rights, pages);
  }
  PageAccess Access(uint64_t page, unsigned level = 0) { return views_[level]->RunAt(Gpfn(page), 1).access; }
  bool IsPrivate(uint64_t page, unsigned level = 0) { return attributes_[level].private_pages.contains(page); }
  // What map, view and attributes say of every page agrees.
  void ExpectInStep() {
    for (unsigned level = 0; level < views_.size(); ++level) {
      for (uint64_t page = 0; page < kPages; ++page) {
        const PageAccess expected = ProtectionEnforcer::AccessOf(map_->Rights(level, Gpfn(page)));
        ASSERT_EQ(Access(page, level), expected) << level << " " << page;
        ASSERT_EQ(IsPrivate(page, level), expected == PageAccess::kNone) << level << " " << page;
      }
    }
  }

  std::unique_ptr<ProtectionMap> map_;
  std::vector<std::unique_ptr<GuestView>> views_;
  std::vector<FakePageAttributes> attributes_;
  std::unique_ptr<ProtectionEnforcer> enforcer_;
};

TEST(ProtectionEnforcerRoundingTest, RightsAreRoundedUpToWhatAMappingCanSay) {
  struct {
    PageRights rights;
    PageAccess access;
    PageRights rounded;
  } constexpr kRows[] = {
      {kNone, PageAccess::kNone, kNone},         {kR, PageAccess::kRead, kRx},
      {kRux, PageAccess::kRead, kRx},            {kRx, PageAccess::kRead, kRx},
      {kRw, PageAccess::kReadWrite, kAll},       {kRwux, PageAccess::kReadWrite, kAll},
      {kAll, PageAccess::kReadWrite, kAll},      {PageRights(0x2), PageAccess::kReadWrite, kAll},  // write alone
      {PageRights(0xc), PageAccess::kRead, kRx},  // execution alone
  };
  for (const auto& row : kRows) {
    EXPECT_EQ(ProtectionEnforcer::AccessOf(row.rights), row.access) << int{row.rights.bits()};
    EXPECT_EQ(ProtectionEnforcer::RoundUp(row.rights), row.rounded) << int{row.rights.bits()};
  }
  // Never less than asked for.
  for (uint8_t bits = 0; bits < 16; ++bits) {
    EXPECT_EQ(ProtectionEnforcer::RoundUp(PageRights(bits)) & PageRights(bits), PageRights(bits)) << int{bits};
  }
}

TEST_F(ProtectionEnforcerTest, CreateRefusesLevelsThatThereAreNot) {
  EXPECT_THAT(ProtectionEnforcer::Create(*map_, {}, Unenforceable::kRefuse).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, "of 0 levels: 1 to 2"));
}

TEST_F(ProtectionEnforcerTest, BringsViewAttributesAndMapInStep) {
  EXPECT_EQ(Protect(1, kNone, {5, 6, 7, 9}).status, ProtectStatus::kDone);
  EXPECT_EQ(Access(6), PageAccess::kNone);
  EXPECT_TRUE(IsPrivate(9));
  EXPECT_EQ(map_->Rights(0, Gpfn(9)), kNone);
  ExpectInStep();
  EXPECT_EQ(Protect(1, kRx, {6, 7, 8}).status, ProtectStatus::kDone);
  EXPECT_EQ(Access(8), PageAccess::kRead);
  EXPECT_FALSE(IsPrivate(6));
  ExpectInStep();
  EXPECT_EQ(Protect(1, kAll, {5, 6, 7, 8, 9}).status, ProtectStatus::kDone);
  ExpectInStep();
  EXPECT_EQ(views_[0]->protected_pieces(), 0u);
  EXPECT_EQ(attributes_[0].private_pages.size(), 0u);
}

TEST_F(ProtectionEnforcerTest, PagesInARowAreChangedTogetherAndThoseThatAreSoAlreadyNotAtAll) {
  std::vector<uint64_t> row;
  for (uint64_t page = 100; page < 228; ++page) row.push_back(page);
  EXPECT_EQ(Protect(1, kNone, row).done, 128u);
  EXPECT_EQ(enforcer_->stats().runs, 1u);
  EXPECT_EQ(attributes_[0].calls, 1);
  EXPECT_EQ(Protect(1, kNone, row).done, 128u);
  EXPECT_EQ(enforcer_->stats().pages, 256u);
  EXPECT_EQ(attributes_[0].calls, 1);
  EXPECT_EQ(Protect(1, kNone, {300, 302, 301}).done, 3u);
  EXPECT_EQ(enforcer_->stats().runs, 5u);
  EXPECT_EQ(attributes_[0].calls, 4);
  ExpectInStep();
}

TEST_F(ProtectionEnforcerTest, WithoutAttributesTheMappingAloneIsChanged) {
  Make(2, Unenforceable::kRefuse, /*with_attributes=*/false);
  EXPECT_EQ(Protect(1, kNone, {5}).status, ProtectStatus::kDone);
  EXPECT_EQ(Access(5), PageAccess::kNone);
  EXPECT_EQ(attributes_[0].calls, 0);
}

TEST_F(ProtectionEnforcerTest, RefusesWhatItCannotEnforce) {
  for (const PageRights rights : {kR, kRw, kRux, kRwux}) {
    const auto result = Protect(1, rights, {5});
    EXPECT_EQ(result.status, ProtectStatus::kNotEnforceable) << int{rights.bits()};
    EXPECT_EQ(result.done, 0u);
    EXPECT_EQ(map_->Rights(0, Gpfn(5)), kAll);
  }
  EXPECT_EQ(enforcer_->SetDefault(1, kRw), ProtectStatus::kNotEnforceable);
  EXPECT_EQ(enforcer_->SetDefault(1, kAll), ProtectStatus::kDone);  // is not used up by the refusal
  EXPECT_EQ(enforcer_->stats().not_enforceable, 5u);
  EXPECT_EQ(enforcer_->stats().rounded, 0u);
  ExpectInStep();
}

TEST_F(ProtectionEnforcerTest, RoundsWhereItIsToldToAndSaysSo) {
  Make(2, Unenforceable::kRound, true);
  EXPECT_EQ(Protect(1, kR, {5}).status, ProtectStatus::kDone);
  EXPECT_EQ(Protect(1, kRw, {6, 7}).status, ProtectStatus::kDone);
  EXPECT_EQ(Protect(1, kRx, {8}).status, ProtectStatus::kDone);
  EXPECT_EQ(enforcer_->stats().rounded, 3u);
  EXPECT_EQ(enforcer_->stats().pages, 4u);
  EXPECT_EQ(map_->Rights(0, Gpfn(5)), kR);  // what was asked for is kept
  EXPECT_EQ(enforcer_->Enforced(0, Gpfn(5)), kRx);
  EXPECT_EQ(enforcer_->Enforced(0, Gpfn(6)), kAll);
  EXPECT_EQ(enforcer_->SetDefault(1, kRw), ProtectStatus::kDone);
  EXPECT_EQ(enforcer_->stats().rounded, 4u);
  EXPECT_EQ(map_->Rights(0, Gpfn(1)), kRw);
  EXPECT_EQ(enforcer_->SetDefault(1, kRw), ProtectStatus::kDefaultIsFixed);
  ExpectInStep();
}

TEST_F(ProtectionEnforcerTest, RefusesWhatTheInterfaceDoesNotHave) {
  Make(2, Unenforceable::kRound, true);
  EXPECT_EQ(Protect(1, PageRights(0x2), {5}).status, ProtectStatus::kNotLegal);
  EXPECT_EQ(Protect(1, PageRights(0x5), {5}).status, ProtectStatus::kNotLegal);
  for (const PageRights rights : {kNone, kR, kRx}) EXPECT_EQ(enforcer_->SetDefault(1, rights), ProtectStatus::kNotLegal);
  ExpectInStep();
}

TEST_F(ProtectionEnforcerTest, StopsAtAPageOutsideRamWithThoseBeforeItDone) {
  for (const uint64_t outside : {kPages, uint64_t{1} << 52, UINT64_MAX}) {
    const auto result = Protect(1, kNone, {3, 4, outside, 10});
    EXPECT_EQ(result.status, ProtectStatus::kNotRam);
    EXPECT_EQ(result.done, 2u);
    EXPECT_EQ(Access(10), PageAccess::kReadWrite);
  }
  EXPECT_EQ(Protect(1, kNone, {UINT64_MAX}).done, 0u);
  ExpectInStep();
}

TEST_F(ProtectionEnforcerTest, AGuestThatAlternatesGetsAStatusAndGoesOnWithinWhatThereIs) {
  std::vector<uint64_t> every_other;
  for (uint64_t page = 1; page < 40; page += 2) every_other.push_back(page);
  const auto result = Protect(1, kNone, every_other);
  EXPECT_EQ(result.status, ProtectStatus::kTooManyPieces);
  EXPECT_EQ(result.done, kPieces / 2);
  EXPECT_EQ(enforcer_->stats().too_many_pieces, 1u);
  ExpectInStep();
  EXPECT_EQ(Protect(1, kRx, {21}).status, ProtectStatus::kTooManyPieces);
  EXPECT_EQ(Protect(1, kNone, {2}).status, ProtectStatus::kDone);  // joins two
  EXPECT_EQ(Protect(1, kNone, {21}).status, ProtectStatus::kDone);
  EXPECT_EQ(Protect(1, kAll, {1, 2, 3, 5, 7, 21}).status, ProtectStatus::kDone);
  EXPECT_EQ(views_[0]->protected_pieces(), 0u);
  ExpectInStep();
}

TEST_F(ProtectionEnforcerTest, ARangeOfDifferentPagesIsDoneAlsoWhenNoPieceIsFree) {
  // Eight borders, and one change that has as many behind it, but one more on the way.
  ASSERT_EQ(Protect(1, kNone, {10, 20, 30}).status, ProtectStatus::kDone);
  ASSERT_EQ(Protect(1, kRx, {31}).status, ProtectStatus::kDone);
  ASSERT_EQ(Protect(1, kNone, {32}).status, ProtectStatus::kDone);
  ASSERT_EQ(views_[0]->protected_pieces(), kPieces);
  EXPECT_EQ(Protect(1, kRx, {29, 30, 31, 32, 33}).status, ProtectStatus::kDone);
  ExpectInStep();
}

TEST_F(ProtectionEnforcerTest, WhereTheHostRefusesAttributesThePageIsAsItWas) {
  attributes_[0].calls_until_refusal = 1;
  auto result = Protect(1, kNone, {5, 7});
  EXPECT_EQ(result.status, ProtectStatus::kHostRefused);
  EXPECT_EQ(result.done, 1u);
  ExpectInStep();
  // Giving back: the view had followed already.
  attributes_[0].calls_until_refusal = 0;
  result = Protect(1, kAll, {5});
  EXPECT_EQ(result.status, ProtectStatus::kHostRefused);
  EXPECT_EQ(result.done, 0u);
  EXPECT_EQ(map_->Rights(0, Gpfn(5)), kNone);
  EXPECT_EQ(enforcer_->stats().host_refused, 2u);
  ExpectInStep();
  EXPECT_EQ(Protect(1, kAll, {5}).status, ProtectStatus::kDone);
  ExpectInStep();
}

TEST_F(ProtectionEnforcerTest, EachOwnerRestrictsAllLevelsBelowItAndAllOwnersMustAllow) {
  Make(3, Unenforceable::kRefuse, true);
  EXPECT_EQ(Protect(2, kRx, {5, 6}).status, ProtectStatus::kDone);
  EXPECT_EQ(Access(5, 0), PageAccess::kRead);
  EXPECT_EQ(Access(5, 1), PageAccess::kRead);
  EXPECT_EQ(Protect(1, kNone, {6, 7}).status, ProtectStatus::kDone);
  EXPECT_EQ(Access(6, 0), PageAccess::kNone);
  EXPECT_EQ(Access(6, 1), PageAccess::kRead);
  EXPECT_EQ(Access(7, 1), PageAccess::kReadWrite);
  EXPECT_EQ(Protect(1, kAll, {5, 6, 7}).status, ProtectStatus::kDone);
  EXPECT_EQ(Access(6, 0), PageAccess::kRead);
  ExpectInStep();
}

TEST_F(ProtectionEnforcerTest, WhereOneLevelsHostRefusesTheOtherLevelsGoBack) {
  Make(3, Unenforceable::kRefuse, true);
  ASSERT_EQ(Protect(1, kRx, {5, 6}).status, ProtectStatus::kDone);
  attributes_[1].calls_until_refusal = 0;
  const auto result = Protect(2, kNone, {4, 5, 6});
  EXPECT_EQ(result.status, ProtectStatus::kHostRefused);
  EXPECT_EQ(result.done, 0u);
  EXPECT_EQ(Access(5, 0), PageAccess::kRead);
  ExpectInStep();
}

TEST_F(ProtectionEnforcerTest, ResetGivesEverythingBack) {
  ASSERT_EQ(Protect(1, kNone, {0, 5, kPages - 1}).status, ProtectStatus::kDone);
  enforcer_->Reset();
  EXPECT_EQ(map_->Rights(0, Gpfn(5)), kAll);
  EXPECT_EQ(views_[0]->protected_pieces(), 0u);
  ExpectInStep();
}

}  // namespace
}  // namespace vmm
