// A call of 64-bit code with every register chosen. 32-bit and user mode: modes.h.
//
// Shapes   Registers goes in, and comes back as the code left it, but for R14, R15, RBP and RSP, which it must keep.
// Threads  any processor.
// Errors   a fault is the caller's to Catch; nothing comes back then.
#ifndef VMM_TESTS_GUESTS_RUNTIME_REGISTERS_H_
#define VMM_TESTS_GUESTS_RUNTIME_REGISTERS_H_

#include <cstdint>

namespace guest {

// registers.cc's assembly knows the order.
struct Registers {
  uint64_t rax = 0, rbx = 0, rcx = 0, rdx = 0, rsi = 0, rdi = 0;
  uint64_t r8 = 0, r9 = 0, r10 = 0, r11 = 0, r12 = 0, r13 = 0;
  uint64_t xmm[12] = {};  // XMM0 to XMM5, low halves first
};

void CallWithRegisters(uint64_t address, Registers& registers);

// XMM0 to XMM5 alone: code that is compiled never touches them.
void LoadXmm(const uint64_t (&words)[12]);
void StoreXmm(uint64_t (&words)[12]);

}  // namespace guest

#endif  // VMM_TESTS_GUESTS_RUNTIME_REGISTERS_H_
