// Lookups on other threads while one changes the map. Under TSan this also shows that there is no data race.
#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "memory/protection_map.h"
#include "memory/recording_listener.h"

namespace vmm {
namespace {

constexpr PageRights kReadOnly(1);
constexpr PageRights kReadWrite(3);

// Two pages that share a byte of the table: the even one alternates, the odd one is set once and must never look otherwise.
TEST(ProtectionMapThreadsTest, LookupsSeeOldOrNewRightsAndNeverANeighboursChange) {
  const auto map = *ProtectionMap::Create(*MemoryLayout::Create(64 * kMiB), 2);
  RecordingListener listener;
  ASSERT_EQ(map->Set(1, Gpfn(101), 1, PageRights::None(), listener), ProtectionResult::kDone);
  ASSERT_EQ(map->Set(1, Gpfn(100), 1, kReadOnly, listener), ProtectionResult::kDone);
  std::atomic<bool> stop = false;
  std::atomic<unsigned> wrong = 0;
  std::atomic<unsigned> ready = 0;
  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([&] {
      ready.fetch_add(1);
      while (!stop.load(std::memory_order_relaxed)) {
        const PageRights even = map->Rights(0, Gpfn(100));
        if (even != kReadOnly && even != kReadWrite) wrong.fetch_add(1);
        if (map->Rights(0, Gpfn(101)) != PageRights::None()) wrong.fetch_add(1);
        // In a chunk that is named meanwhile.
        const PageRights fresh = map->Rights(0, Gpfn(9000));
        if (fresh != PageRights() && fresh != kReadOnly) wrong.fetch_add(1);
        map->ForEachRange(0, Gpfn(90), 20, [&](Gpfn, uint64_t pages, PageRights) {
          if (pages == 0 || pages > 20) wrong.fetch_add(1);
        });
        std::this_thread::yield();
      }
    });
  }
  while (ready.load() != 3) std::this_thread::yield();
  for (int i = 0; i < 20'000; ++i) {
    EXPECT_EQ(map->Set(1, Gpfn(100), 1, i % 2 == 0 ? kReadWrite : kReadOnly, listener), ProtectionResult::kDone);
    if (i != 10'000) continue;
    EXPECT_EQ(map->Set(1, Gpfn(9000), 1, kReadOnly, listener), ProtectionResult::kDone);
  }
  stop = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(wrong.load(), 0u);
}

// What a flag published after a change says, a lookup after the flag sees.
TEST(ProtectionMapThreadsTest, AChangeThatHappenedBeforeIsSeen) {
  const auto map = *ProtectionMap::Create(*MemoryLayout::Create(64 * kMiB), 2);
  constexpr uint64_t kPages = 12'000;  // over the end of a chunk
  std::atomic<uint64_t> done = 0;
  std::atomic<unsigned> wrong = 0;
  std::thread reader([&] {
    for (uint64_t seen = 0; seen < kPages;) {
      seen = done.load(std::memory_order_acquire);
      if (seen != 0 && map->Rights(0, Gpfn(seen - 1)) != kReadOnly) wrong.fetch_add(1);
      std::this_thread::yield();
    }
  });
  RecordingListener listener;
  for (uint64_t page = 0; page < kPages; ++page) {
    EXPECT_EQ(map->Set(1, Gpfn(page), 1, kReadOnly, listener), ProtectionResult::kDone);
    done.store(page + 1, std::memory_order_release);
  }
  reader.join();
  EXPECT_EQ(wrong.load(), 0u);
}

}  // namespace
}  // namespace vmm
