// The SynIC of one VP on one thread. Several threads: synic_failures_test.cc.
#include "devices/hyperv/synic/synic.h"

#include <cstdint>
#include <cstring>
#include <optional>
#include <utility>

#include <gtest/gtest.h>

#include "absl/status/status.h"
#include "base/status_matchers.h"
#include "devices/hyperv/fake_overlay_space.h"
#include "devices/hyperv/hv_msr_layout.h"
#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/overlay_page.h"
#include "devices/hyperv/synic/hv_message_layout.h"
#include "devices/hyperv/synic/message_for_test.h"
#include "devices/hyperv/synic/message_lane.h"
#include "devices/hyperv/synic/post_result.h"
#include "devices/hyperv/synic/synic_for_test.h"
#include "memory/gpa.h"
#include "memory/page_rights.h"

namespace vmm {
namespace {

constexpr Sint kSint = Sint::Of<2>();
constexpr Sint kOther = Sint::Of<7>();
constexpr Poster kVp1 = Poster::OfVp(VpIndex(1));

class SynicTest : public testing::Test {
 protected:
  HvStatus Post(uint32_t sequence, Sint sint = kSint, Poster poster = kVp1) {
    return synic->Post(poster, sint, MakeMessage(1, sequence));
  }
  // The sequence of what is in the slot, which is free afterwards.
  std::optional<uint32_t> GuestReads(Sint sint = kSint) {
    const auto read = synic.guest(sint).TakeMessage();
    if (!read) return std::nullopt;
    eom = read->eom;
    const auto id = IdentityOf(read->message);
    EXPECT_TRUE(id.has_value());
    return id ? id->sequence : ~0u;
  }
  int edges(Sint sint = kSint) { return synic.interrupts.edges[sint.raw()]; }
  bool watched(Sint sint = kSint) { return synic.interrupts.watched[sint.raw()]; }

  SynicForTest synic;
  bool eom = false;
};

// --- Registers ----------------------------------------------------------------------------------------------------------

TEST_F(SynicTest, ResetValues) {
  EXPECT_EQ(synic.Read(kHvMsrScontrol), 1u);
  EXPECT_EQ(synic.Read(kHvMsrSversion), 1u);
  EXPECT_EQ(synic.Read(kHvMsrSiefp), 0u);
  EXPECT_EQ(synic.Read(kHvMsrSimp), 0u);
  EXPECT_EQ(synic.Read(kHvMsrEom), 0u);
  for (uint32_t n = 0; n < Sint::kCount; ++n) {
    EXPECT_EQ(synic.Read(kHvMsrSint0 + n), 0x10000u);
    EXPECT_EQ(synic.interrupts.values[n], 0x10000u);
  }
}

TEST_F(SynicTest, ValuesReadBackExactlyAsWritten) {
  for (const uint32_t msr : {kHvMsrScontrol, kHvMsrSiefp, kHvMsrSimp, kHvMsrSint0, kHvMsrSint0 + 15}) {
    for (const uint64_t value : {~uint64_t{0}, uint64_t{0x1234'5678'9abc'def0}, uint64_t{0xff}, uint64_t{0x5ffe}}) {
      EXPECT_TRUE(synic.Write(msr, value)) << std::hex << msr << " " << value;
      EXPECT_EQ(synic.Read(msr), value) << std::hex << msr;
    }
  }
}

TEST_F(SynicTest, VersionIsReadOnly) {
  EXPECT_FALSE(synic.Write(kHvMsrSversion, 1));
  EXPECT_EQ(synic.Read(kHvMsrSversion), 1u);
}

TEST_F(SynicTest, EomTakesAnyValueAndReadsZero) {
  EXPECT_TRUE(synic.Write(kHvMsrEom, ~uint64_t{0}));
  EXPECT_EQ(synic.Read(kHvMsrEom), 0u);
}

TEST_F(SynicTest, VectorBelow16IsRefusedUnlessMasked) {
  EXPECT_TRUE(synic.WriteSint(kSint, 0x40));
  EXPECT_FALSE(synic.WriteSint(kSint, 15));
  EXPECT_FALSE(synic.WriteSint(kSint, kHvSintPolling | kHvSintAutoEoi));
  EXPECT_EQ(synic.Read(kHvMsrSint0 + kSint.raw()), 0x40u);
  EXPECT_EQ(synic.interrupts.values[kSint.raw()], 0x40u);
  EXPECT_TRUE(synic.WriteSint(kSint, kHvSintMasked | 15));
  EXPECT_TRUE(synic.WriteSint(kSint, 16));
  EXPECT_EQ(synic.interrupts.values[kSint.raw()], 16u);
}

TEST_F(SynicTest, OtherMsrsAreNotItsOwn) {
  for (const uint32_t msr : {0x4000'007fu, 0x4000'0085u, 0x4000'008fu, 0x4000'00a0u, 0x4000'00b0u, 0u, ~0u}) {
    EXPECT_FALSE(Synic::Has(msr));
    EXPECT_FALSE(synic.Write(msr, 0)) << std::hex << msr;
    EXPECT_EQ(synic.Read(msr), std::nullopt) << std::hex << msr;
  }
}

TEST_F(SynicTest, PagesGoWhereTheGuestSays) {
  synic.Enable(kSint);
  EXPECT_EQ(synic.message_page().place(), Gpfn(SynicForTest::kMessagePage));
  EXPECT_EQ(synic.event_page().place(), Gpfn(SynicForTest::kEventPage));
  EXPECT_EQ(synic.message_page().access(), OverlayPage::Access::kReadWrite);
  EXPECT_TRUE(synic.Write(kHvMsrSimp, 0x9001));
  EXPECT_EQ(synic.message_page().place(), Gpfn(9));
  EXPECT_TRUE(synic.Write(kHvMsrSimp, 0x9000));
  EXPECT_EQ(synic.message_page().place(), std::nullopt);
  EXPECT_EQ(synic.event_page().place(), Gpfn(SynicForTest::kEventPage));
}

TEST_F(SynicTest, PageOutsideRamIsNoFaultAndDeliversNothing) {
  synic.Enable(kSint);
  const uint64_t outside = FakeOverlaySpace::kRamPages << kHvOverlayPageShift | SynicForTest::kEnable;
  for (const uint64_t value : {outside, ~uint64_t{0}}) {
    EXPECT_TRUE(synic.Write(kHvMsrSimp, value));
    EXPECT_TRUE(synic.Write(kHvMsrSiefp, value));
    EXPECT_EQ(synic.Read(kHvMsrSimp), value);
    EXPECT_EQ(Post(0), HvStatus::kInvalidSynicState);
    EXPECT_EQ(synic->SignalEvent(kSint, 0), HvStatus::kInvalidSynicState);
  }
  // An intercept waits, and comes when the page is somewhere.
  EXPECT_EQ(synic->PostIntercept(kVp1, kSint, MakeMessage(1, 4)), HvStatus::kSuccess);
  EXPECT_EQ(synic.guest(kSint).Type(), HvMessageType::kNone);
  EXPECT_EQ(synic->stats().messages.off, 1u);
  synic.Enable(kSint);
  EXPECT_EQ(GuestReads(), 4u);
}

TEST_F(SynicTest, PageOverRamThatTheLevelMayNotWriteIsAFaultThatChangesNothing) {
  synic.Enable(kSint);
  synic.overlays.rights[9] = PageRights(0xd);
  synic.overlays.rights[10] = PageRights::None();
  for (const uint64_t value : {uint64_t{0x9001}, uint64_t{0xa001}}) {
    const auto simp = synic.Read(kHvMsrSimp), siefp = synic.Read(kHvMsrSiefp);
    EXPECT_FALSE(synic.Write(kHvMsrSimp, value));
    EXPECT_FALSE(synic.Write(kHvMsrSiefp, value));
    EXPECT_EQ(synic.Read(kHvMsrSimp), simp);
    EXPECT_EQ(synic.Read(kHvMsrSiefp), siefp);
    EXPECT_TRUE(synic.Write(kHvMsrSimp, value & ~uint64_t{1}));  // disabled, it is a number
    synic.Enable(kSint);
  }
  EXPECT_EQ(synic.message_page().place(), Gpfn(SynicForTest::kMessagePage));
  EXPECT_EQ(synic.event_page().place(), Gpfn(SynicForTest::kEventPage));
}

// --- Messages -----------------------------------------------------------------------------------------------------------

TEST_F(SynicTest, FreeSlotIsFilledAtOnceWithoutAKick) {
  synic.Enable(kSint, 0x50);
  synic->RunPending();
  EXPECT_EQ(Post(3), HvStatus::kSuccess);
  EXPECT_EQ(edges(), 1);
  EXPECT_EQ(synic.kick.kicks, 0);
  EXPECT_EQ(GuestReads(), 3u);
  EXPECT_FALSE(eom);
  EXPECT_FALSE(watched());
}

TEST_F(SynicTest, EverySourceHasItsOwnSlotAndVector) {
  synic.Enable(kSint);
  for (uint8_t n = 0; n < Sint::kCount; ++n) {
    const Sint sint = *Sint::From(n);
    synic.WriteSint(sint, 0x40u + n);
    EXPECT_EQ(Post(n, sint), HvStatus::kSuccess);
  }
  for (uint8_t n = 0; n < Sint::kCount; ++n) {
    EXPECT_EQ(edges(*Sint::From(n)), 1);
    EXPECT_EQ(GuestReads(*Sint::From(n)), n);
  }
}

TEST_F(SynicTest, PostsAreRefusedWhileDisabled) {
  EXPECT_EQ(Post(0), HvStatus::kInvalidSynicState);  // SIMP
  synic.Enable(kSint);
  EXPECT_TRUE(synic->accepts_messages());
  synic.Write(kHvMsrScontrol, 0);
  EXPECT_FALSE(synic->accepts_messages());
  EXPECT_FALSE(synic->accepts_events());
  EXPECT_EQ(Post(1), HvStatus::kInvalidSynicState);
  EXPECT_EQ(synic->stats().refused_disabled, 2u);
  synic.Write(kHvMsrScontrol, 1);
  EXPECT_EQ(GuestReads(), std::nullopt);
  EXPECT_EQ(Post(2), HvStatus::kSuccess);
  EXPECT_EQ(GuestReads(), 2u);
}

TEST_F(SynicTest, MalformedMessagesAreRefused) {
  synic.Enable(kSint);
  HvMessage message = MakeMessage(0, 0);
  message.header.payload_size = 241;
  EXPECT_EQ(synic->Post(kVp1, kSint, message), HvStatus::kInvalidParameter);
  EXPECT_EQ(synic->PostIntercept(kVp1, kSint, message), HvStatus::kInvalidParameter);
  message = MakeMessage(0, 0, HvMessageType::kNone);
  EXPECT_EQ(synic->Post(kVp1, kSint, message), HvStatus::kInvalidParameter);
  EXPECT_EQ(synic->Post(Poster::OfVp(VpIndex(SynicForTest::kVps)), kSint, MakeMessage(0, 0)), HvStatus::kInvalidVpIndex);
  EXPECT_EQ(edges(), 0);
}

TEST_F(SynicTest, EachPosterHasSixteenBuffersASource) {
  synic.Enable(kSint);
  synic.WriteSint(kOther, 0x51);
  EXPECT_EQ(Post(0), HvStatus::kSuccess);  // in the slot
  for (uint32_t n = 1; n <= 16; ++n) EXPECT_EQ(Post(n), HvStatus::kSuccess) << n;
  EXPECT_EQ(Post(17), HvStatus::kInsufficientBuffers);
  EXPECT_EQ(synic->stats().refused_full, 1u);
  EXPECT_EQ(Post(17, kSint, Poster::OfVp(VpIndex(0))), HvStatus::kSuccess);
  EXPECT_EQ(Post(18, kSint, Poster::EventLoop()), HvStatus::kSuccess);
  EXPECT_EQ(Post(0, kOther), HvStatus::kSuccess);
  EXPECT_EQ(synic->PostIntercept(kVp1, kSint, MakeMessage(1, 19)), HvStatus::kSuccess);
  EXPECT_EQ(synic->PostIntercept(kVp1, kSint, MakeMessage(1, 20)), HvStatus::kInsufficientBuffers);
  for (uint32_t n = 0; n <= 19; ++n) {
    EXPECT_EQ(GuestReads(), n);
    EXPECT_EQ(eom, n < 19);
    synic.Write(kHvMsrEom, 0);
  }
  EXPECT_EQ(GuestReads(), std::nullopt);
  EXPECT_EQ(edges(), 20);
}

TEST_F(SynicTest, BusySlotWaitsForEomOrEoi) {
  synic.Enable(kSint);
  for (uint32_t n = 0; n < 3; ++n) EXPECT_EQ(Post(n), HvStatus::kSuccess);
  synic->RunPending();
  EXPECT_EQ(edges(), 1);
  EXPECT_TRUE(watched());
  EXPECT_EQ(GuestReads(), 0u);
  EXPECT_TRUE(eom);
  synic->OnEoi(kSint);
  EXPECT_EQ(edges(), 2);
  EXPECT_TRUE(watched());
  EXPECT_EQ(GuestReads(), 1u);
  synic.Write(kHvMsrEom, 0);
  EXPECT_EQ(edges(), 3);
  EXPECT_FALSE(watched());
  EXPECT_EQ(GuestReads(), 2u);
  EXPECT_FALSE(eom);
  EXPECT_EQ(synic->stats().eoi_watches, 1u);
}

TEST_F(SynicTest, SlotFreedWhileTheWatchIsSetUpIsFilled) {
  synic.Enable(kSint);
  EXPECT_EQ(Post(0), HvStatus::kSuccess);
  EXPECT_EQ(Post(1), HvStatus::kSuccess);
  // The guest reads and writes EOI just before the watch, with nothing to come after it.
  synic.interrupts.on_watch = [&](Sint, bool watch) {
    if (watch) {
      EXPECT_EQ(GuestReads(), 0u);
    }
  };
  synic->RunPending();
  EXPECT_EQ(edges(), 2);
  EXPECT_FALSE(watched());
  EXPECT_EQ(GuestReads(), 1u);
}

TEST_F(SynicTest, PostedWhileTheWatchIsGivenUpIsWatchedAgain) {
  synic.Enable(kSint);
  EXPECT_EQ(Post(0), HvStatus::kSuccess);
  EXPECT_EQ(Post(1), HvStatus::kSuccess);
  synic->RunPending();
  EXPECT_EQ(GuestReads(), 0u);
  bool posted = false;
  synic.interrupts.on_watch = [&](Sint, bool watch) {
    // The poster finds the slot busy, and the source still watched.
    if (!watch && !std::exchange(posted, true)) {
      EXPECT_EQ(Post(2), HvStatus::kSuccess);
    }
  };
  synic->OnEoi(kSint);
  synic.interrupts.on_watch = nullptr;
  EXPECT_TRUE(posted);
  EXPECT_TRUE(watched());
  EXPECT_EQ(GuestReads(), 1u);
}

TEST_F(SynicTest, PosterThatFindsTheSlotBusyKicksOnceABurst) {
  synic.Enable(kSint);
  synic->RunPending();
  EXPECT_EQ(Post(0), HvStatus::kSuccess);
  EXPECT_EQ(synic.kick.kicks, 0);
  EXPECT_EQ(Post(1), HvStatus::kSuccess);
  EXPECT_EQ(synic.kick.kicks, 1);
  EXPECT_EQ(Post(2), HvStatus::kSuccess);
  EXPECT_EQ(synic.kick.kicks, 1);
  synic->RunPending();
  EXPECT_TRUE(watched());
  EXPECT_EQ(Post(3), HvStatus::kSuccess);
  EXPECT_EQ(synic.kick.kicks, 1);
  EXPECT_EQ(synic->stats().kicks, 1u);
}

TEST_F(SynicTest, NeitherAutoEoiNorPollingNorMaskedSourcesAreWatched) {
  synic.Enable(kSint);
  for (const uint64_t bit : {kHvSintAutoEoi, kHvSintPolling, kHvSintMasked}) {
    synic->RunPending();
    synic.WriteSint(kSint, 0x50 | bit);
    synic.interrupts.edges[kSint.raw()] = 0;
    const int kicks = synic.kick.kicks;
    EXPECT_EQ(Post(0), HvStatus::kSuccess);
    EXPECT_EQ(Post(1), HvStatus::kSuccess);
    EXPECT_EQ(synic.kick.kicks, kicks);
    synic->RunPending();
    EXPECT_FALSE(watched());
    EXPECT_EQ(GuestReads(), 0u);
    EXPECT_TRUE(eom);
    synic->OnEom();
    EXPECT_EQ(GuestReads(), 1u);
    EXPECT_EQ(edges(), bit == kHvSintAutoEoi ? 2 : 0);
  }
  EXPECT_EQ(synic->stats().messages.no_interrupt, 4u);
  EXPECT_EQ(synic->stats().eoi_watches, 0u);
}

TEST_F(SynicTest, UnmaskingRaisesNothingForWhatWasWritten) {
  synic.Enable(kSint, kHvSintMasked | 0x50);
  EXPECT_EQ(Post(0), HvStatus::kSuccess);
  synic.WriteSint(kSint, 0x50);
  EXPECT_EQ(edges(), 0);
  EXPECT_EQ(GuestReads(), 0u);
}

TEST_F(SynicTest, WatchFollowsTheSourcesRegister) {
  synic.Enable(kSint);
  EXPECT_EQ(Post(0), HvStatus::kSuccess);
  EXPECT_EQ(Post(1), HvStatus::kSuccess);
  synic->RunPending();
  EXPECT_TRUE(watched());
  synic.WriteSint(kSint, 0x50 | kHvSintMasked);
  EXPECT_FALSE(watched());
  synic.WriteSint(kSint, 0x60);
  EXPECT_TRUE(watched());
  synic.Write(kHvMsrSimp, 0);
  EXPECT_FALSE(watched());
}

TEST_F(SynicTest, EoiOfASharedVectorServesAllItsSources) {
  synic.Enable(kSint);
  synic.WriteSint(kOther, 0x50);
  for (const Sint sint : {kSint, kOther}) {
    EXPECT_EQ(Post(0, sint), HvStatus::kSuccess);
    EXPECT_EQ(Post(1, sint), HvStatus::kSuccess);
  }
  synic->RunPending();
  EXPECT_EQ(GuestReads(kSint), 0u);
  EXPECT_EQ(GuestReads(kOther), 0u);
  synic->OnEoi(kSint);
  EXPECT_EQ(GuestReads(kSint), 1u);
  EXPECT_EQ(GuestReads(kOther), 1u);
}

TEST_F(SynicTest, DisablingKeepsWhatWaits) {
  synic.Enable(kSint);
  for (uint32_t n = 0; n < 2; ++n) EXPECT_EQ(Post(n), HvStatus::kSuccess);
  synic.Write(kHvMsrSimp, 0);
  EXPECT_EQ(GuestReads(), 0u);  // our memory: the guest itself would not see it
  synic->OnEom();
  EXPECT_EQ(GuestReads(), std::nullopt);
  synic.Enable(kSint);
  EXPECT_EQ(GuestReads(), 1u);
}

TEST_F(SynicTest, PausedNothingIsWritten) {
  synic.Enable(kSint);
  synic->RunPending();
  synic->SetPaused(true);
  EXPECT_EQ(Post(0), HvStatus::kSuccess);
  synic->RunPending();
  synic->OnEom();
  EXPECT_EQ(GuestReads(), std::nullopt);
  synic->SetPaused(false);
  EXPECT_EQ(edges(), 1);
  EXPECT_EQ(GuestReads(), 0u);
}

TEST_F(SynicTest, SourcesOfKernelTimersAreWrittenByTheVpThreadOnly) {
  synic.Enable(kSint);
  synic.WriteSint(kOther, 0x51);
  synic->SetKernelTimerSints(uint16_t{1} << kSint.raw());
  synic->RunPending();
  EXPECT_EQ(Post(0), HvStatus::kSuccess);
  EXPECT_EQ(synic->PostIntercept(kVp1, kSint, MakeMessage(1, 1)), HvStatus::kSuccess);
  EXPECT_EQ(synic.kick.kicks, 1);
  EXPECT_EQ(GuestReads(), std::nullopt);
  EXPECT_EQ(Post(0, kOther), HvStatus::kSuccess);
  EXPECT_EQ(GuestReads(kOther), 0u);
  synic->RunPending();
  EXPECT_EQ(edges(), 1);
  EXPECT_TRUE(watched());
  EXPECT_EQ(GuestReads(), 0u);
  synic->OnEom();
  EXPECT_EQ(GuestReads(), 1u);
  synic->SetKernelTimerSints(0);
  EXPECT_EQ(Post(2), HvStatus::kSuccess);
  EXPECT_EQ(GuestReads(), 2u);
}

TEST_F(SynicTest, MessagesOnSourcesOfKernelTimersAlwaysAskForEom) {
  synic.Enable(kSint);
  EXPECT_EQ(Post(0), HvStatus::kSuccess);
  EXPECT_EQ(synic.guest(kSint).Flags(), 0);
  synic->SetKernelTimerSints(uint16_t{1} << kSint.raw());
  EXPECT_EQ(synic.guest(kSint).Flags(), kHvMessagePending);
  EXPECT_EQ(GuestReads(), 0u);
  synic->RunPending();
  EXPECT_EQ(Post(1), HvStatus::kSuccess);
  synic->RunPending();
  EXPECT_EQ(synic.guest(kSint).Flags(), kHvMessagePending);
  EXPECT_EQ(GuestReads(), 1u);
  synic->SetKernelTimerSints(0);
  EXPECT_EQ(Post(2), HvStatus::kSuccess);
  EXPECT_EQ(synic.guest(kSint).Flags(), 0);
}

TEST_F(SynicTest, RunPendingIsBoundedAndComesBack) {
  synic.Enable(kSint);
  synic->SetKernelTimerSints(uint16_t{1} << kSint.raw());
  // A guest and a poster that are as fast as we.
  uint32_t sequence = 0;
  synic.interrupts.on_edge = [&](Sint) {
    static_cast<void>(GuestReads());
    static_cast<void>(Post(++sequence));
  };
  EXPECT_EQ(Post(0), HvStatus::kSuccess);
  synic.kick.kicks = 0;
  synic->RunPending();
  EXPECT_EQ(synic.kick.kicks, 1);
  EXPECT_EQ(synic->stats().bounded_runs, 1u);
  EXPECT_LE(sequence, 1000u);
  synic.interrupts.on_edge = nullptr;
  synic->RunPending();
  EXPECT_EQ(GuestReads(), sequence);
}

TEST_F(SynicTest, LanesAreHeardOfByNotifyLane) {
  SharedRegion region(LaneProducer::RegionBytes(8));
  ASSERT_OK_AND_ASSIGN(LaneConsumer consumer, LaneConsumer::Create(region.bytes(), 8, /*origination_id=*/77));
  ASSERT_OK_AND_ASSIGN(const uint32_t lane, synic->AttachLane(kSint, consumer));
  ASSERT_OK_AND_ASSIGN(LaneProducer device, LaneProducer::Attach(region.bytes(), 8));
  synic.Enable(kSint);
  synic->RunPending();
  EXPECT_TRUE(IsPosted(device.TryPost(MakeMessage(1, 6))));
  synic->NotifyLane(kSint, lane);
  synic->NotifyLane(kSint, lane + 1);
  EXPECT_EQ(synic.kick.kicks, 1);
  synic->RunPending();
  EXPECT_EQ(synic.guest(kSint).slot.header.origination_id, 77u);
  EXPECT_EQ(GuestReads(), 6u);
}

TEST_F(SynicTest, TimerMessageIsStampedWhenItIsWritten) {
  synic.Enable(kSint);
  EXPECT_EQ(Post(0), HvStatus::kSuccess);
  synic.clock.now = HvTicks(1000);
  synic->PostTimer(3, kSint, HvTicks(900));
  EXPECT_EQ(synic->TakeWrittenTimers(), 0u);
  EXPECT_EQ(GuestReads(), 0u);
  EXPECT_TRUE(eom);
  synic.clock.now = HvTicks(5000);
  synic->OnEom();
  EXPECT_EQ(synic->TakeWrittenTimers(), 8u);
  EXPECT_EQ(synic->TakeWrittenTimers(), 0u);
  const auto read = synic.guest(kSint).TakeMessage();
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(read->message.header.type, HvMessageType::kTimerExpired);
  EXPECT_EQ(read->message.header.payload_size, 24);
  EXPECT_EQ(read->message.header.origination_id, 0u);
  HvTimerMessagePayload payload;
  std::memcpy(&payload, read->message.payload, sizeof(payload));
  EXPECT_EQ(payload.timer_index, 3u);
  EXPECT_EQ(payload.reserved, 0u);
  EXPECT_EQ(payload.expiration_time, 900u);
  EXPECT_EQ(payload.delivery_time, 5000u);
}

// --- Events -------------------------------------------------------------------------------------------------------------

TEST_F(SynicTest, EventSetsItsFlagAndInterruptsOnce) {
  synic.Enable(kSint);
  EXPECT_EQ(synic->SignalEvent(kSint, 0), HvStatus::kSuccess);
  EXPECT_EQ(synic->SignalEvent(kSint, 2047), HvStatus::kSuccess);
  EXPECT_EQ(synic->SignalEvent(kSint, 13), HvStatus::kSuccess);
  EXPECT_EQ(synic->SignalEvent(kSint, 13), HvStatus::kSuccess);
  EXPECT_EQ(synic.event_byte(kSint, 0), 0x01);
  EXPECT_EQ(synic.event_byte(kSint, 2047), 0x80);
  EXPECT_EQ(synic.event_byte(kSint, 13), 0x20);
  EXPECT_EQ(edges(), 3);
  EXPECT_EQ(synic->stats().events, 3u);
  EXPECT_EQ(synic->stats().events_already_set, 1u);
  synic.event_byte(kSint, 13) = 0;
  EXPECT_EQ(synic->SignalEvent(kSint, 13), HvStatus::kSuccess);
  EXPECT_EQ(edges(), 4);
  EXPECT_EQ(synic.kick.kicks, 0);
}

TEST_F(SynicTest, EventsOfDisabledOrMaskedSourcesAreRefused) {
  EXPECT_EQ(synic->SignalEvent(kSint, 1), HvStatus::kInvalidSynicState);
  synic.Enable(kSint);
  EXPECT_EQ(synic->SignalEvent(kOther, 1), HvStatus::kInvalidSynicState);  // masked
  synic.Write(kHvMsrScontrol, 0);
  EXPECT_EQ(synic->SignalEvent(kSint, 1), HvStatus::kInvalidSynicState);
  synic.Write(kHvMsrScontrol, 1);
  synic.Write(kHvMsrSiefp, 0);
  EXPECT_EQ(synic->SignalEvent(kSint, 1), HvStatus::kInvalidSynicState);
  EXPECT_EQ(synic.event_byte(kSint, 1), 0);
  EXPECT_EQ(synic.event_byte(kOther, 1), 0);
  EXPECT_EQ(synic->stats().refused_disabled, 4u);
}

TEST_F(SynicTest, EventOfAPollingSourceSetsTheFlagAlone) {
  synic.Enable(kSint, 0x50 | kHvSintPolling);
  EXPECT_EQ(synic->SignalEvent(kSint, 8), HvStatus::kSuccess);
  EXPECT_EQ(synic.event_byte(kSint, 8), 1);
  EXPECT_EQ(edges(), 0);
}

// --- State --------------------------------------------------------------------------------------------------------------

TEST_F(SynicTest, StateIsRestoredIntoANewOneAndDrainedWithoutAnotherMessage) {
  synic.Enable(kSint, 0xff50);
  for (uint32_t n = 0; n < 4; ++n) EXPECT_EQ(Post(n), HvStatus::kSuccess);
  EXPECT_EQ(synic->SignalEvent(kSint, 9), HvStatus::kSuccess);
  synic->SetPaused(true);
  const SynicState state = synic->SaveState();
  EXPECT_EQ(state.queued[kSint.raw()].size(), 3u);

  SynicForTest restored;
  restored->RunPending();
  ASSERT_OK(restored->RestoreState(state));
  EXPECT_GE(restored.kick.kicks, 1);
  restored->RunPending();
  EXPECT_EQ(restored.Read(kHvMsrSimp), synic.Read(kHvMsrSimp));
  EXPECT_EQ(restored.Read(kHvMsrSiefp), synic.Read(kHvMsrSiefp));
  EXPECT_EQ(restored.Read(kHvMsrSint0 + kSint.raw()), 0xff50u);
  EXPECT_EQ(restored.message_page().place(), Gpfn(SynicForTest::kMessagePage));
  EXPECT_EQ(restored.event_byte(kSint, 9), 2);
  EXPECT_TRUE(restored.interrupts.watched[kSint.raw()]);
  // And the one that was saved goes on.
  synic->SetPaused(false);
  for (SynicForTest* each : {&synic, &restored}) {
    for (uint32_t n = 0; n < 4; ++n) {
      const auto read = each->guest(kSint).TakeMessage();
      ASSERT_TRUE(read.has_value()) << n;
      EXPECT_EQ(IdentityOf(read->message), (MessageIdentity{1, n}));
      EXPECT_EQ(read->eom, n < 3);
      (*each)->OnEom();
    }
    EXPECT_EQ(each->guest(kSint).Type(), HvMessageType::kNone);
  }
}

TEST_F(SynicTest, StateThatNobodySavedIsRefused) {
  SynicState state = synic->SaveState();
  state.sints[3] = 15;
  EXPECT_EQ(synic->RestoreState(state).code(), absl::StatusCode::kInvalidArgument);
  state.sints[3] = kHvSintReset;
  state.queued[3].push_back(HvMessage{});
  EXPECT_EQ(synic->RestoreState(state).code(), absl::StatusCode::kInvalidArgument);
  state.queued[3][0] = MakeMessage(0, 0);
  state.queued[3][0].header.payload_size = 241;
  EXPECT_EQ(synic->RestoreState(state).code(), absl::StatusCode::kInvalidArgument);
}

TEST(SynicCreateTest, RefusesNoVps) {
  SynicForTest parts;
  EXPECT_EQ(Synic::Create(0, parts.overlays, parts.interrupts, parts.clock, parts.kick).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Synic::Create(1u << 20, parts.overlays, parts.interrupts, parts.clock, parts.kick).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace vmm
