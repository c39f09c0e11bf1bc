#include "memory/access_gate.h"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace vmm {
namespace {

TEST(AccessGateTest, NothingIsInsideWhileItIsClosed) {
  constexpr int kThreads = 3, kCloses = 20'000;
  AccessGate gate;
  std::atomic<int> inside = 0;
  std::atomic<uint64_t> sections = 0, found = 0;
  std::atomic<bool> over = false;
  uint64_t plain = 0;  // written while closed, read inside: what a Closed did comes before what later sections do
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      uint64_t last = 0;
      while (!over.load(std::memory_order_relaxed)) {
        const AccessGate::MaybeSection section(&gate);
        inside.fetch_add(1, std::memory_order_relaxed);
        if (plain < last) found.fetch_add(1);
        last = plain;
        inside.fetch_sub(1, std::memory_order_relaxed);
        sections.fetch_add(1, std::memory_order_relaxed);
      }
    });
  }
  // As many as a second has room for: on a busy machine each waits for whoever was stopped inside.
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(1);
  for (int i = 0; i < kCloses && std::chrono::steady_clock::now() < end; ++i) {
    // They go on afterwards, and are under way.
    for (const uint64_t before = sections.load(); sections.load() == before;) std::this_thread::yield();
    const AccessGate::Closed closed(gate);
    found.fetch_add(inside.load(std::memory_order_relaxed) != 0);
    ++plain;
    found.fetch_add(inside.load(std::memory_order_relaxed) != 0);
  }
  over = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(found.load(), 0u);
}

TEST(AccessGateTest, WithoutAGateThereIsNothingToWaitFor) {
  const AccessGate::MaybeSection section(nullptr);
}

}  // namespace
}  // namespace vmm
