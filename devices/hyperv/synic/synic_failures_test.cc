// What other SynIC implementations got wrong: a test each. Real threads, no virtual machine: a VP is a thread that sleeps until
// it is kicked or the guest writes EOM. First what queue and slot decide, then what the whole SynIC does.
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/status_matchers.h"
#include "devices/hyperv/hv_host.h"
#include "devices/hyperv/hv_msr_layout.h"
#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/synic/connections.h"
#include "devices/hyperv/synic/doorbell.h"
#include "devices/hyperv/synic/fake_guest_driver.h"
#include "devices/hyperv/synic/hv_message_layout.h"
#include "devices/hyperv/synic/message_for_test.h"
#include "devices/hyperv/synic/message_lane.h"
#include "devices/hyperv/synic/message_queue.h"
#include "devices/hyperv/synic/message_slot.h"
#include "devices/hyperv/synic/post_result.h"
#include "devices/hyperv/synic/queue_for_test.h"
#include "devices/hyperv/synic/synic.h"
#include "devices/hyperv/synic/synic_for_test.h"
#include "devices/hyperv/timers/fake_timer_host.h"
#include "devices/hyperv/timers/synthetic_timers.h"
#include "memory/gpa.h"

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

// --- The whole SynIC ----------------------------------------------------------------------------------------------------

constexpr Sint kSint = Sint::Of<2>();

class OneVp final : public SynicDirectory {
 public:
  explicit OneVp(Synic& synic) : synic_(synic) {}
  [[nodiscard]] Synic* Find(VpIndex vp, Vtl vtl) noexcept override {
    return vp == VpIndex(0) && vtl == kVtl0 ? &synic_ : nullptr;
  }
  [[nodiscard]] uint32_t vp_count() const noexcept override { return 1; }

 private:
  Synic& synic_;
};

TEST(SynicFailuresTest, StaleMessagePage) {
  SynicForTest synic;
  // Something for the page from before it is first enabled.
  EXPECT_EQ(synic->PostIntercept(Poster::OfVp(VpIndex(0)), kSint, MakeMessage(0, 0)), HvStatus::kSuccess);
  for (uint32_t at = 0; at < kPageBytes; ++at) ASSERT_EQ(synic.message_page().data()[at], std::byte{0});
  synic.Enable(kSint);
  EXPECT_EQ(IdentityOf(synic.guest(kSint).slot), (MessageIdentity{0, 0}));
  // Its content is kept while it is off, and goes with it: the slot is as the guest left it.
  for (const uint64_t simp : {0x8000u, 0x8001u, 0x9001u, 0x9000u, 0x5001u}) {
    EXPECT_TRUE(synic.Write(kHvMsrSimp, simp));
    EXPECT_EQ(IdentityOf(synic.guest(kSint).slot), (MessageIdentity{0, 0}));
  }
  EXPECT_EQ(synic->Post(Poster::OfVp(VpIndex(0)), kSint, MakeMessage(0, 1)), HvStatus::kSuccess);
  EXPECT_TRUE(synic.guest(kSint).TakeMessage()->eom);
  synic->OnEom();
  EXPECT_EQ(IdentityOf(synic.guest(kSint).slot), (MessageIdentity{0, 1}));
}

TEST(SynicFailuresTest, GuestIndexPanics) {
  constexpr uint64_t kNumbers[] = {0,    1,    2,      3,       15,          16,          17,          31,
                                   63,   64,   240,    241,     255,         256,         2047,        2048,
                                   4095, 4096, 0xffff, 0x10000, 0x7fff'ffff, 0x8000'0000, 0xffff'fffe, 0xffff'ffff,
                                   ~uint64_t{0} - 1, ~uint64_t{0}};
  SynicForTest synic;
  OneVp directory(*synic);
  ConnectionTable table(directory);
  FakeDeadlineTimer deadline;
  FakeVectorInterrupts vectors;
  SyntheticTimers timers(*synic, synic.clock, deadline, vectors, /*offers_direct=*/true);
  synic.Enable(kSint);
  ASSERT_THAT(table.Add(3, {.id = 1, .type = PortType::kMessage, .vp = VpIndex(0), .vtl = kVtl0, .sint = kSint}), IsOk());
  ASSERT_THAT(table.Add(15, {.id = 1,
                             .type = PortType::kEvent,
                             .vp = VpIndex(0),
                             .vtl = kVtl0,
                             .sint = kSint,
                             .base_flag = 2040,
                             .flag_count = 8}),
              IsOk());
  const std::vector<uint8_t> payload(4096);
  for (const uint64_t number : kNumbers) {
    const auto n = static_cast<uint32_t>(number);
    EXPECT_EQ(Sint::From(number).has_value(), number < 16);
    if (n != 3 && n != 15) {
      EXPECT_EQ(table.PostMessage(Poster::OfVp(VpIndex(0)), n, 1, {}), HvStatus::kInvalidConnectionId);
      EXPECT_EQ(table.SignalEvent(n, 0), HvStatus::kInvalidConnectionId);
    }
    EXPECT_EQ(table.SignalEvent(15, n), n < 8 ? HvStatus::kSuccess : HvStatus::kInvalidParameter);
    EXPECT_EQ(synic->SignalEvent(kSint, n), n < 2048 ? HvStatus::kSuccess : HvStatus::kInvalidParameter);
    if (number <= payload.size()) {
      const HvStatus status = table.PostMessage(Poster::OfVp(VpIndex(0)), 3, 1, std::span(payload).first(n));
      EXPECT_EQ(status, n <= 240 ? HvStatus::kSuccess : HvStatus::kInvalidParameter);
    }
    // VP indices: of a connection that names one, whoever made it; and of the poster.
    ASSERT_THAT(table.Add(99, {.id = 1, .type = PortType::kMessage, .vp = VpIndex(n), .vtl = kVtl0, .sint = kSint}), IsOk());
    EXPECT_EQ(table.PostMessage(Poster::OfVp(VpIndex(1)), 99, 1, {}),
              n == 0 || n == kHvAnyVp.raw() ? HvStatus::kSuccess : HvStatus::kInvalidVpIndex);
    ASSERT_THAT(table.Remove(99), IsOk());
    if (number >= SynicForTest::kVps) {
      EXPECT_EQ(synic->Post(Poster::OfVp(VpIndex(n)), kSint, MakeMessage(0, 0)), HvStatus::kInvalidVpIndex);
    }
    for (uint32_t msr = kHvMsrScontrol; msr <= kHvMsrStimer3Count; ++msr) {
      uint64_t value = 0;
      const bool known = Synic::Has(msr) || SyntheticTimers::Has(msr);
      EXPECT_EQ(synic->ReadMsr(msr, value) || timers.ReadMsr(msr, value), known);
      const bool is_bad_vector = msr >= kHvMsrSint0 && msr < kHvMsrSint0 + 16 && (number & 0x100ff) < 16;
      EXPECT_EQ(synic->WriteMsr(msr, number) || timers.WriteMsr(msr, number), known && msr != kHvMsrSversion && !is_bad_vector)
          << std::hex << msr << " " << number;
    }
    timers.RunExpired();
    synic->RunPending();
    for (uint32_t timer = 0; timer < kHvStimerCount; ++timer) {
      EXPECT_TRUE(timers.WriteMsr(kHvMsrStimer0Config + 2 * timer, 0));
    }
    for (uint64_t source = 0; source < Sint::kCount; ++source) {
      const Sint sint = *Sint::From(source);
      EXPECT_TRUE(synic.Write(kHvMsrScontrol, 1));
      synic.Enable(sint);
      while (synic.guest(sint).TakeMessage()) synic->OnEom();
    }
  }
}

TEST(SynicFailuresTest, UnknownConnectionSilent) {
  SynicForTest synic;
  OneVp directory(*synic);
  ConnectionTable table(directory);
  synic.Enable(kSint);
  EXPECT_EQ(table.PostMessage(Poster::OfVp(VpIndex(0)), 1, 1, {}), HvStatus::kInvalidConnectionId);
  EXPECT_EQ(table.SignalEvent(2, 0), HvStatus::kInvalidConnectionId);
}

TEST(SynicFailuresTest, PollingForFreeSlot) {
  SynicForTest synic;
  FakeDeadlineTimer deadline;
  FakeVectorInterrupts vectors;
  SyntheticTimers timers(*synic, synic.clock, deadline, vectors, /*offers_direct=*/true);
  synic.Enable(kSint);
  for (uint32_t n = 0; n < 3; ++n) {
    EXPECT_EQ(synic->Post(Poster::EventLoop(), kSint, MakeMessage(0, n)), HvStatus::kSuccess);
  }
  synic->PostTimer(0, kSint, HvTicks(1));
  synic->RunPending();
  const int kicks = synic.kick.kicks;
  const uint64_t looks = synic->stats().messages.busy;
  // However long the slot stays busy, and however often the VP enters.
  for (int n = 0; n < 100; ++n) {
    synic.clock.now = HvTicks(1'000'000u * n);
    synic->RunPending();
  }
  EXPECT_EQ(synic->stats().messages.busy, looks);
  EXPECT_EQ(synic.kick.kicks, kicks);
  EXPECT_EQ(deadline.sets, 0);
  EXPECT_TRUE(synic.interrupts.watched[kSint.raw()]);
  // The slot's being free is told by EOM or EOI alone.
  EXPECT_EQ(IdentityOf(synic.guest(kSint).TakeMessage()->message), (MessageIdentity{0, 0}));
  synic->OnEoi(kSint);
  EXPECT_EQ(IdentityOf(synic.guest(kSint).TakeMessage()->message), (MessageIdentity{0, 1}));
  synic->OnEom();
  EXPECT_EQ(IdentityOf(synic.guest(kSint).TakeMessage()->message), (MessageIdentity{0, 2}));
}

// Time passes by being looked at.
class SteppingClock final : public ReferenceClock {
 public:
  [[nodiscard]] HvTicks Now() noexcept override { return HvTicks(ticks_.fetch_add(100) + 100); }
  [[nodiscard]] std::optional<ReferenceTscParameters> tsc_parameters() const noexcept override { return std::nullopt; }

 private:
  std::atomic<uint64_t> ticks_{0};
};

// A deadline that may be early, which timers must bear: it wakes the VP's thread at once.
class EagerDeadline final : public DeadlineTimer {
 public:
  explicit EagerDeadline(Signal& wake) : wake_(wake) {}
  void Set(HvTicks) noexcept override { wake_.Raise(); }
  void Cancel() noexcept override {}

 private:
  Signal& wake_;
};

// Our own timers and messages on one source: a periodic and a one-shot timer, two posters, VP and guest on threads of their own.
TEST(SynicFailuresTest, TimerVsMessage) {
  constexpr uint32_t kPosters = 2;
  constexpr uint32_t kMessages = 1500;
  constexpr uint32_t kShots = 300;
  constexpr uint64_t kPeriod = 3000;
  constexpr uint64_t kMode = uint64_t{2} << kHvStimerSintShift;
  SteppingClock clock;
  SynicForTest synic(&clock);
  Signal vp_wake;
  Signal interrupt;
  EagerDeadline deadline(vp_wake);
  FakeVectorInterrupts vectors;
  SyntheticTimers timers(*synic, clock, deadline, vectors, /*offers_direct=*/true);
  synic.interrupts.on_edge = [&](Sint) { interrupt.Raise(); };
  synic.kick.on_kick = [&] { vp_wake.Raise(); };
  synic.Enable(kSint);

  std::atomic<bool> eom{false};
  std::atomic<bool> stop{false};
  std::thread vp([&] {
    uint32_t shots = 0;
    ASSERT_TRUE(timers.WriteMsr(kHvMsrStimer0Config + 1, kPeriod));
    ASSERT_TRUE(timers.WriteMsr(kHvMsrStimer0Config, kMode | kHvStimerEnable | kHvStimerPeriodic));
    ASSERT_TRUE(timers.WriteMsr(kHvMsrStimer0Config + 2, kMode | kHvStimerAutoEnable));
    do {
      if (eom.exchange(false)) {
        EXPECT_TRUE(synic.Write(kHvMsrEom, 0));
      }
      timers.RunExpired();
      uint64_t config = 0;
      EXPECT_TRUE(timers.ReadMsr(kHvMsrStimer0Config + 2, config));
      if ((config & kHvStimerEnable) == 0 && shots < kShots) {
        ++shots;
        EXPECT_TRUE(timers.WriteMsr(kHvMsrStimer0Config + 3, clock.Now().raw() + 500));
      }
      synic->RunPending();
    } while (vp_wake.Wait() && !stop);
    EXPECT_TRUE(timers.WriteMsr(kHvMsrStimer0Config, 0));
  });

  std::vector<std::thread> posters;
  for (uint32_t n = 0; n < kPosters; ++n) {
    posters.emplace_back([&, n] {
      for (uint32_t sequence = 0; sequence < kMessages;) {
        const HvStatus status = synic->Post(Poster::OfVp(VpIndex(n + 1)), kSint, MakeMessage(n, sequence));
        if (status == HvStatus::kSuccess) {
          ++sequence;
        } else {
          ASSERT_EQ(status, HvStatus::kInsufficientBuffers);
          std::this_thread::yield();
        }
      }
    });
  }

  std::array<uint32_t, kPosters> next{};
  uint32_t shots = 0;
  uint32_t ticks = 0;
  uint64_t last_tick = 0;
  uint64_t first_tick = 0;
  const auto read_one = [&] {
    const auto read = synic.guest(kSint).TakeMessage();
    if (!read) return false;
    if (read->message.header.type == HvMessageType::kTimerExpired) {
      HvTimerMessagePayload payload;
      std::memcpy(&payload, read->message.payload, sizeof(payload));
      EXPECT_GE(payload.delivery_time, payload.expiration_time);
      if (payload.timer_index == 0) {
        if (ticks++ == 0) first_tick = payload.expiration_time;
        EXPECT_TRUE(ticks == 1 || payload.expiration_time > last_tick);
        EXPECT_EQ((payload.expiration_time - first_tick) % kPeriod, 0u);
        last_tick = payload.expiration_time;
      } else {
        EXPECT_EQ(payload.timer_index, 1u);
        ++shots;
      }
    } else {
      const auto id = IdentityOf(read->message);
      if (id && id->producer < kPosters) {
        EXPECT_EQ(id->sequence, next[id->producer]++) << "producer " << id->producer;
      } else {
        ADD_FAILURE() << "torn";
      }
    }
    if (read->eom) {
      eom = true;
      vp_wake.Raise();
    }
    return true;
  };
  while (shots < kShots || next[0] < kMessages || next[1] < kMessages) {
    if (!interrupt.Wait()) {
      ADD_FAILURE() << "a wake-up was lost: " << shots << " shots, " << next[0] << " and " << next[1] << " messages";
      break;
    }
    while (read_one()) {
    }
  }
  for (std::thread& poster : posters) poster.join();
  stop = true;
  vp_wake.Raise();
  vp.join();
  synic->OnEom();
  while (read_one()) synic->OnEom();
  EXPECT_EQ(shots, kShots);
  EXPECT_EQ(next, (std::array<uint32_t, kPosters>{kMessages, kMessages}));
  EXPECT_EQ(timers.stats().messages, ticks + shots);
  EXPECT_GT(ticks, 0u);
}

// The claim is unknown to a timer in the kernel, which writes the slot on the VP's thread: no poster writes meanwhile, however
// recently it could. The VP's thread plays the kernel here, with plain writes that TSan would see race.
TEST(SynicFailuresTest, TimerVsMessageOfAKernelTimer) {
  constexpr uint32_t kMessages = 3000;
  constexpr uint32_t kKernel = 77;
  SynicForTest synic;
  synic.Enable(kSint);
  std::vector<std::thread> posters;
  std::atomic<int> posting{2};
  for (uint32_t n = 0; n < 2; ++n) {
    posters.emplace_back([&, n] {
      for (uint32_t sequence = 0; sequence < kMessages;) {
        if (synic->Post(Poster::OfVp(VpIndex(n + 1)), kSint, MakeMessage(n, sequence)) == HvStatus::kSuccess) {
          ++sequence;
        } else {
          std::this_thread::yield();
        }
      }
      --posting;
    });
  }
  std::array<uint32_t, 2> next{};
  uint32_t kernels = 0;
  const auto read = [&] {
    const auto taken = synic.guest(kSint).TakeMessage();
    if (!taken) return false;
    const auto id = IdentityOf(taken->message);
    EXPECT_TRUE(id.has_value()) << "torn";
    if (id && id->producer == kKernel) {
      EXPECT_EQ(id->sequence, kernels++);
    } else if (id) {
      EXPECT_EQ(id->sequence, next.at(id->producer)++);
    }
    return true;
  };
  uint32_t kernel_written = 0;
  bool last = false;
  while (!last) {
    last = posting == 0;
    synic->SetKernelTimerSints(uint16_t{1} << kSint.raw());
    for (int n = 0; n < 10; ++n) {
      HvMessage& slot = synic.guest(kSint).slot;
      if (slot.header.type == HvMessageType::kNone) slot = MakeMessage(kKernel, kernel_written++, HvMessageType::kTimerExpired);
      static_cast<void>(read());
      synic->RunPending();
      static_cast<void>(read());
      synic->OnEom();
    }
    synic->SetKernelTimerSints(0);
    synic->RunPending();
    std::this_thread::yield();
    while (read()) synic->OnEom();
  }
  for (std::thread& poster : posters) poster.join();
  while (read()) synic->OnEom();
  EXPECT_EQ(next, (std::array<uint32_t, 2>{kMessages, kMessages}));
  EXPECT_EQ(kernels, kernel_written);
  EXPECT_GT(kernels, 0u);
}

// Runs a hook where a slot's writer asks for the time: in the middle of its writing.
class HookedClock final : public ReferenceClock {
 public:
  [[nodiscard]] HvTicks Now() noexcept override {
    if (on_now) on_now();
    return HvTicks(1);
  }
  [[nodiscard]] std::optional<ReferenceTscParameters> tsc_parameters() const noexcept override { return std::nullopt; }
  std::function<void()> on_now;
};

TEST(SynicFailuresTest, TimerVsMessageOfAPosterInTheMiddle) {
  HookedClock clock;
  SynicForTest synic(&clock);
  synic.Enable(kSint);
  // The poster will write the timer's message before its own.
  ASSERT_EQ(synic->Post(Poster::OfVp(VpIndex(1)), kSint, MakeMessage(0, 0)), HvStatus::kSuccess);
  synic->PostTimer(0, kSint, HvTicks(1));
  ASSERT_TRUE(synic.guest(kSint).TakeMessage().has_value());
  std::atomic<bool> inside{false};
  std::atomic<bool> returned{false};
  clock.on_now = [&] {
    inside = true;
    // Until the VP's thread has found the slot taken, or did not care.
    while (synic->stats().messages.elsewhere == 0 && !returned) std::this_thread::yield();
    EXPECT_FALSE(returned);
  };
  std::thread poster([&] { EXPECT_EQ(synic->Post(Poster::OfVp(VpIndex(1)), kSint, MakeMessage(0, 1)), HvStatus::kSuccess); });
  while (!inside) std::this_thread::yield();
  synic->SetKernelTimerSints(uint16_t{1} << kSint.raw());
  returned = true;
  EXPECT_EQ(synic.guest(kSint).Type(), HvMessageType::kTimerExpired);
  poster.join();
  EXPECT_TRUE(synic.guest(kSint).TakeMessage()->eom);
  synic->OnEom();
  EXPECT_EQ(IdentityOf(synic.guest(kSint).TakeMessage()->message), (MessageIdentity{0, 1}));
}

}  // namespace
}  // namespace vmm
