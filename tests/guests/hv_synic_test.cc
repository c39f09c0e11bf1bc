// The SynIC from inside: registers, messages through the hypercall page, slots, EOM and EOI. tests/guests/hyperv/synic_driver.h
// is the driver.
#include "tests/guests/hyperv/synic_driver.h"
#include "tests/guests/runtime/apic.h"
#include "tests/guests/runtime/interrupts.h"
#include "tests/guests/runtime/test.h"
#include "tests/guests/runtime/wait.h"

namespace guest {
namespace {

using vmm::kHvSintAutoEoi;
using vmm::kHvSintMasked;
using vmm::kHvSintPolling;

constexpr uint8_t kVector = 0x71;       // the handler counts and says EOI
constexpr uint8_t kManualVector = 0x72;  // the test says EOI
constexpr uint8_t kVectors = 0x50;      // of each source
constexpr uint32_t kSint = 5;
constexpr uint32_t kId = 0x21;
constexpr uint32_t kType = 0x77;

HvStatus PostByte(uint8_t byte, uint32_t id = kId) { return Post(id, kType, &byte, 1); }

// The byte of the message in the slot, taken; -1: there is none.
int TakeByte(uint32_t cpu, bool& more, uint32_t sint = kSint) {
  HvMessage message;
  if (!Take(cpu, sint, message, more)) return -1;
  return message.payload[0];
}
int TakeByte(uint32_t cpu, uint32_t sint = kSint) {
  bool more;
  return TakeByte(cpu, more, sint);
}
bool HasMessage(uint32_t cpu, uint32_t sint = kSint) { return SlotType(cpu, sint) != 0; }

TEST(RegistersHoldTheirResetValues) {
  Tally tally;
  OnEachCpu([&] {
    tally.Equal(ReadMsr(vmm::kHvMsrScontrol), vmm::kHvScontrolEnable, "SCONTROL");
    tally.Equal(ReadMsr(vmm::kHvMsrSversion), 1, "SVERSION");
    tally.Equal(ReadMsr(vmm::kHvMsrSiefp), 0, "SIEFP");
    tally.Equal(ReadMsr(vmm::kHvMsrSimp), 0, "SIMP");
    tally.Equal(ReadMsr(vmm::kHvMsrEom), 0, "EOM");
    for (uint32_t sint = 0; sint < kSints; ++sint) {
      tally.Equal(ReadMsr(vmm::kHvMsrSint0 + sint), vmm::kHvSintReset, "SINT");
    }
  });
  EXPECT_TRUE(tally.ok());
}

TEST(RegistersKeepWhatIsWrittenAndRefuseTheRest) {
  Fresh();
  Tally tally;
  const auto is_refused = [](uint32_t msr, uint64_t value) { return TryWriteMsr(msr, value).vector == kGeneralProtection; };
  OnEachCpu([&] {
    tally.True(is_refused(vmm::kHvMsrSversion, 1), "SVERSION is read-only");
    for (const uint32_t msr : {vmm::kHvMsrScontrol + 5, vmm::kHvMsrSint0 - 1, vmm::kHvMsrSint0 + kSints}) {
      tally.True(is_refused(msr, 0), "there is no such register");
    }
    // Vectors below 16 only where the source is masked; the rest of the value is kept, reserved bits too.
    const uint32_t msr = vmm::kHvMsrSint0 + kSint;
    for (const uint64_t vector : {0, 2, 15}) {
      tally.True(is_refused(msr, vector), "vector below 16");
      tally.True(is_refused(msr, vector | kHvSintAutoEoi), "vector below 16, auto-EOI");
    }
    tally.Equal(ReadMsr(msr), vmm::kHvSintReset, "a refused value changes nothing");
    for (const uint64_t value : {uint64_t{16}, uint64_t{255}, kHvSintMasked | 15, kHvSintMasked, kHvSintPolling | 0x60,
                                 kHvSintAutoEoi | 0x61, uint64_t{0xab} << 32 | 0x62}) {
      SetSint(kSint, value);
      tally.Equal(ReadMsr(msr), value, "SINT");
    }
    WriteMsr(vmm::kHvMsrScontrol, 0xf0);
    tally.Equal(ReadMsr(vmm::kHvMsrScontrol), 0xf0, "SCONTROL");
    const uint64_t simp = ReadMsr(vmm::kHvMsrSimp);
    WriteMsr(vmm::kHvMsrSimp, simp | 0xffe);
    tally.Equal(ReadMsr(vmm::kHvMsrSimp), simp | 0xffe, "SIMP");
    tally.True(!TryWriteMsr(vmm::kHvMsrEom, ~uint64_t{0}).raised(), "EOM takes any value");
    tally.Equal(ReadMsr(vmm::kHvMsrEom), 0, "EOM");
  });
  EXPECT_TRUE(tally.ok());
}

TEST(MessagesReachEverySourceOfEveryProcessor) {
  Fresh();
  Tally tally;
  for (uint32_t cpu = 0; cpu < CpuCount(); ++cpu) {
    OnCpu(cpu, [&] {
      for (uint32_t sint = 0; sint < kSints; ++sint) {
        CountInterrupts(static_cast<uint8_t>(kVectors + sint), Eoi::kApic);
        SetSint(sint, kVectors + sint);
      }
    });
    for (uint32_t sint = 0; sint < kSints; ++sint) {
      const auto vector = static_cast<uint8_t>(kVectors + sint);
      const uint64_t before = InterruptCountOf(cpu, vector);
      const uint32_t id = 0x40 + cpu * kSints + sint;
      const Connection connection(Connection::kMessages, id, cpu, sint);
      tally.Equal(static_cast<uint64_t>(PostMarked(id, cpu, 100 + sint)), 0, "post");
      HvMessage message;
      bool more = true;
      tally.True(Take(cpu, sint, message, more), "the message is there when the post is done");
      uint32_t producer = 0, sequence = 0;
      tally.True(ReadMark(message, producer, sequence), "type, size and payload are those posted");
      tally.Equal(producer * 1000 + sequence, cpu * 1000 + 100 + sint, "message");
      tally.Equal(message.header.origination_id, id, "origination");
      tally.Equal(message.header.flags, 0, "flags");
      tally.Equal(message.header.reserved, 0, "reserved");
      tally.Equal(more, false, "more");
      tally.True(WaitFor([&] { return InterruptCountOf(cpu, vector) == before + 1; }), "one interrupt");
    }
  }
  EXPECT_TRUE(tally.ok());
}

TEST(SizesFromNoneToTheLargestArriveAsTheyAre) {
  Fresh();
  const uint32_t cpu = CpuCount() - 1;
  const Connection connection(Connection::kMessages, kId, cpu, kSint);
  uint8_t payload[vmm::kHvMessagePayloadBytes];
  for (uint32_t i = 0; i < sizeof(payload); ++i) payload[i] = static_cast<uint8_t>(i ^ 0x5a);
  Tally tally;
  for (const uint32_t bytes : {0, 1, 7, 8, 47, 48, 49, 112, 113, 239, 240}) {
    memset(static_cast<void*>(&Slot(cpu, kSint)), 0, sizeof(HvMessage));
    tally.Equal(static_cast<uint64_t>(Post(kId, 0x7fff'ffff, payload, bytes)), 0, "post");
    HvMessage message;
    bool more;
    tally.True(Take(cpu, kSint, message, more), "it is there");
    tally.Equal(static_cast<uint32_t>(message.header.type), 0x7fff'ffff, "type");
    tally.Equal(message.header.payload_size, bytes, "size");
    tally.Equal(static_cast<uint64_t>(memcmp(message.payload, payload, bytes)), 0, "payload");
    for (uint32_t i = bytes; i < sizeof(payload); ++i) {
      if (message.payload[i] != 0) tally.Equal(i, bytes, "nothing behind the payload is written");
    }
  }
  EXPECT_TRUE(tally.ok());
}

TEST(MalformedPostsAreRefused) {
  Fresh();
  const Connection connection(Connection::kMessages, kId, 0, kSint);
  const Connection events(Connection::kEvents, kId + 1, 0, kSint);
  const Connection nobody(Connection::kMessages, kId + 2, CpuCount(), kSint);
  const uint8_t payload[240] = {};
  EXPECT_EQ(Post(kId, 0, payload, 8), HvStatus::kInvalidParameter);
  EXPECT_EQ(Post(kId, 0x8000'0000, payload, 8), HvStatus::kInvalidParameter);
  EXPECT_EQ(Post(kId, kTimerExpired, payload, 24), HvStatus::kInvalidParameter);
  EXPECT_EQ(PostRaw(kId, kType, payload, 8, 241), HvStatus::kInvalidParameter);
  EXPECT_EQ(PostRaw(kId, kType, payload, 8, 0xffff'ffff), HvStatus::kInvalidParameter);
  EXPECT_EQ(Post(kId + 1, kType, payload, 8), HvStatus::kInvalidPortId);
  EXPECT_EQ(Post(kId + 2, kType, payload, 8), HvStatus::kInvalidVpIndex);
  EXPECT_FALSE(HasMessage(0));
}

TEST(BusySlotGetsMessagePendingAndTheNextComesWithEom) {
  Fresh();
  CountInterrupts(kVector, Eoi::kApic);
  Tally tally;
  OnEachCpu([&] {
    const uint32_t cpu = ThisCpuNumber();
    SetSint(kSint, kVector);
    const Connection connection(Connection::kMessages, kId, cpu, kSint);
    const uint64_t before = InterruptCount(kVector);
    const auto interrupts = [&] { return InterruptCount(kVector) - before; };
    tally.Equal(static_cast<uint64_t>(PostByte(1)), 0, "post");
    tally.True(WaitFor([&] { return interrupts() == 1; }), "first interrupt");
    tally.True(!IsPending(cpu, kSint), "nothing waits");
    tally.Equal(static_cast<uint64_t>(PostByte(2)), 0, "post");
    tally.True(IsPending(cpu, kSint), "MessagePending in the message that is there");
    tally.Equal(static_cast<uint64_t>(PostByte(3)), 0, "post");
    bool more = false;
    tally.Equal(static_cast<uint64_t>(TakeByte(cpu, more)), 1, "first message");
    tally.True(more, "more");
    SpinTicks(kQuietTicks);
    tally.True(!HasMessage(cpu), "nothing before EOM");
    tally.Equal(interrupts(), 1, "interrupts before EOM");
    WriteEom();
    tally.True(IsPending(cpu, kSint), "the second says that there is a third");
    tally.Equal(static_cast<uint64_t>(TakeByte(cpu, more)), 2, "second message");
    tally.True(more, "more");
    WriteEom();
    tally.Equal(static_cast<uint64_t>(TakeByte(cpu, more)), 3, "third message");
    tally.True(!more, "no more");
    WriteEom();
    tally.True(!HasMessage(cpu), "that was all");
    tally.True(WaitFor([&] { return interrupts() == 3; }), "an interrupt each");
  });
  EXPECT_TRUE(tally.ok());
}

// EOM looks at all sources of the processor, whatever their vectors.
TEST(OneEomServesAllSources) {
  Fresh();
  const Connection a(Connection::kMessages, kId, 0, kSint);
  const Connection b(Connection::kMessages, kId + 1, 0, kSint + 1);
  for (const uint32_t id : {kId, kId + 1}) {
    EXPECT_EQ(PostByte(1, id), HvStatus::kSuccess);
    EXPECT_EQ(PostByte(2, id), HvStatus::kSuccess);
  }
  EXPECT_EQ(TakeByte(0, kSint), 1);
  EXPECT_EQ(TakeByte(0, kSint + 1), 1);
  WriteEom();
  EXPECT_EQ(TakeByte(0, kSint), 2);
  EXPECT_EQ(TakeByte(0, kSint + 1), 2);
}

// No EOM at all: `eoi` is what ends the interrupt.
void TestEoiAlone(void (*eoi)()) {
  Fresh();
  CountInterrupts(kManualVector, Eoi::kNone);
  Tally tally;
  OnEachCpu([&] {
    const uint32_t cpu = ThisCpuNumber();
    SetSint(kSint, kManualVector);
    const Connection connection(Connection::kMessages, kId, cpu, kSint);
    const uint64_t before = InterruptCount(kManualVector);
    const auto has_interrupts = [&](uint64_t count) {
      return WaitFor([&] { return InterruptCount(kManualVector) == before + count; });
    };
    tally.Equal(static_cast<uint64_t>(PostByte(1)), 0, "post");
    tally.True(has_interrupts(1), "first interrupt");
    tally.True(IsInService(kManualVector), "in service until EOI");
    for (const uint8_t byte : {2, 3, 4}) tally.Equal(static_cast<uint64_t>(PostByte(byte)), 0, "post");
    for (const int byte : {1, 2, 3}) {
      tally.Equal(static_cast<uint64_t>(TakeByte(cpu)), static_cast<uint64_t>(byte), "message");
      tally.True(!HasMessage(cpu), "nothing before EOI");
      eoi();
      tally.True(WaitFor([&] { return HasMessage(cpu); }), "the next after EOI");
      tally.True(has_interrupts(static_cast<uint64_t>(byte) + 1), "its interrupt");
    }
    tally.Equal(static_cast<uint64_t>(TakeByte(cpu)), 4, "the last");
    eoi();
    SpinTicks(kQuietTicks);
    tally.True(!HasMessage(cpu), "that was all");
    tally.True(has_interrupts(4), "an interrupt each");
  });
  EXPECT_TRUE(tally.ok());
}

TEST(EoiAloneBringsTheNextMessage) {
  TestEoiAlone([] { SignalEoi(); });
}

TEST(SyntheticEoiAloneBringsTheNextMessage) {
  TestEoiAlone([] { WriteMsr(vmm::kHvMsrEoi, 0); });
}

// Two sources with one vector: its EOI is that of both.
TEST(EoiOfASharedVectorServesBothSources) {
  Fresh();
  CountInterrupts(kManualVector, Eoi::kNone);
  const uint64_t before = InterruptCount(kManualVector);
  SetSint(kSint, kManualVector);
  SetSint(kSint + 1, kManualVector);
  const Connection a(Connection::kMessages, kId, 0, kSint);
  const Connection b(Connection::kMessages, kId + 1, 0, kSint + 1);
  EXPECT_EQ(PostByte(1, kId), HvStatus::kSuccess);
  EXPECT_TRUE(WaitFor([&] { return InterruptCount(kManualVector) == before + 1; }));
  for (const uint32_t id : {kId, kId + 1, kId + 1}) EXPECT_EQ(PostByte(2, id), HvStatus::kSuccess);
  EXPECT_EQ(TakeByte(0, kSint), 1);
  EXPECT_EQ(TakeByte(0, kSint + 1), 2);
  SignalEoi();
  EXPECT_TRUE(WaitFor([] { return HasMessage(0, kSint) && HasMessage(0, kSint + 1); }));
  EXPECT_EQ(TakeByte(0, kSint), 2);
  EXPECT_EQ(TakeByte(0, kSint + 1), 2);
  while (IsInService(kManualVector) || IsRequested(kManualVector)) SignalEoi();
}

Atomic<uint32_t> g_in_service;

TEST(AutoEoiNeedsNoEoiAndEomBringsTheNext) {
  Fresh();
  g_in_service.Store(0);
  SetInterruptHandler(kVector, [](InterruptFrame&) { g_in_service.Add(IsInService(kVector) ? 1 : 0); });
  Tally tally;
  OnEachCpu([&] {
    const uint32_t cpu = ThisCpuNumber();
    SetSint(kSint, kVector | kHvSintAutoEoi);
    const Connection connection(Connection::kMessages, kId, cpu, kSint);
    const uint64_t before = InterruptCount(kVector);
    for (uint8_t byte = 1; byte <= 4; ++byte) tally.Equal(static_cast<uint64_t>(PostByte(byte)), 0, "post");
    for (uint8_t byte = 1; byte <= 4; ++byte) {
      tally.True(WaitFor([&] { return InterruptCount(kVector) == before + byte; }), "interrupt without an EOI");
      bool more = false;
      tally.Equal(static_cast<uint64_t>(TakeByte(cpu, more)), byte, "message");
      tally.Equal(more, byte < 4, "more");
      if (more) WriteEom();
    }
  });
  EXPECT_EQ(g_in_service.Load(), 0u);
  EXPECT_TRUE(tally.ok());
}

// Masked or polling: written, without an interrupt, and EOM brings the next. Unmasking makes up for nothing.
void TestSilentSource(uint64_t value) {
  Fresh();
  CountInterrupts(kVector, Eoi::kApic);
  Tally tally;
  OnEachCpu([&] {
    const uint32_t cpu = ThisCpuNumber();
    SetSint(kSint, value);
    const Connection connection(Connection::kMessages, kId, cpu, kSint);
    const uint64_t before = InterruptCount(kVector);
    tally.Equal(static_cast<uint64_t>(PostByte(1)), 0, "post");
    tally.Equal(static_cast<uint64_t>(PostByte(2)), 0, "post");
    TellDevice(DeviceCommand::kRaiseSint, 0, cpu, kSint);
    bool more = false;
    tally.Equal(static_cast<uint64_t>(TakeByte(cpu, more)), 1, "message");
    tally.True(more, "more");
    WriteEom();
    tally.True(HasMessage(cpu), "the next");
    SetSint(kSint, kVector);
    SpinTicks(kQuietTicks);
    tally.Equal(InterruptCount(kVector), before, "no interrupt, unmasked or not");
    tally.Equal(static_cast<uint64_t>(TakeByte(cpu)), 2, "message");
    tally.Equal(static_cast<uint64_t>(PostByte(3)), 0, "post");
    tally.True(WaitFor([&] { return InterruptCount(kVector) == before + 1; }), "an interrupt for what comes later");
  });
  EXPECT_TRUE(tally.ok());
}

TEST(MaskedSourceIsWrittenWithoutAnInterrupt) { TestSilentSource(kVector | kHvSintMasked); }

TEST(PollingSourceIsWrittenWithoutAnInterrupt) { TestSilentSource(kVector | kHvSintPolling); }

TEST(DeviceRaisesSourcesWithoutAMessage) {
  Fresh();
  CountInterrupts(kVector, Eoi::kApic);
  Tally tally;
  OnEachCpu([] { SetSint(kSint, kVector); });
  for (uint32_t cpu = 0; cpu < CpuCount(); ++cpu) {
    const uint64_t before = InterruptCountOf(cpu, kVector);
    TellDevice(DeviceCommand::kRaiseSint, 0, cpu, kSint);
    tally.True(WaitFor([&] { return InterruptCountOf(cpu, kVector) == before + 1; }), "interrupt");
    tally.True(!HasMessage(cpu), "no message");
  }
  // Nobody, and nothing: ignored.
  TellDevice(DeviceCommand::kRaiseSint, 0, 0xff, kSint);
  TellDevice(DeviceCommand::kRaiseSint, 0, 0, 0xff);
  EXPECT_TRUE(tally.ok());
}

TEST(DisabledSynicRefusesPostsAndKeepsWhatWaits) {
  Fresh();
  Tally tally;
  OnEachCpu([&] {
    const uint32_t cpu = ThisCpuNumber();
    const Connection connection(Connection::kMessages, kId, cpu, kSint);
    const auto post = [&](uint8_t byte, HvStatus want) {
      tally.Equal(static_cast<uint64_t>(PostByte(byte)), static_cast<uint64_t>(want), "post");
    };
    // Without the event page messages go on.
    SetEventPage(nullptr);
    post(1, HvStatus::kSuccess);
    post(2, HvStatus::kSuccess);
    SetMessagePage(nullptr);
    post(9, HvStatus::kInvalidSynicState);
    // The guest sees its own memory there, and what it does to it is nobody else's business.
    tally.Equal(SlotType(cpu, kSint), 0xa5a5'a5a5, "what lies below the page");
    WriteEom();
    SetMessagePage(MessagePage(cpu));
    tally.Equal(static_cast<uint64_t>(TakeByte(cpu)), 1, "kept in the page");
    WriteMsr(vmm::kHvMsrScontrol, 0);
    post(9, HvStatus::kInvalidSynicState);
    WriteEom();
    tally.True(!HasMessage(cpu), "SCONTROL is off: messages wait");
    WriteMsr(vmm::kHvMsrScontrol, vmm::kHvScontrolEnable);
    tally.Equal(static_cast<uint64_t>(TakeByte(cpu)), 2, "and come when it is on, without an EOM");
    post(3, HvStatus::kSuccess);
    tally.Equal(static_cast<uint64_t>(TakeByte(cpu)), 3, "as ever");
  });
  EXPECT_TRUE(tally.ok());
}

TEST(MessagePageMovesWithWhatIsInIt) {
  Fresh();
  Tally tally;
  OnEachCpu([&] {
    const uint32_t cpu = ThisCpuNumber();
    const Connection connection(Connection::kMessages, kId, cpu, kSint);
    for (const uint8_t byte : {1, 2, 3}) tally.Equal(static_cast<uint64_t>(PostByte(byte)), 0, "post");
    auto* const other = static_cast<uint8_t*>(AllocatePages(1));
    memset(other, 0x3c, kPageBytes);
    SetMessagePage(other);
    HvMessage& slot = reinterpret_cast<HvMessage*>(other)[kSint];
    HvMessage message;
    bool more = false;
    tally.True(TakeFrom(slot, message, more), "the slot is there");
    tally.Equal(message.payload[0], 1, "with its message");
    tally.True(more, "and its flag");
    tally.Equal(SlotType(cpu, kSint), 0xa5a5'a5a5, "what lies below the page's last place");
    WriteEom();
    tally.True(TakeFrom(slot, message, more), "the next comes to the new place");
    tally.Equal(message.payload[0], 2, "message");
    SetMessagePage(MessagePage(cpu));
    tally.Equal(other[kSint * 256], 0x3c, "what lies below is as it was");
    WriteEom();
    tally.Equal(static_cast<uint64_t>(TakeByte(cpu)), 3, "and the last back home");
  });
  EXPECT_TRUE(tally.ok());
}

// Outside RAM there is no page and no fault, and nothing is delivered.
TEST(PageOutsideRamIsNowhere) {
  Fresh();
  const Connection connection(Connection::kMessages, kId, 0, kSint);
  EXPECT_NO_FAULT(WriteMsr(vmm::kHvMsrSimp, uint64_t{1} << 45 | vmm::kHvOverlayEnable));
  EXPECT_EQ(ReadMsr(vmm::kHvMsrSimp), uint64_t{1} << 45 | vmm::kHvOverlayEnable);
  EXPECT_EQ(PostByte(1), HvStatus::kInvalidSynicState);
  SetMessagePage(MessagePage(0));
  EXPECT_EQ(PostByte(2), HvStatus::kSuccess);
  EXPECT_EQ(TakeByte(0), 2);
}

// --- What the receiver does meanwhile -----------------------------------------------------------------------------------

constexpr uint32_t kPosts = 24;

// Posts until it is taken; the receiver goes on by itself.
bool PostPatiently(uint32_t id, uint32_t producer, uint32_t sequence) {
  HvStatus status = HvStatus::kSuccess;
  const bool posted = WaitFor([&] {
    status = PostMarked(id, producer, sequence);
    if (status == HvStatus::kInsufficientBuffers) SpinTicks(100'000);
    return status != HvStatus::kInsufficientBuffers;
  });
  return posted && status == HvStatus::kSuccess;
}

TEST(HaltedProcessorGetsEveryMessage) {
  Fresh();
  const uint32_t cpu = CpuCount() - 1;  // idle processors halt; the only one halts below
  g_collection.Reset(cpu, kSint);
  CollectOn(kVector);
  OnCpu(cpu, [] { SetSint(kSint, kVector); });
  const Connection connection(Connection::kMessages, kId, cpu, kSint);
  Tally tally;
  for (uint32_t sequence = 0; sequence < kPosts; ++sequence) {
    tally.True(PostPatiently(kId, 0, sequence), "post");
    if (cpu != 0 && sequence % 4 == 0) {
      tally.True(WaitFor([&] { return g_collection.Total() == sequence + 1; }), "it wakes for it");
    }
  }
  tally.True(WaitFor([] { return g_collection.Total() == kPosts; }), "all arrive");
  tally.Equal(g_collection.wrong.Load(), 0, "wrong");
  EXPECT_TRUE(tally.ok());
}

TEST(SpinningProcessorGetsEveryMessage) {
  if (CpuCount() < 2) SKIP("needs two processors");
  Fresh();
  const uint32_t cpu = CpuCount() - 1;
  g_collection.Reset(cpu, kSint, /*is_auto_eoi=*/true);
  CollectOn(kVector);
  OnCpu(cpu, [] { SetSint(kSint, kVector | kHvSintAutoEoi); });
  const Connection connection(Connection::kMessages, kId, cpu, kSint);
  // It does not leave the guest by itself.
  auto spin = [] { (void)WaitFor([] { return g_collection.Total() >= kPosts; }); };
  StartOnCpu(cpu, spin);
  Tally tally;
  for (uint32_t sequence = 0; sequence < kPosts; ++sequence) tally.True(PostPatiently(kId, 0, sequence), "post");
  tally.True(WaitFor([] { return g_collection.Total() == kPosts; }), "all arrive");
  tally.Equal(g_collection.wrong.Load(), 0, "wrong");
  WaitForCpu(cpu);
  EXPECT_TRUE(tally.ok());
}

TEST(InterruptsThatAreOffComeWhenTheyAreOn) {
  Fresh();
  const uint32_t cpu = CpuCount() - 1;
  CountInterrupts(kVector, Eoi::kApic);
  OnCpu(cpu, [] { SetSint(kSint, kVector); });
  const Connection connection(Connection::kMessages, kId, cpu, kSint);
  const uint64_t before = InterruptCountOf(cpu, kVector);
  Atomic<bool> off, posted;
  Tally tally;
  auto wait_with_interrupts_off = [&] {
    const InterruptsOff interrupts_off;
    off.Store(true);
    if (cpu == 0) {
      tally.Equal(static_cast<uint64_t>(PostByte(1)), 0, "post");
      tally.Equal(static_cast<uint64_t>(PostByte(2)), 0, "post");
    } else {
      tally.True(WaitFor([&] { return posted.Load(); }), "posted");
    }
    tally.True(WaitFor([&] { return IsRequested(kVector); }), "requested");
    bool more = false;
    tally.Equal(static_cast<uint64_t>(TakeByte(cpu, more)), 1, "the slot is filled with interrupts off");
    tally.True(more, "more");
    WriteEom();
    tally.Equal(static_cast<uint64_t>(TakeByte(cpu)), 2, "the next");
    tally.Equal(InterruptCount(kVector), before, "no interrupt yet");
  };
  if (cpu == 0) {
    wait_with_interrupts_off();
  } else {
    StartOnCpu(cpu, wait_with_interrupts_off);
    tally.True(WaitFor([&] { return off.Load(); }), "off");
    tally.Equal(static_cast<uint64_t>(PostByte(1)), 0, "post");
    tally.Equal(static_cast<uint64_t>(PostByte(2)), 0, "post");
    posted.Store(true);
    WaitForCpu(cpu);
  }
  // Edges of one vector are one.
  tally.True(WaitFor([&] { return InterruptCountOf(cpu, kVector) == before + 1; }), "one interrupt");
  EXPECT_TRUE(tally.ok());
}

// --- Many at once -------------------------------------------------------------------------------------------------------

void TestAllPostToOne(uint64_t sint_bits) {
  Fresh();
  const bool auto_eoi = (sint_bits & kHvSintAutoEoi) != 0;
  g_collection.Reset(0, kSint, auto_eoi);
  CollectOn(kVector);
  SetSint(kSint, kVector | sint_bits);
  const Connection connection(Connection::kMessages, kId, 0, kSint);
  Tally tally;
  OnAllCpus([&] {
    const uint32_t me = ThisCpuNumber();
    for (uint32_t sequence = 0; sequence < 2 * kPosts; ++sequence) tally.True(PostPatiently(kId, me, sequence), "post");
  });
  tally.True(WaitFor([] { return g_collection.Total() == 2 * kPosts * CpuCount(); }), "all arrive, the last by itself");
  SpinTicks(kQuietTicks);
  tally.Equal(g_collection.Total(), 2 * kPosts * CpuCount(), "none twice");
  tally.Equal(g_collection.wrong.Load(), 0, "wrong");
  EXPECT_TRUE(tally.ok());
}

TEST(AllProcessorsPostToOneSource) { TestAllPostToOne(0); }

TEST(AllProcessorsPostToOneAutoEoiSource) { TestAllPostToOne(kHvSintAutoEoi); }

// In a ring: each posts to its neighbour, and everybody's handler collects.
struct Inbox {
  Atomic<uint32_t> next;
  Atomic<uint32_t> wrong;
};
Inbox g_inboxes[kMaxSynicCpus];

TEST(AllProcessorsPostToTheirNeighbours) {
  Fresh();
  for (Inbox& inbox : g_inboxes) {
    inbox.next.Store(0);
    inbox.wrong.Store(0);
  }
  SetInterruptHandler(kVector, [](InterruptFrame&) {
    const uint32_t cpu = ThisCpuNumber();
    HvMessage message;
    bool more;
    while (Take(cpu, kSint, message, more)) {
      uint32_t producer, sequence;
      const bool whole = ReadMark(message, producer, sequence);
      if (!whole || (producer + 1) % CpuCount() != cpu || sequence != g_inboxes[cpu].next.Add(1)) g_inboxes[cpu].wrong.Add(1);
      if (more) WriteEom();
    }
    SignalEoi();
  });
  OnEachCpu([] { SetSint(kSint, kVector); });
  for (uint32_t cpu = 0; cpu < CpuCount(); ++cpu) TellDevice(DeviceCommand::kCreateMessageConnection, kId + cpu, cpu, kSint);
  Tally tally;
  OnAllCpus([&] {
    const uint32_t me = ThisCpuNumber();
    const uint32_t to = kId + (me + 1) % CpuCount();
    for (uint32_t sequence = 0; sequence < kPosts; ++sequence) tally.True(PostPatiently(to, me, sequence), "post");
  });
  for (uint32_t cpu = 0; cpu < CpuCount(); ++cpu) {
    tally.True(WaitFor([&] { return g_inboxes[cpu].next.Load() == kPosts; }), "all arrive");
    tally.Equal(g_inboxes[cpu].wrong.Load(), 0, "wrong");
    TellDevice(DeviceCommand::kDestroyMessageConnection, kId + cpu, cpu, kSint);
  }
  EXPECT_TRUE(tally.ok());
}

// --- The last: there is no way back from x2APIC mode --------------------------------------------------------------------

TEST(EoiInX2ApicModeAloneBringsTheNextMessage) {
  if ((Cpuid(1).ecx >> 21 & 1) == 0) SKIP("no x2APIC");
  OnEachCpu([] { ASSERT_TRUE(EnableX2Apic()); });
  TestEoiAlone([] { SignalEoi(); });
}

}  // namespace
}  // namespace guest
