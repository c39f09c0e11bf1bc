#include "vcpu/local_apic/interrupt_inbox.h"

#include <atomic>
#include <cstdint>
#include <optional>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace vmm {
namespace {

TEST(InterruptInboxTest, AwakeConsumerIsNotKicked) {
  InterruptInbox inbox;
  EXPECT_FALSE(inbox.Post(0x31, false));
  EXPECT_FALSE(inbox.PostEvent(InterruptInbox::kNmi));
  EXPECT_EQ(inbox.HighestAbove(0), 0x31);
  EXPECT_EQ(inbox.events(), InterruptInbox::kNmi);
}

TEST(InterruptInboxTest, ArmYieldsOneKickHoweverManyPost) {
  InterruptInbox inbox;
  ASSERT_TRUE(inbox.Arm(0));
  EXPECT_TRUE(inbox.Post(0x31, false));
  EXPECT_FALSE(inbox.Post(0x31, false));
  EXPECT_FALSE(inbox.Post(0xf1, false));
  EXPECT_FALSE(inbox.PostEvent(InterruptInbox::kNmi));
}

TEST(InterruptInboxTest, VectorKicksOnlyAboveTheThreshold) {
  for (unsigned threshold = 0; threshold < 16; ++threshold) {
    for (unsigned vector = 16; vector < 256; ++vector) {
      InterruptInbox inbox;
      ASSERT_TRUE(inbox.Arm(static_cast<uint8_t>(threshold)));
      EXPECT_EQ(inbox.Post(static_cast<uint8_t>(vector), false), vector / 16 > threshold) << threshold << " " << vector;
    }
  }
}

TEST(InterruptInboxTest, VectorBelowTheThresholdLeavesTheKickToALaterOne) {
  InterruptInbox inbox;
  ASSERT_TRUE(inbox.Arm(5));
  EXPECT_FALSE(inbox.Post(0x5f, false));
  EXPECT_TRUE(inbox.Post(0x60, false));
}

TEST(InterruptInboxTest, EventKicksAtTheHighestThreshold) {
  InterruptInbox inbox;
  ASSERT_TRUE(inbox.Arm(InterruptInbox::kOnlyEvents));
  EXPECT_FALSE(inbox.Post(0xff, false));
  EXPECT_TRUE(inbox.PostEvent(InterruptInbox::kNmi));
}

TEST(InterruptInboxTest, ArmRefusesOverWhatIsThere) {
  InterruptInbox inbox;
  EXPECT_FALSE(inbox.Post(0x45, false));
  EXPECT_TRUE(inbox.Arm(4));   // not above
  EXPECT_FALSE(inbox.Arm(3));
  EXPECT_FALSE(inbox.Post(0x46, false)) << "a refused Arm leaves the consumer awake";
  EXPECT_TRUE(inbox.TakeVector(0x46));
  EXPECT_TRUE(inbox.TakeVector(0x45));
  EXPECT_FALSE(inbox.PostEvent(InterruptInbox::kLint0));
  EXPECT_FALSE(inbox.Arm(InterruptInbox::kOnlyEvents));
  EXPECT_EQ(inbox.TakeEvents(InterruptInbox::kLint0), InterruptInbox::kLint0);
  EXPECT_TRUE(inbox.Arm(0));
}

TEST(InterruptInboxTest, ArmAgainIsByTheNewThreshold) {
  InterruptInbox inbox;
  ASSERT_TRUE(inbox.Arm(8));
  EXPECT_FALSE(inbox.Post(0x70, false));
  EXPECT_FALSE(inbox.Arm(6)) << "the vector that did not kick is deliverable now";
}

TEST(InterruptInboxTest, DisarmedConsumerIsNotKicked) {
  InterruptInbox inbox;
  ASSERT_TRUE(inbox.Arm(0));
  inbox.Disarm();
  EXPECT_FALSE(inbox.Post(0x31, false));
}

TEST(InterruptInboxTest, VectorIsTakenOnceHoweverOftenPosted) {
  InterruptInbox inbox;
  static_cast<void>(inbox.Post(0x80, false));
  static_cast<void>(inbox.Post(0x80, false));
  EXPECT_TRUE(inbox.TakeVector(0x80));
  EXPECT_FALSE(inbox.TakeVector(0x80));
}

TEST(InterruptInboxTest, TriggerModeIsOfTheLastPost) {
  InterruptInbox inbox;
  static_cast<void>(inbox.Post(0x99, true));
  EXPECT_TRUE(inbox.IsLevel(0x99));
  EXPECT_EQ(inbox.TmrPart(4), 1u << 25);
  EXPECT_EQ(inbox.IrrPart(4), 1u << 25);
  static_cast<void>(inbox.Post(0x99, false));
  EXPECT_FALSE(inbox.IsLevel(0x99));
}

TEST(InterruptInboxTest, InitDropsTheStartupBeforeItAndKeepsTheOneAfter) {
  InterruptInbox inbox;
  static_cast<void>(inbox.PostStartup(0x11));
  static_cast<void>(inbox.PostInit());
  EXPECT_EQ(inbox.events(), InterruptInbox::kInit);
  static_cast<void>(inbox.PostStartup(0x22));
  static_cast<void>(inbox.PostStartup(0x33));
  EXPECT_EQ(inbox.TakeEvents(InterruptInbox::kInit), InterruptInbox::kInit);
  EXPECT_EQ(inbox.TakeStartup(), 0x22);
  EXPECT_EQ(inbox.TakeStartup(), std::nullopt);
  EXPECT_EQ(inbox.events(), 0u);
}

// Posters publish a number, then post their vector; the consumer sleeps on the kick alone. A lost interrupt or wake-up hangs the
// test; TSan checks that what was published is visible. The consumer's priority goes up and down, so that vectors wait for it.
TEST(InterruptInboxTest, NoInterruptOrWakeUpIsLostAndNoKickIsTooMany) {
  constexpr unsigned kPosters = 4;
  constexpr uint32_t kRounds = 10'000;
  InterruptInbox inbox;
  uint32_t unordered[kPosters] = {};  // written before the last post, with nothing but the post to order it
  std::atomic<uint32_t> published[kPosters] = {};
  std::atomic<uint32_t> kicks{0};
  const auto vector_of = [](unsigned poster) { return static_cast<uint8_t>(0x30 + 0x20 * poster); };
  std::vector<std::thread> posters;
  for (unsigned poster = 0; poster < kPosters; ++poster) {
    posters.emplace_back([&, poster] {
      for (uint32_t round = 1; round <= kRounds; ++round) {
        if (round == kRounds) unordered[poster] = round;
        published[poster].store(round, std::memory_order_relaxed);
        bool kick = round % 3 == 0 && inbox.PostEvent(InterruptInbox::kNmi);
        if (inbox.Post(vector_of(poster), round % 2 == 0)) kick = true;
        if (kick) {
          kicks.fetch_add(1);
          kicks.notify_one();
        }
      }
    });
  }
  uint32_t seen[kPosters] = {};
  uint32_t arms = 0;
  uint32_t slept_kicks = 0;
  uint8_t priority = 0;
  const auto all_seen = [&] {
    for (const uint32_t round : seen) {
      if (round != kRounds) return false;
    }
    return true;
  };
  while (!all_seen()) {
    inbox.TakeEvents(InterruptInbox::kNmi);
    while (const std::optional<uint8_t> vector = inbox.HighestAbove(priority)) {
      ASSERT_TRUE(inbox.TakeVector(*vector));
      const unsigned poster = (*vector - 0x30u) / 0x20;
      const uint32_t round = published[poster].load(std::memory_order_relaxed);
      ASSERT_GE(round, seen[poster]);
      seen[poster] = round;
      if (round == kRounds) {
        ASSERT_EQ(unordered[poster], kRounds);
      }
      priority = *vector >> 4;  // in service
    }
    if (priority != 0 && arms % 2 == 0) {
      // Into the guest with an interrupt in service: only a higher one, or an event, brings it out. It ends it by itself.
      ++arms;
      static_cast<void>(inbox.Arm(priority));
      inbox.Disarm();
    }
    priority = 0;  // EOI
    if (all_seen()) break;
    // Counted whatever it answers: a poster may ring between its two steps, which then find the bit.
    ++arms;
    if (inbox.Arm(priority)) {
      kicks.wait(slept_kicks);
      slept_kicks = kicks.load();
    }
  }
  for (std::thread& poster : posters) poster.join();
  EXPECT_LE(kicks.load(), arms);
}

}  // namespace
}  // namespace vmm
