#include "tests/guests/runtime/smp.h"

#include "tests/guests/runtime/apic.h"
#include "tests/guests/runtime/cpu.h"
#include "tests/guests/runtime/memory.h"
#include "tests/guests/runtime/per_cpu.h"
#include "tests/guests/runtime/test.h"
#include "tests/guests/runtime/wait.h"

extern "C" {
extern char guest_ap_trampoline[], guest_ap_trampoline_end[];
extern uint32_t guest_next;
}

namespace guest {

Cpu g_cpus[kMaxCpus];
Level g_level0{.number = 0, .cpus = g_cpus, .handlers = {}, .idt = {}};

namespace {

// Conventional memory that neither our monitor nor QEMU puts boot data into.
constexpr uint64_t kTrampoline = 0x7'0000;
constexpr uint32_t kIcrInitAllOthers = 0xc'4500;
constexpr uint32_t kIcrStartAllOthers = 0xc'4600;

uint32_t g_cpu_count = 1;

constexpr uint32_t kIcrInit = 0x4500;
constexpr uint32_t kIcrStart = 0x4600;

void TakeWorkVector(InterruptFrame&) { SignalEoi(); }

// Spurious ones are not in service. A source that a test gave this vector is, and would hold back all of its class, work included.
void TakeSpuriousVector(InterruptFrame&) {
  if (IsInService(kSpuriousVector)) SignalEoi();
}

void PlaceTrampoline() {
  guest_next = static_cast<uint32_t>(reinterpret_cast<uint64_t>(static_cast<void (*)(uint32_t)>(&CpuMain)));
  memcpy(reinterpret_cast<void*>(kTrampoline), guest_ap_trampoline,
         static_cast<size_t>(guest_ap_trampoline_end - guest_ap_trampoline));
}

// Start-up interrupts twice, as processors want it; who has begun ignores the second.
void SendInitAndStart(uint32_t destination, uint32_t init, uint32_t start) {
  WriteIcr(destination, init);
  for (int i = 0; i < 10'000; ++i) Pause();
  for (int i = 0; i < 2; ++i) {
    WriteIcr(destination, start | static_cast<uint32_t>(kTrampoline >> 12));
    for (int j = 0; j < 1'000; ++j) Pause();
  }
}

}  // namespace

void CpuMain(uint32_t number) {
  SetUpInterrupts(number);
  EnableApic();
  Cpu& cpu = ThisCpu();
  cpu.online.Store(true);
  while (true) {
    // Looked at with interrupts off: the wake-up that comes after the look ends the halt.
    DisableInterrupts();
    void (*const function)(void*) = cpu.function.Load();
    if (function == nullptr) {
      EnableInterruptsAndHalt();
      continue;
    }
    EnableInterrupts();
    function(cpu.argument);
    cpu.function.Store(nullptr);
  }
}

uint32_t CpuCount() { return g_cpu_count; }
uint32_t ThisCpuNumber() { return ThisCpu().number; }
uint32_t ThisLevel() { return ThisCpu().level->number; }

void StartCallOnCpu(uint32_t number, void (*function)(void*), void* argument) {
  if (number >= g_cpu_count || number == ThisCpuNumber()) Fatal("work for a processor that cannot take it", number);
  Cpu& cpu = g_cpus[number];
  WaitForCpu(number);
  cpu.argument = argument;
  cpu.function.Store(function);
  SendIpi(number, kWorkVector);
}

void WaitForCpu(uint32_t number) {
  if (!WaitFor([&] { return g_cpus[number].function.Load() == nullptr; })) {
    Fatal("work does not end on processor", number);
  }
}

bool StartOtherCpus(uint32_t count) {
  if (count > kMaxCpus) return false;
  SetInterruptHandler(kWorkVector, &TakeWorkVector);
  SetInterruptHandler(kSpuriousVector, &TakeSpuriousVector);
  if (count == 1) return true;
  PlaceTrampoline();
  SendInitAndStart(0, kIcrInitAllOthers, kIcrStartAllOthers);
  for (uint32_t cpu = 1; cpu < count; ++cpu) {
    if (!WaitFor([cpu] { return g_cpus[cpu].online.Load(); })) return false;
  }
  g_cpu_count = count;
  return true;
}

[[gnu::weak]] bool StartsOtherCpus() { return true; }

bool AdoptCpu(uint32_t number) {
  if (number >= kMaxCpus || !WaitFor([number] { return g_cpus[number].online.Load(); })) return false;
  if (g_cpu_count <= number) g_cpu_count = number + 1;
  return true;
}

bool StartCpu(uint32_t number) {
  if (number >= kMaxCpus) return false;
  PlaceTrampoline();
  SendInitAndStart(number, kIcrInit, kIcrStart);
  return AdoptCpu(number);
}

}  // namespace guest
