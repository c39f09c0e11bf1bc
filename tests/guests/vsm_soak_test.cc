// Everything at once on all processors, at random, against an oracle that knows what must have happened.
//
// Shapes   rounds of steps. In a round every processor does steps of its own random numbers: VTL calls, protections, accesses to its
//          own protected pages and to one that all protect, by both levels, interrupts to both levels of all, timers of both levels, posts and
//          events between VTL0s, flushes with and without TLB locks. At its end it waits for what it has begun; then all are
//          compared with what they must be.
//          Command line: seed=N, first=N (the first round's number), rounds=N, or seconds=N instead; report=N seconds between remarks.
//          A round's numbers depend on the seed and its number alone: `seed=S first=R rounds=1` has the steps of a round that failed.
// Oracle   every event is numbered by sender and receiver. An interrupt, an event flag, a timer is not sent again before it has been
//          taken, since two that wait are one: so each is taken exactly once, and one more or less shows. Posts carry their number, and
//          as many are under way as there is room for. An access is allowed or not by the model of this processor's pages, and what it
//          leaves is the model's too: no intercept more or less, and each with the access in its fields.
// Threads  g_mine[cpu]: processor `cpu`, its handlers at either level included. Ledgers: sender and receiver.
#include "tests/guests/hyperv/marked_message.h"
#include "tests/guests/hyperv/vsm_level.h"
#include "tests/guests/runtime/apic.h"
#include "tests/guests/runtime/interrupts.h"
#include "tests/guests/runtime/machine.h"
#include "tests/guests/runtime/print.h"
#include "tests/guests/runtime/random.h"
#include "tests/guests/runtime/tally.h"
#include "tests/guests/runtime/test.h"
#include "tests/guests/runtime/wait.h"

// Accesses whose address and length are known: RDI is the place, RSI a value. What is skipped returns the value.
asm(R"(
.text
.code64
guest_soak_load:
  movq %rsi, %rax
guest_soak_load_at:
  movq (%rdi), %rax
guest_soak_load_end:
  ret
guest_soak_store:
  movq %rsi, %rax
guest_soak_store_at:
  movq %rsi, (%rdi)
guest_soak_store_end:
  ret
guest_soak_add:
  movq %rsi, %rax
guest_soak_add_at:
  lock xaddq %rax, (%rdi)
guest_soak_add_end:
  ret
guest_soak_byte:
  movq %rsi, %rax
guest_soak_byte_at:
  movb %sil, (%rdi)
guest_soak_byte_end:
  ret
)");

extern "C" {
uint64_t guest_soak_load(uint64_t place, uint64_t value);
uint64_t guest_soak_store(uint64_t place, uint64_t value);
uint64_t guest_soak_add(uint64_t place, uint64_t value);
uint64_t guest_soak_byte(uint64_t place, uint64_t value);
extern char guest_soak_load_at[], guest_soak_load_end[], guest_soak_store_at[], guest_soak_store_end[];
extern char guest_soak_add_at[], guest_soak_add_end[], guest_soak_byte_at[], guest_soak_byte_end[];
}

namespace guest {
namespace {

constexpr uint32_t kSteps = 150;      // of a processor in a round
constexpr uint64_t kShortRounds = 40; // where the command line says nothing
constexpr uint32_t kPages = 6;        // of each processor
constexpr uint32_t kWords = kPageBytes / 8;

// Vectors of both levels; those of interrupts are followed by one for each sender.
constexpr uint8_t kTimer = 0x40, kMessages = 0x41, kTimerMessages = 0x42, kEvents = 0x43, kIpis = 0x50;
constexpr uint32_t kPostSint = 2, kTimerSint = 3, kEventSint = 5;  // of VTL0; the timers' of VTL1 too
constexpr uint32_t kPostConnections = 0x20;
// The test device's event connections have one flag each, whose number is the connection's.
constexpr uint32_t EventConnection(uint32_t from, uint32_t to) { return 0x40 + kMaxVsmCpus * from + to; }
constexpr uint64_t kDeviceMemory = 0xff00'0000;  // the test device's
constexpr uint32_t kDirectTimer = 0, kMessageTimer = 1;

// --- Ledgers ------------------------------------------------------------------------------------------------------------------

// What may be under way once only.
struct Single {
  Atomic<uint64_t> sent, taken;
  [[nodiscard]] bool is_over() const { return sent.Load() == taken.Load(); }
};
Single g_ipis[kLevels][kMaxVsmCpus][kMaxVsmCpus];  // level of the receiver, sender, receiver
Single g_events[kMaxVsmCpus][kMaxVsmCpus];
struct Timer : Single {
  Atomic<uint64_t> due;
};
Timer g_timers[kLevels][2][kMaxVsmCpus];
struct Posts {
  Atomic<uint64_t> sent, taken;
};
Posts g_posts[kMaxVsmCpus][kMaxVsmCpus];

// Events that were not right in themselves, by what was wrong; checked after each round.
enum Wrong : uint32_t { kDoubledIpi, kDoubledEvent, kDoubledTimer, kEarlyTimer, kTimerMessage, kPostOrder, kTornPost, kWrongs };
constexpr const char* kWrongNames[] = {"an interrupt that nobody sent", "an event that nobody sent", "a timer that nobody set", "a timer before its time",
                                       "a timer's message", "the order of posts", "a post that is torn"};
static_assert(sizeof(kWrongNames) / sizeof(kWrongNames[0]) == kWrongs);
Atomic<uint32_t> g_wrong[kWrongs];
bool g_kernel_timers;  // VTL0's
Atomic<uint32_t> g_kernel_early;
// The first timer that came before its time, in units of 100 ns.
struct {
  uint64_t level, timer, due, early;
} g_early;

// Statistics for people.
struct Counts {
  uint64_t calls = 0, accesses = 0, intercepts = 0, protections = 0, flushes = 0, locks = 0, refused_posts = 0;
};

struct Mine {
  Random random{0};
  Counts counts;
  uint64_t pages = 0;  // GPA
  uint64_t* model = nullptr;
  uint32_t rights[kPages] = {};
  uint64_t elsewhere = 0;
  vmm::HvMessage* messages = nullptr;  // VTL0's pages
  uint8_t* events = nullptr;
};
Mine g_mine[kMaxVsmCpus];
uint64_t g_shared = 0;  // a page that all protect
Tally g_tally;

Mine& Me() { return g_mine[ThisCpuNumber()]; }

void Take(Single& single, Wrong doubled) {
  const uint64_t sent = single.sent.Load();
  if (single.taken.Add(1) >= sent) g_wrong[doubled].Add(1);
}

// --- What arrives, at either level --------------------------------------------------------------------------------------------

void OnIpi(InterruptFrame& frame) {
  Take(g_ipis[ThisLevel()][frame.vector - kIpis][ThisCpuNumber()], kDoubledIpi);
  SignalEoi();
}

void TakeTimer(uint32_t timer) {
  Timer& mine = g_timers[ThisLevel()][timer][ThisCpuNumber()];
  const uint64_t now = ReferenceTime(), due = mine.due.Load();
  if (now < due) {
    // KVM's timers go by KVM's clock, which is not quite ours where the host has measured its TSC anew since it loaded KVM (lab/README.md).
    if (ThisLevel() == 0 && g_kernel_timers) {
      g_kernel_early.Add(1);
    } else if (g_wrong[kEarlyTimer].Add(1) == 0) {
      g_early = {ThisLevel(), timer, due, due - now};
    }
  }
  Take(mine, kDoubledTimer);
}

void OnTimer(InterruptFrame&) {
  TakeTimer(kDirectTimer);
  SignalEoi();
}

void OnTimerMessage(InterruptFrame&) {
  vmm::HvMessage* const page = ThisLevel() == 0 ? Me().messages : SecureMessagePage(ThisCpuNumber());
  vmm::HvMessage message;
  bool more;
  while (TakeFrom(page[kTimerSint], message, more)) {
    vmm::HvTimerMessagePayload payload;
    memcpy(&payload, message.payload, sizeof(payload));
    const bool right = message.header.type == vmm::HvMessageType::kTimerExpired && message.header.payload_size == sizeof(payload) &&
                       payload.timer_index == kMessageTimer && payload.delivery_time >= payload.expiration_time &&
                       payload.expiration_time == g_timers[ThisLevel()][kMessageTimer][ThisCpuNumber()].due.Load();
    if (!right) g_wrong[kTimerMessage].Add(1);
    TakeTimer(kMessageTimer);
    if (more) WriteMsr(vmm::kHvMsrEom, 0);
  }
  SignalEoi();
}

void OnPost(InterruptFrame&) {
  vmm::HvMessage message;
  bool more;
  while (TakeFrom(Me().messages[kPostSint], message, more)) {
    uint32_t producer, sequence;
    if (!ReadMark(message, producer, sequence) || producer >= CpuCount()) {
      g_wrong[kTornPost].Add(1);
    } else if (g_posts[producer][ThisCpuNumber()].taken.Add(1) != sequence) {
      g_wrong[kPostOrder].Add(1);
    }
    if (more) WriteMsr(vmm::kHvMsrEom, 0);
  }
  SignalEoi();
}

void OnEvent(InterruptFrame&) {
  for (uint32_t sender = 0; sender < CpuCount(); ++sender) {
    const uint32_t number = EventConnection(sender, ThisCpuNumber());
    const auto bit = static_cast<uint8_t>(1u << number % 8);
    if ((__atomic_fetch_and(Me().events + kEventSint * 256 + number / 8, static_cast<uint8_t>(~bit), __ATOMIC_SEQ_CST) & bit) != 0) {
      Take(g_events[sender][ThisCpuNumber()], kDoubledEvent);
    }
  }
  SignalEoi();
}

void SetHandlers() {
  SetInterruptHandler(kTimer, &OnTimer);
  SetInterruptHandler(kTimerMessages, &OnTimerMessage);
  for (uint32_t sender = 0; sender < CpuCount(); ++sender) SetInterruptHandler(static_cast<uint8_t>(kIpis + sender), &OnIpi);
}

void SetUp() {
  if (g_shared != 0) return;
  EnableProtection();
  g_shared = GpaOf(AllocatePages(1));
  SetHandlers();
  SetInterruptHandler(kMessages, &OnPost);
  SetInterruptHandler(kEvents, &OnEvent);
  InVtl1([] { SetHandlers(); });
  for (uint32_t cpu = 0; cpu < CpuCount(); ++cpu) {
    constexpr uint32_t kMessageConnection = 4, kEventConnection = 6;  // commands of the test device
    const auto connect = [cpu](uint32_t command, uint32_t connection, uint32_t sint) {
      Out32(0x3000, connection << 24 | command << 16 | cpu << 8 | sint);
    };
    connect(kMessageConnection, kPostConnections + cpu, kPostSint);
    for (uint32_t from = 0; from < CpuCount(); ++from) connect(kEventConnection, EventConnection(from, cpu), kEventSint);
  }
  OnEachCpu([] {
    Mine& me = Me();
    me.pages = GpaOf(AllocatePages(kPages));
    me.model = static_cast<uint64_t*>(AllocatePages(kPages));
    for (uint32_t& rights : me.rights) rights = vmm::kHvProtectAll;
    me.messages = static_cast<vmm::HvMessage*>(AllocatePages(1));
    me.events = static_cast<uint8_t*>(AllocatePages(1));
    WriteMsr(vmm::kHvMsrSimp, GpaOf(me.messages) | vmm::kHvOverlayEnable);
    WriteMsr(vmm::kHvMsrSiefp, GpaOf(me.events) | vmm::kHvOverlayEnable);
    WriteMsr(vmm::kHvMsrScontrol, vmm::kHvScontrolEnable);
    WriteMsr(vmm::kHvMsrSint0 + kPostSint, kMessages);
    WriteMsr(vmm::kHvMsrSint0 + kTimerSint, kTimerMessages);
    WriteMsr(vmm::kHvMsrSint0 + kEventSint, kEvents);
    InVtl1([] { WriteMsr(vmm::kHvMsrSint0 + kTimerSint, kTimerMessages); });
  });
}

// --- Steps --------------------------------------------------------------------------------------------------------------------

template <typename F>
void Secure(F&& function) {
  ++Me().counts.calls;
  InVtl1(function);
}

uint32_t RandomRights(Random& random) {
  constexpr uint32_t kRights[] = {vmm::kHvProtectAll, kReadExecute, kNoAccess};
  return kRights[random.Below(3)];
}

void ProtectMine(Mine& me) {
  const uint32_t first = me.random.Below(kPages), count = 1 + me.random.Below(kPages - first), rights = RandomRights(me.random);
  uint64_t answer = 0;
  Secure([&] { answer = ModifyProtection(me.pages + first * kPageBytes, rights, static_cast<uint16_t>(count)); });
  g_tally.Equal(answer, Success(static_cast<uint16_t>(count)), "the answer to a protection");
  for (uint32_t page = first; page < first + count; ++page) me.rights[page] = rights;
  me.counts.protections += count;
}

struct Access {
  uint64_t (*function)(uint64_t, uint64_t);
  const char* at;
  const char* end;
  bool reads, writes;
};
const Access kAccesses[] = {{guest_soak_load, guest_soak_load_at, guest_soak_load_end, true, false},
                            {guest_soak_store, guest_soak_store_at, guest_soak_store_end, false, true},
                            {guest_soak_add, guest_soak_add_at, guest_soak_add_end, true, true},
                            {guest_soak_byte, guest_soak_byte_at, guest_soak_byte_end, false, true}};

// The access as the model has it; what it returns.
uint64_t InModel(const Access& access, uint64_t& word, uint64_t value) {
  const uint64_t before = word;
  if (access.function == guest_soak_load) return before;
  if (access.function == guest_soak_store) word = value;
  if (access.function == guest_soak_byte) word = (word & ~uint64_t{0xff}) | (value & 0xff);
  if (access.function != guest_soak_add) return value;
  word += value;
  return before;
}

void CheckFields(const vmm::HvMessage& message, const Access& access, uint64_t place) {
  const auto& seen = *reinterpret_cast<const vmm::HvMemoryIntercept*>(message.payload);
  g_tally.Equal(static_cast<uint64_t>(message.header.type), static_cast<uint64_t>(vmm::HvMessageType::kGpaIntercept), "type of the message");
  g_tally.Equal(seen.header.vp_index, ThisCpuNumber(), "processor of an intercept");
  g_tally.Equal(seen.header.rip, GpaOf(access.at), "RIP of an intercept");
  g_tally.Equal(seen.header.instruction_length & 0xf, static_cast<uint64_t>(access.end - access.at), "length of the instruction");
  g_tally.Equal(seen.gpa, place, "GPA of an intercept");
  g_tally.Equal(seen.gva, place, "GVA of an intercept");
  // Of an access that does both, a page that allows neither may name either.
  const auto kind = seen.header.access;
  g_tally.True((kind == vmm::HvInterceptAccess::kRead && access.reads) || (kind == vmm::HvInterceptAccess::kWrite && access.writes),
               "kind of access");
  g_tally.Equal(static_cast<uint64_t>(memcmp(seen.instruction_bytes, access.at, static_cast<size_t>(access.end - access.at))), 0, "instruction bytes");
}

void Redirect(const vmm::HvMessage&, VtlFrame& frame) { frame.rdi = GpaOf(&Me().elsewhere); }

void AccessMine(Mine& me) {
  const uint32_t page = me.random.Below(kPages), word = me.random.Below(kWords);
  const Access& access = kAccesses[me.random.Below(4)];
  const uint64_t place = me.pages + page * kPageBytes + word * 8, value = me.random.Next();
  uint64_t& model = me.model[page * kWords + word];
  const bool allowed = me.rights[page] == vmm::kHvProtectAll || (me.rights[page] == kReadExecute && !access.writes);
  constexpr Reply kReplies[] = {Reply::kSkip, Reply::kLift, Reply::kCall, Reply::kRaise};
  const Reply reply = kReplies[me.random.Below(4)];
  me.elsewhere = me.random.Next();
  uint64_t elsewhere = me.elsewhere, result = value;
  SetReply(reply, &Redirect);
  const Fault fault = Catch([&] { result = access.function(place, value); });
  const Intercepts& seen = SeenOf(ThisCpuNumber());
  ++me.counts.accesses;
  me.counts.intercepts += seen.count;
  g_tally.Equal(seen.count, allowed ? 0 : 1, "intercepts of an access");
  g_tally.Equal(fault.raised(), !allowed && reply == Reply::kRaise, "an access raises");
  if (!allowed && seen.count == 1) CheckFields(seen.messages[0], access, place);
  SetReply(Reply::kFatal);
  uint64_t want = value;
  if (allowed || reply == Reply::kLift) {
    want = InModel(access, model, value);
    if (!allowed) me.rights[page] = vmm::kHvProtectAll;
  } else if (reply == Reply::kCall) {
    want = InModel(access, elsewhere, value);
  } else if (reply == Reply::kRaise) {
    g_tally.Equal(static_cast<uint64_t>(fault.vector), kGeneralProtection, "the exception");
  }
  g_tally.Equal(result, want, "what an access returns");
  g_tally.Equal(me.elsewhere, elsewhere, "where it was redirected to");
  // From VTL1, which all of it belongs to.
  uint64_t left = 0;
  Secure([&] { left = Load<uint64_t>(place); });
  g_tally.Equal(left, model, "what an access leaves");
}

// The page that all protect: whoever is refused frees it, and another may have protected it again before the access is made again.
void AccessShared(Mine& me) {
  const uint64_t place = g_shared + ThisCpuNumber() * 64, value = me.random.Next();
  SetReply(Reply::kLift);
  Store<uint64_t>(place, value);
  g_tally.Equal(Load<uint64_t>(place), value, "what was stored into the page of all");
  const Intercepts& seen = SeenOf(ThisCpuNumber());
  me.counts.intercepts += seen.count;
  for (uint32_t i = 0; i < seen.count && i < kMostIntercepts; ++i) g_tally.Equal(seen.Memory(i).gpa, place, "GPA in the page of all");
  SetReply(Reply::kFatal);
}

// VTL1 may do anything to it, whatever others' VTL1s do with it meanwhile: also where a protected page moves out of devices' reach
// (tests/soak --devices). By its own instructions, and from a device's memory, which is KVM's emulator's to do.
void StoreSharedFromAbove(Mine& me) {
  const uint64_t place = g_shared + ThisCpuNumber() * 64 + 8, device = kDeviceMemory + ThisCpuNumber() * 64;
  const uint64_t first = me.random.Next(), stores = me.random.Below(20'000), copies = me.random.Below(8);
  uint64_t missed = 0;
  Secure([&] {
    for (uint64_t value = first; value < first + stores; ++value) {
      Store<uint64_t>(place, value);
      if (Load<uint64_t>(place) != value) ++missed;
    }
    for (uint64_t value = first; value < first + copies; ++value) {
      Store<uint64_t>(device, value);
      uint64_t from = device, to = place + 8;
      asm volatile("movsq" : "+S"(from), "+D"(to) : : "memory");
      if (Load<uint64_t>(place + 8) != value) ++missed;
    }
  });
  g_tally.Equal(missed, 0, "what VTL1 stored into the page of all");
}

void ProtectShared(Mine& me) {
  const uint32_t rights = RandomRights(me.random);
  uint64_t answer = 0;
  Secure([&] { answer = ModifyProtection(g_shared, rights); });
  g_tally.Equal(answer, Success(1), "the answer to a protection of the page of all");
  ++me.counts.protections;
}

// To the level that is said, by its own level's APIC or by the hypercall, from VTL1 or, to VTL0, from VTL0.
void SendIpis(Mine& me) {
  const uint32_t me_number = ThisCpuNumber(), to = me.random.Below(CpuCount()), level = me.random.Below(2);
  const auto vector = static_cast<uint8_t>(kIpis + me_number);
  Single& single = g_ipis[level][me_number][to];
  const bool from_secure = level == 1 || me.random.Below(2) == 0, by_apic = me.random.Below(2) == 0;
  if (me.random.Below(16) == 0) {
    g_tally.Equal(SendIpiByHypercall(vector, uint64_t{1} << to, OfVtl(1)), Answer(HvStatus::kAccessDenied), "VTL0 interrupts VTL1");
  }
  if (!single.is_over()) return;
  single.sent.Add(1);
  uint64_t answer = Success();
  const auto send = [&] {
    if (by_apic && ThisLevel() == level) return SendIpi(to, vector);
    answer = SendIpiByHypercall(vector, uint64_t{1} << to, OfVtl(static_cast<uint8_t>(level)));
  };
  if (from_secure) {
    Secure(send);
  } else {
    send();
  }
  g_tally.Equal(answer, Success(), "the answer to an interrupt");
}

void SetTimerHere(uint32_t number, uint64_t ticks) {
  Timer& timer = g_timers[ThisLevel()][number][ThisCpuNumber()];
  if (!timer.is_over()) return;
  const uint32_t config = vmm::kHvMsrStimer0Config + 2 * number;
  const uint64_t due = ReferenceTime() + ticks;
  timer.due.Store(due);
  timer.sent.Add(1);
  WriteMsr(config, number == kDirectTimer
                       ? vmm::kHvStimerDirect | vmm::kHvStimerAutoEnable | uint64_t{kTimer} << vmm::kHvStimerVectorShift
                       : vmm::kHvStimerAutoEnable | uint64_t{kTimerSint} << vmm::kHvStimerSintShift);
  WriteMsr(config + 1, due);
}

void SetTimers(Mine& me) {
  const uint32_t number = me.random.Below(2);
  const uint64_t ticks = me.random.Below(20'000);
  if (me.random.Below(2) == 0) return SetTimerHere(number, ticks);
  Secure([&] { SetTimerHere(number, ticks); });
}

// A level halts until its own timer wakes it.
void Halt(Mine& me) {
  const uint64_t ticks = me.random.Below(10'000);
  const auto halt = [ticks] {
    Timer& timer = g_timers[ThisLevel()][kDirectTimer][ThisCpuNumber()];
    SetTimerHere(kDirectTimer, ticks);
    DisableInterrupts();
    while (!timer.is_over()) {
      EnableInterruptsAndHalt();
      DisableInterrupts();
    }
    EnableInterrupts();
  };
  if (me.random.Below(2) == 0) return halt();
  Secure(halt);
}

void PostMessages(Mine& me) {
  const uint32_t me_number = ThisCpuNumber(), to = me.random.Below(CpuCount());
  Posts& posts = g_posts[me_number][to];
  for (uint32_t left = 1 + me.random.Below(4); left > 0; --left) {
    vmm::HvPostMessageInput input{};
    const auto sequence = static_cast<uint32_t>(posts.sent.Load());
    input.connection_id = kPostConnections + to;
    input.message_type = kMarkedType + me_number;
    input.payload_size = WriteMark(input.payload, me_number, sequence);
    Block().Put(input);
    const uint64_t answer = CallMemory({.code = HypercallCode::kPostMessage});
    if (answer == Answer(HvStatus::kInsufficientBuffers)) {
      ++me.counts.refused_posts;
      continue;
    }
    g_tally.Equal(answer, Success(), "the answer to a post");
    posts.sent.Add(1);
  }
}

void Signal(Mine& me) {
  const uint32_t me_number = ThisCpuNumber(), to = me.random.Below(CpuCount());
  Single& single = g_events[me_number][to];
  if (!single.is_over()) return;
  single.sent.Add(1);
  const uint64_t answer = CallFast({.code = HypercallCode::kSignalEvent}, EventConnection(me_number, to));
  g_tally.Equal(answer, Success(), "the answer to an event");
}

// Of VTL0, which waits where a VTL1 holds the lock; and VTL1s that hold it for a while.
void Flush(Mine& me) {
  ++me.counts.flushes;
  if (me.random.Below(2) == 0) {
    const uint64_t some = me.random.Next() & ((uint64_t{1} << CpuCount()) - 1);
    const uint64_t answer = some == 0 ? FlushAll() : FlushAll(vmm::kHvFlushAllAddressSpaces, some);
    g_tally.Equal(answer, Success(), "the answer to a flush");
    return;
  }
  ++me.counts.locks;
  const bool by_return = me.random.Below(2) == 0;
  const uint64_t ticks = me.random.Below(100'000);
  Secure([&] {
    g_tally.Equal(SetRegister(HvRegisterName::kVsmVpSecureConfigVtl0, {vmm::kHvSecureTlbLocked, 0}), Success(1), "a TLB lock");
    g_tally.Equal(FlushAll(), Success(), "a flush of VTL1");
    SpinTicks(ticks);
    if (by_return) return;
    g_tally.Equal(SetRegister(HvRegisterName::kVsmVpSecureConfigVtl0, {0, 0}), Success(1), "its end");
  });
}

// Vector and debug registers belong to both levels, RSP and CR3 to each.
void SharedState(Mine& me) {
  const uint64_t down = me.random.Next(), up = me.random.Next(), address = me.random.Next() & 0xffff'fff8;
  uint64_t seen = 0, debug = 0, cr3 = 0, back = 0;
  asm volatile("movq %0, %%xmm5; mov %1, %%dr2" : : "r"(down), "r"(address) : "memory");
  Secure([&] {
    asm volatile("movq %%xmm5, %0; mov %%dr2, %1; movq %2, %%xmm6" : "=&r"(seen), "=&r"(debug) : "r"(up) : "memory");
    cr3 = RegisterValue(HvRegisterName::kCr3, {.input_vtl = OfVtl(0)});
  });
  asm volatile("movq %%xmm6, %0" : "=r"(back) : : "memory");
  g_tally.Equal(seen, down, "a vector register in VTL1");
  g_tally.Equal(debug, address, "a debug register in VTL1");
  g_tally.Equal(back, up, "a vector register in VTL0");
  g_tally.Equal(cr3, ReadCr3(), "CR3 of VTL0");
}

// Whatever stops it: no register of VTL0 changes.
void Spin(Mine& me) {
  uint64_t sum = 0;
  for (uint64_t spins = me.random.Below(3000); spins > 0; --spins) {
    uint64_t a = spins;
    asm volatile(
        "mov %0, %%r8; lea 1(%0), %%r9; lea 2(%0), %%r10; pushq %0; movq %0, %%xmm1; .rept 8; nop; .endr;"
        "popq %%r11; xor %0, %%r8; dec %%r9; xor %0, %%r9; sub $2, %%r10; xor %0, %%r10; xor %0, %%r11; movq %%xmm1, %%r12; xor %0, %%r12;"
        "or %%r8, %%r9; or %%r9, %%r10; or %%r10, %%r11; or %%r12, %%r11; mov %%r11, %0"
        : "+r"(a)
        :
        : "r8", "r9", "r10", "r11", "r12", "cc", "memory");
    sum |= a;
  }
  g_tally.Equal(sum, 0, "registers of VTL0");
}

void Step(Mine& me) {
  switch (me.random.Below(21)) {
    case 0:
    case 1: return ProtectMine(me);
    case 2: return ProtectShared(me);
    case 3:
    case 4:
    case 5:
    case 6: return AccessMine(me);
    case 7: return AccessShared(me);
    case 8:
    case 9:
    case 10: return SendIpis(me);
    case 11:
    case 12: return SetTimers(me);
    case 13: return Halt(me);
    case 14:
    case 15: return PostMessages(me);
    case 16: return Signal(me);
    case 17: return Flush(me);
    case 18: return SharedState(me);
    case 19: return StoreSharedFromAbove(me);
    default: return Spin(me);
  }
}

// --- Rounds -------------------------------------------------------------------------------------------------------------------

bool AllIsWell() {
  for (const Atomic<uint32_t>& wrong : g_wrong) {
    if (wrong.Load() != 0) return false;
  }
  return g_tally.ok_so_far();
}

// What this processor has begun is over. What was told twice never is: so nothing is waited for once something has been wrong.
void Settle() {
  const uint32_t me = ThisCpuNumber();
  const auto over = [](const auto& ledger) {
    return WaitFor([&] { return ledger.sent.Load() == ledger.taken.Load() || !AllIsWell(); });
  };
  for (uint32_t to = 0; to < CpuCount(); ++to) {
    for (auto& ipis : g_ipis) g_tally.True(over(ipis[me][to]), "an interrupt is lost");
    g_tally.True(over(g_events[me][to]), "an event is lost");
    g_tally.True(over(g_posts[me][to]), "a post is lost");
  }
  for (auto& timers : g_timers) {
    for (auto& timer : timers) g_tally.True(over(timer[me]), "a timer is lost");
  }
}

void CheckPages() {
  InVtl1([] {
    for (uint32_t cpu = 0; cpu < CpuCount(); ++cpu) {
      const Mine& mine = g_mine[cpu];
      const int different = memcmp(reinterpret_cast<const void*>(mine.pages), mine.model, kPages * kPageBytes);
      g_tally.Equal(static_cast<uint64_t>(different), 0, "pages as the model has them");
    }
  });
}

void Round(uint64_t seed, uint64_t number) {
  uint32_t calls[kMaxVsmCpus];
  uint64_t made[kMaxVsmCpus];
  for (uint32_t cpu = 0; cpu < CpuCount(); ++cpu) {
    Mine& mine = g_mine[cpu];
    mine.random = Random(seed * 0x1'0000'0001 + number * kMaxVsmCpus + cpu);
    calls[cpu] = CountsOf(cpu).calls.Load();
    made[cpu] = mine.counts.calls;
  }
  OnAllCpus([] {
    Mine& me = Me();
    // Taken at the entry, or where VTL1 next allows it.
    const bool open = me.random.Below(2) == 0;
    Secure([open] { SetOpenReturn(open); });
    for (uint32_t step = 0; step < kSteps && AllIsWell(); ++step) Step(me);
    Settle();
  });
  for (uint32_t cpu = 0; cpu < CpuCount(); ++cpu) {
    g_tally.Equal(CountsOf(cpu).calls.Load() - calls[cpu], g_mine[cpu].counts.calls - made[cpu], "each call entered VTL1 once");
    g_tally.Equal(CountsOf(cpu).others.Load(), 0, "no entry without a reason");
  }
  for (uint32_t wrong = 0; wrong < kWrongs; ++wrong) g_tally.Equal(g_wrong[wrong].Load(), 0, kWrongNames[wrong]);
  if (g_wrong[kEarlyTimer].Load() != 0) {
    Line line;
    line << "# timer " << g_early.timer << " of level " << g_early.level << ", due " << g_early.due << ", came " << g_early.early << " early";
    Print(line);
  }
  CheckPages();
}

void Report(uint64_t seed, uint64_t round, uint64_t seconds) {
  Counts all;
  uint64_t ipis = 0, events = 0, timers = 0, posts = 0, stopped = 0;
  for (uint32_t cpu = 0; cpu < CpuCount(); ++cpu) {
    const Counts& counts = g_mine[cpu].counts;
    all.calls += counts.calls;
    all.accesses += counts.accesses;
    all.intercepts += counts.intercepts;
    all.protections += counts.protections;
    all.flushes += counts.flushes;
    all.locks += counts.locks;
    all.refused_posts += counts.refused_posts;
    stopped += CountsOf(cpu).interrupts.Load();
    for (uint32_t to = 0; to < CpuCount(); ++to) {
      for (auto& level : g_ipis) ipis += level[cpu][to].taken.Load();
      events += g_events[cpu][to].taken.Load();
      posts += g_posts[cpu][to].taken.Load();
    }
    for (auto& level : g_timers) {
      for (auto& timer : level) timers += timer[cpu].taken.Load();
    }
  }
  Line line;
  line << "# soak seed " << seed << " rounds " << round << " seconds " << seconds << " calls " << all.calls << " stopped " << stopped << " accesses "
       << all.accesses << " intercepts " << all.intercepts << " protections " << all.protections;
  Print(line);
  Line more;
  more << "#   interrupts " << ipis << " timers " << timers << " posts " << posts << " refused " << all.refused_posts << " events " << events
       << " flushes " << all.flushes << " locks " << all.locks << " KVM's timers before our time " << g_kernel_early.Load();
  Print(more);
}

TEST(NothingIsLostDoubledOrOutOfOrder) {
  SetUp();
  const char* const backing = Argument("backing");
  g_kernel_timers = backing != nullptr && strcmp(backing, "kernel") == 0;
  const uint64_t seed = NumberArgument("seed", 1), first = NumberArgument("first", 0), seconds = NumberArgument("seconds", 0);
  const uint64_t rounds = NumberArgument("rounds", seconds == 0 ? kShortRounds : ~uint64_t{0}), report = NumberArgument("report", 10);
  constexpr uint64_t kSecond = 10'000'000;  // of reference time
  const uint64_t start = ReferenceTime();
  uint64_t said = start, done = 0;
  while (done < rounds && (seconds == 0 || ReferenceTime() - start < seconds * kSecond)) {
    Round(seed, first + done);
    if (!g_tally.ok_so_far()) {
      Note("the round that failed", first + done);
      break;
    }
    ++done;
    if (ReferenceTime() - said < report * kSecond) continue;
    said = ReferenceTime();
    Report(seed, first + done, (said - start) / kSecond);
  }
  Report(seed, first + done, (ReferenceTime() - start) / kSecond);
  EXPECT_TRUE(g_tally.ok());
}

}  // namespace
}  // namespace guest
