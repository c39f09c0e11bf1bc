#include "devices/hyperv/synic/message_queue.h"

#include <cstdlib>
#include <deque>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "absl/status/status.h"
#include "base/status_matchers.h"
#include "devices/hyperv/synic/message_for_test.h"
#include "devices/hyperv/synic/queue_for_test.h"

namespace vmm {
namespace {

std::optional<MessageIdentity> TakeOne(MessageQueue& queue) {
  const HvMessage* const message = queue.Front();
  if (message == nullptr) return std::nullopt;
  const std::optional<MessageIdentity> id = IdentityOf(*message);
  EXPECT_TRUE(id.has_value()) << "torn";
  queue.PopFront();
  return id;
}

TEST(MessageQueueTest, EmptyHasNoFront) {
  QueueForTest q({2, 4});
  EXPECT_EQ(q.queue().Front(), nullptr);
}

TEST(MessageQueueTest, OneOrderForAllProducers) {
  QueueForTest q({3, 4});
  const uint32_t order[] = {2, 0, 1, 1, 0, 2, 2};
  uint32_t next[3] = {};
  for (uint32_t producer : order) EXPECT_TRUE(IsPosted(q.Post(producer, next[producer]++)));
  uint32_t expected[3] = {};
  for (uint32_t producer : order) EXPECT_EQ(TakeOne(q.queue()), (MessageIdentity{producer, expected[producer]++}));
  EXPECT_EQ(TakeOne(q.queue()), std::nullopt);
}

TEST(MessageQueueTest, FrontStaysUntilPopped) {
  QueueForTest q({1, 4});
  ASSERT_TRUE(IsPosted(q.Post(0, 0)));
  const HvMessage* const front = q.queue().Front();
  ASSERT_TRUE(IsPosted(q.Post(0, 1)));
  EXPECT_EQ(q.queue().Front(), front);
  EXPECT_TRUE(q.queue().HasMore());
}

TEST(MessageQueueTest, EachProducerHasItsFullCapacity) {
  QueueForTest q({2, 8});
  for (uint32_t n = 0; n < 8; ++n) EXPECT_TRUE(IsPosted(q.Post(0, n)));
  EXPECT_EQ(q.Post(0, 8), PostResult::kFull);
  EXPECT_TRUE(IsPosted(q.Post(1, 0)));  // one sender's flood is not another's
  EXPECT_EQ(TakeOne(q.queue()), (MessageIdentity{0, 0}));
  EXPECT_EQ(q.Post(0, 8), PostResult::kPosted);
  EXPECT_EQ(q.Post(0, 9), PostResult::kFull);
}

TEST(MessageQueueTest, InterceptFitsIntoAFullQueueAndKeepsItsPlace) {
  QueueForTest q({1, 2});
  ASSERT_TRUE(IsPosted(q.Post(0, 0)));
  ASSERT_TRUE(IsPosted(q.Post(0, 1)));
  ASSERT_EQ(q.Post(0, 2), PostResult::kFull);
  EXPECT_TRUE(IsPosted(q.producer(0).TryPostIntercept(MakeMessage(0, 100, HvMessageType::kGpaIntercept))));
  EXPECT_EQ(q.producer(0).TryPostIntercept(MakeMessage(0, 101, HvMessageType::kGpaIntercept)), PostResult::kFull);
  EXPECT_EQ(TakeOne(q.queue()), (MessageIdentity{0, 0}));
  EXPECT_EQ(TakeOne(q.queue()), (MessageIdentity{0, 1}));
  EXPECT_EQ(TakeOne(q.queue()), (MessageIdentity{0, 100}));
  EXPECT_TRUE(IsPosted(q.producer(0).TryPostIntercept(MakeMessage(0, 101, HvMessageType::kGpaIntercept))));
  EXPECT_EQ(TakeOne(q.queue()), (MessageIdentity{0, 101}));
}

TEST(MessageQueueTest, MalformedMessagesAreRefused) {
  QueueForTest q({1, 2});
  HvMessage message = MakeMessage(0, 0);
  message.header.payload_size = 241;
  EXPECT_EQ(q.producer(0).TryPost(message), PostResult::kMalformed);
  EXPECT_EQ(q.producer(0).TryPostIntercept(message), PostResult::kMalformed);
  EXPECT_EQ(q.producer(0).TryPost(MakeMessage(0, 0, HvMessageType::kNone)), PostResult::kMalformed);
  EXPECT_EQ(q.queue().Front(), nullptr);
}

TEST(MessageQueueTest, SleepingConsumerIsKickedOnce) {
  QueueForTest q({2, 4});
  ASSERT_TRUE(q.doorbell().Arm());
  EXPECT_EQ(q.Post(0, 0), PostResult::kPostedKick);
  EXPECT_EQ(q.Post(1, 0), PostResult::kPosted);
  EXPECT_EQ(q.doorbell().Take(), uint64_t{1} << QueueForTest::kSource);
}

TEST(MessageQueueTest, QuietPostLeavesTheDoorbell) {
  QueueForTest q({1, 4});
  ASSERT_TRUE(q.doorbell().Arm());
  EXPECT_EQ(q.producer(0).TryPostQuietly(MakeMessage(0, 0)), PostResult::kPosted);
  EXPECT_FALSE(q.doorbell().is_pending());
  EXPECT_TRUE(q.producer(0).Ring());
}

TEST(MessageQueueTest, LanesAndListTakeTurns) {
  QueueForTest q({1, 8});
  LaneProducer lane_a = q.AddLane(/*origination_id=*/11);
  LaneProducer lane_b = q.AddLane(/*origination_id=*/12);
  for (uint32_t n = 0; n < 3; ++n) {
    ASSERT_TRUE(IsPosted(q.Post(0, n)));
    ASSERT_TRUE(IsPosted(lane_a.TryPost(MakeMessage(1, n))));
    ASSERT_TRUE(IsPosted(lane_b.TryPost(MakeMessage(2, n))));
  }
  static_cast<void>(q.queue().Notify(0));
  static_cast<void>(q.queue().Notify(1));
  std::vector<uint32_t> producers;
  uint32_t next[3] = {};
  while (const auto id = TakeOne(q.queue())) {
    producers.push_back(id->producer);
    EXPECT_EQ(id->sequence, next[id->producer]++);
  }
  EXPECT_EQ(producers, (std::vector<uint32_t>{0, 2, 0, 1, 0, 2, 1, 2, 1}));
}

TEST(MessageQueueTest, ClosedLaneHurtsNobodyElse) {
  QueueForTest q({1, 8});
  LaneProducer good = q.AddLane(11);
  static_cast<void>(q.AddLane(12));
  ASSERT_TRUE(IsPosted(good.TryPost(MakeMessage(1, 0))));
  ASSERT_TRUE(IsPosted(q.Post(0, 0)));
  q.lane_header(1).tail = 0x123456789abcdef;
  static_cast<void>(q.queue().Notify(0));
  static_cast<void>(q.queue().Notify(1));
  EXPECT_EQ(TakeOne(q.queue()), (MessageIdentity{0, 0}));
  EXPECT_EQ(TakeOne(q.queue()), (MessageIdentity{1, 0}));
  EXPECT_EQ(TakeOne(q.queue()), std::nullopt);
  EXPECT_TRUE(q.queue().is_lane_closed(1));
  EXPECT_FALSE(q.queue().is_lane_closed(0));
}

TEST(MessageQueueTest, NotifyOfNoLaneIsIgnored) {
  QueueForTest q({1, 8});
  ASSERT_TRUE(q.doorbell().Arm());
  EXPECT_FALSE(q.queue().Notify(0));
  EXPECT_FALSE(q.queue().Notify(64));
}

TEST(MessageQueueTest, LastLaneIsServedToo) {
  QueueForTest q({1, 8});
  std::vector<LaneProducer> lanes;
  for (uint32_t n = 0; n < MessageQueue::kMaxLanes; ++n) lanes.push_back(q.AddLane(n));
  for (uint32_t round = 0; round < 2; ++round) {
    ASSERT_TRUE(IsPosted(lanes.back().TryPost(MakeMessage(1, round))));
    static_cast<void>(q.queue().Notify(MessageQueue::kMaxLanes - 1));
    EXPECT_EQ(TakeOne(q.queue()), (MessageIdentity{1, round}));
    EXPECT_EQ(TakeOne(q.queue()), std::nullopt);
  }
}

// Not a promise to the trusted, but cheap: links out of range and circles end.
TEST(MessageQueueTest, BrokenLinksAreCountedAndNotFollowed) {
  QueueForTest q({1, 4});
  q.header().newest = 6;
  EXPECT_EQ(q.queue().Front(), nullptr);
  EXPECT_EQ(q.queue().faults(), 1u);
  q.slot(0).header.reserved = 1;
  q.header().newest = 1;
  EXPECT_NE(q.queue().Front(), nullptr);
  EXPECT_EQ(q.queue().faults(), 2u);
}

TEST(MessageQueueTest, StateSurvivesSaveAndRestoreInOrder) {
  QueueForTest old({2, 4});
  ASSERT_TRUE(IsPosted(old.Post(0, 0)));
  ASSERT_TRUE(IsPosted(old.Post(1, 0)));
  ASSERT_NE(old.queue().Front(), nullptr);
  ASSERT_TRUE(IsPosted(old.Post(0, 1)));
  std::vector<HvMessage> saved = old.queue().TakeAll();
  EXPECT_EQ(saved.size(), 3u);

  QueueForTest fresh({2, 4});
  ASSERT_TRUE(IsPosted(fresh.Post(1, 1)));
  static_cast<void>(fresh.queue().Restore(std::move(saved)));
  EXPECT_EQ(TakeOne(fresh.queue()), (MessageIdentity{0, 0}));
  EXPECT_TRUE(fresh.queue().HasMore());
  EXPECT_EQ(TakeOne(fresh.queue()), (MessageIdentity{1, 0}));
  EXPECT_EQ(TakeOne(fresh.queue()), (MessageIdentity{0, 1}));
  EXPECT_EQ(TakeOne(fresh.queue()), (MessageIdentity{1, 1}));
  EXPECT_EQ(TakeOne(fresh.queue()), std::nullopt);
}

TEST(MessageQueueTest, RefusesBadShapes) {
  SharedRegion region(QueueMap::RegionBytes({2, 4}));
  DoorbellLine line;
  const auto create = [&](QueueShape shape) { return MessageQueue::Create(region.bytes(), shape, Doorbell(line), 0).status(); };
  EXPECT_THAT(create({0, 4}), StatusIs(absl::StatusCode::kInvalidArgument, "0 producers"));
  EXPECT_THAT(create({2, 3}), StatusIs(absl::StatusCode::kInvalidArgument, "capacity 3"));
  EXPECT_THAT(create({2, 1u << 31}), StatusIs(absl::StatusCode::kInvalidArgument, "2147483648"));
  EXPECT_THAT(create({2, 8}), StatusIs(absl::StatusCode::kInvalidArgument, "fewer"));
  EXPECT_THAT(MessageQueue::Create(region.bytes(), {2, 4}, Doorbell(line), 63).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, "source 63"));
  EXPECT_THAT(MessageProducer::Attach(region.bytes(), {2, 4}, 2, Doorbell(line), 0).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, "producer 2 of 2"));
}

// A long random run against a model that is a few deques. VMM_QUEUE_ORACLE_STEPS makes it longer.
TEST(MessageQueueTest, BehavesAsItsOracle) {
  const char* const wanted = std::getenv("VMM_QUEUE_ORACLE_STEPS");
  const uint64_t steps = wanted != nullptr ? std::strtoull(wanted, nullptr, 10) : 2'000'000;
  constexpr uint32_t kProducers = 3;
  constexpr uint32_t kCapacity = 4;
  QueueForTest q({kProducers, kCapacity});
  std::mt19937_64 random(20240607);
  std::deque<MessageIdentity> waiting;
  uint32_t next[kProducers] = {};
  uint32_t held[kProducers] = {};
  bool intercept_held[kProducers] = {};
  bool asleep = false;
  bool rung = false;
  for (uint64_t step = 0; step < steps && !testing::Test::HasFailure(); ++step) {
    const uint64_t dice = random();
    const auto producer = static_cast<uint32_t>(dice >> 8) % kProducers;
    // Phases in which posting or taking prevails, so that full and empty are both met often.
    const bool filling = step / 64 % 2 == 0;
    const uint64_t action = dice % 16;
    if (action < (filling ? 8u : 3u)) {
      const PostResult result = q.Post(producer, next[producer]);
      const PostResult posted = asleep ? PostResult::kPostedKick : PostResult::kPosted;
      ASSERT_EQ(result, held[producer] == kCapacity ? PostResult::kFull : posted);
      if (!IsPosted(result)) continue;
      asleep = false;
      rung = true;
      ++held[producer];
      waiting.push_back({producer, next[producer]++});
    } else if (action == 8) {
      const HvMessage message = MakeMessage(producer + kProducers, next[producer], HvMessageType::kGpaIntercept);
      const PostResult result = q.producer(producer).TryPostIntercept(message);
      const PostResult posted = asleep ? PostResult::kPostedKick : PostResult::kPosted;
      ASSERT_EQ(result, intercept_held[producer] ? PostResult::kFull : posted);
      if (!IsPosted(result)) continue;
      asleep = false;
      rung = true;
      intercept_held[producer] = true;
      waiting.push_back({producer + kProducers, next[producer]++});
    } else if (action == 9) {
      ASSERT_EQ(q.doorbell().Take(), rung ? uint64_t{1} << QueueForTest::kSource : 0);
      rung = asleep = false;
    } else if (action == 10) {
      ASSERT_EQ(q.doorbell().Arm(), !rung && !asleep);
      asleep = !rung;
    } else {
      if (q.queue().Front() != nullptr) {
        ASSERT_EQ(q.queue().HasMore(), waiting.size() > 1);
      }
      const auto id = TakeOne(q.queue());
      ASSERT_EQ(id.has_value(), !waiting.empty());
      if (!id) continue;
      ASSERT_EQ(*id, waiting.front());
      waiting.pop_front();
      if (id->producer < kProducers) {
        --held[id->producer];
      } else {
        intercept_held[id->producer - kProducers] = false;
      }
    }
  }
  EXPECT_EQ(q.queue().faults(), 0u);
}

}  // namespace
}  // namespace vmm
