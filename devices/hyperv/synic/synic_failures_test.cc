// What other SynIC implementations got wrong, as far as queue and slot decide it: a test each. Real threads, no virtual
// machine: a VP is a thread that sleeps until it is kicked or the guest writes EOM.
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "devices/hyperv/synic/doorbell.h"
#include "devices/hyperv/synic/fake_guest_driver.h"
#include "devices/hyperv/synic/hv_message_layout.h"
#include "devices/hyperv/synic/message_for_test.h"
#include "devices/hyperv/synic/message_lane.h"
#include "devices/hyperv/synic/message_queue.h"
#include "devices/hyperv/synic/message_slot.h"
#include "devices/hyperv/synic/post_result.h"
#include "devices/hyperv/synic/queue_for_test.h"

namespace vmm {
namespace {

// A flag that somebody sleeps on: a kick, an interrupt. Several are one.
class Signal final {
 public:
  void Raise() {
    const std::lock_guard lock(mutex_);
    raised_ = true;
    changed_.notify_one();
  }
  // False after a time in which everything that can happen has happened: the wake-up is lost.
  bool Wait() {
    std::unique_lock lock(mutex_);
    const bool raised = changed_.wait_for(lock, std::chrono::seconds(20), [&] { return raised_; });
    raised_ = false;
    return raised;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool raised_ = false;
};

// One source of one VP with its guest: VP thread, guest thread, both asleep unless signalled.
class Machine final {
 public:
  explicit Machine(QueueShape shape) : q(shape), slot_(q.queue()) { Configure({.memory = &memory_}); }
  ~Machine() { Stop(); }

  void Start(uint32_t expected) {
    expected_ = expected;
    guest_thread_ = std::thread([this] { RunGuest(); });
    vp_thread_ = std::thread([this] { RunVp(); });
  }
  // Until the guest has all.
  bool WaitForAll() {
    if (guest_thread_.joinable()) guest_thread_.join();
    return received.size() == expected_;
  }
  void Stop() {
    if (guest_thread_.joinable()) guest_thread_.join();
    stop_ = true;
    vp_wake_.Raise();
    if (vp_thread_.joinable()) vp_thread_.join();
  }
  void Configure(SlotConfig config) {
    for (;;) {
      const Delivery delivery = slot_.TryConfigure(config);
      if (delivery.state != SlotState::kElsewhere) return Act(delivery);
      std::this_thread::yield();
    }
  }
  void Pause(bool paused) { Configure({.memory = &memory_, .paused = paused}); }
  void Kick(PostResult result) {
    if (result == PostResult::kPostedKick) vp_wake_.Raise();
  }
  void KickIf(bool kick) {
    if (kick) vp_wake_.Raise();
  }
  void Deliver() { Act(slot_.TryDeliver()); }
  // Sends `count` messages, half of them exit-less.
  void Produce(uint32_t producer, uint32_t count) {
    for (uint32_t n = 0; n < count;) {
      const HvMessage message = MakeMessage(producer, n);
      const bool direct = n % 2 == 0;
      const PostResult result = direct ? q.producer(producer).TryPostQuietly(message) : q.producer(producer).TryPost(message);
      if (!IsPosted(result)) {
        std::this_thread::yield();
        continue;
      }
      ++n;
      if (direct) {
        Deliver();
      } else {
        Kick(result);
      }
    }
  }
  // All once, each producer's in order.
  void ExpectConserved(uint32_t producers, uint32_t count) {
    EXPECT_EQ(received.size(), size_t{producers} * count);
    std::vector<uint32_t> next(producers);
    for (const MessageIdentity& id : received) {
      ASSERT_LT(id.producer, producers);
      ASSERT_EQ(id.sequence, next[id.producer]++) << "producer " << id.producer;
    }
  }

  QueueForTest q;
  std::vector<MessageIdentity> received;  // the guest thread's; after WaitForAll anybody's
  MessageSlot& slot() { return slot_; }
  FakeGuestDriver& guest() { return guest_; }

 private:
  void Act(const Delivery& delivery) {
    if (delivery.interrupt) interrupt_.Raise();
    if (delivery.look_again) KickIf(q.doorbell().Ring(QueueForTest::kSource));
  }
  void RunVp() {
    while (!stop_) {
      static_cast<void>(q.doorbell().Take());
      Deliver();
      if (!q.doorbell().Arm()) continue;
      if (!vp_wake_.Wait()) return;
    }
  }
  void RunGuest() {
    while (received.size() < expected_) {
      if (!interrupt_.Wait()) return;
      while (const auto read = guest_.TakeMessage()) {
        const auto id = IdentityOf(read->message);
        EXPECT_TRUE(id.has_value()) << "torn";
        received.push_back(id.value_or(MessageIdentity{~0u, ~0u}));
        if (read->eom) vp_wake_.Raise();  // EOM exits
        if (received.size() % 3 == 0) break;  // a handler that reads one an interrupt
      }
      // A handler that stopped early is interrupted again only by a message it has not seen written.
      if (guest_.Type() != HvMessageType::kNone) interrupt_.Raise();
    }
  }

  FakeGuestDriver guest_;
  GuestSlot memory_{guest_.slot};
  MessageSlot slot_;
  Signal vp_wake_;
  Signal interrupt_;
  std::atomic<bool> stop_{false};
  uint32_t expected_ = 0;
  std::thread vp_thread_;
  std::thread guest_thread_;
};

TEST(SynicFailuresTest, BurstOverflowStalls) {
  constexpr uint32_t kBurst = 1000;
  Machine machine({1, 4});
  uint32_t refused = 0;
  uint32_t accepted = 0;
  for (uint32_t n = 0; n < kBurst; ++n) {
    const PostResult result = machine.q.Post(0, accepted);
    machine.Kick(result);
    IsPosted(result) ? ++accepted : ++refused;
  }
  EXPECT_EQ(accepted, 4u);
  EXPECT_EQ(refused, kBurst - 4);
  machine.Start(accepted);
  EXPECT_TRUE(machine.WaitForAll());  // with no further traffic
  machine.ExpectConserved(1, accepted);
}

TEST(SynicFailuresTest, BurstOfManyTimesTheQueueArrivesWhole) {
  constexpr uint32_t kMessages = 5000;
  Machine machine({1, 4});
  machine.Start(kMessages);
  machine.Produce(0, kMessages);
  EXPECT_TRUE(machine.WaitForAll());
  machine.ExpectConserved(1, kMessages);
}

TEST(SynicFailuresTest, TwoWritersOfTheSlot) {
  constexpr uint32_t kProducers = 4;
  constexpr uint32_t kMessages = 2500;
  Machine machine({kProducers, 8});
  machine.Start(kProducers * kMessages);
  std::vector<std::thread> producers;
  for (uint32_t n = 0; n < kProducers; ++n) producers.emplace_back([&machine, n] { machine.Produce(n, kMessages); });
  for (std::thread& producer : producers) producer.join();
  EXPECT_TRUE(machine.WaitForAll());
  machine.ExpectConserved(kProducers, kMessages);
}

TEST(SynicFailuresTest, RestoreForgetsDoorbell) {
  Machine machine({1, 4});
  ASSERT_TRUE(machine.q.doorbell().Arm());
  EXPECT_TRUE(machine.q.queue().Restore({MakeMessage(0, 0), MakeMessage(0, 1)}));
  machine.Start(2);
  EXPECT_TRUE(machine.WaitForAll());
  machine.ExpectConserved(1, 2);
}

TEST(SynicFailuresTest, LostAcrossPause) {
  constexpr uint32_t kMessages = 4000;
  Machine machine({1, 8});
  machine.Start(kMessages);
  std::thread producer([&] { machine.Produce(0, kMessages); });
  for (int n = 0; n < 50; ++n) {
    machine.Pause(true);
    const uint64_t written = machine.slot().stats().written;
    std::this_thread::yield();
    EXPECT_EQ(machine.slot().stats().written, written);
    machine.Pause(false);
  }
  producer.join();
  EXPECT_TRUE(machine.WaitForAll());
  machine.ExpectConserved(1, kMessages);
}

TEST(SynicFailuresTest, ErrorDropsMessage) {
  Machine machine({1, 4});
  machine.Configure({.memory = nullptr});
  static_cast<void>(machine.q.Post(0, 0));
  EXPECT_EQ(machine.slot().TryDeliver().state, SlotState::kOff);
  EXPECT_EQ(machine.slot().stats().off, 1u);
  // A masked source: the message is written, the interrupt is not raised, and both are counted.
  FakeGuestDriver other;
  GuestSlot memory(other.slot);
  const Delivery delivery = machine.slot().TryConfigure({.memory = &memory, .interrupts = false});
  EXPECT_EQ(delivery.state, SlotState::kWritten);
  EXPECT_FALSE(delivery.interrupt);
  EXPECT_EQ(machine.slot().stats().no_interrupt, 1u);
  EXPECT_EQ(IdentityOf(other.TakeMessage()->message), (MessageIdentity{0, 0}));
}

TEST(SynicFailuresTest, OneStagedMessage) {
  constexpr uint32_t kProducers = 3;
  constexpr uint32_t kCapacity = 16;
  QueueForTest q({kProducers, kCapacity});
  for (uint32_t producer = 0; producer < kProducers; ++producer) {
    for (uint32_t n = 0; n < kCapacity; ++n) EXPECT_TRUE(IsPosted(q.Post(producer, n)));
    EXPECT_EQ(q.Post(producer, kCapacity), PostResult::kFull);
  }
  EXPECT_EQ(q.queue().TakeAll().size(), kProducers * kCapacity);
}

TEST(SynicFailuresTest, OnlyOneSint) {
  // Every source of a VP has a queue and a slot; one doorbell tells them apart.
  DoorbellLine line;
  Doorbell doorbell(line);
  const QueueShape shape{1, 2};
  for (unsigned sint = 0; sint < kHvSintCount; ++sint) {
    SharedRegion region(QueueMap::RegionBytes(shape));
    const auto queue = MessageQueue::Create(region.bytes(), shape, doorbell, sint).value();
    auto producer = MessageProducer::Attach(region.bytes(), shape, 0, doorbell, sint).value();
    FakeGuestDriver guest;
    GuestSlot memory(guest.slot);
    MessageSlot slot(*queue);
    EXPECT_EQ(slot.TryConfigure({.memory = &memory}).state, SlotState::kIdle);
    ASSERT_TRUE(doorbell.Arm());
    EXPECT_EQ(producer.TryPost(MakeMessage(0, sint)), PostResult::kPostedKick);
    EXPECT_EQ(doorbell.Take(), uint64_t{1} << sint);
    EXPECT_TRUE(slot.TryDeliver().interrupt);
    EXPECT_EQ(IdentityOf(guest.TakeMessage()->message), (MessageIdentity{0, sint}));
  }
}

// A guest on another core that frees the slot at its own pace: neither its clearing of the type nor our flag is ever undone.
// The steps one by one are in message_slot_test.cc.
TEST(SynicFailuresTest, PendingFlagRace) {
  constexpr uint32_t kMessages = 20000;
  Machine machine({1, 2});
  machine.Start(kMessages);
  for (uint32_t n = 0; n < kMessages;) {
    if (!IsPosted(machine.q.producer(0).TryPostQuietly(MakeMessage(0, n)))) {
      std::this_thread::yield();
      continue;
    }
    ++n;
    machine.Deliver();
  }
  EXPECT_TRUE(machine.WaitForAll());
  machine.ExpectConserved(1, kMessages);
}

TEST(SynicFailuresTest, MessagePastRip) {
  Machine machine({2, 2});
  for (uint32_t n = 0; n < 2; ++n) {
    static_cast<void>(machine.q.Post(0, n));
    static_cast<void>(machine.q.Post(1, n));
  }
  machine.Deliver();  // the slot is busy, and all queues are full
  for (uint32_t vp = 0; vp < 2; ++vp) {
    const HvMessage intercept = MakeMessage(vp, 2, HvMessageType::kGpaIntercept);
    EXPECT_TRUE(IsPosted(machine.q.producer(vp).TryPostIntercept(intercept)));
  }
  machine.Start(6);
  EXPECT_TRUE(machine.WaitForAll());
  machine.ExpectConserved(2, 3);
}

}  // namespace
}  // namespace vmm
