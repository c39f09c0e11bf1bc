#include "devices/virtio/backend/backend_queue.h"

#include <array>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/event_fd.h"
#include "base/owned_fd.h"
#include "base/status_matchers.h"
#include "devices/virtio/backend/backend_memory.h"
#include "devices/virtio/backend/fake_guest_driver.h"
#include "devices/virtio/vhost_user/vhost_user_layout.h"
#include "devices/virtio/virtio_layout.h"
#include "memory/gpa.h"

namespace vmm {
namespace {

using Pop = BackendQueue::PopResult;
using Fault = BackendQueue::Fault;
namespace v = virtio;

class BackendQueueTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK(memory_.Add(FakeGuestRam::region(), ram_.fd()));
    ASSERT_OK_AND_ASSIGN(call_, EventFd::Create());
    Start(v::kFeatureIndirectDesc);
  }
  void Start(uint64_t features, uint16_t base = 0) { queue_.Start(driver_.Rings(memory_), base, features, memory_, &call_); }
  std::string Readable() {
    std::string text(chain_.readable_bytes, 0);
    chain_.Read(0, std::as_writable_bytes(std::span(text.data(), text.size())));
    return text;
  }
  void ExpectBroken(Fault fault) {
    EXPECT_EQ(queue_.Pop(chain_), Pop::kBroken);
    EXPECT_EQ(queue_.fault(), fault) << QueueFaultText(queue_.fault());
    // And stays so, whatever the driver does.
    driver_.Offer({{driver_.data(), 1}});
    EXPECT_EQ(queue_.Pop(chain_), Pop::kBroken);
    chain_.head = 0;
    queue_.Push(chain_, 0);
    EXPECT_EQ(driver_.Take(), std::nullopt);
  }

  FakeGuestRam ram_;
  FakeGuestDriver driver_{ram_, 8};
  BackendMemory memory_;
  EventFd call_{OwnedFd()};
  BackendQueue queue_;
  QueueChain chain_;
};

TEST_F(BackendQueueTest, AChainIsItsSegmentsInOrder) {
  EXPECT_EQ(queue_.Pop(chain_), Pop::kEmpty);
  ram_.Put(driver_.data(), "onetwo");
  const uint16_t head = driver_.Offer({{driver_.data(), 3}, {driver_.data() + 3, 3}, {driver_.data() + 100, 4, true}, {driver_.data() + 200, 4, true}});
  ASSERT_EQ(queue_.Pop(chain_), Pop::kChain);
  EXPECT_EQ(Readable(), "onetwo");
  EXPECT_EQ(chain_.writable_bytes, 8u);
  const std::string answer = "abcdef";
  EXPECT_EQ(chain_.Write(1, std::as_bytes(std::span(answer))), 6u);
  EXPECT_EQ(ram_.Get(driver_.data() + 101, 3), "abc");
  EXPECT_EQ(ram_.Get(driver_.data() + 200, 3), "def");
  EXPECT_EQ(chain_.Write(6, std::as_bytes(std::span(answer))), 2u);  // as much as there is room for
  queue_.Push(chain_, 7);
  EXPECT_EQ(driver_.Take(), (v::UsedElement{head, 7}));
  EXPECT_EQ(queue_.Pop(chain_), Pop::kEmpty);
}

TEST_F(BackendQueueTest, IndicesWrap) {
  for (uint32_t i = 0; i < 70'000; ++i) {
    const uint16_t head = driver_.Offer({{driver_.data(), 1}});
    ASSERT_EQ(queue_.Pop(chain_), Pop::kChain);
    queue_.Push(chain_, i);
    ASSERT_EQ(driver_.Take(), (v::UsedElement{head, i}));
  }
}

TEST_F(BackendQueueTest, AFullQueueIsTaken) {
  for (int i = 0; i < 8; ++i) driver_.Offer({{driver_.data(), 1}});
  for (int i = 0; i < 8; ++i) ASSERT_EQ(queue_.Pop(chain_), Pop::kChain);
  EXPECT_EQ(queue_.Pop(chain_), Pop::kEmpty);
}

TEST_F(BackendQueueTest, AnIndirectTableIsAChain) {
  ram_.Put(driver_.data(), "hello");
  driver_.OfferIndirect(driver_.data() + 0x1000, {{driver_.data().raw(), 2, v::kDescriptorNext, 2},
                                                  {0, 0, 0, 0},
                                                  {driver_.data().raw() + 2, 3, v::kDescriptorNext, 3},
                                                  {driver_.data().raw() + 64, 9, v::kDescriptorWrite, 0}});
  ASSERT_EQ(queue_.Pop(chain_), Pop::kChain);
  EXPECT_EQ(Readable(), "hello");
  EXPECT_EQ(chain_.writable_bytes, 9u);
}

TEST_F(BackendQueueTest, EmptySegmentsAreNone) {
  driver_.Offer({{driver_.data(), 0}, {Gpa(0), 0, true}});
  ASSERT_EQ(queue_.Pop(chain_), Pop::kChain);
  EXPECT_TRUE(chain_.readable.empty());
  EXPECT_TRUE(chain_.writable.empty());
}

TEST_F(BackendQueueTest, UnpopGivesTheSameChainAgain) {
  const uint16_t head = driver_.Offer({{driver_.data(), 1}});
  ASSERT_EQ(queue_.Pop(chain_), Pop::kChain);
  queue_.Unpop(chain_);
  ASSERT_EQ(queue_.Pop(chain_), Pop::kChain);
  EXPECT_EQ(chain_.head, head);
}

TEST_F(BackendQueueTest, WhatIsPushedTogetherIsSeenInOrderAndRoundTheEnd) {
  std::array<QueueChain, 6> chains;
  for (int round = 0; round < 3; ++round) {
    std::array<BackendQueue::Used, 6> used;
    std::array<uint16_t, 6> heads;
    for (uint32_t i = 0; i < 6; ++i) {
      heads[i] = driver_.Offer({{driver_.data(), 8, true}});
      ASSERT_EQ(queue_.Pop(chains[i]), Pop::kChain);
      used[i] = {&chains[i], i};
    }
    EXPECT_EQ(driver_.Take(), std::nullopt);
    queue_.PushTogether(used);
    for (uint32_t i = 0; i < 6; ++i) EXPECT_EQ(driver_.Take(), (v::UsedElement{heads[i], i}));
    EXPECT_EQ(driver_.Take(), std::nullopt);
  }
}

TEST_F(BackendQueueTest, StartGoesOnWhereAnotherWasKilled) {
  for (int i = 0; i < 3; ++i) driver_.Offer({{driver_.data(), 1}});
  ASSERT_EQ(queue_.Pop(chain_), Pop::kChain);
  queue_.Push(chain_, 0);
  ASSERT_EQ(queue_.Pop(chain_), Pop::kChain);  // taken, and never given back
  EXPECT_EQ(queue_.Stop(), 2);
  EXPECT_EQ(queue_.Pop(chain_), Pop::kEmpty);
  Start(0, driver_.used_index());
  ASSERT_EQ(queue_.Pop(chain_), Pop::kChain);
  EXPECT_EQ(chain_.head, 1);
  queue_.Push(chain_, 0);
  driver_.Take();
  EXPECT_EQ(driver_.Take(), (v::UsedElement{1, 0}));
}

TEST_F(BackendQueueTest, MoreAvailableThanEntriesIsAFault) {
  driver_.available_index() = 9;
  ExpectBroken(Fault::kAvailableIndex);
}

TEST_F(BackendQueueTest, AHeadOutsideOfTheTableIsAFault) {
  driver_.Make(8);
  ExpectBroken(Fault::kHead);
}

TEST_F(BackendQueueTest, ALinkOutsideOfTheTableIsAFault) {
  driver_.descriptor(0) = {driver_.data().raw(), 1, v::kDescriptorNext, 8};
  driver_.Make(0);
  ExpectBroken(Fault::kNext);
}

TEST_F(BackendQueueTest, ACircleIsAFault) {
  driver_.descriptor(0) = {driver_.data().raw(), 1, v::kDescriptorNext, 1};
  driver_.descriptor(1) = {driver_.data().raw(), 1, v::kDescriptorNext, 0};
  driver_.Make(0);
  ExpectBroken(Fault::kTooLong);
}

TEST_F(BackendQueueTest, ACircleInAnIndirectTableIsAFaultAfterABoundedWalk) {
  std::vector<v::Descriptor> table(8192, {driver_.data().raw(), 1, v::kDescriptorNext, 0});
  for (size_t i = 0; i + 1 < table.size(); ++i) table[i].next = static_cast<uint16_t>(i + 1);
  driver_.OfferIndirect(driver_.data() + 0x1000, table);
  ExpectBroken(Fault::kTooLong);
  EXPECT_LE(chain_.readable.size(), BackendQueue::kMaxSegments);
}

TEST_F(BackendQueueTest, MemoryThatWasNotGivenIsAFault) {
  const uint64_t end = FakeGuestRam::kBase.raw() + FakeGuestRam::kBytes;
  const std::array<std::pair<uint64_t, uint32_t>, 6> bad = {{{0, 1},
                                                             {FakeGuestRam::kBase.raw() - 1, 2},
                                                             {end - 1, 2},
                                                             {end, 1},
                                                             {std::numeric_limits<uint64_t>::max(), 1},
                                                             {FakeGuestRam::kBase.raw(), 0xffff'ffff}}};
  for (const auto& [address, bytes] : bad) {
    Start(0, driver_.available_index());
    driver_.descriptor(0) = {address, bytes, v::kDescriptorWrite, 0};
    driver_.Make(0);
    EXPECT_EQ(queue_.Pop(chain_), Pop::kBroken) << address;
    EXPECT_EQ(queue_.fault(), Fault::kAddress);
  }
}

TEST_F(BackendQueueTest, MalformedIndirectTablesAreFaults) {
  const uint64_t table = driver_.data().raw() + 0x1000;
  const v::Descriptor good{driver_.data().raw(), 1, 0, 0};
  const std::array<v::Descriptor, 4> bad = {{{table, 0, v::kDescriptorIndirect, 0},
                                             {table, 17, v::kDescriptorIndirect, 0},
                                             {table + 1, 16, v::kDescriptorIndirect, 0},
                                             {table, 16, v::kDescriptorIndirect | v::kDescriptorNext, 1}}};
  for (const v::Descriptor& descriptor : bad) {
    Start(v::kFeatureIndirectDesc, driver_.available_index());
    ram_.Word<v::Descriptor>(Gpa(table)) = good;
    driver_.descriptor(0) = descriptor;
    driver_.Make(0);
    EXPECT_EQ(queue_.Pop(chain_), Pop::kBroken);
    EXPECT_EQ(queue_.fault(), Fault::kIndirect);
  }
  // One inside another, and one that was not negotiated.
  Start(v::kFeatureIndirectDesc, driver_.available_index());
  driver_.OfferIndirect(Gpa(table), {{table, 16, v::kDescriptorIndirect, 0}});
  EXPECT_EQ(queue_.Pop(chain_), Pop::kBroken);
  Start(0, driver_.available_index());
  driver_.OfferIndirect(Gpa(table), {good});
  ExpectBroken(Fault::kIndirect);
}

TEST_F(BackendQueueTest, AReadableSegmentBehindAWritableOneIsAFault) {
  driver_.Offer({{driver_.data(), 1, true}, {driver_.data(), 1}});
  ExpectBroken(Fault::kOrder);
}

TEST_F(BackendQueueTest, FourGigabytesAreAFault) {
  // The same memory again and again is allowed; the sum must still fit the used ring's 32 bits. 16 MiB of it, so that a table of no
  // more than kMaxSegments gets there.
  constexpr uint64_t kBytes = 16 << 20;
  const OwnedFd fd(::memfd_create("large", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(fd.get(), kBytes), 0);
  ASSERT_OK(memory_.Add({1 << 30, kBytes, 1 << 30, 0}, fd.get()));
  std::vector<v::Descriptor> table(257, {1 << 30, kBytes, v::kDescriptorNext, 0});
  for (size_t i = 0; i < table.size(); ++i) table[i].next = static_cast<uint16_t>(i + 1);
  driver_.OfferIndirect(driver_.data() + 0x1000, table);
  ExpectBroken(Fault::kBytes);
}

TEST_F(BackendQueueTest, WithoutEventIndicesTheFlagSaysWhetherToInterrupt) {
  driver_.Offer({{driver_.data(), 1}});
  ASSERT_EQ(queue_.Pop(chain_), Pop::kChain);
  queue_.Notify();
  EXPECT_EQ(call_.Drain(), 0u);  // nothing was pushed
  queue_.Push(chain_, 0);
  queue_.Notify();
  EXPECT_EQ(call_.Drain(), 1u);
  driver_.available_flags() = v::kAvailNoInterrupt;
  driver_.Offer({{driver_.data(), 1}});
  ASSERT_EQ(queue_.Pop(chain_), Pop::kChain);
  queue_.Push(chain_, 0);
  queue_.Notify();
  EXPECT_EQ(call_.Drain(), 0u);
}

TEST_F(BackendQueueTest, WithEventIndicesTheDriverIsInterruptedAtTheOneItNamed) {
  Start(v::kFeatureEventIdx);
  driver_.used_event() = 2;  // when the third has been used
  for (int i = 0; i < 4; ++i) {
    driver_.Offer({{driver_.data(), 1}});
    ASSERT_EQ(queue_.Pop(chain_), Pop::kChain);
    queue_.Push(chain_, 0);
    queue_.Notify();
    EXPECT_EQ(call_.Drain(), i == 2 ? 1u : 0u) << i;
  }
}

TEST_F(BackendQueueTest, AnEmptyQueueSaysWhichKickItWants) {
  Start(v::kFeatureEventIdx);
  for (uint16_t i = 0; i < 3; ++i) driver_.Offer({{driver_.data(), 1}});
  ASSERT_EQ(queue_.Pop(chain_), Pop::kChain);
  EXPECT_EQ(driver_.available_event(), 0);
  ASSERT_EQ(queue_.Pop(chain_), Pop::kChain);
  ASSERT_EQ(queue_.Pop(chain_), Pop::kChain);
  ASSERT_EQ(queue_.Pop(chain_), Pop::kEmpty);
  EXPECT_EQ(driver_.available_event(), 3);
}

TEST(BackendMemoryTest, RegionsAreCheckedAndFoundByEitherAddress) {
  FakeGuestRam ram;
  BackendMemory memory;
  ASSERT_OK(memory.Add(FakeGuestRam::region(), ram.fd()));
  vhost_user::MemoryRegion bad = FakeGuestRam::region();
  bad.user_address += 4096;
  EXPECT_THAT(memory.Add(bad, ram.fd()), StatusIs(absl::StatusCode::kInvalidArgument, "overlaps"));
  bad.gpa = std::numeric_limits<uint64_t>::max();
  EXPECT_THAT(memory.Add(bad, ram.fd()), StatusIs(absl::StatusCode::kInvalidArgument, "no region"));
  bad = {0, 0, 0, 0};
  EXPECT_THAT(memory.Add(bad, ram.fd()), StatusIs(absl::StatusCode::kInvalidArgument, "no region"));
  EXPECT_THAT(memory.Add({0, FakeGuestRam::kBytes, 0, 1}, ram.fd()), StatusIs(absl::StatusCode::kInvalidArgument, "shorter than the region"));
  // An offset that is not a page's.
  ram.Put(FakeGuestRam::kBase + 24, "here");
  ASSERT_OK(memory.Add({0, 4096, 0x1000, 24}, ram.fd()));
  EXPECT_EQ(std::string(reinterpret_cast<char*>(memory.Find(Gpa(0), 4)), 4), "here");
  EXPECT_EQ(memory.FindUser(0x1000, 4), memory.Find(Gpa(0), 4));
  EXPECT_EQ(memory.FindUser(0x1000, 4097), nullptr);
  EXPECT_EQ(memory.FindUser(FakeGuestRam::kUserBase - 1, 1), nullptr);
  EXPECT_NE(memory.FindUser(FakeGuestRam::kUserBase, FakeGuestRam::kBytes), nullptr);
  EXPECT_THAT(memory.Remove({1, 4096, 0x1000, 24}), StatusIs(absl::StatusCode::kInvalidArgument, "there is no region"));
  ASSERT_OK(memory.Remove({0, 4096, 0x1000, 24}));
  EXPECT_EQ(memory.Find(Gpa(0), 4), nullptr);
}

TEST(BackendMemoryTest, ARegionThatIsAddedTwiceIsThereUntilItIsRemovedTwice) {
  FakeGuestRam ram;
  BackendMemory memory;
  ASSERT_OK(memory.Add(FakeGuestRam::region(), ram.fd()));
  const std::byte* const at = memory.Find(FakeGuestRam::kBase, 1);
  ASSERT_OK(memory.Add(FakeGuestRam::region(), ram.fd()));
  ASSERT_OK(memory.Remove(FakeGuestRam::region()));
  EXPECT_EQ(memory.Find(FakeGuestRam::kBase, 1), at);
  ASSERT_OK(memory.Remove(FakeGuestRam::region()));
  EXPECT_EQ(memory.Find(FakeGuestRam::kBase, 1), nullptr);
  EXPECT_THAT(memory.Remove(FakeGuestRam::region()), StatusIs(absl::StatusCode::kInvalidArgument, "there is no region"));
}

}  // namespace
}  // namespace vmm
