// Overlays come and go on several threads, as they do when processors write their MSRs at once. For ThreadSanitizer, and for what
// must hold at any moment: a page shows RAM or an overlay whole, and in the end RAM.
#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "base/status_matchers.h"
#include "memory/gpa.h"
#include "memory/guest_memory.h"
#include "memory/guest_ram.h"
#include "memory/guest_view.h"
#include "memory/layout.h"
#include "memory/ram_mapping.h"

namespace vmm {
namespace {

constexpr uint64_t kRamBytes = 1 * kMiB;
constexpr uint32_t kThreads = 4;
constexpr uint32_t kRounds = 500;
constexpr uint8_t kRamContent = 0x80;

// A read as the guest's, of which ThreadSanitizer knows nothing: to it, mapping a page is writing it.
__attribute__((no_sanitize("thread"))) uint8_t GuestRead(const std::byte* address) {
  return static_cast<uint8_t>(*static_cast<const volatile std::byte*>(address));
}

TEST(GuestViewThreadsTest, PagesShowRamOrOneOverlayAtAnyMoment) {
  ASSERT_OK_AND_ASSIGN(const MemoryLayout layout, MemoryLayout::Create(kRamBytes));
  ASSERT_OK_AND_ASSIGN(const auto ram, GuestRam::Create({.bytes = kRamBytes}));
  ASSERT_OK_AND_ASSIGN(const auto memory, GuestMemory::Create(*ram, layout));
  ASSERT_OK_AND_ASSIGN(const auto view, GuestView::Create(*ram, layout, kThreads));
  ASSERT_TRUE(memory->Fill(Gpa(0), std::byte{kRamContent}, kRamBytes));
  std::byte* const host = view->UnsafeMappings()[0].host;
  const auto seen = [&](uint64_t page) { return GuestRead(host + page * kPageBytes); };

  std::atomic<bool> done{false};
  std::atomic<uint32_t> torn{0};
  std::thread processor([&] {
    while (!done.load(std::memory_order_relaxed)) {
      for (uint64_t page = 0; page <= kThreads; ++page) {
        const uint8_t value = seen(page);
        if (value != kRamContent && (value == 0 || value > kThreads)) torn.fetch_add(1, std::memory_order_relaxed);
      }
    }
  });
  std::vector<std::thread> threads;
  std::atomic<uint32_t> wrong{0};
  for (uint32_t n = 1; n <= kThreads; ++n) {
    threads.emplace_back([&, n] {
      auto overlay = *view->NewPage();
      std::memset(overlay->data(), static_cast<int>(n), kPageBytes);
      for (uint32_t round = 0; round < kRounds; ++round) {
        const auto access = static_cast<ViewAccess>(round % 3);
        // A page of its own, where nobody else is, and page 0, where all are.
        if (!overlay->Place(Gpfn(n), access) || seen(n) != n) wrong.fetch_add(1, std::memory_order_relaxed);
        if (access != ViewAccess::kReadWrite && !view->has_read_only_overlay()) wrong.fetch_add(1, std::memory_order_relaxed);
        if (!overlay->Place(Gpfn(0), access) || seen(n) != kRamContent) wrong.fetch_add(1, std::memory_order_relaxed);
        if (!view->DropPage(Gpfn(round % (kThreads + 1)))) wrong.fetch_add(1, std::memory_order_relaxed);
        if (round % 2 == 0) overlay->Remove();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  done.store(true, std::memory_order_relaxed);
  processor.join();
  EXPECT_EQ(torn.load(), 0u);
  EXPECT_EQ(wrong.load(), 0u);
  for (uint64_t page = 0; page <= kThreads; ++page) EXPECT_EQ(seen(page), kRamContent) << page;
  EXPECT_FALSE(view->has_read_only_overlay());
}

}  // namespace
}  // namespace vmm
