#include "tests/guests/hyperv/synic_driver.h"

#include "tests/guests/runtime/apic.h"
#include "tests/guests/runtime/interrupts.h"
#include "tests/guests/runtime/machine.h"
#include "tests/guests/runtime/test.h"

namespace guest {
namespace {

struct SynicOfCpu {
  uint8_t* message_page = nullptr;
  uint8_t* event_page = nullptr;
  bool zero_at_first = false;
  uint32_t used_sints = 0;
  bool used_timers = false;
};
SynicOfCpu g_synics[kMaxSynicCpus];
alignas(sizeof(vmm::HvPostMessageInput)) vmm::HvPostMessageInput g_inputs[kMaxSynicCpus];
void* g_hypercall_page = nullptr;

bool IsZero(const uint8_t* page) {
  for (uint64_t i = 0; i < kPageBytes; ++i) {
    if (*const_cast<const volatile uint8_t*>(page + i) != 0) return false;
  }
  return true;
}

void EnablePagesFirst(SynicOfCpu& synic) {
  synic.message_page = static_cast<uint8_t*>(AllocatePages(1));
  synic.event_page = static_cast<uint8_t*>(AllocatePages(1));
  memset(synic.message_page, 0xa5, kPageBytes);
  memset(synic.event_page, 0x5a, kPageBytes);
  SetMessagePage(synic.message_page);
  SetEventPage(synic.event_page);
  synic.zero_at_first = IsZero(synic.message_page) && IsZero(synic.event_page);
}

// Of this processor. What is still queued comes out, slot by slot, and is thrown away.
void Empty(uint32_t cpu) {
  for (uint32_t round = 0; round < 1000; ++round) {
    bool taken = false;
    for (uint32_t sint = 0; sint < kSints; ++sint) {
      HvMessage message;
      bool more;
      taken |= Take(cpu, sint, message, more);
    }
    if (!taken && round != 0) {
      memset(EventPage(cpu), 0, kPageBytes);
      return;
    }
    WriteEom();
  }
  Fatal("a SynIC does not become empty");
}

void FreshHere() {
  const uint32_t cpu = ThisCpuNumber();
  SynicOfCpu& synic = g_synics[cpu];
  if (synic.message_page == nullptr) {
    EnablePagesFirst(synic);
  } else {
    SetMessagePage(synic.message_page);
    SetEventPage(synic.event_page);
  }
  WriteMsr(vmm::kHvMsrScontrol, vmm::kHvScontrolEnable);
  if (synic.used_timers) {
    for (uint32_t timer = 0; timer < vmm::kHvStimerCount; ++timer) {
      WriteMsr(TimerConfigMsr(timer), 0);
      WriteMsr(TimerCountMsr(timer), 0);
    }
    synic.used_timers = false;
  }
  for (uint32_t sint = 0; sint < kSints; ++sint) {
    if ((synic.used_sints >> sint & 1) != 0) WriteMsr(vmm::kHvMsrSint0 + sint, vmm::kHvSintReset);
  }
  synic.used_sints = 0;
  Empty(cpu);
}

}  // namespace

// --- Hypercalls and connections -----------------------------------------------------------------------------------------

void EnableHypercalls() {
  if (g_hypercall_page != nullptr) return;
  g_hypercall_page = AllocatePages(1);
  WriteMsr(vmm::kHvMsrGuestOsId, uint64_t{1} << 63 | 1);
  WriteMsr(vmm::kHvMsrHypercall, GpaOf(g_hypercall_page) | vmm::kHvOverlayEnable);
}

HvStatus Hypercall(uint64_t input, uint64_t rdx, uint64_t r8) {
  uint64_t result;
  register uint64_t in_r8 asm("r8") = r8;
  asm volatile("call *%[page]"
               : "=a"(result), "+c"(input), "+d"(rdx), "+r"(in_r8)
               : [page] "r"(g_hypercall_page)
               : "r9", "r10", "r11", "memory", "cc");
  return static_cast<HvStatus>(result & 0xffff);
}

HvStatus PostRaw(uint32_t connection, uint32_t type, const void* payload, uint32_t bytes, uint32_t claimed) {
  // A handler on this processor that posts would use the same input.
  const InterruptsOff off;
  vmm::HvPostMessageInput& input = g_inputs[ThisCpuNumber()];
  input.connection_id = connection;
  input.reserved = 0;
  input.message_type = type;
  input.payload_size = claimed;
  memcpy(input.payload, payload, bytes);
  return Hypercall(static_cast<uint64_t>(vmm::HypercallCode::kPostMessage), GpaOf(&input), 0);
}

HvStatus Post(uint32_t connection, uint32_t type, const void* payload, uint32_t bytes) {
  return PostRaw(connection, type, payload, bytes, bytes);
}

HvStatus SignalEvent(uint32_t connection, uint16_t flag) {
  return Hypercall(static_cast<uint64_t>(vmm::HypercallCode::kSignalEvent) | vmm::HypercallInput::kFast,
                   connection | uint64_t{flag} << 32, 0);
}

HvStatus SignalEventSlowly(uint32_t connection, uint16_t flag) {
  const InterruptsOff off;
  auto& input = reinterpret_cast<vmm::HvSignalEventInput&>(g_inputs[ThisCpuNumber()]);
  input.connection_id = connection;
  input.flag_number = flag;
  input.reserved = 0;
  return Hypercall(static_cast<uint64_t>(vmm::HypercallCode::kSignalEvent), GpaOf(&input), 0);
}

// --- Registers and pages ------------------------------------------------------------------------------------------------

void Fresh() {
  if (CpuCount() > kMaxSynicCpus) Fatal("more processors than these tests are made for", CpuCount());
  EnableHypercalls();
  OnEachCpu([] { FreshHere(); });
}

uint8_t* MessagePage(uint32_t cpu) { return g_synics[cpu].message_page; }
uint8_t* EventPage(uint32_t cpu) { return g_synics[cpu].event_page; }
bool PagesWereZeroAtFirst(uint32_t cpu) { return g_synics[cpu].zero_at_first; }

void SetSint(uint32_t sint, uint64_t value) {
  g_synics[ThisCpuNumber()].used_sints |= 1u << sint;
  WriteMsr(vmm::kHvMsrSint0 + sint, value);
}

void SetMessagePage(const void* page) {
  WriteMsr(vmm::kHvMsrSimp, page == nullptr ? 0 : GpaOf(page) | vmm::kHvOverlayEnable);
}

void SetEventPage(const void* page) {
  WriteMsr(vmm::kHvMsrSiefp, page == nullptr ? 0 : GpaOf(page) | vmm::kHvOverlayEnable);
}

void SetTimer(uint32_t timer, uint64_t config, uint64_t count) {
  g_synics[ThisCpuNumber()].used_timers = true;
  WriteMsr(TimerCountMsr(timer), count);
  WriteMsr(TimerConfigMsr(timer), config);
}

bool TimersAreKernels() {
  const char* const backing = Argument("backing");
  return backing != nullptr && strcmp(backing, "kernel") == 0;
}

// --- Slots and flags ----------------------------------------------------------------------------------------------------

bool Take(uint32_t cpu, uint32_t sint, HvMessage& message, bool& more) { return TakeFrom(Slot(cpu, sint), message, more); }

bool ClearFlag(uint32_t cpu, uint32_t sint, uint32_t flag) {
  const auto bit = static_cast<uint8_t>(1u << flag % 8);
  return (__atomic_fetch_and(EventPage(cpu) + sint * 256 + flag / 8, static_cast<uint8_t>(~bit), __ATOMIC_SEQ_CST) & bit) != 0;
}

// --- Messages that say whose they are -----------------------------------------------------------------------------------

HvStatus PostMarked(uint32_t connection, uint32_t producer, uint32_t sequence) {
  uint8_t payload[vmm::kHvMessagePayloadBytes];
  const uint32_t bytes = WriteMark(payload, producer, sequence);
  return Post(connection, kMarkedType + producer, payload, bytes);
}

Collection g_collection;

void Collection::Reset(uint32_t at_cpu, uint32_t at_sint, bool is_auto_eoi) {
  cpu = at_cpu;
  sint = at_sint;
  auto_eoi = is_auto_eoi;
  for (auto& count : next) count.Store(0);
  wrong.Store(0);
  timer_messages.Store(0);
  wrong_timers.Store(0);
  for (uint64_t& last : last_expiration) last = 0;
}

void Collection::Record(const HvMessage& message) {
  if (message.header.type == HvMessageType::kTimerExpired) {
    vmm::HvTimerMessagePayload payload;
    memcpy(&payload, message.payload, sizeof(payload));
    const bool right = message.header.payload_size == sizeof(payload) && message.header.origination_id == 0 &&
                       payload.timer_index < vmm::kHvStimerCount && payload.reserved == 0 &&
                       payload.delivery_time >= payload.expiration_time &&
                       payload.expiration_time > last_expiration[payload.timer_index];
    if (right) {
      last_expiration[payload.timer_index] = payload.expiration_time;
    } else {
      wrong_timers.Add(1);
    }
    timer_messages.Add(1);
    return;
  }
  uint32_t producer, sequence;
  if (!ReadMark(message, producer, sequence)) {
    wrong.Add(1);
    return;
  }
  if (next[producer].Add(1) != sequence) wrong.Add(1);
}

void Collection::Drain() {
  HvMessage message;
  bool more;
  while (Take(cpu, sint, message, more)) {
    Record(message);
    if (more) WriteEom();
  }
}

uint32_t Collection::Total() const {
  uint32_t total = 0;
  for (const auto& count : next) total += count.Load();
  return total;
}

void CollectOn(uint8_t vector) {
  SetInterruptHandler(vector, [](InterruptFrame&) {
    g_collection.Drain();
    if (!g_collection.auto_eoi) SignalEoi();
  });
}

}  // namespace guest
