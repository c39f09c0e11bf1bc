#include "memory/page_access_table.h"

#include <algorithm>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "memory/layout.h"

namespace vmm {
namespace {

constexpr PageAccess kRw = PageAccess::kReadWrite;
constexpr PageAccess kR = PageAccess::kRead;
constexpr PageAccess kNone = PageAccess::kNone;

std::unique_ptr<PageAccessTable> Make(uint64_t bytes) { return *PageAccessTable::Create(*MemoryLayout::Create(bytes)); }

TEST(PageAccessTableTest, AllowsAllInOnePieceUntilTold) {
  const auto table = Make(64 * kMiB);
  EXPECT_EQ(table->Get(Gpfn(0)), kRw);
  EXPECT_EQ(table->RunLength(Gpfn(3), 16381), 16381u);
  EXPECT_EQ(table->borders(), 0u);
}

TEST(PageAccessTableTest, CountsBordersAsRangesComeGrowMeetAndGo) {
  const auto table = Make(64 * kMiB);
  table->Set(Gpfn(100), 10, kNone);
  EXPECT_EQ(table->borders(), 2u);
  table->Set(Gpfn(110), 10, kNone);  // grows
  EXPECT_EQ(table->borders(), 2u);
  table->Set(Gpfn(120), 1, kR);  // a neighbour of another kind
  EXPECT_EQ(table->borders(), 3u);
  table->Set(Gpfn(105), 1, kRw);  // a hole
  EXPECT_EQ(table->borders(), 5u);
  EXPECT_EQ(table->RunLength(Gpfn(100), 100), 5u);
  EXPECT_EQ(table->RunLength(Gpfn(105), 100), 1u);
  EXPECT_EQ(table->RunLength(Gpfn(106), 100), 14u);
  EXPECT_EQ(table->BordersAfter(Gpfn(90), 100, kR), 2u);
  table->Set(Gpfn(90), 100, kRw);
  EXPECT_EQ(table->borders(), 0u);
}

TEST(PageAccessTableTest, TheEndsOfEachRangeOfRamAreNoBorders) {
  const auto table = Make(3 * kGiB + 2 * kPageBytes);
  table->Set(Gpfn(0), 1, kNone);
  EXPECT_EQ(table->borders(), 1u);
  table->Set(Gpfn(3 * kGiB / kPageBytes - 1), 1, kNone);
  EXPECT_EQ(table->borders(), 2u);
  table->Set(Gpfn(4 * kGiB / kPageBytes), 2, kR);  // all of the second range
  EXPECT_EQ(table->borders(), 2u);
  table->Set(Gpfn(4 * kGiB / kPageBytes + 1), 1, kRw);
  EXPECT_EQ(table->borders(), 3u);
  table->Reset();
  EXPECT_EQ(table->borders(), 0u);
  EXPECT_EQ(table->Get(Gpfn(0)), kRw);
}

TEST(PageAccessTableTest, AgreesWithAPlainArrayOverRandomRanges) {
  constexpr uint64_t kPages = kMiB / kPageBytes;  // 256: eight words
  const auto table = Make(kMiB);
  std::vector<PageAccess> model(kPages, kRw);
  std::minstd_rand random(7);
  for (int round = 0; round < 20'000; ++round) {
    const uint64_t first = random() % kPages;
    const uint64_t pages = 1 + random() % (random() % 4 == 0 ? kPages - first : std::min<uint64_t>(3, kPages - first));
    const auto access = static_cast<PageAccess>(random() % 3);
    const uint64_t announced = table->BordersAfter(Gpfn(first), pages, access);
    table->Set(Gpfn(first), pages, access);
    std::fill_n(model.begin() + static_cast<ptrdiff_t>(first), pages, access);
    uint64_t borders = 0;
    for (uint64_t page = 1; page < kPages; ++page) borders += model[page] != model[page - 1] ? 1 : 0;
    ASSERT_EQ(table->borders(), borders);
    ASSERT_EQ(table->protected_pages(), static_cast<uint64_t>(std::ranges::count_if(model, [](PageAccess a) { return a != kRw; })));
    ASSERT_EQ(announced, borders);
    const uint64_t looked_at = random() % kPages;
    ASSERT_EQ(table->Get(Gpfn(looked_at)), model[looked_at]);
    uint64_t run = 1;
    while (looked_at + run < kPages && model[looked_at + run] == model[looked_at]) ++run;
    ASSERT_EQ(table->RunLength(Gpfn(looked_at), kPages - looked_at), run);
  }
}

}  // namespace
}  // namespace vmm
