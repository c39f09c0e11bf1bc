#include "tests/guests/runtime/interrupts.h"

#include "tests/guests/runtime/apic.h"
#include "tests/guests/runtime/per_cpu.h"
#include "tests/guests/runtime/print.h"
#include "tests/guests/runtime/test.h"

extern "C" {
extern char guest_interrupt_stubs[];
void guest_catch(guest::CatchFrame* frame, void (*function)(void*), void* argument);
void guest_catch_resume();
void guest_interrupt(guest::InterruptFrame* frame);
}

namespace guest {
namespace {

constexpr uint16_t kCode64 = 0x08;
constexpr uint16_t kData = 0x10;
constexpr uint16_t kTask = 0x30;
constexpr uint64_t kUserMode = 3;  // CPL, in CS
constexpr uint8_t kDoubleFaultStack = 1;
constexpr uint64_t kStubBytes = 16;
constexpr uint32_t kMsrGsBase = 0xc000'0101;
constexpr uint64_t kFlagInterrupt = 0x200;
constexpr uint64_t kFlagTrap = 0x100;

struct [[gnu::packed]] TablePointer {
  uint16_t limit;
  uint64_t base;
};

void FillIdt(Level& level) {
  if (level.idt[0].low != 0) return;
  for (uint64_t vector = 0; vector < 256; ++vector) {
    const uint64_t stub = reinterpret_cast<uint64_t>(guest_interrupt_stubs) + vector * kStubBytes;
    const uint64_t stack = vector == kDoubleFault ? kDoubleFaultStack : 0;
    const uint64_t dpl = vector == kBreakpoint ? 3 : 0;
    level.idt[vector].low = (stub & 0xffff) | uint64_t{kCode64} << 16 | stack << 32 | uint64_t{0x8e} << 40 | dpl << 45 |
                        (stub & 0xffff'0000) << 32;
    level.idt[vector].high = stub >> 32;
  }
}

void CountAndEoi(InterruptFrame&) { SignalEoi(); }
void CountOnly(InterruptFrame&) {}

[[noreturn]] void Unexpected(const InterruptFrame& frame) {
  Line line;
  line << "# vector " << frame.vector << " on processor " << ThisCpu().number << ", level " << ThisCpu().level->number
       << ": error code ";
  line.Hex(frame.error_code) << ", rip ";
  line.Hex(frame.rip) << ", rsp ";
  line.Hex(frame.rsp) << ", cr2 ";
  line.Hex(ReadCr2()) << ", rax ";
  line.Hex(frame.rax) << ", rcx ";
  line.Hex(frame.rcx);
  Print(line);
  Fatal("nobody expects an interrupt of vector", frame.vector);
}

}  // namespace

void FillTables(Level& level, uint32_t number) {
  Cpu& cpu = level.cpus[number];
  cpu.self = &cpu;
  cpu.level = &level;
  cpu.number = number;
  const uint64_t task = reinterpret_cast<uint64_t>(&cpu.task);
  cpu.gdt[1] = 0x00af'9b00'0000'ffff;  // kCode64
  cpu.gdt[2] = 0x00cf'9300'0000'ffff;  // kData
  cpu.gdt[3] = 0x00cf'9b00'0000'ffff;  // 32-bit code
  cpu.gdt[4] = 0x00cf'f300'0000'ffff;  // user data
  cpu.gdt[5] = 0x00af'fb00'0000'ffff;  // user 64-bit code
  cpu.gdt[6] = (sizeof(TaskState) - 1) | (task & 0xff'ffff) << 16 | uint64_t{0x89} << 40 | (task >> 24 & 0xff) << 56;
  cpu.gdt[7] = task >> 32;
  cpu.task.ist[kDoubleFaultStack - 1] = reinterpret_cast<uint64_t>(cpu.fault_stack + sizeof(cpu.fault_stack));
  cpu.task.rsp[0] = reinterpret_cast<uint64_t>(cpu.interrupt_stack + sizeof(cpu.interrupt_stack));
  cpu.task.io_map = sizeof(TaskState);
  FillIdt(level);
}

void SetUpInterrupts(uint32_t number) {
  FillTables(g_level0, number);
  Cpu& cpu = g_cpus[number];
  const TablePointer gdt{sizeof(cpu.gdt) - 1, reinterpret_cast<uint64_t>(cpu.gdt)};
  const TablePointer idt{sizeof(g_level0.idt) - 1, reinterpret_cast<uint64_t>(g_level0.idt)};
  asm volatile("lgdt %0" : : "m"(gdt) : "memory");
  asm volatile("ltr %0" : : "r"(kTask) : "memory");
  asm volatile("lidt %0" : : "m"(idt) : "memory");
  WriteMsr(kMsrGsBase, reinterpret_cast<uint64_t>(&cpu));
}

void SetInterruptHandler(uint8_t vector, InterruptHandler handler) { ThisCpu().level->handlers[vector] = handler; }

void CountInterrupts(uint8_t vector, Eoi eoi) { SetInterruptHandler(vector, eoi == Eoi::kApic ? &CountAndEoi : &CountOnly); }

uint64_t InterruptCount(uint8_t vector) { return InterruptCountOf(ThisCpuNumber(), vector); }

uint64_t InterruptCountOf(uint32_t cpu, uint8_t vector) {
  return ThisCpu().level->cpus[cpu].interrupts[vector].Load();
}

Fault CatchCall(void (*function)(void*), void* argument) {
  Cpu& cpu = ThisCpu();
  CatchFrame frame;
  frame.outer = cpu.catching;
  frame.fault = {};
  cpu.catching = &frame;
  guest_catch(&frame, function, argument);
  cpu.catching = frame.outer;
  return frame.fault;
}

}  // namespace guest

void guest_interrupt(guest::InterruptFrame* frame) {
  using namespace guest;
  Cpu& cpu = ThisCpu();
  const auto vector = static_cast<uint8_t>(frame->vector);
  cpu.interrupts[vector].Add(1);
  if (vector >= 32 || vector == kNmi) {
    const InterruptHandler handler = cpu.level->handlers[vector];
    if (handler == nullptr) Unexpected(*frame);
    handler(*frame);
    return;
  }
  CatchFrame* const caught = cpu.catching;
  if (caught == nullptr) Unexpected(*frame);
  // The breakpoint is how user mode comes back (modes.h).
  if (vector != kBreakpoint || (frame->cs & kUserMode) == 0) {
    caught->fault = {.vector = vector, .error_code = frame->error_code,
                     .address = vector == kPageFault ? ReadCr2() : 0, .rip = frame->rip};
  }
  // Back into guest_catch's caller, in its mode and on its stack; it restores the flags itself.
  frame->rip = reinterpret_cast<uint64_t>(&guest_catch_resume);
  frame->cs = kCode64;
  frame->ss = kData;
  frame->rsp = caught->rsp;
  frame->rdi = reinterpret_cast<uint64_t>(caught);
  frame->rflags &= ~(kFlagInterrupt | kFlagTrap);
}
