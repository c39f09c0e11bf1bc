// The machine is AccessTrace's: linear addresses are mapped to themselves. Text beside code is what an assembler was given.
#include "vmm/hyperv/refused_access.h"

#include <cstring>
#include <optional>

#include <gtest/gtest.h>

#include "memory/gpa.h"
#include "memory/page_rights.h"
#include "vcpu/access_decoder/access_trace.h"

namespace vmm {
namespace {

constexpr PageRights kNone = PageRights::None();
constexpr PageRights kReadExecute(PageRights::kRead | PageRights::kKernelExecute | PageRights::kUserExecute);
constexpr char kMovs[] = "a4";                // movsb, from RSI (0x6008) to RDI (0x7008)
constexpr uint64_t kSource = 0x6008, kTarget = 0x7008;

class RefusedAccessTest : public testing::Test {
 protected:
  RefusedAccess Find(std::optional<uint64_t> named) {
    const auto page = named.has_value() ? std::optional(Gpa(*named).page()) : std::nullopt;
    return FindRefusedAccess(trace_.registers, event_, *trace_.memory, trace_.view, trace_.vectors, page);
  }
  static void ExpectAt(uint64_t gpa, AccessKind kind, const RefusedAccess& found) {
    ASSERT_EQ(found.decoding.finding, AccessFinding::kViolation);
    EXPECT_EQ(found.decoding.violation.gpa, Gpa(gpa));
    EXPECT_EQ(found.decoding.violation.gva, gpa);
    EXPECT_EQ(found.decoding.violation.kind, kind);
  }

  AccessTrace trace_;
  std::optional<AccessEvent> event_;
};

TEST_F(RefusedAccessTest, WithoutAWordOfKvmsItIsTheDecodersFirst) {
  trace_.PutCode(kMovs);
  trace_.view.Set(kSource, kNone);
  trace_.view.Set(kTarget, kNone);
  const RefusedAccess found = Find(std::nullopt);
  EXPECT_EQ(found.agreement, PageAgreement::kNotNamed);
  ExpectAt(kSource, AccessKind::kRead, found);
}

TEST_F(RefusedAccessTest, ThePageThatBothNameHasTheDecodersAddress) {
  trace_.PutCode(kMovs);
  trace_.view.Set(kTarget, kNone);
  const RefusedAccess found = Find(kTarget & ~0xfff);
  EXPECT_EQ(found.agreement, PageAgreement::kSame);
  ExpectAt(kTarget, AccessKind::kWrite, found);
}

TEST_F(RefusedAccessTest, OfTwoRefusedPagesItIsTheOneThatKvmNames) {
  trace_.PutCode(kMovs);
  trace_.view.Set(kSource, kNone);
  trace_.view.Set(kTarget, kNone);
  EXPECT_EQ(Find(kSource).agreement, PageAgreement::kSame);
  const RefusedAccess found = Find(kTarget);
  EXPECT_EQ(found.agreement, PageAgreement::kOtherFirst);
  ExpectAt(kTarget, AccessKind::kWrite, found);
  EXPECT_EQ(found.decoding.violation.instruction_length, 1);
}

TEST_F(RefusedAccessTest, APageThatHasBeenFreedSinceSaysNothing) {
  trace_.PutCode(kMovs);
  EXPECT_EQ(Find(kSource).agreement, PageAgreement::kOutdated);
  EXPECT_EQ(Find(kSource).decoding.finding, AccessFinding::kNone);
  // Nor one that may be read by now, where the access that the decoder finds is another.
  trace_.view.Set(kSource, kReadExecute);
  trace_.view.Set(kTarget, kReadExecute);
  const RefusedAccess found = Find(kSource);
  EXPECT_EQ(found.agreement, PageAgreement::kOutdated);
  ExpectAt(kTarget, AccessKind::kWrite, found);
}

// Another processor frees the page and protects it again while the fault is looked at: it is one page, and no disagreement.
TEST_F(RefusedAccessTest, APageWhoseProtectionChangesMeanwhileIsAskedForOnce) {
  class Changing final : public LevelView {
   public:
    [[nodiscard]] PageRights Rights(Gpfn page) const noexcept override {
      if (page != Gpa(kTarget).page()) return PageRights();
      return asked_++ % 2 == 0 ? kNone : PageRights();
    }
    [[nodiscard]] const std::byte* Overlay(Gpfn) const noexcept override { return nullptr; }

   private:
    mutable int asked_ = 0;
  };
  trace_.PutCode(kMovs);
  const Changing view;
  const RefusedAccess found =
      FindRefusedAccess(trace_.registers, event_, *trace_.memory, view, trace_.vectors, Gpa(kTarget).page());
  EXPECT_EQ(found.agreement, PageAgreement::kSame);
  ExpectAt(kTarget, AccessKind::kWrite, found);
}

TEST_F(RefusedAccessTest, APageThatNothingAccessesIsUnexplainedWhateverElseIsRefused) {
  trace_.PutCode(kMovs);
  trace_.view.Set(0x9000, kNone);
  EXPECT_EQ(Find(0x9000).agreement, PageAgreement::kUnexplained);
  EXPECT_EQ(Find(0x9000).decoding.finding, AccessFinding::kNone);
  trace_.view.Set(kSource, kNone);
  EXPECT_EQ(Find(0x9000).agreement, PageAgreement::kUnexplained);
  ExpectAt(kSource, AccessKind::kRead, Find(0x9000));
}

TEST_F(RefusedAccessTest, AnInstructionThatTheDecoderDoesNotKnowIsUnexplained) {
  trace_.PutCode("0fc736");  // vmptrld (%rsi)
  trace_.view.Set(kSource, kNone);
  const RefusedAccess found = Find(kSource);
  EXPECT_EQ(found.agreement, PageAgreement::kUnexplained);
  EXPECT_EQ(found.decoding.finding, AccessFinding::kUnknown);
}

TEST_F(RefusedAccessTest, FetchesAndPageTablesAreFoundByTheirPage) {
  trace_.PutCode(kMovs);
  trace_.view.Set(AccessTrace::kCode, kNone);
  const RefusedAccess fetch = Find(AccessTrace::kCode);
  EXPECT_EQ(fetch.agreement, PageAgreement::kSame);
  ExpectAt(AccessTrace::kCode, AccessKind::kExecute, fetch);
  trace_.view.Set(AccessTrace::kCode, PageRights());
  const Gpa entry = trace_.tables.EntryAt(kTarget, 1);
  trace_.view.Set(entry.raw(), kNone);
  const RefusedAccess walk = Find(entry.raw());
  EXPECT_EQ(walk.agreement, PageAgreement::kSame);
  ASSERT_EQ(walk.decoding.finding, AccessFinding::kViolation);
  EXPECT_TRUE(walk.decoding.violation.page_table);
  EXPECT_EQ(walk.decoding.violation.gpa.page(), entry.page());
}

TEST_F(RefusedAccessTest, AnEventsDeliveryIsLookedAtBeforeTheInstruction) {
  trace_.PutCode(kMovs);
  trace_.view.Set(kSource, kNone);
  trace_.view.Set(AccessTrace::kIdt, kNone);
  event_ = AccessEvent{.vector = 14, .has_error_code = true, .software = false};
  const RefusedAccess found = Find(AccessTrace::kIdt);
  EXPECT_EQ(found.agreement, PageAgreement::kSame);
  EXPECT_EQ(found.decoding.violation.gpa.page(), Gpa(AccessTrace::kIdt).page());
  EXPECT_EQ(Find(kSource).agreement, PageAgreement::kOtherFirst);
}

TEST_F(RefusedAccessTest, KvmsWordAloneIsAPageAndWhatIsKnownOfTheInstruction) {
  trace_.PutCode(kMovs);
  trace_.view.Set(kTarget, kNone);
  const RefusedAccess found = Find(kTarget);
  const AccessViolation violation = ViolationAt(Gpfn(9), found.decoding);
  EXPECT_EQ(violation.gpa, Gpa(0x9000));
  EXPECT_FALSE(violation.gva.has_value());
  EXPECT_EQ(violation.kind, AccessKind::kRead);
  EXPECT_EQ(violation.instruction_length, 1);
  EXPECT_EQ(violation.bytes[0], std::byte{0xa4});
}

}  // namespace
}  // namespace vmm
