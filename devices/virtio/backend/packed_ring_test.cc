// BackendQueue over a packed ring. What is the same for both forms is told in backend_queue_test.cc.
#include <algorithm>
#include <array>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/event_fd.h"
#include "base/owned_fd.h"
#include "base/status_matchers.h"
#include "devices/virtio/backend/backend_memory.h"
#include "devices/virtio/backend/backend_queue.h"
#include "devices/virtio/backend/fake_guest_driver.h"
#include "devices/virtio/backend/fake_packed_driver.h"
#include "devices/virtio/virtio_layout.h"
#include "memory/gpa.h"

namespace vmm {
namespace {

using Pop = BackendQueue::PopResult;
using Fault = BackendQueue::Fault;
namespace v = virtio;

class PackedRingTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK(memory_.Add(FakeGuestRam::region(), ram_.fd()));
    ASSERT_OK_AND_ASSIGN(call_, EventFd::Create());
    Start(v::kFeatureIndirectDesc);
  }
  void Start(uint64_t features, uint32_t base = FakePackedDriver::kFirstBase) {
    queue_.Start(driver_.Rings(memory_), base, features | v::kFeatureRingPacked, memory_, &call_);
  }
  // The ring as new.
  void Fresh(uint64_t features) {
    std::memset(ram_.At(driver_.descriptors()), 0, 0x3000);
    driver_.~FakePackedDriver();
    new (&driver_) FakePackedDriver(ram_, 8);
    Start(features);
  }
  std::string Readable() {
    std::string text(chain_.readable_bytes, 0);
    chain_.Read(0, std::as_writable_bytes(std::span(text.data(), text.size())));
    return text;
  }
  void ExpectBroken(Fault fault) {
    EXPECT_EQ(queue_.Pop(chain_), Pop::kBroken);
    EXPECT_EQ(queue_.fault(), fault) << QueueFaultText(queue_.fault());
    EXPECT_EQ(queue_.Pop(chain_), Pop::kBroken);
    chain_.entries = 1;
    queue_.Push(chain_, 0);
    EXPECT_EQ(driver_.Take(), std::nullopt);
  }

  FakeGuestRam ram_;
  FakePackedDriver driver_{ram_, 8};
  BackendMemory memory_;
  EventFd call_{OwnedFd()};
  BackendQueue queue_;
  QueueChain chain_;
};

TEST_F(PackedRingTest, AChainIsItsSegmentsInOrder) {
  EXPECT_EQ(queue_.Pop(chain_), Pop::kEmpty);
  ram_.Put(driver_.data(), "onetwo");
  const uint16_t id = driver_.Offer({{driver_.data(), 3}, {driver_.data() + 3, 3}, {driver_.data() + 100, 4, true}, {driver_.data() + 200, 4, true}});
  ASSERT_EQ(queue_.Pop(chain_), Pop::kChain);
  EXPECT_EQ(Readable(), "onetwo");
  EXPECT_EQ(chain_.writable_bytes, 8u);
  EXPECT_EQ(chain_.head, id);
  EXPECT_EQ(queue_.Pop(chain_), Pop::kEmpty);
}

TEST_F(PackedRingTest, ChainsOfEverySizeGoRoundAndRound) {
  for (uint32_t i = 0; i < 20'000; ++i) {
    const std::vector<FakePackedDriver::Segment> segments(1 + i * 7 % 8, {driver_.data(), 1});
    const uint16_t id = driver_.Offer(segments);
    ASSERT_EQ(queue_.Pop(chain_), Pop::kChain) << i;
    ASSERT_EQ(chain_.readable.size(), segments.size());
    ASSERT_EQ(queue_.Pop(chain_), Pop::kEmpty);
    chain_.entries = static_cast<uint16_t>(segments.size());
    queue_.Push(chain_, i);
    ASSERT_EQ(driver_.Take(), (v::UsedElement{id, i}));
  }
}

TEST_F(PackedRingTest, ChainsAreGivenBackInAnyOrder) {
  for (uint32_t round = 0; round < 1000; ++round) {
    QueueChain first, second, third;
    const uint16_t ids[] = {driver_.Offer({{driver_.data(), 1}, {driver_.data(), 1}}), driver_.Offer({{driver_.data(), 1}}),
                            driver_.Offer({{driver_.data(), 1}, {driver_.data(), 1}, {driver_.data(), 1}})};
    ASSERT_EQ(queue_.Pop(first), Pop::kChain);
    ASSERT_EQ(queue_.Pop(second), Pop::kChain);
    ASSERT_EQ(queue_.Pop(third), Pop::kChain);
    queue_.Push(third, 3);
    queue_.Push(first, 1);
    queue_.Push(second, 2);
    ASSERT_EQ(driver_.Take(), (v::UsedElement{ids[2], 3}));
    ASSERT_EQ(driver_.Take(), (v::UsedElement{ids[0], 1}));
    ASSERT_EQ(driver_.Take(), (v::UsedElement{ids[1], 2}));
    ASSERT_EQ(driver_.Take(), std::nullopt);
  }
}

TEST_F(PackedRingTest, WhatIsPushedTogetherIsSeenInOrderAndRoundTheEnd) {
  std::array<QueueChain, 3> chains;
  for (int round = 0; round < 20; ++round) {
    std::array<BackendQueue::Used, 3> used;
    std::array<uint16_t, 3> ids;
    for (uint32_t i = 0; i < 3; ++i) {
      ids[i] = driver_.Offer(std::vector<FakePackedDriver::Segment>(i + 1, {driver_.data(), 8, true}));
      ASSERT_EQ(queue_.Pop(chains[i]), Pop::kChain);
      used[i] = {&chains[i], i};
    }
    EXPECT_EQ(driver_.Take(), std::nullopt);
    queue_.PushTogether(used);
    for (uint32_t i = 0; i < 3; ++i) EXPECT_EQ(driver_.Take(), (v::UsedElement{ids[i], i}));
    EXPECT_EQ(driver_.Take(), std::nullopt);
  }
}

TEST_F(PackedRingTest, AFullRingIsTakenOnce) {
  for (int i = 0; i < 8; ++i) driver_.Offer({{driver_.data(), 1}});
  for (int i = 0; i < 8; ++i) ASSERT_EQ(queue_.Pop(chain_), Pop::kChain);
  EXPECT_EQ(queue_.Pop(chain_), Pop::kEmpty);
  // Whatever is written over what we hold.
  for (uint16_t i = 0; i < 8; ++i) driver_.descriptor(i).flags = v::kPackedUsed;
  EXPECT_EQ(queue_.Pop(chain_), Pop::kEmpty);
}

TEST_F(PackedRingTest, AnIndirectTableIsAChain) {
  ram_.Put(driver_.data(), "hello");
  driver_.OfferIndirect(driver_.data() + 0x1000, {{driver_.data().raw(), 2, 0, 0},
                                                  {driver_.data().raw() + 2, 3, 7, v::kDescriptorNext},
                                                  {driver_.data().raw() + 64, 9, 0, v::kDescriptorWrite}});
  ASSERT_EQ(queue_.Pop(chain_), Pop::kChain);
  EXPECT_EQ(Readable(), "hello");
  EXPECT_EQ(chain_.writable_bytes, 9u);
  EXPECT_EQ(chain_.entries, 1);
}

TEST_F(PackedRingTest, UnpopGivesTheSameChainAgainAcrossTheRingsEnd) {
  for (int i = 0; i < 50; ++i) {
    const uint16_t id = driver_.Offer({{driver_.data(), 1}, {driver_.data(), 1}, {driver_.data(), 1}});
    ASSERT_EQ(queue_.Pop(chain_), Pop::kChain);
    queue_.Unpop(chain_);
    ASSERT_EQ(queue_.Pop(chain_), Pop::kChain);
    EXPECT_EQ(chain_.head, id);
    queue_.Push(chain_, 0);
    ASSERT_EQ(driver_.Take(), (v::UsedElement{id, 0}));
  }
}

TEST_F(PackedRingTest, StopAndStartGoOnAtTheSamePlace) {
  for (int i = 0; i < 40; ++i) {
    const uint16_t id = driver_.Offer({{driver_.data(), 1}, {driver_.data(), 1}, {driver_.data(), 1}});
    Start(0, queue_.Stop());
    ASSERT_EQ(queue_.Pop(chain_), Pop::kChain);
    queue_.Push(chain_, 5);
    Start(0, queue_.Stop());
    ASSERT_EQ(driver_.Take(), (v::UsedElement{id, 5}));
  }
}

TEST_F(PackedRingTest, ABaseThatMakesNoSenseIsAFault) {
  for (const uint32_t base : {8u | 1u << 15 | 1u << 31, 8u << 16 | 1u << 15 | 1u << 31, 1u << 31, 3u | 1u << 15 | 1u << 31, 0x7fff'7fffu}) {
    Start(0, base);
    EXPECT_EQ(queue_.Pop(chain_), Pop::kBroken) << base;
    EXPECT_EQ(queue_.fault(), Fault::kAvailableIndex);
  }
}

TEST_F(PackedRingTest, AChainWithoutAnEndIsAFault) {
  for (uint16_t i = 0; i < 8; ++i) driver_.descriptor(i) = {driver_.data().raw(), 1, 0, v::kDescriptorNext | v::kPackedAvail};
  ExpectBroken(Fault::kTooLong);
}

TEST_F(PackedRingTest, AChainThatRunsIntoWhatIsInFlightIsAFault) {
  driver_.Offer({{driver_.data(), 1}, {driver_.data(), 1}});
  ASSERT_EQ(queue_.Pop(chain_), Pop::kChain);
  for (uint16_t i = 2; i < 8; ++i) driver_.descriptor(i) = {driver_.data().raw(), 1, 0, v::kDescriptorNext | v::kPackedAvail};
  EXPECT_EQ(queue_.Pop(chain_), Pop::kBroken);
  EXPECT_EQ(queue_.fault(), Fault::kTooLong);
}

TEST_F(PackedRingTest, MemoryThatWasNotGivenIsAFault) {
  const uint64_t end = FakeGuestRam::kBase.raw() + FakeGuestRam::kBytes;
  const std::pair<uint64_t, uint32_t> bad[] = {{0, 1}, {end - 1, 2}, {std::numeric_limits<uint64_t>::max(), 1}, {FakeGuestRam::kBase.raw(), 0xffff'ffff}};
  for (const auto& [address, bytes] : bad) {
    Fresh(0);
    driver_.Make({{address, bytes, 0, v::kDescriptorWrite}});
    EXPECT_EQ(queue_.Pop(chain_), Pop::kBroken) << address;
    EXPECT_EQ(queue_.fault(), Fault::kAddress);
  }
}

TEST_F(PackedRingTest, MalformedIndirectTablesAreFaults) {
  const uint64_t table = driver_.data().raw() + 0x1000;
  const std::vector<std::vector<v::PackedDescriptor>> bad = {
      {{table, 0, 0, v::kDescriptorIndirect}},
      {{table, 17, 0, v::kDescriptorIndirect}},
      {{table + 1, 16, 0, v::kDescriptorIndirect}},
      {{table, 16, 0, v::kDescriptorIndirect}, {driver_.data().raw(), 1, 0, 0}},
      {{driver_.data().raw(), 1, 0, 0}, {table, 16, 0, v::kDescriptorIndirect}}};
  for (const auto& chain : bad) {
    Fresh(v::kFeatureIndirectDesc);
    ram_.Word<v::PackedDescriptor>(Gpa(table)) = {driver_.data().raw(), 1, 0, 0};
    driver_.Make(chain);
    EXPECT_EQ(queue_.Pop(chain_), Pop::kBroken);
    EXPECT_EQ(queue_.fault(), Fault::kIndirect);
  }
  // One inside another, one that was not negotiated, one that is too long.
  Fresh(v::kFeatureIndirectDesc);
  driver_.OfferIndirect(Gpa(table), {{table, 16, 0, v::kDescriptorIndirect}});
  EXPECT_EQ(queue_.Pop(chain_), Pop::kBroken);
  Fresh(0);
  driver_.OfferIndirect(Gpa(table), {{driver_.data().raw(), 1, 0, 0}});
  ExpectBroken(Fault::kIndirect);
  Fresh(v::kFeatureIndirectDesc);
  driver_.OfferIndirect(Gpa(table), std::vector<v::PackedDescriptor>(BackendQueue::kMaxSegments + 1, {driver_.data().raw(), 1, 0, 0}));
  ExpectBroken(Fault::kTooLong);
}

TEST_F(PackedRingTest, AReadableSegmentBehindAWritableOneIsAFault) {
  driver_.Offer({{driver_.data(), 1, true}, {driver_.data(), 1}});
  ExpectBroken(Fault::kOrder);
}

TEST_F(PackedRingTest, TheDriverSaysWhetherToInterrupt) {
  const auto one = [&] {
    driver_.Offer({{driver_.data(), 1}});
    ASSERT_EQ(queue_.Pop(chain_), Pop::kChain);
    queue_.Push(chain_, 0);
    queue_.Notify();
    (void)driver_.Take();
  };
  queue_.Notify();
  EXPECT_EQ(call_.Drain(), 0u);  // nothing was pushed
  one();
  EXPECT_EQ(call_.Drain(), 1u);
  driver_.driver_event() = uint32_t{v::kPackedEventDisable} << 16;
  one();
  EXPECT_EQ(call_.Drain(), 0u);
  // Of one descriptor: not accepted, so too many rather than too few.
  driver_.driver_event() = uint32_t{v::kPackedEventDescriptor} << 16 | 7;
  one();
  EXPECT_EQ(call_.Drain(), 1u);
}

TEST_F(PackedRingTest, WithEventIndicesTheDriverIsInterruptedAtTheOneItNamed) {
  Fresh(v::kFeatureEventIdx);
  uint64_t passed = 0;
  for (uint32_t i = 0; i < 64; ++i) {
    // Two further on from here, across the ring's end too.
    const uint32_t place = (i + 2) % 8;
    const bool wrap = (i + 2) / 8 % 2 == 0;
    driver_.driver_event() = place | (wrap ? v::kPackedWrap : 0u) | uint32_t{v::kPackedEventDescriptor} << 16;
    for (int k = 0; k < 3; ++k) {
      driver_.Offer({{driver_.data(), 1}});
      ASSERT_EQ(queue_.Pop(chain_), Pop::kChain);
      queue_.Push(chain_, 0);
      queue_.Notify();
      ASSERT_EQ(call_.Drain(), k == 2 ? 1u : 0u) << i << " " << k;
      (void)driver_.Take();
      ++passed;
    }
    i += 2;
  }
}

TEST_F(PackedRingTest, AnEmptyQueueSaysWhichKickItWants) {
  Fresh(v::kFeatureEventIdx);
  for (int i = 0; i < 20; ++i) {
    driver_.Offer({{driver_.data(), 1}, {driver_.data(), 1}, {driver_.data(), 1}});
    ASSERT_EQ(queue_.Pop(chain_), Pop::kChain);
    queue_.Push(chain_, 0);
    (void)driver_.Take();
    ASSERT_EQ(queue_.Pop(chain_), Pop::kEmpty);
    EXPECT_EQ(driver_.device_event(), driver_.next() | (driver_.wrap() ? v::kPackedWrap : 0u) | uint32_t{v::kPackedEventDescriptor} << 16);
  }
}

}  // namespace
}  // namespace vmm
