#include "memory/protection_map.h"

#include <array>
#include <map>
#include <optional>
#include <random>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>

#include "absl/status/status.h"
#include "memory/recording_listener.h"

namespace vmm {
namespace {

constexpr PageRights kNone = PageRights::None();
constexpr PageRights kR(1);
constexpr PageRights kRw(3);
constexpr PageRights kRx(0xd);
constexpr PageRights kAll;
constexpr PageRights kRwUx(0xb);

using Changes = std::vector<RecordingListener::Change>;
using Ranges = std::vector<std::tuple<uint64_t, uint64_t, uint8_t>>;

Ranges RangesOf(const ProtectionMap& map, unsigned level, uint64_t first, uint64_t pages) {
  Ranges ranges;
  map.ForEachRange(level, Gpfn(first), pages, [&](Gpfn start, uint64_t count, PageRights rights) {
    ranges.emplace_back(start.raw(), count, rights.bits());
  });
  return ranges;
}

class ProtectionMapTest : public testing::Test {
 protected:
  std::unique_ptr<ProtectionMap> Make(uint64_t bytes, unsigned levels) {
    return *ProtectionMap::Create(*MemoryLayout::Create(bytes), levels);
  }
  static constexpr uint64_t kPages = 64 * kMiB / kPageBytes;  // two chunks of the table
  std::unique_ptr<ProtectionMap> map_ = Make(64 * kMiB, 2);
  RecordingListener listener_;
};

TEST(PageRightsTest, LegalCombinations) {
  for (uint32_t flags = 0; flags < 64; ++flags) {
    const bool always = flags == 0 || flags == 1 || flags == 3 || flags == 0xd || flags == 0xf;
    const bool mode_based = always || flags == 9 || flags == 0xb;
    EXPECT_EQ(PageRights::FromMapFlags(flags, false).has_value(), always) << flags;
    EXPECT_EQ(PageRights::FromMapFlags(flags, true).has_value(), mode_based) << flags;
  }
  EXPECT_EQ(PageRights::FromMapFlags(0x8000'0003, true), std::nullopt);
  EXPECT_EQ(PageRights::FromMapFlags(0xd, false), kRx);
}

TEST_F(ProtectionMapTest, AllowsAllUntilTold) {
  EXPECT_EQ(map_->Rights(0, Gpfn(0)), kAll);
  EXPECT_EQ(map_->Rights(0, Gpfn(kPages)), kAll);
  EXPECT_EQ(RangesOf(*map_, 0, 0, ~uint64_t{0}), (Ranges{{0, kPages, 0xf}}));
}

TEST_F(ProtectionMapTest, NamedPagesHaveTheirRights) {
  for (const PageRights rights : {kNone, kR, kRw, kRx, kRwUx, PageRights(9), kAll}) {
    EXPECT_EQ(map_->Set(1, Gpfn(7), 1, rights, listener_), ProtectionResult::kDone);
    EXPECT_EQ(map_->Rights(0, Gpfn(7)), rights);
    EXPECT_EQ(map_->Imposed(1, Gpfn(7)), rights);
    EXPECT_EQ(map_->Rights(1, Gpfn(7)), kAll);  // no level restricts itself
    EXPECT_EQ(map_->Rights(0, Gpfn(6)), kAll);
    EXPECT_EQ(map_->Rights(0, Gpfn(8)), kAll);
  }
}

TEST_F(ProtectionMapTest, RefusesIllegalCombinations) {
  for (const uint8_t bits : {2, 4, 5, 6, 8, 12, 14}) {
    EXPECT_EQ(map_->Set(1, Gpfn(7), 1, PageRights(bits), listener_), ProtectionResult::kNotLegal) << int{bits};
    EXPECT_EQ(map_->SetDefault(1, PageRights(bits), listener_), ProtectionResult::kNotLegal);
  }
  EXPECT_EQ(map_->Rights(0, Gpfn(7)), kAll);
}

TEST_F(ProtectionMapTest, RefusesWhatIsNotRam) {
  EXPECT_EQ(map_->Set(1, Gpfn(kPages), 1, kR, listener_), ProtectionResult::kNotRam);
  EXPECT_EQ(map_->Set(1, Gpfn(kPages - 1), 2, kR, listener_), ProtectionResult::kNotRam);
  EXPECT_EQ(map_->Set(1, Gpfn(1), ~uint64_t{0}, kR, listener_), ProtectionResult::kNotRam);
  EXPECT_EQ(map_->Set(1, Gpfn(~uint64_t{0}), 2, kR, listener_), ProtectionResult::kNotRam);
  EXPECT_EQ(listener_.Take(), Changes{});
  EXPECT_EQ(map_->Rights(0, Gpfn(kPages - 1)), kAll);
}

TEST_F(ProtectionMapTest, TheHoleIsNotRam) {
  const auto map = Make(4 * kGiB, 2);
  const uint64_t hole = 3 * kGiB / kPageBytes;
  const uint64_t high = 4 * kGiB / kPageBytes;
  EXPECT_EQ(map->Set(1, Gpfn(hole), 1, kR, listener_), ProtectionResult::kNotRam);
  EXPECT_EQ(map->Set(1, Gpfn(hole - 1), high - hole + 2, kR, listener_), ProtectionResult::kNotRam);
  EXPECT_EQ(map->SetDefault(1, kRw, listener_), ProtectionResult::kDone);
  EXPECT_EQ(map->Rights(0, Gpfn(hole)), kAll);
  EXPECT_EQ(map->Rights(0, Gpfn(high)), kRw);
  EXPECT_EQ(listener_.Take(), (Changes{{0, 0, hole, 0xf, 3}, {0, high, kGiB / kPageBytes, 0xf, 3}}));
  EXPECT_EQ(RangesOf(*map, 0, hole - 1, high - hole + 2), (Ranges{{hole - 1, 1, 3}, {high, 1, 3}}));
  EXPECT_EQ(RangesOf(*map, 0, hole, high - hole), Ranges{});
}

TEST_F(ProtectionMapTest, ChangesAreToldInMergedRanges) {
  EXPECT_EQ(map_->Set(1, Gpfn(100), 50, kR, listener_), ProtectionResult::kDone);
  EXPECT_EQ(listener_.Take(), (Changes{{0, 100, 50, 0xf, 1}}));
  EXPECT_EQ(map_->Set(1, Gpfn(120), 10, kR, listener_), ProtectionResult::kDone);
  EXPECT_EQ(listener_.Take(), Changes{});
  EXPECT_EQ(map_->Set(1, Gpfn(90), 20, kRw, listener_), ProtectionResult::kDone);
  EXPECT_EQ(listener_.Take(), (Changes{{0, 90, 10, 0xf, 3}, {0, 100, 10, 1, 3}}));
  EXPECT_EQ(RangesOf(*map_, 0, 0, kPages), (Ranges{{0, 90, 0xf}, {90, 20, 3}, {110, 40, 1}, {150, kPages - 150, 0xf}}));
  EXPECT_EQ(RangesOf(*map_, 0, 95, 20), (Ranges{{95, 15, 3}, {110, 5, 1}}));
}

TEST_F(ProtectionMapTest, ListedPagesAreMergedAndStopAtTheFirstBadOne) {
  const std::array<uint64_t, 7> pages = {5, 6, 7, 9, 8, kPages, 10};
  const ProtectionMap::ListResult result = map_->SetPages(1, pages, kNone, listener_);
  EXPECT_EQ(result.result, ProtectionResult::kNotRam);
  EXPECT_EQ(result.done, 5u);
  EXPECT_EQ(listener_.Take(), (Changes{{0, 5, 3, 0xf, 0}, {0, 9, 1, 0xf, 0}, {0, 8, 1, 0xf, 0}}));
  EXPECT_EQ(map_->Rights(0, Gpfn(10)), kAll);
  const ProtectionMap::ListResult whole = map_->SetPages(1, std::span(pages).first(5), kR, listener_);
  EXPECT_EQ(whole.result, ProtectionResult::kDone);
  EXPECT_EQ(whole.done, 5u);
  EXPECT_EQ(map_->SetPages(1, std::span(pages).first(5), PageRights(2), listener_).result, ProtectionResult::kNotLegal);
}

TEST_F(ProtectionMapTest, TheListenerSeesTheMapChanged) {
  class Looking final : public ProtectionMap::Listener {
   public:
    explicit Looking(const ProtectionMap& map) : map_(map) {}
    void OnChange(unsigned level, Gpfn first, uint64_t pages, PageRights, PageRights after) noexcept override {
      EXPECT_EQ(map_.Rights(level, first), after);
      EXPECT_EQ(map_.Rights(level, Gpfn(first.raw() + pages - 1)), after);
      ++calls;
    }
    int calls = 0;

   private:
    const ProtectionMap& map_;
  };
  Looking looking(*map_);
  EXPECT_EQ(map_->Set(1, Gpfn(3), 9, kR, looking), ProtectionResult::kDone);
  EXPECT_EQ(map_->SetDefault(1, kRw, looking), ProtectionResult::kDone);
  EXPECT_EQ(looking.calls, 3);
}

TEST_F(ProtectionMapTest, TheDefaultIsSetOnceAndLeavesNamedPages) {
  EXPECT_EQ(map_->Set(1, Gpfn(10), 1, kAll, listener_), ProtectionResult::kDone);
  EXPECT_EQ(listener_.Take(), Changes{});
  EXPECT_EQ(map_->SetDefault(1, kRx, listener_), ProtectionResult::kDone);
  EXPECT_EQ(listener_.Take(), (Changes{{0, 0, 10, 0xf, 0xd}, {0, 11, kPages - 11, 0xf, 0xd}}));
  EXPECT_EQ(map_->SetDefault(1, kNone, listener_), ProtectionResult::kDefaultIsFixed);
  EXPECT_EQ(map_->Rights(0, Gpfn(10)), kAll);
  EXPECT_EQ(map_->Rights(0, Gpfn(11)), kRx);
  map_->Reset();
  EXPECT_EQ(map_->Rights(0, Gpfn(10)), kAll);
  EXPECT_EQ(map_->Rights(0, Gpfn(11)), kAll);
  EXPECT_EQ(map_->SetDefault(1, kNone, listener_), ProtectionResult::kDone);
  EXPECT_EQ(map_->Rights(0, Gpfn(10)), kNone);
}

TEST_F(ProtectionMapTest, SeveralOwnersAreAllObeyed) {
  const auto map = Make(64 * kMiB, 3);
  EXPECT_EQ(map->Set(2, Gpfn(4), 4, kRx, listener_), ProtectionResult::kDone);
  EXPECT_EQ(listener_.Take(), (Changes{{0, 4, 4, 0xf, 0xd}, {1, 4, 4, 0xf, 0xd}}));
  EXPECT_EQ(map->Set(1, Gpfn(6), 4, kRw, listener_), ProtectionResult::kDone);
  EXPECT_EQ(listener_.Take(), (Changes{{0, 6, 2, 0xd, 1}, {0, 8, 2, 0xf, 3}}));
  EXPECT_EQ(map->Rights(0, Gpfn(6)), kR);
  EXPECT_EQ(map->Rights(1, Gpfn(6)), kRx);
  EXPECT_EQ(map->Rights(2, Gpfn(6)), kAll);
  EXPECT_EQ(map->RefusingOwner(0, Gpfn(6), PageRights(2)), 2u);
  EXPECT_EQ(map->RefusingOwner(0, Gpfn(6), PageRights(4)), 1u);
  EXPECT_EQ(map->RefusingOwner(0, Gpfn(6), PageRights(6)), 1u);  // both refuse: the lowest
  EXPECT_EQ(map->RefusingOwner(0, Gpfn(6), kR), std::nullopt);
  EXPECT_EQ(map->RefusingOwner(1, Gpfn(6), PageRights(2)), 2u);
  EXPECT_EQ(map->RefusingOwner(1, Gpfn(6), PageRights(4)), std::nullopt);
}

TEST(ProtectionMapCreateTest, LevelsAreBounded) {
  const MemoryLayout layout = *MemoryLayout::Create(kMiB);
  EXPECT_EQ(ProtectionMap::Create(layout, 0).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ProtectionMap::Create(layout, 4).status().code(), absl::StatusCode::kInvalidArgument);
  const auto map = *ProtectionMap::Create(layout, 1);
  EXPECT_EQ(map->Rights(0, Gpfn(0)), kAll);
}

TEST(ProtectionMapCreateTest, ATebibyteIsMappedToItsLastPage) {
  const auto map = *ProtectionMap::Create(*MemoryLayout::Create(1024 * kGiB), 2);
  RecordingListener listener;
  const uint64_t last = 1025 * kGiB / kPageBytes - 1;
  EXPECT_EQ(map->Set(1, Gpfn(last), 1, kNone, listener), ProtectionResult::kDone);
  EXPECT_EQ(map->Set(1, Gpfn(last + 1), 1, kNone, listener), ProtectionResult::kNotRam);
  EXPECT_EQ(map->SetDefault(1, kRw, listener), ProtectionResult::kDone);
  EXPECT_EQ(map->Rights(0, Gpfn(last)), kNone);
  const uint64_t high = 4 * kGiB / kPageBytes;
  EXPECT_EQ(RangesOf(*map, 0, 0, ~uint64_t{0}),
            (Ranges{{0, 3 * kGiB / kPageBytes, 3}, {high, last - high, 3}, {last, 1, 0}}));
}

// Against a map of page to rights for each owner, which knows nothing of bits, chunks and ranges.
TEST(ProtectionMapPropertyTest, AgreesWithAMapOfPages) {
  std::mt19937 random(6);
  constexpr uint64_t kPages = 80 * kMiB / kPageBytes;
  const std::array<PageRights, 7> legal = {kNone, kR, kRw, kRx, PageRights(9), kRwUx, kAll};
  const auto map = *ProtectionMap::Create(*MemoryLayout::Create(80 * kMiB), 3);
  std::array<std::map<uint64_t, PageRights>, 3> named;
  std::array<std::optional<PageRights>, 3> defaults;
  const auto imposed = [&](unsigned owner, uint64_t page) {
    const auto found = named[owner].find(page);
    return found != named[owner].end() ? found->second : defaults[owner].value_or(PageRights());
  };
  const auto effective = [&](unsigned level, uint64_t page) {
    PageRights rights;
    for (unsigned owner = level + 1; owner < 3; ++owner) rights = rights & imposed(owner, page);
    return rights;
  };
  // What a listener that applies every change knows.
  std::array<std::vector<PageRights>, 3> applied = {std::vector<PageRights>(kPages), std::vector<PageRights>(kPages),
                                                    std::vector<PageRights>(kPages)};
  RecordingListener listener;
  for (int step = 0; step < 4000; ++step) {
    const unsigned owner = 1 + random() % 2;
    const PageRights rights = legal[random() % legal.size()];
    // Near the ends of the table's chunks, where there is something to go wrong, or anywhere.
    const uint64_t first = random() % 2 == 0 ? (random() % 3) * 8192 + random() % 20 : random() % kPages;
    const uint64_t pages = random() % 8 == 0 ? random() % 300 : random() % 6;
    switch (random() % 16) {
      case 0:
        if (step < 1000) break;
        EXPECT_EQ(map->SetDefault(owner, rights, listener),
                  defaults[owner].has_value() ? ProtectionResult::kDefaultIsFixed : ProtectionResult::kDone);
        if (!defaults[owner].has_value()) defaults[owner] = rights;
        break;
      case 1: {
        std::vector<uint64_t> list;
        for (uint64_t i = 0; i < pages; ++i) list.push_back(random() % 2 == 0 ? first + i : random() % (kPages + 4));
        size_t good = 0;
        while (good < list.size() && list[good] < kPages) named[owner][list[good++]] = rights;
        EXPECT_EQ(map->SetPages(owner, list, rights, listener).done, good);
        break;
      }
      default:
        if (first + pages > kPages) {
          EXPECT_EQ(map->Set(owner, Gpfn(first), pages, rights, listener), ProtectionResult::kNotRam);
          break;
        }
        EXPECT_EQ(map->Set(owner, Gpfn(first), pages, rights, listener), ProtectionResult::kDone);
        for (uint64_t i = 0; i < pages; ++i) named[owner][first + i] = rights;
    }
    for (const RecordingListener::Change& change : listener.Take()) {
      for (uint64_t page = change.first; page < change.first + change.pages; ++page) {
        ASSERT_EQ(applied[change.level][page].bits(), change.before);
        applied[change.level][page] = PageRights(change.after);
      }
    }
    if (step % 200 != 199) continue;
    for (unsigned level = 0; level < 3; ++level) {
      uint64_t next = 0;
      std::optional<uint8_t> previous;
      for (const auto& [start, count, bits] : RangesOf(*map, level, 0, kPages)) {
        ASSERT_EQ(start, next);
        ASSERT_NE(bits, previous);  // merged
        previous = bits;
        for (uint64_t page = start; page < start + count; ++page) {
          ASSERT_EQ(effective(level, page).bits(), bits) << page;
          ASSERT_EQ(map->Rights(level, Gpfn(page)).bits(), bits);
          ASSERT_EQ(applied[level][page].bits(), bits);
        }
        next = start + count;
      }
      ASSERT_EQ(next, kPages);
    }
  }
  EXPECT_TRUE(defaults[1].has_value() && defaults[2].has_value());
}

}  // namespace
}  // namespace vmm
