#include "devices/hyperv/synic/message_lane.h"

#include <cstring>
#include <random>
#include <thread>

#include <gtest/gtest.h>

#include "absl/status/status.h"
#include "base/status_matchers.h"
#include "devices/hyperv/synic/message_for_test.h"

namespace vmm {
namespace {

constexpr uint32_t kCapacity = 8;

struct Lane {
  SharedRegion region{LaneProducer::RegionBytes(kCapacity)};
  LaneConsumer consumer = LaneConsumer::Create(region.bytes(), kCapacity, /*origination_id=*/77).value();
  LaneProducer producer = LaneProducer::Attach(region.bytes(), kCapacity).value();
  HvMessage message;

  LaneHeader& header() { return region.at<LaneHeader>(0); }
  HvMessage& slot(uint32_t n) { return region.at<HvMessage>(sizeof(LaneHeader) + n * sizeof(HvMessage)); }
};

TEST(MessageLaneTest, FirstPostKicksAndTheNextDoesNot) {
  Lane lane;
  EXPECT_EQ(lane.producer.TryPost(MakeMessage(0, 0)), PostResult::kPostedKick);
  EXPECT_EQ(lane.producer.TryPost(MakeMessage(0, 1)), PostResult::kPosted);
}

TEST(MessageLaneTest, EmptyPeekArmsAgain) {
  Lane lane;
  EXPECT_EQ(lane.producer.TryPost(MakeMessage(0, 0)), PostResult::kPostedKick);
  ASSERT_EQ(lane.consumer.Peek(lane.message), LanePeek::kMessage);
  lane.consumer.Pop();
  EXPECT_EQ(lane.consumer.Peek(lane.message), LanePeek::kEmpty);
  EXPECT_EQ(lane.producer.TryPost(MakeMessage(0, 1)), PostResult::kPostedKick);
}

TEST(MessageLaneTest, StampsTheSenderAndClearsWhatIsNotTheSenders) {
  Lane lane;
  HvMessage forged = MakeMessage(0, 3);
  forged.header.origination_id = 1;
  forged.header.flags = 0xff;
  forged.header.reserved = 0xffff;
  ASSERT_EQ(lane.producer.TryPost(forged), PostResult::kPostedKick);
  ASSERT_EQ(lane.consumer.Peek(lane.message), LanePeek::kMessage);
  EXPECT_EQ(lane.message.header.origination_id, 77u);
  EXPECT_EQ(lane.message.header.flags, 0);
  EXPECT_EQ(lane.message.header.reserved, 0);
  EXPECT_EQ(IdentityOf(lane.message), (MessageIdentity{0, 3}));
}

TEST(MessageLaneTest, TakesItsCapacityThenRefuses) {
  Lane lane;
  for (uint32_t n = 0; n < kCapacity; ++n) EXPECT_TRUE(IsPosted(lane.producer.TryPost(MakeMessage(0, n))));
  EXPECT_EQ(lane.producer.TryPost(MakeMessage(0, kCapacity)), PostResult::kFull);
  ASSERT_EQ(lane.consumer.Peek(lane.message), LanePeek::kMessage);
  lane.consumer.Pop();
  EXPECT_EQ(lane.producer.TryPost(MakeMessage(0, kCapacity)), PostResult::kPosted);
}

TEST(MessageLaneTest, ProducerRefusesMalformedMessages) {
  Lane lane;
  HvMessage message = MakeMessage(0, 0);
  message.header.payload_size = 241;
  EXPECT_EQ(lane.producer.TryPost(message), PostResult::kMalformed);
  EXPECT_EQ(lane.producer.TryPost(MakeMessage(0, 0, HvMessageType::kNone)), PostResult::kMalformed);
  EXPECT_EQ(lane.producer.TryPost(MakeMessage(0, 0, HvMessageType::kGpaIntercept)), PostResult::kMalformed);
}

TEST(MessageLaneTest, ForgedInterceptClosesTheLane) {
  Lane lane;
  lane.slot(0) = MakeMessage(0, 0, HvMessageType::kGpaIntercept);
  lane.header().tail = 1;
  EXPECT_EQ(lane.consumer.Peek(lane.message), LanePeek::kClosed);
  EXPECT_TRUE(lane.consumer.is_closed());
}

TEST(MessageLaneTest, PayloadOneTooLongClosesTheLane) {
  Lane lane;
  lane.slot(0) = MakeMessage(0, 0);
  lane.slot(0).header.payload_size = 241;
  lane.header().tail = 1;
  EXPECT_EQ(lane.consumer.Peek(lane.message), LanePeek::kClosed);
}

TEST(MessageLaneTest, TailOnePastTheCapacityClosesTheLane) {
  Lane lane;
  lane.header().tail = kCapacity + 1;
  EXPECT_EQ(lane.consumer.Peek(lane.message), LanePeek::kClosed);
}

TEST(MessageLaneTest, TailThatGoesBackClosesTheLane) {
  Lane lane;
  ASSERT_TRUE(IsPosted(lane.producer.TryPost(MakeMessage(0, 0))));
  ASSERT_EQ(lane.consumer.Peek(lane.message), LanePeek::kMessage);
  lane.consumer.Pop();
  lane.header().tail = 0;
  EXPECT_EQ(lane.consumer.Peek(lane.message), LanePeek::kClosed);
}

TEST(MessageLaneTest, UnknownTailBitsCloseTheLane) {
  Lane lane;
  lane.header().tail = uint64_t{1} << 32;
  EXPECT_EQ(lane.consumer.Peek(lane.message), LanePeek::kClosed);
}

TEST(MessageLaneTest, HeadInTheRegionIsNeverReadBack) {
  Lane lane;
  ASSERT_TRUE(IsPosted(lane.producer.TryPost(MakeMessage(0, 0))));
  lane.header().head = 0xdeadbeef;
  ASSERT_EQ(lane.consumer.Peek(lane.message), LanePeek::kMessage);
  lane.consumer.Pop();
  EXPECT_EQ(lane.header().head, 1u);
}

TEST(MessageLaneTest, NextProducerGoesOnWhereADeadOneStopped) {
  Lane lane;
  ASSERT_TRUE(IsPosted(lane.producer.TryPost(MakeMessage(0, 0))));
  lane.slot(1).header.payload_size = 200;  // died here
  LaneProducer heir = LaneProducer::Attach(lane.region.bytes(), kCapacity).value();
  ASSERT_TRUE(IsPosted(heir.TryPost(MakeMessage(0, 1))));
  for (uint32_t n = 0; n < 2; ++n) {
    ASSERT_EQ(lane.consumer.Peek(lane.message), LanePeek::kMessage);
    EXPECT_EQ(IdentityOf(lane.message), (MessageIdentity{0, n}));
    lane.consumer.Pop();
  }
}

TEST(MessageLaneTest, RefusesBadRegions) {
  SharedRegion region(LaneProducer::RegionBytes(kCapacity));
  EXPECT_THAT(LaneConsumer::Create(region.bytes(), 6, 0), StatusIs(absl::StatusCode::kInvalidArgument, "capacity 6"));
  EXPECT_THAT(LaneConsumer::Create(region.bytes(), 0, 0), StatusIs(absl::StatusCode::kInvalidArgument, "capacity 0"));
  EXPECT_THAT(LaneConsumer::Create(region.bytes(), 16, 0), StatusIs(absl::StatusCode::kInvalidArgument, "too few"));
  EXPECT_THAT(LaneConsumer::Create(region.bytes().subspan(8), 4, 0),
              StatusIs(absl::StatusCode::kInvalidArgument, "cache line"));
  region.at<LaneHeader>(0).tail = 100;
  EXPECT_THAT(LaneProducer::Attach(region.bytes(), kCapacity), StatusIs(absl::StatusCode::kFailedPrecondition, "tail 100"));
}

// Every word that the producer can write, at random: the consumer comes back from each call, and what it hands out is well
// formed.
TEST(MessageLaneTest, ScribblingHurtsOnlyTheScribbler) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 3000; ++round) {
    Lane lane;
    for (int step = 0; step < 20; ++step) {
      switch (random() % 5) {
        case 0: lane.header().tail = random(); break;
        case 1: lane.header().tail = random() % (kCapacity + 2); break;
        case 2: lane.header().head = static_cast<uint32_t>(random()); break;
        case 3: lane.region.at<uint64_t>(random() % (lane.region.bytes().size() / 8) * 8) = random(); break;
        default: static_cast<void>(lane.producer.TryPost(MakeMessage(0, static_cast<uint32_t>(random())))); break;
      }
      if (lane.consumer.Peek(lane.message) != LanePeek::kMessage) continue;
      EXPECT_LE(lane.message.header.payload_size, kHvMessagePayloadBytes);
      EXPECT_NE(lane.message.header.type, HvMessageType::kNone);
      EXPECT_FALSE(IsHypervisorMessage(lane.message.header.type));
      EXPECT_EQ(lane.message.header.origination_id, 77u);
      lane.consumer.Pop();
    }
  }
}

TEST(MessageLaneTest, ConservesAllInOrderAcrossThreads) {
  constexpr uint32_t kMessages = 100000;
  Lane lane;
  std::thread producer([&] {
    for (uint32_t n = 0; n < kMessages; ++n) {
      while (lane.producer.TryPost(MakeMessage(4, n)) == PostResult::kFull) std::this_thread::yield();
    }
  });
  for (uint32_t n = 0; n < kMessages;) {
    const LanePeek peek = lane.consumer.Peek(lane.message);
    if (peek == LanePeek::kEmpty) {
      std::this_thread::yield();
      continue;
    }
    EXPECT_EQ(peek, LanePeek::kMessage);
    EXPECT_EQ(IdentityOf(lane.message), (MessageIdentity{4, n}));
    if (testing::Test::HasFailure()) lane.consumer.Close();
    if (lane.consumer.is_closed()) break;
    lane.consumer.Pop();
    ++n;
  }
  if (!lane.consumer.is_closed()) {
    producer.join();
  } else {
    producer.detach();
  }
}

}  // namespace
}  // namespace vmm
