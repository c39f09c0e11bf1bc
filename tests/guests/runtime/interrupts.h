// Faults as values, and handlers for interrupts.
//
// Shapes   a fault inside Catch ends the function that it runs and is its result; any other one ends the guest with a report.
// Threads  handlers are the machine's, one a vector, called on the processor that was interrupted, with interrupts off.
// Errors   none.
//
//   EXPECT_FAULT(kGeneralProtection, WriteMsr(kMsr, ~0ull));         // test.h
//   const Fault fault = Catch([&] { value = *pointer; });
//   CountInterrupts(0x40, Eoi::kApic);  ...  EXPECT_EQ(InterruptCount(0x40), 1);
#ifndef VMM_TESTS_GUESTS_RUNTIME_INTERRUPTS_H_
#define VMM_TESTS_GUESTS_RUNTIME_INTERRUPTS_H_

#include <cstdint>
#include <type_traits>

#include "tests/guests/runtime/cpu.h"

namespace guest {

inline constexpr int kNoFault = -1;
inline constexpr int kDivideError = 0;
inline constexpr int kDebugException = 1;
inline constexpr int kNmi = 2;
inline constexpr int kBreakpoint = 3;
inline constexpr int kUndefinedOpcode = 6;
inline constexpr int kDoubleFault = 8;
inline constexpr int kGeneralProtection = 13;
inline constexpr int kPageFault = 14;

struct Fault {
  int vector = kNoFault;
  uint64_t error_code = 0;
  uint64_t address = 0;  // CR2, of a page fault
  uint64_t rip = 0;
  [[nodiscard]] bool raised() const { return vector != kNoFault; }
};

// What was interrupted; entry.S pushes it. Changes are taken over at the return.
struct InterruptFrame {
  uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
  uint64_t vector, error_code;
  uint64_t rip, cs, rflags, rsp, ss;
};
static_assert(sizeof(InterruptFrame) == 22 * 8);

using InterruptHandler = void (*)(InterruptFrame& frame);

// From 32 on, and NMI. The handler says EOI itself (apic.h). nullptr: an interrupt of that vector ends the guest.
void SetInterruptHandler(uint8_t vector, InterruptHandler handler);

enum class Eoi : uint8_t {
  kNone,  // auto-EOI, or the test does it
  kApic,
};
// A handler that only counts.
void CountInterrupts(uint8_t vector, Eoi eoi);
// Interrupts taken on this processor, or on processor `cpu`, since the start, by every kind of handler.
[[nodiscard]] uint64_t InterruptCount(uint8_t vector);
[[nodiscard]] uint64_t InterruptCountOf(uint32_t cpu, uint8_t vector);

struct CatchFrame {
  uint64_t rbx, rbp, r12, r13, r14, r15, rsp, rip, rflags;  // entry.S knows the order
  CatchFrame* outer;
  Fault fault;
};

// Catch without the template.
Fault CatchCall(void (*function)(void*), void* argument);

// Runs `function` and says which fault ended it, if one did. Destructors of what it was in the middle of do not run.
template <typename F>
Fault Catch(F&& function) {
  using Function = std::remove_reference_t<F>;
  return CatchCall([](void* f) { (*static_cast<Function*>(f))(); }, const_cast<void*>(static_cast<const void*>(&function)));
}

// `value` is what was read, or unchanged.
inline Fault TryReadMsr(uint32_t msr, uint64_t& value) {
  return Catch([&] { value = ReadMsr(msr); });
}
inline Fault TryWriteMsr(uint32_t msr, uint64_t value) {
  return Catch([&] { WriteMsr(msr, value); });
}

// Of this processor, before anything else of this header: GDT, TSS, IDT.
void SetUpInterrupts(uint32_t cpu);

}  // namespace guest

#endif  // VMM_TESTS_GUESTS_RUNTIME_INTERRUPTS_H_
