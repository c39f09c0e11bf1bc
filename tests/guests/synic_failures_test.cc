// Where SynIC implementations of others went wrong, as far as a guest can see it: a test of each name. Those without a test here
// need two trust levels, or a machine that is paused or restored: see devices/hyperv/synic/synic_failures_test.cc.
#include "tests/guests/hyperv/synic_driver.h"
#include "tests/guests/runtime/apic.h"
#include "tests/guests/runtime/interrupts.h"
#include "tests/guests/runtime/test.h"
#include "tests/guests/runtime/wait.h"

namespace guest {
namespace {

using vmm::kHvSintAutoEoi;
using vmm::kHvSintMasked;
using vmm::kHvStimerEnable;
using vmm::kHvStimerPeriodic;

constexpr uint8_t kVector = 0x71;
constexpr uint8_t kVectors = 0x50;  // of each source
constexpr uint32_t kSint = 2;
constexpr uint32_t kId = 0x2d;
constexpr uint32_t kBuffers = 16;  // of a poster

// The page is zero when it is first enabled, whatever its memory had; a slot that only looks taken would stay so for ever.
TEST(StaleMessagePage) {
  Fresh();
  for (uint32_t cpu = 0; cpu < CpuCount(); ++cpu) EXPECT_TRUE(PagesWereZeroAtFirst(cpu));
  // Off and on: its content is kept.
  const Connection connection(Connection::kMessages, kId, 0, kSint);
  EXPECT_EQ(PostMarked(kId, 3, 4), HvStatus::kSuccess);
  SetMessagePage(nullptr);
  SetMessagePage(MessagePage(0));
  HvMessage message;
  bool more;
  uint32_t producer = 0, sequence = 0;
  EXPECT_TRUE(Take(0, kSint, message, more) && ReadMark(message, producer, sequence));
  EXPECT_EQ(sequence, 4u);
}

// Many times what the queue holds: what is accepted arrives, what is refused is refused to its sender, the last one comes by
// itself.
TEST(BurstOverflowStalls) {
  Fresh();
  const uint32_t receiver = CpuCount() - 1;
  CollectOn(kVector);
  Tally tally;
  for (const uint64_t bits : {uint64_t{0}, kHvSintAutoEoi}) {
    g_collection.Reset(receiver, kSint, bits != 0);
    const Connection connection(Connection::kMessages, kId, receiver, kSint);
    uint32_t accepted = 0, refused = 0;
    const auto burst = [&](uint32_t posts) {
      for (uint32_t i = 0; i < posts; ++i) {
        const HvStatus status = PostMarked(kId, 0, accepted);
        if (status == HvStatus::kSuccess) {
          ++accepted;
        } else {
          tally.Equal(static_cast<uint64_t>(status), static_cast<uint64_t>(HvStatus::kInsufficientBuffers), "status");
          ++refused;
        }
      }
    };
    // The receiver does not listen: the slot, and the buffers of this poster.
    OnCpu(receiver, [&] { SetSint(kSint, kVector | bits | kHvSintMasked); });
    burst(5 * kBuffers);
    tally.Equal(accepted, kBuffers + 1, "accepted");
    tally.Equal(refused, 4 * kBuffers - 1, "refused");
    // It begins to: from here on nothing but its own EOM and EOI moves anything.
    OnCpu(receiver, [&] {
      SetSint(kSint, kVector | bits);
      g_collection.Drain();
    });
    tally.True(WaitFor([&] { return g_collection.Total() == accepted; }), "what was accepted arrives");
    // While it listens.
    burst(5 * kBuffers);
    tally.True(WaitFor([&] { return g_collection.Total() == accepted; }), "the last one without further traffic");
    SpinTicks(kQuietTicks);
    tally.Equal(g_collection.Total(), accepted, "none twice");
    tally.Equal(g_collection.wrong.Load(), 0, "wrong");
    OnCpu(receiver, [] { SetSint(kSint, vmm::kHvSintReset); });
  }
  EXPECT_TRUE(tally.ok());
}

// Posters of all processors fill the slot themselves while the receiver's thread does.
TEST(TwoWritersOfTheSlot) {
  Fresh();
  g_collection.Reset(0, kSint);
  CollectOn(kVector);
  SetSint(kSint, kVector);
  const Connection connection(Connection::kMessages, kId, 0, kSint);
  constexpr uint32_t kPosts = 60;
  Tally tally;
  OnAllCpus([&] {
    const uint32_t me = ThisCpuNumber();
    for (uint32_t sequence = 0; sequence < kPosts;) {
      const HvStatus status = PostMarked(kId, me, sequence);
      if (status == HvStatus::kSuccess) ++sequence;
      tally.True(status == HvStatus::kSuccess || status == HvStatus::kInsufficientBuffers, "status");
      // EOM for no reason is another look at the slot.
      if (me == 0 && sequence % 3 == 0) WriteEom();
    }
  });
  tally.True(WaitFor([] { return g_collection.Total() == kPosts * CpuCount(); }), "all arrive");
  SpinTicks(kQuietTicks);
  tally.Equal(g_collection.Total(), kPosts * CpuCount(), "none twice");
  tally.Equal(g_collection.wrong.Load(), 0, "wrong");
  EXPECT_TRUE(tally.ok());
}

TEST(GuestIndexPanics) {
  Fresh();
  Tally tally;
  const uint8_t payload[8] = {};
  for (const uint32_t sint : {0u, 15u, 16u, 0x7fu, 0xffu}) {
    for (const uint32_t cpu : {0u, CpuCount(), 0x7fu, 0xffu}) {
      for (const auto kind : {Connection::kMessages, Connection::kEvents}) {
        const Connection connection(kind, kId, cpu, sint);
        const bool exists = sint < kSints;
        const HvStatus want = !exists              ? HvStatus::kInvalidConnectionId
                              : cpu >= CpuCount()  ? HvStatus::kInvalidVpIndex
                              : kind == Connection::kMessages ? HvStatus::kSuccess
                                                              : HvStatus::kInvalidSynicState;  // masked
        const HvStatus got = kind == Connection::kMessages ? Post(kId, 1, payload, 8) : SignalEvent(kId);
        tally.Equal(static_cast<uint64_t>(got), static_cast<uint64_t>(want), "status");
      }
      TellDevice(DeviceCommand::kRaiseSint, 0, cpu, sint);
    }
  }
  const Connection events(Connection::kEvents, kId, 0, kSint);
  SetSint(kSint, kVector | vmm::kHvSintPolling);
  for (uint32_t flag = 1; flag < 0x10000; flag = flag * 2 + 1) {
    tally.Equal(static_cast<uint64_t>(SignalEvent(kId, static_cast<uint16_t>(flag))),
                static_cast<uint64_t>(HvStatus::kInvalidParameter), "flag");
  }
  // Commands that there are not.
  for (const uint32_t word : {0u, 0xffff'ffffu, 0x2dff'0002u, 0x2d08'0002u}) Out32(0x3000, word);
  tally.Equal(In32(0x3000), 0, "the device reads as zero");
  tally.Equal(static_cast<uint64_t>(SignalEvent(kId)), 0, "and goes on");
  EXPECT_TRUE(tally.ok());
}

TEST(UnknownConnectionSilent) {
  Fresh();
  const uint8_t payload[8] = {};
  EXPECT_EQ(Post(kId, 1, payload, 8), HvStatus::kInvalidConnectionId);
  EXPECT_EQ(Post(0xffff'ffff, 1, payload, 8), HvStatus::kInvalidConnectionId);
  EXPECT_EQ(SignalEvent(kId), HvStatus::kInvalidConnectionId);
  {
    const Connection connection(Connection::kMessages, kId, 0, kSint);
    EXPECT_EQ(Post(kId, 1, payload, 8), HvStatus::kSuccess);
  }
  EXPECT_EQ(Post(kId, 1, payload, 8), HvStatus::kInvalidConnectionId);
}

// A disabled page is a defined answer, a masked source a defined outcome, and what was accepted before is not lost by either.
TEST(ErrorDropsMessage) {
  Fresh();
  const uint32_t cpu = CpuCount() - 1;
  g_collection.Reset(cpu, kSint);
  const Connection connection(Connection::kMessages, kId, cpu, kSint);
  Tally tally;
  const auto post = [&](uint32_t sequence, HvStatus want) {
    tally.Equal(static_cast<uint64_t>(PostMarked(kId, 0, sequence)), static_cast<uint64_t>(want), "post");
  };
  for (uint32_t sequence = 0; sequence < 5; ++sequence) post(sequence, HvStatus::kSuccess);  // masked
  OnCpu(cpu, [] { SetMessagePage(nullptr); });
  post(5, HvStatus::kInvalidSynicState);
  OnCpu(cpu, [&] {
    SetMessagePage(MessagePage(cpu));
    WriteMsr(vmm::kHvMsrScontrol, 0);
  });
  post(5, HvStatus::kInvalidSynicState);
  OnCpu(cpu, [] { WriteMsr(vmm::kHvMsrScontrol, vmm::kHvScontrolEnable); });
  post(5, HvStatus::kSuccess);
  OnCpu(cpu, [] { g_collection.Drain(); });
  tally.Equal(g_collection.Total(), 6, "all that were accepted");
  tally.Equal(g_collection.wrong.Load(), 0, "wrong");
  EXPECT_TRUE(tally.ok());
}

// The next message is in the slot when the write of EOM is done: no timer comes into it.
TEST(PollingForFreeSlot) {
  Fresh();
  Tally tally;
  OnEachCpu([&] {
    const uint32_t cpu = ThisCpuNumber();
    const Connection connection(Connection::kMessages, kId, cpu, kSint);
    for (uint32_t sequence = 0; sequence < kBuffers; ++sequence) {
      tally.Equal(static_cast<uint64_t>(PostMarked(kId, 0, sequence)), 0, "post");
    }
    for (uint32_t wanted = 0; wanted < kBuffers; ++wanted) {
      HvMessage message;
      bool more = false;
      uint32_t producer = 0, sequence = 0;
      tally.True(Take(cpu, kSint, message, more) && ReadMark(message, producer, sequence), "at once");
      tally.Equal(sequence, wanted, "in order");
      tally.Equal(more, wanted + 1 < kBuffers, "more");
      if (more) WriteEom();
    }
  });
  EXPECT_TRUE(tally.ok());
}

// Each poster has all of its buffers at each source, however full those of others are.
TEST(OneStagedMessage) {
  Fresh();
  g_collection.Reset(0, kSint);
  Tally tally;
  const Connection connection(Connection::kMessages, kId, 0, kSint);
  const Connection other(Connection::kMessages, kId + 1, 0, kSint + 1);
  OnEachCpu([&] {
    const uint32_t me = ThisCpuNumber();
    // The first of all goes straight into the slot.
    const uint32_t room = kBuffers + (me == 0 ? 1 : 0);
    for (uint32_t sequence = 0; sequence < room; ++sequence) {
      tally.Equal(static_cast<uint64_t>(PostMarked(kId, me, sequence)), 0, "post");
    }
    tally.Equal(static_cast<uint64_t>(PostMarked(kId, me, room)), static_cast<uint64_t>(HvStatus::kInsufficientBuffers), "full");
  });
  tally.Equal(static_cast<uint64_t>(PostMarked(kId + 1, 0, 0)), 0, "another source");
  g_collection.Drain();
  tally.Equal(g_collection.Total(), kBuffers * CpuCount() + 1, "all arrive");
  tally.Equal(g_collection.wrong.Load(), 0, "wrong");
  EXPECT_TRUE(tally.ok());
}

Atomic<uint32_t> g_sources[kMaxSynicCpus];

TEST(OnlyOneSint) {
  Fresh();
  for (auto& sources : g_sources) sources.Store(0);
  for (uint32_t sint = 0; sint < kSints; ++sint) {
    SetInterruptHandler(static_cast<uint8_t>(kVectors + sint), [](InterruptFrame& frame) {
      g_sources[ThisCpuNumber()].Add(1u << (frame.vector - kVectors));  // each once: a second would carry
      SignalEoi();
    });
  }
  OnEachCpu([] {
    for (uint32_t sint = 0; sint < kSints; ++sint) SetSint(sint, kVectors + sint);
  });
  Tally tally;
  for (uint32_t cpu = 0; cpu < CpuCount(); ++cpu) {
    for (uint32_t sint = 0; sint < kSints; ++sint) {
      const Connection connection(Connection::kMessages, kId, cpu, sint);
      tally.Equal(static_cast<uint64_t>(PostMarked(kId, cpu, sint)), 0, "post");
      HvMessage message;
      bool more;
      tally.True(Take(cpu, sint, message, more), "message");
    }
    tally.True(WaitFor([&] { return g_sources[cpu].Load() == 0xffff; }), "an interrupt of each");
  }
  EXPECT_TRUE(tally.ok());
}

// One processor clears slots without end while others make the hypervisor set MessagePending in them: had it written more than
// the flag, a cleared type would come back, and the message twice.
TEST(PendingFlagRace) {
  Fresh();
  constexpr uint32_t kPosts = 60;
  g_collection.Reset(0, kSint);
  SetSint(kSint, kVector | kHvSintMasked);
  const Connection connection(Connection::kMessages, kId, 0, kSint);
  Tally tally;
  Atomic<uint32_t> done;
  OnAllCpus([&] {
    const uint32_t me = ThisCpuNumber();
    uint32_t sequence = 0;
    const auto post = [&] {
      if (sequence == kPosts) return;
      const HvStatus status = PostMarked(kId, me, sequence);
      tally.True(status == HvStatus::kSuccess || status == HvStatus::kInsufficientBuffers, "status");
      if (status == HvStatus::kSuccess && ++sequence == kPosts) done.Add(1);
    };
    if (me != 0) {
      while (sequence < kPosts) post();
      return;
    }
    tally.True(WaitFor([&] {
      post();
      // EOM only where it is asked for: one that is missed is missed for ever.
      g_collection.Drain();
      return done.Load() == CpuCount() && g_collection.Total() == kPosts * CpuCount();
    }), "all arrive");
  });
  tally.Equal(g_collection.wrong.Load(), 0, "wrong");
  tally.Equal(SlotType(0, kSint), 0, "none is left");
  EXPECT_TRUE(tally.ok());
}

// Timer messages and posted ones in one slot. With backing KERNEL it is KVM that writes the timers'.
void TestTimerVsMessage(uint64_t sint_bits, uint64_t period) {
  Fresh();
  constexpr uint32_t kPosts = 50;
  const bool auto_eoi = (sint_bits & kHvSintAutoEoi) != 0;
  g_collection.Reset(0, kSint, auto_eoi);
  CollectOn(kVector);
  SetSint(kSint, kVector | sint_bits);
  const Connection connection(Connection::kMessages, kId, 0, kSint);
  Tally tally;
  for (uint32_t timer = 0; timer < vmm::kHvStimerCount; ++timer) {
    SetTimer(timer, kHvStimerEnable | kHvStimerPeriodic | OnSint(kSint), period + timer * period / 3);
  }
  Atomic<uint32_t> ready;
  OnAllCpus([&] {
    const uint32_t me = ThisCpuNumber();
    ready.Add(1);
    for (uint32_t sequence = 0; sequence < kPosts;) {
      const HvStatus status = PostMarked(kId, me, sequence);
      tally.True(status == HvStatus::kSuccess || status == HvStatus::kInsufficientBuffers, "status");
      if (status == HvStatus::kSuccess) ++sequence;
      if (sequence % 8 == 0) SpinTicks(300'000);
    }
  });
  tally.True(WaitFor([] { return g_collection.Total() == kPosts * CpuCount(); }), "all arrive");
  const uint32_t ticks = g_collection.timer_messages.Load();
  tally.True(WaitFor([&] { return g_collection.timer_messages.Load() >= ticks + 8; }), "the timers tick on");
  for (uint32_t timer = 0; timer < vmm::kHvStimerCount; ++timer) WriteMsr(TimerConfigMsr(timer), 0);
  // A one-shot each, and a message: the last of everything arrives by itself.
  for (uint32_t timer = 0; timer < vmm::kHvStimerCount; ++timer) {
    g_collection.last_expiration[timer] = 0;
    SetTimer(timer, kHvStimerEnable | OnSint(kSint), ReferenceTime() + kMillisecond);
  }
  tally.Equal(static_cast<uint64_t>(PostMarked(kId, 0, kPosts)), 0, "post");
  tally.True(WaitFor([] { return g_collection.Total() == kPosts * CpuCount() + 1; }), "the last message");
  for (uint32_t timer = 0; timer < vmm::kHvStimerCount; ++timer) {
    tally.True(WaitFor([&] { return (ReadMsr(TimerConfigMsr(timer)) & kHvStimerEnable) == 0; }), "the last of each timer");
  }
  tally.Equal(g_collection.wrong.Load(), 0, "posted messages torn, lost or doubled");
  tally.Equal(g_collection.wrong_timers.Load(), 0, "timer messages torn or doubled");
  EXPECT_TRUE(tally.ok());
}

TEST(TimerVsMessage) { TestTimerVsMessage(0, kMillisecond); }

TEST(TimerVsMessageWithAutoEoi) { TestTimerVsMessage(kHvSintAutoEoi, kMillisecond); }

// One-shots: each of them arrives, whatever else is in the slot's queue.
TEST(OneShotVsMessage) {
  Fresh();
  CollectOn(kVector);
  Tally tally;
  for (const uint64_t bits : {uint64_t{0}, kHvSintAutoEoi}) {
    g_collection.Reset(0, kSint, bits != 0);
    SetSint(kSint, kVector | bits);
    const Connection connection(Connection::kMessages, kId, 0, kSint);
    uint32_t posted = 0;
    for (uint32_t round = 0; round < 20; ++round) {
      SetTimer(1, kHvStimerEnable | OnSint(kSint), ReferenceTime() + round * 500);
      for (uint32_t i = 0; i < 3; ++i) posted += PostMarked(kId, 0, posted) == HvStatus::kSuccess ? 1 : 0;
      tally.True(WaitFor([&] { return g_collection.timer_messages.Load() == round + 1; }), "the timer");
      tally.True(WaitFor([&] { return g_collection.Total() == posted; }), "the messages");
    }
    tally.Equal(g_collection.wrong.Load() + g_collection.wrong_timers.Load(), 0, "wrong");
  }
  EXPECT_TRUE(tally.ok());
}

// --- A guest that does anything -----------------------------------------------------------------------------------------

// Registers, posts, signals and slots at random, the same each time; then everything works.
TEST(RandomAccessesLeaveAWorkingSynic) {
  Fresh();
  for (uint32_t vector = 0x20; vector < 0x100; ++vector) {
    if (vector == kSpuriousVector || vector == kWorkVector) continue;
    SetInterruptHandler(static_cast<uint8_t>(vector), [](InterruptFrame&) { SignalEoi(); });
  }
  uint8_t* const spare = static_cast<uint8_t*>(AllocatePages(4));
  for (uint32_t id = 0; id < 32; ++id) {
    TellDevice(id % 4 == 3 ? DeviceCommand::kCreateEventConnection : DeviceCommand::kCreateMessageConnection, id, id % CpuCount(),
               id % kSints);
  }
  OnAllCpus([&] {
    const uint32_t me = ThisCpuNumber();
    Random random(0x5eed + me);
    for (uint32_t step = 0; step < 250; ++step) {
      const uint64_t any = random.Next();
      switch (random.Below(10)) {
        case 0:  // a source; its vectors have handlers, or are refused
          (void)TryWriteMsr(vmm::kHvMsrSint0 + random.Below(kSints),
                            (any & 0x7'0000) | (0x20 + any % 0xd0) | (any & 0xff00'0000'0000));
          break;
        case 1:
          (void)TryWriteMsr(vmm::kHvMsrSint0 + random.Below(kSints), random.Below(16));
          break;
        case 2:
          (void)TryWriteMsr(random.Below(2) == 0 ? vmm::kHvMsrSimp : vmm::kHvMsrSiefp,
                            (GpaOf(spare) + random.Below(4) * kPageBytes) | (any & 0xfff));
          break;
        case 3:
          (void)TryWriteMsr(random.Below(2) == 0 ? vmm::kHvMsrSimp : vmm::kHvMsrSiefp, any | uint64_t{1} << 50);
          break;
        case 4:
          (void)TryWriteMsr(vmm::kHvMsrScontrol, any);
          break;
        case 5: {  // timers: not so close, nor so far that KVM's arithmetic overflows
          const uint32_t timer = random.Below(vmm::kHvStimerCount);
          (void)TryWriteMsr(TimerCountMsr(timer),
                            random.Below(2) == 0 ? 5000 + any % 0xffff'ffff : ReferenceTime() + any % 0xffff);
          (void)TryWriteMsr(TimerConfigMsr(timer), (any & 0xf'000f) | OnSint(random.Below(kSints)) |
                                                       (random.Below(4) == 0 ? OnVector(0x20 + random.Below(0xc0)) : 0));
          break;
        }
        case 6: {
          uint8_t payload[240];
          memset(payload, static_cast<int>(any), sizeof(payload));
          (void)PostRaw(random.Below(40), random.Below(5), payload, random.Below(241), random.Below(300));
          break;
        }
        case 7:
          (void)SignalEvent(random.Below(40), static_cast<uint16_t>(random.Below(3)));
          break;
        case 8:  // the slots of any processor, wherever they are
          Store<uint32_t>(GpaOf(spare) + random.Below(4) * kPageBytes + random.Below(kSints) * 256 + random.Below(64) * 4,
                          static_cast<uint32_t>(any));
          break;
        default:
          (void)TryWriteMsr(vmm::kHvMsrScontrol + random.Below(0x38), any & 0x1'0000);
          WriteEom();
          break;
      }
    }
    for (uint32_t sint = 0; sint < kSints; ++sint) SetSint(sint, vmm::kHvSintReset);
    for (uint32_t timer = 0; timer < vmm::kHvStimerCount; ++timer) SetTimer(timer, 0, 0);
  });
  for (uint32_t id = 0; id < 32; ++id) TellDevice(DeviceCommand::kDestroyMessageConnection, id, 0, 0);
  Fresh();
  // An interrupt in service that nobody ended would hold back those below.
  Tally tally;
  OnEachCpu([&] {
    const uint32_t cpu = ThisCpuNumber();
    for (uint32_t vector = 0x20; vector < 0x100; ++vector) {
      if (IsInService(static_cast<uint8_t>(vector)) && vector != kWorkVector) SignalEoi();
    }
    for (uint32_t sint = 0; sint < kSints; ++sint) {
      g_collection.Reset(cpu, sint);
      CollectOn(kVector);
      SetSint(sint, kVector);
      const Connection connection(Connection::kMessages, kId, cpu, sint);
      for (uint32_t sequence = 0; sequence < 3; ++sequence) {
        tally.Equal(static_cast<uint64_t>(PostMarked(kId, cpu, sequence)), 0, "post");
      }
      tally.True(WaitFor([] { return g_collection.Total() == 3; }), "messages");
      if (sint != 0) {
        SetTimer(sint % vmm::kHvStimerCount, kHvStimerEnable | OnSint(sint), 1);
        tally.True(WaitFor([] { return g_collection.timer_messages.Load() == 1; }), "timer");
      }
      tally.Equal(g_collection.wrong.Load() + g_collection.wrong_timers.Load(), 0, "wrong");
      const Connection events(Connection::kEvents, kId + 1, cpu, sint);
      tally.Equal(static_cast<uint64_t>(SignalEvent(kId + 1)), 0, "signal");
      tally.True(ClearFlag(cpu, sint, kId + 1), "flag");
    }
  });
  EXPECT_TRUE(tally.ok());
}

}  // namespace
}  // namespace guest
