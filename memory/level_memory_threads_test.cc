// Accesses for a level while its rights are taken away and given again: when a change has returned, none still goes by the old ones.
#include <atomic>
#include <thread>
#include <vector>

#include "base/status_matchers.h"
#include "memory/guest_memory.h"
#include "memory/guest_ram.h"
#include "memory/guest_view.h"
#include "memory/layout.h"
#include "memory/level_memory.h"
#include "memory/protection_enforcer.h"
#include "memory/protection_map.h"

namespace vmm {
namespace {

constexpr uint64_t kRamBytes = 1 * kMiB;
// Each accessor has a span of its own, long enough that changes are made in the middle of its copies; the last page is the one that
// is taken away.
constexpr uint64_t kSpanPages = 64;
constexpr uint64_t kAccessors = 2;
constexpr int kRounds = 300;

// What the higher level keeps in the page changes only while the page is its own. ThreadSanitizer sees an access that comes too
// late as a race, and so do the values: an accessor writes `kForeign` and never reads kSecret.
constexpr uint8_t kForeign = 0x11;
constexpr uint8_t kSecret = 0x5e;

TEST(LevelMemoryThreadsTest, NoAccessGoesByRightsThatWereTakenAway) {
  ASSERT_OK_AND_ASSIGN(const MemoryLayout layout, MemoryLayout::Create(kRamBytes));
  ASSERT_OK_AND_ASSIGN(const auto ram, GuestRam::Create({.bytes = kRamBytes}));
  ASSERT_OK_AND_ASSIGN(const auto memory, GuestMemory::Create(*ram, layout));
  ASSERT_OK_AND_ASSIGN(const auto view, GuestView::Create(*ram, layout, 0, 8));
  ASSERT_OK_AND_ASSIGN(const auto map, ProtectionMap::Create(layout, 2));
  ASSERT_OK_AND_ASSIGN(const auto enforcer,
                       ProtectionEnforcer::Create(*map, {view.get()}, Unenforceable::kRefuse));
  ASSERT_TRUE(memory->Fill(Gpa(0), std::byte{kForeign}, kRamBytes));

  std::atomic<bool> done{false};
  std::atomic<uint32_t> leaks{0};
  std::vector<std::thread> threads;
  std::vector<uint64_t> pages;
  for (uint64_t n = 0; n < kAccessors; ++n) {
    const Gpfn first(n * kSpanPages);
    pages.push_back(first.raw() + kSpanPages - 1);
    threads.emplace_back([&, first] {
      const LevelMemory vtl0(*memory, *map, enforcer->gate(), 0);
      std::vector<std::byte> bytes(kSpanPages * kPageBytes, std::byte{kForeign});
      std::vector<std::byte> read(bytes.size());
      while (!done.load(std::memory_order_relaxed)) {
        (void)vtl0.Write(Gpa(first), bytes);
        if (vtl0.Read(Gpa(first), read) && read != bytes) leaks.fetch_add(1, std::memory_order_relaxed);
      }
    });
  }
  uint32_t overwritten = 0;
  const std::vector<std::byte> secret(kPageBytes, std::byte{kSecret});
  for (int round = 0; round < kRounds; ++round) {
    ASSERT_EQ(enforcer->Protect(1, PageRights::None(), pages).status, ProtectStatus::kDone);
    for (const uint64_t page : pages) ASSERT_TRUE(memory->Write(Gpa(Gpfn(page)), secret));
    std::this_thread::yield();
    for (const uint64_t page : pages) {
      std::vector<std::byte> now(kPageBytes);
      ASSERT_TRUE(memory->Read(Gpa(Gpfn(page)), now));
      overwritten += now != secret ? 1 : 0;
      ASSERT_TRUE(memory->Fill(Gpa(Gpfn(page)), std::byte{kForeign}, kPageBytes));
    }
    ASSERT_EQ(enforcer->Protect(1, PageRights(), pages).status, ProtectStatus::kDone);
  }
  done.store(true, std::memory_order_relaxed);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(overwritten, 0u);
  EXPECT_EQ(leaks.load(), 0u);
}

}  // namespace
}  // namespace vmm
