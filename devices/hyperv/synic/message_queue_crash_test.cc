// Conservation, with threads and with processes that are killed or hostile. Processes have regions of MAP_SHARED memory, as
// devices do.
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "devices/hyperv/synic/message_for_test.h"
#include "devices/hyperv/synic/message_lane.h"
#include "devices/hyperv/synic/message_queue.h"
#include "devices/hyperv/synic/post_result.h"
#include "devices/hyperv/synic/queue_for_test.h"

namespace vmm {
namespace {

// After fork: no allocation, no locks, no gtest.
template <typename Body>
pid_t Spawn(const Body& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    body();
    ::_exit(0);
  }
  return child;
}

[[noreturn]] void PostForEver(LaneProducer& lane, uint32_t producer) {
  for (uint32_t n = 0;;) {
    if (IsPosted(lane.TryPost(MakeMessage(producer, n)))) {
      ++n;
    } else {
      ::sched_yield();
    }
  }
}

void Kill(pid_t child) {
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
}

// The consumer of these tests: asks all lanes, checks whole messages in order.
class Drain final {
 public:
  Drain(QueueForTest& q, uint32_t producers, uint32_t lanes) : q_(q), next_(producers), lanes_(lanes) {}
  void Once() {
    for (uint32_t lane = 0; lane < lanes_; ++lane) static_cast<void>(q_.queue().Notify(lane));
    // As much as can be there at a time: a living producer may post for ever.
    for (int n = 0; n < 64; ++n) {
      const HvMessage* const message = q_.queue().Front();
      if (message == nullptr) return;
      const auto id = IdentityOf(*message);
      q_.queue().PopFront();
      ++taken_;
      if (!id) {
        ++torn_;
        continue;
      }
      ASSERT_LT(id->producer, next_.size());
      ASSERT_EQ(id->sequence, next_[id->producer]++) << "producer " << id->producer;
    }
  }
  uint32_t next(uint32_t producer) const { return next_[producer]; }
  void Forget(uint32_t producer) { next_[producer] = 0; }
  uint64_t torn() const { return torn_; }
  uint64_t taken() const { return taken_; }

 private:
  QueueForTest& q_;
  std::vector<uint32_t> next_;
  const uint32_t lanes_;
  uint64_t torn_ = 0;
  uint64_t taken_ = 0;
};

TEST(MessageQueueCrashTest, KilledInMidPostBlocksNobody) {
  std::mt19937 random(3);
  QueueForTest q({1, 8});
  LaneProducer living = q.AddLane(1);
  static_cast<void>(q.AddLane(2));
  Drain drain(q, 3, 2);
  const pid_t alive = Spawn([&] { PostForEver(living, 1); });
  uint32_t own = 0;
  uint64_t from_the_dead = 0;
  for (int victim = 0; victim < 100; ++victim) {
    // Each goes on where the last one was stopped, wherever that was.
    LaneProducer heir = LaneProducer::Attach(q.lane_bytes(1), QueueForTest::kLaneCapacity).value();
    drain.Forget(2);
    const pid_t child = Spawn([&] { PostForEver(heir, 2); });
    const uint32_t rounds = random() % 200;
    for (uint32_t round = 0; round < rounds; ++round) {
      if (IsPosted(q.Post(0, own))) ++own;
      drain.Once();
      ASSERT_FALSE(HasFatalFailure());
    }
    Kill(child);
    drain.Once();  // the living one may fill it again: what the dead left is fewer than one round takes
    drain.Once();
    ASSERT_FALSE(HasFatalFailure());
    from_the_dead += drain.next(2);
  }
  const uint32_t before = drain.next(1);
  for (int n = 0; n < 1'000'000 && drain.next(1) < before + 1000; ++n) {
    drain.Once();
    ::sched_yield();
  }
  Kill(alive);
  drain.Once();
  EXPECT_GE(drain.next(1), before + 1000) << "the living one is heard no more";
  EXPECT_EQ(drain.next(0), own);
  EXPECT_GT(from_the_dead, 0u);
  EXPECT_EQ(drain.torn(), 0u);
  EXPECT_FALSE(q.queue().is_lane_closed(0));
  EXPECT_FALSE(q.queue().is_lane_closed(1));
}

// Trusted processes share the list: there too a post is one step, so that death leaves nothing half done.
TEST(MessageQueueCrashTest, KilledProducerOfTheListBlocksNobody) {
  std::mt19937 random(4);
  for (int victim = 0; victim < 50; ++victim) {
    QueueForTest q({2, 8});
    Drain drain(q, 2, 0);
    const pid_t child = Spawn([&] {
      for (uint32_t n = 0;;) {
        if (IsPosted(q.Post(1, n))) {
          ++n;
        } else {
          ::sched_yield();
        }
      }
    });
    uint32_t own = 0;
    const uint32_t rounds = random() % 200;
    for (uint32_t round = 0; round < rounds; ++round) {
      if (IsPosted(q.Post(0, own))) ++own;
      drain.Once();
      ASSERT_FALSE(HasFatalFailure());
    }
    Kill(child);
    drain.Once();
    for (uint32_t n = 0; n < 20; ++n) {
      ASSERT_TRUE(IsPosted(q.Post(0, own++)));
      drain.Once();
    }
    EXPECT_EQ(drain.next(0), own);
    EXPECT_EQ(drain.torn(), 0u);
    EXPECT_EQ(q.queue().faults(), 0u);
  }
}

TEST(MessageQueueCrashTest, HostileProcessHurtsOnlyItself) {
  std::mt19937 random(5);
  for (uint32_t round = 0; round < 10; ++round) {
    QueueForTest q({1, 8});
    LaneProducer honest = q.AddLane(1);
    LaneProducer wicked = q.AddLane(2);
    const auto region = q.lane_bytes(1);
    const pid_t living = Spawn([&] { PostForEver(honest, 1); });
    const pid_t hostile = Spawn([&] {
      std::minstd_rand dice(round + 1);
      for (uint32_t n = 0;; ++n) {
        // First as a producer would, so that the lane is not closed before it was used.
        if (n < 100) {
          static_cast<void>(wicked.TryPost(MakeMessage(1, dice())));
          continue;
        }
        auto* const words = reinterpret_cast<volatile uint64_t*>(region.data());
        // Plausible tails and armed bits more often than noise.
        words[0] = n % 3 == 0 ? dice() % 16 : n % 3 == 1 ? kLaneArmed | dice() % 16 : dice();
        words[dice() % (region.size() / 8)] = dice();
      }
    });
    uint32_t own_posted = 0, own_taken = 0, honest_taken = 0;
    for (int n = 0; n < 2000 || (honest_taken < 100 && n < 1'000'000); ++n) {
      if (IsPosted(q.Post(0, own_posted))) ++own_posted;
      static_cast<void>(q.queue().Notify(0));
      static_cast<void>(q.queue().Notify(1));
      for (int take = 0; take < 32; ++take) {
        const HvMessage* const message = q.queue().Front();
        if (message == nullptr) break;
        ASSERT_LE(message->header.payload_size, kHvMessagePayloadBytes);
        ASSERT_FALSE(IsHypervisorMessage(message->header.type));
        // The stamp, which nobody can forge, says whose it is.
        if (message->header.origination_id == 1) {
          ASSERT_EQ(IdentityOf(*message), (MessageIdentity{1, honest_taken++}));
        } else if (message->header.origination_id == 0) {
          ASSERT_EQ(IdentityOf(*message), (MessageIdentity{0, own_taken++}));
        }
        q.queue().PopFront();
      }
      if (n >= 2000) ::sched_yield();
    }
    Kill(living);
    Kill(hostile);
    EXPECT_GE(honest_taken, 100u);
    EXPECT_GE(own_taken + 8, own_posted);
    EXPECT_FALSE(q.queue().is_lane_closed(0));
  }
}

}  // namespace
}  // namespace vmm
