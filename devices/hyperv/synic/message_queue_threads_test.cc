// Conservation: all in, each once, each whole, in one order for all producers. Made for ThreadSanitizer as much as for the
// result.
#include <atomic>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "devices/hyperv/synic/message_for_test.h"
#include "devices/hyperv/synic/message_lane.h"
#include "devices/hyperv/synic/message_queue.h"
#include "devices/hyperv/synic/post_result.h"
#include "devices/hyperv/synic/queue_for_test.h"

namespace vmm {
namespace {

constexpr uint32_t kMessages = 10000;

TEST(MessageQueueThreadsTest, ConservesListInterceptsAndLanes) {
  constexpr uint32_t kProducers = 3;
  constexpr uint32_t kLanes = 2;
  constexpr uint32_t kIdentities = 2 * kProducers + kLanes;  // producers, their intercepts, lanes
  QueueForTest q({kProducers, 8});
  std::vector<LaneProducer> lanes;
  for (uint32_t n = 0; n < kLanes; ++n) lanes.push_back(q.AddLane(n));
  // A kick is a number that grows; the consumer sleeps on it, and on nothing else.
  std::atomic<uint32_t> kicks{0};
  const auto kick = [&] {
    kicks.fetch_add(1);
    kicks.notify_one();
  };
  std::vector<std::thread> threads;
  for (uint32_t producer = 0; producer < kProducers; ++producer) {
    threads.emplace_back([&, producer] {
      uint32_t intercepts = 0;
      for (uint32_t n = 0; n < kMessages;) {
        const PostResult result = q.Post(producer, n);
        if (result == PostResult::kPostedKick) kick();
        if (IsPosted(result)) {
          ++n;
        } else {
          std::this_thread::yield();
        }
        if (intercepts == kMessages / 10 || (n % 4 != 0 && n != kMessages)) continue;
        do {
          const PostResult intercept = q.producer(producer).TryPostIntercept(MakeMessage(kProducers + producer, intercepts));
          if (intercept == PostResult::kPostedKick) kick();
          if (IsPosted(intercept)) ++intercepts;
          // The last ones: nothing else is left to do meanwhile.
        } while (n == kMessages && intercepts < kMessages / 10);
      }
    });
  }
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    threads.emplace_back([&, lane] {
      for (uint32_t n = 0; n < kMessages;) {
        const PostResult result = lanes[lane].TryPost(MakeMessage(2 * kProducers + lane, n));
        // The event loop's part: the device's kick becomes the VP's.
        if (result == PostResult::kPostedKick && q.queue().Notify(lane)) kick();
        if (IsPosted(result)) {
          ++n;
        } else {
          std::this_thread::yield();
        }
      }
    });
  }
  uint32_t next[kIdentities] = {};
  uint32_t seen_kicks = 0;
  uint64_t left = kProducers * (kMessages + kMessages / 10) + kLanes * kMessages;
  bool broken = false;
  while (left != 0) {
    static_cast<void>(q.doorbell().Take());
    while (const HvMessage* const message = q.queue().Front()) {
      const auto id = IdentityOf(*message);
      if (!id || id->producer >= kIdentities || id->sequence != next[id->producer]++) broken = true;
      q.queue().PopFront();
      --left;
    }
    if (left == 0 || !q.doorbell().Arm()) continue;
    kicks.wait(seen_kicks);
    seen_kicks = kicks.load();
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(broken);
  for (uint32_t n = 0; n < kIdentities; ++n) {
    EXPECT_EQ(next[n], n >= kProducers && n < 2 * kProducers ? kMessages / 10 : kMessages);
  }
  EXPECT_EQ(q.queue().Front(), nullptr);
  EXPECT_EQ(q.queue().faults(), 0u);
}

// A guest thread that moves from one VP to another posts here, then there: the order must be kept.
TEST(MessageQueueThreadsTest, PostThatReturnedIsAheadOfOneThatBegins) {
  constexpr uint32_t kProducers = 3;
  QueueForTest q({kProducers, 4});
  std::atomic<uint32_t> turn{0};
  std::vector<std::thread> threads;
  for (uint32_t producer = 0; producer < kProducers; ++producer) {
    threads.emplace_back([&, producer] {
      for (uint32_t n = 0; n < kMessages;) {
        // relaxed: the queue itself must order the posts. Its own compare-and-swaps do.
        if (turn.load(std::memory_order_relaxed) % kProducers != producer) {
          std::this_thread::yield();
        } else if (IsPosted(q.Post(producer, n))) {
          ++n;
          turn.store(turn.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
        }
      }
    });
  }
  bool in_order = true;
  for (uint32_t n = 0; n < kProducers * kMessages;) {
    const HvMessage* const message = q.queue().Front();
    if (message == nullptr) {
      std::this_thread::yield();
      continue;
    }
    in_order &= IdentityOf(*message) == MessageIdentity{n % kProducers, n / kProducers};
    q.queue().PopFront();
    ++n;
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(in_order);
}

}  // namespace
}  // namespace vmm
