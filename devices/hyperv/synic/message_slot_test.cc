// One slot, one thread, a guest that steps in between any two accesses. The threads are in synic_failures_test.cc.
#include "devices/hyperv/synic/message_slot.h"

#include <functional>

#include <gtest/gtest.h>

#include "devices/hyperv/synic/fake_guest_driver.h"
#include "devices/hyperv/synic/message_for_test.h"
#include "devices/hyperv/synic/queue_for_test.h"

namespace vmm {
namespace {

// Runs a guest's step before or after each access.
class SteppedSlot final : public SlotMemory {
 public:
  explicit SteppedSlot(FakeGuestDriver& guest) : slot_(guest.slot) {}
  HvMessageType LoadType() noexcept override { return slot_.LoadType(); }
  void SetPending() noexcept override {
    ++pendings;
    if (before_pending) before_pending();
    slot_.SetPending();
    if (after_pending) after_pending();
  }
  void Write(const HvMessage& message, uint8_t flags) noexcept override {
    ++writes;
    if (before_write) before_write();
    slot_.Write(message, flags);
  }
  std::function<void()> before_pending, after_pending, before_write;
  int pendings = 0;
  int writes = 0;

 private:
  GuestSlot slot_;
};

class MessageSlotTest : public testing::Test {
 protected:
  MessageSlotTest() { EXPECT_EQ(slot.TryConfigure({.memory = &memory}).state, SlotState::kIdle); }
  std::optional<MessageIdentity> GuestReads() {
    const auto read = guest.TakeMessage();
    eom = read && read->eom;
    return read ? IdentityOf(read->message) : std::nullopt;
  }
  void Post(uint32_t sequence) { ASSERT_TRUE(IsPosted(q.Post(0, sequence))); }

  QueueForTest q{{2, 8}};
  FakeGuestDriver guest;
  SteppedSlot memory{guest};
  MessageSlot slot{q.queue()};
  bool eom = false;
};

TEST_F(MessageSlotTest, FreeSlotIsWrittenAndInterrupts) {
  Post(0);
  const Delivery delivery = slot.TryDeliver();
  EXPECT_EQ(delivery.state, SlotState::kWritten);
  EXPECT_TRUE(delivery.interrupt);
  EXPECT_FALSE(delivery.look_again);
  EXPECT_EQ(guest.slot.header.reserved, 0);
  EXPECT_EQ(GuestReads(), (MessageIdentity{0, 0}));
  EXPECT_FALSE(eom);
  EXPECT_EQ(slot.TryDeliver().state, SlotState::kIdle);
}

TEST_F(MessageSlotTest, PendingIsInTheMessageWhenMoreWait) {
  Post(0);
  Post(1);
  EXPECT_EQ(slot.TryDeliver().state, SlotState::kWritten);
  EXPECT_EQ(GuestReads(), (MessageIdentity{0, 0}));
  EXPECT_TRUE(eom);
  EXPECT_EQ(slot.TryDeliver().state, SlotState::kWritten);
  EXPECT_EQ(GuestReads(), (MessageIdentity{0, 1}));
  EXPECT_FALSE(eom);
}

TEST_F(MessageSlotTest, PendingIsSetWhenOneComesLater) {
  Post(0);
  EXPECT_EQ(slot.TryDeliver().state, SlotState::kWritten);
  Post(1);
  const Delivery delivery = slot.TryDeliver();
  EXPECT_EQ(delivery.state, SlotState::kBusy);
  EXPECT_FALSE(delivery.interrupt);
  EXPECT_EQ(GuestReads(), (MessageIdentity{0, 0}));
  EXPECT_TRUE(eom);
}

TEST_F(MessageSlotTest, GuestThatClearsBeforeTheFlagNeedsNoEom) {
  Post(0);
  EXPECT_EQ(slot.TryDeliver().state, SlotState::kWritten);
  Post(1);
  memory.before_pending = [&] { EXPECT_EQ(GuestReads(), (MessageIdentity{0, 0})); };
  EXPECT_EQ(slot.TryDeliver().state, SlotState::kWritten);
  EXPECT_FALSE(eom);
  EXPECT_EQ(GuestReads(), (MessageIdentity{0, 1}));
}

TEST_F(MessageSlotTest, GuestThatClearsAfterTheFlagSeesIt) {
  Post(0);
  EXPECT_EQ(slot.TryDeliver().state, SlotState::kWritten);
  Post(1);
  memory.after_pending = [&] { EXPECT_EQ(GuestReads(), (MessageIdentity{0, 0})); };
  EXPECT_EQ(slot.TryDeliver().state, SlotState::kWritten);
  EXPECT_TRUE(eom);  // one too many does no harm
  EXPECT_EQ(slot.TryDeliver().state, SlotState::kIdle);
  EXPECT_EQ(GuestReads(), (MessageIdentity{0, 1}));
}

TEST_F(MessageSlotTest, BusySlotKeepsEveryOtherByte) {
  Post(0);
  EXPECT_EQ(slot.TryDeliver().state, SlotState::kWritten);
  std::memset(static_cast<void*>(&guest.slot), 0xa4, sizeof(guest.slot));
  HvMessage expected = guest.slot;
  expected.header.flags |= kHvMessagePending;
  Post(1);
  EXPECT_EQ(slot.TryDeliver().state, SlotState::kBusy);
  EXPECT_EQ(std::memcmp(&guest.slot, &expected, sizeof(expected)), 0);
}

TEST_F(MessageSlotTest, NothingBehindThePayloadIsShown) {
  std::memset(static_cast<void*>(&guest.slot), 0, sizeof(guest.slot));
  HvMessage message = MakeMessage(0, 0);
  message.header.payload_size = 8;
  std::memset(message.payload + 8, 0x5e, sizeof(message.payload) - 8);
  ASSERT_TRUE(IsPosted(q.producer(0).TryPost(message)));
  EXPECT_EQ(slot.TryDeliver().state, SlotState::kWritten);
  for (size_t at = 8; at < sizeof(message.payload); ++at) ASSERT_EQ(guest.slot.payload[at], 0) << at;
}

TEST_F(MessageSlotTest, GuestThatNeverFreesCostsTwoLooks) {
  guest.slot.header.type = static_cast<HvMessageType>(0xffffffff);
  Post(0);
  for (int n = 0; n < 100; ++n) EXPECT_EQ(slot.TryDeliver().state, SlotState::kBusy);
  EXPECT_EQ(memory.pendings, 100);
  EXPECT_EQ(memory.writes, 0);
  EXPECT_EQ(slot.stats().busy, 100u);
}

// A poster that finds the claim held leaves a mark; the holder looks again, and the poster's message is seen to.
TEST_F(MessageSlotTest, HolderLooksAgainForAnother) {
  Post(0);
  memory.before_write = [&] {
    memory.before_write = nullptr;
    Post(1);
    EXPECT_EQ(slot.TryDeliver().state, SlotState::kElsewhere);
  };
  const Delivery delivery = slot.TryDeliver();
  EXPECT_EQ(delivery.state, SlotState::kBusy);  // the second one
  EXPECT_TRUE(delivery.interrupt);              // the first one
  EXPECT_FALSE(delivery.look_again);
  EXPECT_EQ(GuestReads(), (MessageIdentity{0, 0}));
  EXPECT_TRUE(eom);
  EXPECT_EQ(slot.stats().elsewhere, 1u);
}

TEST_F(MessageSlotTest, EndlessInterruptionIsLeftToTheVpsThread) {
  guest.slot.header.type = HvMessageType::kVmBus;
  Post(0);
  memory.before_pending = [&] { EXPECT_EQ(slot.TryDeliver().state, SlotState::kElsewhere); };
  const Delivery delivery = slot.TryDeliver();
  EXPECT_TRUE(delivery.look_again);
  EXPECT_LE(memory.pendings, 4);
  memory.before_pending = nullptr;
  EXPECT_EQ(slot.TryDeliver().state, SlotState::kBusy);
}

TEST_F(MessageSlotTest, ConfigureDuringADeliveryChangesNothing) {
  Post(0);
  memory.before_write = [&] { EXPECT_EQ(slot.TryConfigure({.memory = nullptr}).state, SlotState::kElsewhere); };
  EXPECT_TRUE(slot.TryDeliver().interrupt);
  EXPECT_EQ(GuestReads(), (MessageIdentity{0, 0}));
}

TEST_F(MessageSlotTest, SlotOfTheVpThreadAloneIsLeftToIt) {
  EXPECT_EQ(slot.TryConfigure({.memory = &memory, .vp_only = true}).state, SlotState::kIdle);
  EXPECT_EQ(slot.TryDeliver().state, SlotState::kIdle);
  Post(0);
  const Delivery of_poster = slot.TryDeliver();
  EXPECT_EQ(of_poster.state, SlotState::kNotOurs);
  EXPECT_TRUE(of_poster.look_again);
  EXPECT_FALSE(of_poster.interrupt);
  EXPECT_EQ(memory.writes, 0);
  const Delivery of_vp = slot.TryDeliver(MessageSlot::Caller::kVpThread);
  EXPECT_EQ(of_vp.state, SlotState::kWritten);
  EXPECT_TRUE(of_vp.interrupt);
  EXPECT_FALSE(of_vp.look_again);
}

TEST_F(MessageSlotTest, AlwaysPendingIsInTheLastMessageToo) {
  EXPECT_EQ(slot.TryConfigure({.memory = &memory, .always_pending = true}).state, SlotState::kIdle);
  EXPECT_EQ(memory.pendings, 0);  // an empty slot is left alone
  Post(0);
  EXPECT_EQ(slot.TryDeliver().state, SlotState::kWritten);
  EXPECT_EQ(GuestReads(), (MessageIdentity{0, 0}));
  EXPECT_TRUE(eom);
}

TEST_F(MessageSlotTest, AlwaysPendingReachesTheMessageThatIsThere) {
  Post(0);
  EXPECT_EQ(slot.TryDeliver().state, SlotState::kWritten);
  EXPECT_EQ(guest.Flags(), 0);
  EXPECT_EQ(slot.TryConfigure({.memory = &memory, .always_pending = true}).state, SlotState::kIdle);
  EXPECT_EQ(GuestReads(), (MessageIdentity{0, 0}));
  EXPECT_TRUE(eom);
}

// Somebody else waits for the slot, and has set the flag in our first message.
TEST_F(MessageSlotTest, MessageThatComesBetweenClearingAndTheFlagKeepsTheFlag) {
  EXPECT_EQ(slot.TryConfigure({.memory = &memory, .always_pending = true}).state, SlotState::kIdle);
  Post(0);
  EXPECT_EQ(slot.TryDeliver().state, SlotState::kWritten);
  memory.SetPending();
  guest.ClearType();
  Post(1);
  EXPECT_EQ(slot.TryDeliver().state, SlotState::kWritten);
  EXPECT_EQ(guest.Flags(), kHvMessagePending);
  // Not in the way of those that have no such neighbour.
  EXPECT_EQ(GuestReads(), (MessageIdentity{0, 1}));
  EXPECT_EQ(slot.TryConfigure({.memory = &memory}).state, SlotState::kIdle);
  Post(2);
  EXPECT_EQ(slot.TryDeliver().state, SlotState::kWritten);
  EXPECT_EQ(guest.Flags(), 0);
}

}  // namespace
}  // namespace vmm
