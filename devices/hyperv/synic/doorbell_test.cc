#include "devices/hyperv/synic/doorbell.h"

#include <atomic>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace vmm {
namespace {

TEST(DoorbellTest, AwakeConsumerIsNotKicked) {
  DoorbellLine line;
  Doorbell doorbell(line);
  EXPECT_FALSE(doorbell.Ring(3));
  EXPECT_TRUE(doorbell.is_pending());
  EXPECT_EQ(doorbell.Take(), uint64_t{1} << 3);
  EXPECT_FALSE(doorbell.is_pending());
}

TEST(DoorbellTest, ArmYieldsOneKickHoweverManyRing) {
  DoorbellLine line;
  Doorbell doorbell(line);
  ASSERT_TRUE(doorbell.Arm());
  EXPECT_TRUE(doorbell.Ring(0));
  EXPECT_FALSE(doorbell.Ring(0));
  EXPECT_FALSE(doorbell.Ring(62));
  EXPECT_EQ(doorbell.Take(), (uint64_t{1} << 62) | 1);
}

TEST(DoorbellTest, ArmRefusesOverABit) {
  DoorbellLine line;
  Doorbell doorbell(line);
  EXPECT_FALSE(doorbell.Ring(5));
  EXPECT_FALSE(doorbell.Arm());
  EXPECT_EQ(doorbell.Take(), uint64_t{1} << 5);
  EXPECT_TRUE(doorbell.Arm());
}

TEST(DoorbellTest, TakeAfterWakingForAnotherReasonDisarms) {
  DoorbellLine line;
  Doorbell doorbell(line);
  ASSERT_TRUE(doorbell.Arm());
  EXPECT_EQ(doorbell.Take(), 0u);
  EXPECT_FALSE(doorbell.Ring(1));
}

// Each ringer publishes a number, then rings; the consumer sleeps on the kick alone. A lost wake-up hangs the test.
TEST(DoorbellTest, NoWakeUpIsLostAndNoneIsTooMany) {
  constexpr unsigned kRingers = 3;
  constexpr uint32_t kRounds = 20000;
  DoorbellLine line;
  Doorbell doorbell(line);
  std::atomic<uint32_t> published[kRingers] = {};
  std::atomic<uint32_t> kicks{0};
  std::vector<std::thread> ringers;
  for (unsigned ringer = 0; ringer < kRingers; ++ringer) {
    ringers.emplace_back([&, ringer] {
      for (uint32_t round = 1; round <= kRounds; ++round) {
        published[ringer].store(round, std::memory_order_release);
        if (doorbell.Ring(ringer)) {
          kicks.fetch_add(1);
          kicks.notify_one();
        }
      }
    });
  }
  uint32_t seen[kRingers] = {};
  uint32_t arms = 0;
  uint32_t taken_kicks = 0;
  const auto all_seen = [&] { return seen[0] == kRounds && seen[1] == kRounds && seen[2] == kRounds; };
  while (!all_seen()) {
    const uint64_t sources = doorbell.Take();
    for (unsigned ringer = 0; ringer < kRingers; ++ringer) {
      if ((sources >> ringer & 1) != 0) seen[ringer] = published[ringer].load(std::memory_order_acquire);
    }
    if (!all_seen() && doorbell.Arm()) {
      ++arms;
      kicks.wait(taken_kicks);
      taken_kicks = kicks.load();
    }
  }
  for (std::thread& ringer : ringers) ringer.join();
  EXPECT_LE(kicks.load(), arms);
}

}  // namespace
}  // namespace vmm
