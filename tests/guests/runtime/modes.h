// Code in other modes of the processor: user mode, and 32-bit (compatibility) mode.
//
// Shapes   each call runs something in that mode on this processor and comes back, or says which fault ended it.
// Threads  any processor; one call at a time on each (not within one another).
// Errors   faults are values, as with Catch. Interrupts are taken meanwhile.
#ifndef VMM_TESTS_GUESTS_RUNTIME_MODES_H_
#define VMM_TESTS_GUESTS_RUNTIME_MODES_H_

#include <cstdint>
#include <type_traits>

#include "tests/guests/runtime/interrupts.h"

namespace guest {

inline constexpr uint64_t kFlagsIopl3 = 3 << 12;

Fault CallInUserMode(void (*function)(void*), void* argument, uint64_t flags);

// At CPL 3, on a stack of its own; all memory is accessible. With IOPL 0 (no kFlagsIopl3 in `flags`) any port access is #GP: so are
// assertions and prints, which belong behind the call. int3 in `function` ends it without a fault.
template <typename F>
Fault InUserMode(F&& function, uint64_t flags = 0) {
  using Function = std::remove_reference_t<F>;
  return CallInUserMode([](void* f) { (*static_cast<Function*>(f))(); },
                        const_cast<void*>(static_cast<const void*>(&function)), flags);
}

struct Registers32 {
  uint32_t eax, ebx, ecx, edx, esi, edi;
};
// Calls `target` (below 4 GiB; it returns by a near `ret` and keeps EBP and ESP) in 32-bit code at CPL 0 with these registers, which
// are then what it left. After a fault they are as given.
Fault CallIn32BitMode(uint64_t target, Registers32& registers);

}  // namespace guest

#endif  // VMM_TESTS_GUESTS_RUNTIME_MODES_H_
