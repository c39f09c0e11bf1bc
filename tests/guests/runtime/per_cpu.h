// What the runtime keeps of each processor; GS points to it.
//
// Threads  its processor's, but for the atomics.
#ifndef VMM_TESTS_GUESTS_RUNTIME_PER_CPU_H_
#define VMM_TESTS_GUESTS_RUNTIME_PER_CPU_H_

#include <cstdint>

#include "tests/guests/runtime/atomic.h"
#include "tests/guests/runtime/interrupts.h"
#include "tests/guests/runtime/smp.h"
#include "tests/guests/runtime/test.h"

namespace guest {

// 64-bit task state, of which the stacks are used.
struct [[gnu::packed]] TaskState {
  uint32_t reserved0;
  uint64_t rsp[3];
  uint64_t reserved1;
  uint64_t ist[7];
  uint64_t reserved2;
  uint16_t reserved3;
  uint16_t io_map;
};
static_assert(sizeof(TaskState) == 104);

struct Cpu;

struct Gate {
  uint64_t low, high;
};

// What the processors of one trust level have in common. Every guest has level 0; who enables a higher one makes it (hyperv/vsm_level.h).
struct Level {
  uint32_t number;
  Cpu* cpus;  // kMaxCpus, or as many as there are
  InterruptHandler handlers[256];
  alignas(16) Gate idt[256];
};

struct Cpu {
  Cpu* self;
  Level* level;
  uint32_t number;
  bool x2apic;
  CatchFrame* catching;
  Context* context;
  // The work: `function` is written last and read first by its processor, which clears it when done.
  Atomic<void (*)(void*)> function;
  void* argument;
  Atomic<bool> online;
  Atomic<uint64_t> interrupts[256];
  alignas(16) uint64_t gdt[10];
  TaskState task;
  alignas(16) uint8_t fault_stack[4096];      // of double faults
  alignas(16) uint8_t interrupt_stack[8192];  // of what interrupts user mode
  alignas(16) uint8_t user_stack[8192];
};

extern Cpu g_cpus[kMaxCpus];
extern Level g_level0;

// GDT, TSS and IDT of processor `number` at that level, in memory: SetUpInterrupts, or an initial context, loads them.
void FillTables(Level& level, uint32_t number);

inline Cpu& ThisCpu() {
  Cpu* cpu;
  asm volatile("movq %%gs:0, %0" : "=r"(cpu));
  return *cpu;
}

}  // namespace guest

#endif  // VMM_TESTS_GUESTS_RUNTIME_PER_CPU_H_
