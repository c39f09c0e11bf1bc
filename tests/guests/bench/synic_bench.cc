// Delivery through the SynIC as a guest sees it: how long, how many a second, all of them and in order. bench/synic.py starts this
// kernel in our TEST machine and in QEMU's, which have the same test device, and counts exits and system calls from outside.
//
// Shapes   four processors: 0 leads (and is the third poster), 1 is the target, 2 and 3 post. Each scenario is a TEST. Its lines:
//          "# mark NAME begin|end N", after each of which a byte on the serial port is waited for (N messages were between the two),
//          and "# result NAME key number key number ...".
// Units    result times are nanoseconds by the TSC and the frequency in the Hyper-V MSR.
// Errors   a wait that does not end ends the guest. Lost and doubled messages are numbers, and failed assertions.
#include <cstddef>
#include <cstdint>

#include "devices/hyperv/hv_msr_layout.h"
#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hypercall/hypercall_layout.h"
#include "devices/hyperv/hypercall/hypercall_parameters_layout.h"
#include "devices/hyperv/synic/hv_message_layout.h"
#include "tests/guests/runtime/apic.h"
#include "tests/guests/runtime/atomic.h"
#include "tests/guests/runtime/cpu.h"
#include "tests/guests/runtime/interrupts.h"
#include "tests/guests/runtime/machine.h"
#include "tests/guests/runtime/memory.h"
#include "tests/guests/runtime/print.h"
#include "tests/guests/runtime/smp.h"
#include "tests/guests/runtime/test.h"

namespace guest {
namespace {

using vmm::HvStatus;

constexpr uint32_t kTarget = 1;
constexpr uint32_t kPoster = 2;  // the first; then 3, then 0
constexpr uint32_t kMaxPosters = 3;
constexpr uint32_t PosterCpu(uint32_t poster) { return (kPoster + poster) % 4; }

constexpr uint32_t kEoiSint = 2, kAutoEoiSint = 3, kTimerSint = 4, kEventSint = 5;
constexpr uint8_t kEoiVector = 0x80, kAutoEoiVector = 0x81, kTimerVector = 0x82, kEventVector = 0x83, kDirectVector = 0x84, kNudgeVector = 0x85;
constexpr uint32_t kEoiConnection = 0x10, kAutoEoiConnection = 0x11, kEventConnection = 0x12;
constexpr uint32_t kType = 0x42;

constexpr uint32_t kSamples = 300;
constexpr uint32_t kBusySamples = 150;
constexpr uint32_t kBursts = 10;
constexpr uint64_t kBurstMs = 100;
constexpr uint64_t kTimerMs = 1500;
constexpr uint64_t kIdleMs = 1000;

// Beside each other only what one processor writes.
struct alignas(64) Shared {
  Atomic<uint64_t> acknowledged;  // messages or events that the target's handler has done with
  uint64_t handler_tsc;
  Atomic<uint32_t> held, left;
  Atomic<uint64_t> taken[kMaxPosters];
  Atomic<uint64_t> lost, doubled;
  Atomic<uint64_t> ticks;
  uint64_t last_tsc;
};
Shared g_target;
struct alignas(64) Wishes {
  Atomic<bool> stop, hold, go, wake;  // wake: the poster halts until its message has been taken
  Atomic<uint32_t> working;
};
Wishes g_wishes;

uint64_t g_tsc_khz;
void* g_hypercall_page;
vmm::HvMessage* g_slots;  // the target's
uint8_t* g_flags;
alignas(sizeof(vmm::HvPostMessageInput)) vmm::HvPostMessageInput g_inputs[4];
uint64_t g_times[2][kSamples];

struct Payload {
  uint64_t poster, sequence;
};

// --- Waiting ------------------------------------------------------------------------------------------------------------

// Without PAUSE, which some hosts intercept: a waiting processor is to have no exits of its own.
template <typename F>
[[nodiscard]] bool SpinUntil(F condition, uint64_t limit_ms) {
  const uint64_t start = ReadTsc();
  for (;;) {
    for (int i = 0; i < 256; ++i) {
      if (condition()) return true;
    }
    if (ReadTsc() - start > limit_ms * g_tsc_khz) return condition();
  }
}
template <typename F>
void MustSpin(F condition, const char* what) {
  if (!SpinUntil(condition, 20'000)) Fatal(what);
}

uint64_t Nanoseconds(uint64_t ticks) { return ticks * 1'000'000 / g_tsc_khz; }

// --- Hypercalls ---------------------------------------------------------------------------------------------------------

HvStatus Hypercall(uint64_t input, uint64_t rdx) {
  uint64_t result;
  register uint64_t r8 asm("r8") = 0;
  asm volatile("call *%[page]"
               : "=a"(result), "+c"(input), "+d"(rdx), "+r"(r8)
               : [page] "r"(g_hypercall_page)
               : "r9", "r10", "r11", "memory", "cc");
  return static_cast<HvStatus>(result & 0xffff);
}

HvStatus Post(uint32_t connection, uint64_t poster, uint64_t sequence) {
  vmm::HvPostMessageInput& input = g_inputs[ThisCpuNumber()];
  input.connection_id = connection;
  input.message_type = kType;
  input.payload_size = sizeof(Payload);
  const Payload payload{poster, sequence};
  memcpy(input.payload, &payload, sizeof(payload));
  return Hypercall(static_cast<uint64_t>(vmm::HypercallCode::kPostMessage), GpaOf(&input));
}

HvStatus SignalEvent(uint32_t connection) {
  return Hypercall(static_cast<uint64_t>(vmm::HypercallCode::kSignalEvent) | vmm::HypercallInput::kFast, connection);
}

void TellDevice(uint32_t command, uint32_t connection, uint32_t sint) {
  Out32(0x3000, connection << 24 | command << 16 | kTarget << 8 | sint);
}

// --- The target's handlers ----------------------------------------------------------------------------------------------

uint32_t* TypeOf(uint32_t sint) { return reinterpret_cast<uint32_t*>(&g_slots[sint].header.type); }

// False: the slot is empty.
bool TakeMessage(uint32_t sint) {
  if (__atomic_load_n(TypeOf(sint), __ATOMIC_ACQUIRE) == 0) return false;
  Payload payload;
  memcpy(&payload, g_slots[sint].payload, sizeof(payload));
  __atomic_exchange_n(TypeOf(sint), 0u, __ATOMIC_SEQ_CST);
  const bool more = (__atomic_load_n(&g_slots[sint].header.flags, __ATOMIC_SEQ_CST) & vmm::kHvMessagePending) != 0;
  if (payload.poster < kMaxPosters) {
    const uint64_t want = g_target.taken[payload.poster].Load();
    if (payload.sequence < want) {
      g_target.doubled.Add(1);
    } else {
      g_target.lost.Add(payload.sequence - want);
      g_target.taken[payload.poster].Store(payload.sequence + 1);
    }
  }
  if (more) WriteMsr(vmm::kHvMsrEom, 0);
  return true;
}

void OnMessage(uint32_t sint, bool auto_eoi) {
  const uint64_t now = ReadTsc();
  g_target.handler_tsc = now;
  if (g_wishes.hold.Load()) {
    if (!auto_eoi) WriteMsr(vmm::kHvMsrEoi, 0);
    g_target.held.Store(1);
    return;
  }
  uint64_t count = 0;
  while (TakeMessage(sint)) ++count;
  if (count != 0) g_target.last_tsc = ReadTsc();
  if (!auto_eoi) WriteMsr(vmm::kHvMsrEoi, 0);
  g_target.acknowledged.Add(count);
  if (g_wishes.wake.Load()) SendIpi(kPoster, kWorkVector);
}

void OnEvent(InterruptFrame&) {
  const uint64_t now = ReadTsc();
  auto* const byte = g_flags + kEventSint * 256 + kEventConnection / 8;
  constexpr auto kBit = static_cast<uint8_t>(1u << kEventConnection % 8);
  if ((__atomic_fetch_and(byte, static_cast<uint8_t>(~kBit), __ATOMIC_SEQ_CST) & kBit) != 0) {
    g_target.handler_tsc = now;
    WriteMsr(vmm::kHvMsrEoi, 0);
    g_target.acknowledged.Add(1);
    return;
  }
  WriteMsr(vmm::kHvMsrEoi, 0);
}

void OnTimerMessage(InterruptFrame&) {
  if (__atomic_exchange_n(TypeOf(kTimerSint), 0u, __ATOMIC_SEQ_CST) != 0) {
    g_target.ticks.Add(1);
    if ((__atomic_load_n(&g_slots[kTimerSint].header.flags, __ATOMIC_SEQ_CST) & vmm::kHvMessagePending) != 0) {
      WriteMsr(vmm::kHvMsrEom, 0);
    }
  }
  WriteMsr(vmm::kHvMsrEoi, 0);
}

void OnDirectTimer(InterruptFrame&) {
  g_target.ticks.Add(1);
  WriteMsr(vmm::kHvMsrEoi, 0);
}

// --- Halting ------------------------------------------------------------------------------------------------------------

// Processor 0 halts while others work, so that it takes no part of the machine's time.
void WorkIsDone() {
  if (g_wishes.working.Add(~0u) == 1) SendIpi(0, kWorkVector);
}
// Whoever makes the condition true sends an interrupt.
template <typename F>
void HaltUntil(F condition) {
  for (;;) {
    DisableInterrupts();
    if (condition()) break;
    EnableInterruptsAndHalt();
  }
  EnableInterrupts();
}
// Processor 0's timer wakes whoever halts, now and then: emulated processors have been seen to sleep through an interrupt that came
// between STI and HLT, under either monitor.
constexpr uint64_t kNudgePeriod = 500'000;  // 50 ms
void OnNudge(InterruptFrame&) {
  WriteMsr(vmm::kHvMsrEoi, 0);
  if (!g_wishes.wake.Load()) return;
  SendIpi(kTarget, kWorkVector);
  SendIpi(kPoster, kWorkVector);
}
void HaltUntilWorkIsDone() {
  WriteMsr(vmm::kHvMsrStimer0Config + 1, kNudgePeriod);
  WriteMsr(vmm::kHvMsrStimer0Config, vmm::kHvStimerDirect | uint64_t{kNudgeVector} << vmm::kHvStimerVectorShift |
                                         vmm::kHvStimerEnable | vmm::kHvStimerPeriodic);
  HaltUntil([] { return g_wishes.working.Load() == 0; });
  WriteMsr(vmm::kHvMsrStimer0Config, 0);
}

// --- The stage ----------------------------------------------------------------------------------------------------------

void SetUp() {
  if (g_hypercall_page != nullptr) return;
  if (CpuCount() < 4) Fatal("four processors are needed; there are", CpuCount());
  uint64_t hz = 0;
  if (TryReadMsr(vmm::kHvMsrTscFrequency, hz).raised() || hz == 0) Fatal("the TSC's frequency is not to be had");
  g_tsc_khz = hz / 1000;
  g_hypercall_page = AllocatePages(1);
  WriteMsr(vmm::kHvMsrGuestOsId, uint64_t{1} << 63 | 1);
  WriteMsr(vmm::kHvMsrHypercall, GpaOf(g_hypercall_page) | vmm::kHvOverlayEnable);
  g_slots = static_cast<vmm::HvMessage*>(AllocatePages(1));
  g_flags = static_cast<uint8_t*>(AllocatePages(1));
  SetInterruptHandler(kEoiVector, [](InterruptFrame&) { OnMessage(kEoiSint, false); });
  SetInterruptHandler(kAutoEoiVector, [](InterruptFrame&) { OnMessage(kAutoEoiSint, true); });
  SetInterruptHandler(kEventVector, &OnEvent);
  SetInterruptHandler(kTimerVector, &OnTimerMessage);
  SetInterruptHandler(kDirectVector, &OnDirectTimer);
  SetInterruptHandler(kNudgeVector, &OnNudge);
  OnCpu(kTarget, [] {
    WriteMsr(vmm::kHvMsrSimp, GpaOf(g_slots) | vmm::kHvOverlayEnable);
    WriteMsr(vmm::kHvMsrSiefp, GpaOf(g_flags) | vmm::kHvOverlayEnable);
    WriteMsr(vmm::kHvMsrScontrol, vmm::kHvScontrolEnable);
    WriteMsr(vmm::kHvMsrSint0 + kEoiSint, kEoiVector);
    WriteMsr(vmm::kHvMsrSint0 + kAutoEoiSint, kAutoEoiVector | vmm::kHvSintAutoEoi);
    WriteMsr(vmm::kHvMsrSint0 + kEventSint, kEventVector);
    WriteMsr(vmm::kHvMsrSint0 + kTimerSint, kTimerVector);
  });
  TellDevice(4, kEoiConnection, kEoiSint);
  TellDevice(4, kAutoEoiConnection, kAutoEoiSint);
  TellDevice(6, kEventConnection, kEventSint);
}

void Mark(const char* name, const char* edge, uint64_t messages) {
  Line line;
  line << "# mark " << name << ' ' << edge << ' ' << messages;
  Print(line);
  if (Argument("marks") == nullptr) return;
  constexpr uint16_t kSerial = 0x3f8, kLineStatus = 0x3fd;
  constexpr uint8_t kDataReady = 1;
  MustSpin([] { return (In8(kLineStatus) & kDataReady) != 0; }, "nobody answers a mark");
  (void)In8(kSerial);
}

void Fresh() {
  SetUp();
  g_target.acknowledged.Store(0);
  g_target.held.Store(0);
  for (auto& taken : g_target.taken) taken.Store(0);
  g_target.lost.Store(0);
  g_target.doubled.Store(0);
  g_target.ticks.Store(0);
  g_wishes.stop.Store(false);
  g_wishes.hold.Store(false);
  g_wishes.go.Store(false);
  g_wishes.wake.Store(false);
}

// `target` on its processor until all of `post(n)` are done.
template <typename Target, typename Poster>
void Play(uint32_t posters, Target target, Poster post) {
  Atomic<bool> there{false};
  auto on_target = [&] {
    there.Store(true);
    target();
  };
  StartOnCpu(kTarget, on_target);
  MustSpin([&] { return there.Load(); }, "the target does not start");
  auto on_poster = [&] {
    post((ThisCpuNumber() + 4 - kPoster) % 4);
    WorkIsDone();
  };
  g_wishes.working.Store(posters);
  for (uint32_t poster = 0; poster < posters; ++poster) {
    if (PosterCpu(poster) != 0) StartOnCpu(PosterCpu(poster), on_poster);
  }
  if (posters == kMaxPosters) on_poster();
  HaltUntilWorkIsDone();
  for (uint32_t poster = 0; poster < posters; ++poster) {
    if (PosterCpu(poster) != 0) WaitForCpu(PosterCpu(poster));
  }
  g_wishes.stop.Store(true);
  SendIpi(kTarget, kWorkVector);
  WaitForCpu(kTarget);
}

void SpinAsTarget() {
  while (!g_wishes.stop.Load()) {
  }
}

void Sort(uint64_t* values, uint32_t count) {
  for (uint32_t gap = count / 2; gap > 0; gap /= 2) {
    for (uint32_t i = gap; i < count; ++i) {
      const uint64_t value = values[i];
      uint32_t at = i;
      for (; at >= gap && values[at - gap] > value; at -= gap) values[at] = values[at - gap];
      values[at] = value;
    }
  }
}

void ReportTimes(const char* name, const char* what, uint64_t* ticks, uint32_t count) {
  Sort(ticks, count);
  Line line;
  line << "# result " << name << ' ' << what << "_median " << Nanoseconds(ticks[count / 2]) << ' ' << what << "_p99 "
       << Nanoseconds(ticks[count * 99 / 100]);
  Print(line);
}

void Report(const char* name, const char* what, uint64_t number) {
  Line line;
  line << "# result " << name << ' ' << what << ' ' << number;
  Print(line);
}

// Until it is accepted: how often it was not, and when the accepted call began.
struct Accepted {
  uint64_t refused, tsc;
};
Accepted PostUntilAccepted(uint32_t connection, uint64_t poster, uint64_t sequence) {
  for (uint64_t refused = 0;; ++refused) {
    const uint64_t tsc = ReadTsc();
    const HvStatus status = Post(connection, poster, sequence);
    if (status == HvStatus::kSuccess) return {refused, tsc};
    if (status != HvStatus::kInsufficientBuffers) Fatal("a post was refused with status", static_cast<uint64_t>(status));
  }
}

void ExpectNoneLost() {
  EXPECT_EQ(g_target.lost.Load(), 0u);
  EXPECT_EQ(g_target.doubled.Load(), 0u);
}

// The slot is free at each post, and the target in the guest with interrupts on.
void FreeSlot(const char* name, uint32_t connection) {
  Fresh();
  Mark(name, "begin", 0);
  uint64_t refused = 0;
  Play(1, &SpinAsTarget, [&](uint32_t) {
    for (uint32_t i = 0; i < kSamples; ++i) {
      const Accepted accepted = PostUntilAccepted(connection, 0, i);
      const uint64_t done = ReadTsc();
      MustSpin([&] { return g_target.acknowledged.Load() == i + 1; }, "a message does not arrive");
      refused += accepted.refused;
      g_times[0][i] = g_target.handler_tsc - accepted.tsc;
      g_times[1][i] = done - accepted.tsc;
    }
  });
  Mark(name, "end", kSamples);
  ReportTimes(name, "handler", g_times[0], kSamples);
  ReportTimes(name, "call", g_times[1], kSamples);
  Report(name, "refused", refused);
  ExpectNoneLost();
}

// --- Scenarios ----------------------------------------------------------------------------------------------------------

// What a target that waits costs by itself: the host's own interrupts.
TEST(Idle) {
  Fresh();
  Mark("idle", "begin", 0);
  Play(1, &SpinAsTarget, [](uint32_t) { (void)SpinUntil([] { return false; }, kIdleMs); });
  Mark("idle", "end", 0);
  EXPECT_EQ(g_target.acknowledged.Load(), 0u);
}

TEST(FreeSlotAutoEoi) { FreeSlot("free", kAutoEoiConnection); }

TEST(FreeSlotEoi) { FreeSlot("free-eoi", kEoiConnection); }

TEST(BusySlot) {
  Fresh();
  Mark("busy", "begin", 0);
  uint64_t refused = 0;
  const auto hold_and_release = [] {
    for (uint32_t i = 0; i < kBusySamples; ++i) {
      MustSpin([] { return g_wishes.go.Load(); }, "no second message is posted");
      g_wishes.go.Store(false);
      g_wishes.hold.Store(false);
      const uint64_t start = ReadTsc();
      __atomic_exchange_n(TypeOf(kEoiSint), 0u, __ATOMIC_SEQ_CST);
      WriteMsr(vmm::kHvMsrEom, 0);
      g_times[1][i] = ReadTsc() - start;
      MustSpin([&] { return g_target.acknowledged.Load() == i + 1; }, "the second message does not arrive");
      g_times[0][i] = g_target.handler_tsc - start;
      g_target.left.Store(i + 1);
    }
  };
  Play(1, hold_and_release, [&](uint32_t) {
    for (uint32_t i = 0; i < kBusySamples; ++i) {
      g_target.held.Store(0);
      g_wishes.hold.Store(true);
      refused += PostUntilAccepted(kEoiConnection, kMaxPosters, 0).refused;
      MustSpin([] { return g_target.held.Load() == 1; }, "the first message does not arrive");
      refused += PostUntilAccepted(kEoiConnection, 0, i).refused;
      MustSpin([] { return (__atomic_load_n(&g_slots[kEoiSint].header.flags, __ATOMIC_ACQUIRE) & vmm::kHvMessagePending) != 0; },
               "MessagePending is not set");
      g_wishes.go.Store(true);
      MustSpin([&] { return g_target.left.Load() == i + 1; }, "the target does not take the second message");
    }
  });
  Mark("busy", "end", 2 * kBusySamples);
  ReportTimes("busy", "handler", g_times[0], kBusySamples);
  ReportTimes("busy", "eom", g_times[1], kBusySamples);
  Report("busy", "refused", refused);
  ExpectNoneLost();
}

TEST(Event) {
  Fresh();
  Mark("event", "begin", 0);
  Play(1, &SpinAsTarget, [](uint32_t) {
    for (uint32_t i = 0; i < kSamples; ++i) {
      const uint64_t start = ReadTsc();
      const HvStatus status = SignalEvent(kEventConnection);
      const uint64_t done = ReadTsc();
      if (status != HvStatus::kSuccess) Fatal("an event was refused with status", static_cast<uint64_t>(status));
      MustSpin([&] { return g_target.acknowledged.Load() == i + 1; }, "an event does not arrive");
      g_times[0][i] = g_target.handler_tsc - start;
      g_times[1][i] = done - start;
    }
  });
  Mark("event", "end", kSamples);
  ReportTimes("event", "handler", g_times[0], kSamples);
  ReportTimes("event", "call", g_times[1], kSamples);
  EXPECT_EQ(g_target.acknowledged.Load(), uint64_t{kSamples});
}

// As fast as they are accepted, for a time; or each when the one before has been taken, and then who waits halts: a monitor that needs
// threads beside those of the processors has the host to itself. The target takes all there is in its handler, with EOM where that is
// asked for.
enum class Pace : uint8_t { kAccepted, kTaken };
void Burst(const char* name, uint32_t posters, Pace pace) {
  uint64_t all_accepted = 0, all_taken = 0, refusals = 0, lost = 0, doubled = 0, stalls = 0;
  Fresh();
  Mark(name, "begin", 0);
  for (uint32_t burst = 0; burst < kBursts; ++burst) {
    Fresh();
    g_wishes.wake.Store(pace == Pace::kTaken);
    uint64_t accepted[kMaxPosters] = {}, refused[kMaxPosters] = {};
    const uint64_t start = ReadTsc();
    const auto taken_all = [&] {
      for (uint32_t poster = 0; poster < posters; ++poster) {
        if (g_target.taken[poster].Load() != accepted[poster]) return false;
      }
      return true;
    };
    const auto take = [&] {
      if (pace == Pace::kTaken) {
        HaltUntil([] { return g_wishes.stop.Load(); });
      } else {
        SpinAsTarget();
      }
      if (SpinUntil(taken_all, 2000)) return;
      // An emulated processor may sit on an interrupt that its APIC shows as requested until its next exit: this is one.
      stalls += IsRequested(kEoiVector);
      WriteMsr(vmm::kHvMsrEom, 0);
      (void)SpinUntil(taken_all, 2000);
    };
    Play(posters, take, [&](uint32_t poster) {
      while (ReadTsc() - start < kBurstMs * g_tsc_khz) {
        const HvStatus status = Post(kEoiConnection, poster, accepted[poster]);
        if (status == HvStatus::kInsufficientBuffers) {
          ++refused[poster];
          continue;
        }
        if (status != HvStatus::kSuccess) Fatal("a post was refused with status", static_cast<uint64_t>(status));
        ++accepted[poster];
        if (pace == Pace::kTaken) {
          HaltUntil([&] { return g_target.acknowledged.Load() == accepted[poster]; });
        }
      }
    });
    uint64_t taken = 0;
    for (uint32_t poster = 0; poster < posters; ++poster) {
      taken += g_target.taken[poster].Load();
      all_accepted += accepted[poster];
      refusals += refused[poster];
    }
    Report(name, "per_second", taken * 1'000'000'000 / (Nanoseconds(g_target.last_tsc - start) + 1));
    all_taken += taken;
    lost += g_target.lost.Load();
    doubled += g_target.doubled.Load();
  }
  Mark(name, "end", all_taken);
  Report(name, "taken", all_taken);
  Report(name, "refused", refusals);
  // The last ones, which no gap shows, as well.
  Report(name, "lost", lost + all_accepted - all_taken);
  Report(name, "doubled", doubled);
  if (stalls != 0) Note("interrupts that waited for an exit", stalls);
  EXPECT_EQ(all_taken, all_accepted);
  EXPECT_EQ(lost, 0u);
  EXPECT_EQ(doubled, 0u);
}

TEST(OneInFlight) { Burst("stream", 1, Pace::kTaken); }

// A guest that has nothing to do but its ticks.
void Ticks(const char* name, uint64_t config) {
  Fresh();
  Mark(name, "begin", 0);
  uint64_t ticks = 0, elapsed = 0;
  auto tick = [&] {
    const uint64_t start = ReadTsc();
    WriteMsr(vmm::kHvMsrStimer0Config + 1, 10'000);
    WriteMsr(vmm::kHvMsrStimer0Config, config | vmm::kHvStimerEnable | vmm::kHvStimerPeriodic);
    while (ReadTsc() - start < kTimerMs * g_tsc_khz) EnableInterruptsAndHalt();
    WriteMsr(vmm::kHvMsrStimer0Config, 0);
    elapsed = ReadTsc() - start;
    ticks = g_target.ticks.Load();
    WorkIsDone();
  };
  g_wishes.working.Store(1);
  StartOnCpu(kTarget, tick);
  HaltUntilWorkIsDone();
  WaitForCpu(kTarget);
  Mark(name, "end", ticks);
  Report(name, "ticks", ticks);
  Report(name, "elapsed_ms", Nanoseconds(elapsed) / 1'000'000);
  EXPECT_GT(ticks, 0u);
}

TEST(TimerByMessage) { Ticks("timer-message", uint64_t{kTimerSint} << vmm::kHvStimerSintShift); }

TEST(TimerDirect) {
  Ticks("timer-direct", vmm::kHvStimerDirect | uint64_t{kDirectVector} << vmm::kHvStimerVectorShift);
}

// Last: QEMU's test device can end QEMU when it is posted to while it retries.
TEST(BurstOfOne) { Burst("burst1", 1, Pace::kAccepted); }

TEST(BurstOfThree) { Burst("burst3", 3, Pace::kAccepted); }

}  // namespace
}  // namespace guest
