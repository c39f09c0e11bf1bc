// Waiting for something that another processor, a device or an interrupt does.
//
// Units    ticks of the TSC, which need not run at any particular rate: a limit only keeps a broken machine from hanging a test.
#ifndef VMM_TESTS_GUESTS_RUNTIME_WAIT_H_
#define VMM_TESTS_GUESTS_RUNTIME_WAIT_H_

#include <cstdint>

#include "tests/guests/runtime/cpu.h"

namespace guest {

// 20 s at 3 GHz.
inline constexpr uint64_t kGenerousTicks = 200'000'000'000;

// False: the condition still did not hold at the limit.
template <typename F>
[[nodiscard]] bool WaitFor(F condition, uint64_t limit_ticks = kGenerousTicks) {
  const uint64_t start = ReadTsc();
  while (!condition()) {
    if (ReadTsc() - start > limit_ticks) return condition();
    Pause();
  }
  return true;
}

// For things that must not happen: there is no other way than to give them time.
inline void SpinTicks(uint64_t ticks) {
  const uint64_t start = ReadTsc();
  while (ReadTsc() - start < ticks) Pause();
}

}  // namespace guest

#endif  // VMM_TESTS_GUESTS_RUNTIME_WAIT_H_
