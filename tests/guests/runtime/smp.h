// The other processors: started before the first test, then waiting for work.
//
// Shapes   processor n has APIC id n; 0 is the one that runs the tests.
// Threads  OnCpu, StartOnCpu, WaitForCpu: any processor for any other, one piece of work each at a time. Interrupts are on in tests
//          and in work. An idle processor halts, and is woken by kWorkVector, which no TPR below 15 holds back.
// Errors   work that does not end within WaitFor's limit ends the guest.
#ifndef VMM_TESTS_GUESTS_RUNTIME_SMP_H_
#define VMM_TESTS_GUESTS_RUNTIME_SMP_H_

#include <cstdint>
#include <type_traits>

namespace guest {

inline constexpr uint32_t kMaxCpus = 64;
inline constexpr uint32_t kStackBytes = 0x4000;
inline constexpr uint8_t kWorkVector = 0xff;

// That the machine has, all of them running.
[[nodiscard]] uint32_t CpuCount();
[[nodiscard]] uint32_t ThisCpuNumber();
// The trust level of the code that calls. Handlers, counters and faults are each level's own; what is below works at level 0.
[[nodiscard]] uint32_t ThisLevel();

void StartCallOnCpu(uint32_t cpu, void (*function)(void*), void* argument);
// Until the work given to it is done. Returns at once if there is none.
void WaitForCpu(uint32_t cpu);

// Begins `function` there and returns: it must outlive the work, so give it a name.
template <typename F>
void StartOnCpu(uint32_t cpu, F& function) {
  StartCallOnCpu(cpu, [](void* f) { (*static_cast<F*>(f))(); },
                 const_cast<void*>(static_cast<const void*>(&function)));
}

// Runs it there, here too if that is this processor, and returns when it is done.
template <typename F>
void OnCpu(uint32_t cpu, F&& function) {
  if (cpu == ThisCpuNumber()) return function();
  std::remove_reference_t<F>& named = function;
  StartOnCpu(cpu, named);
  WaitForCpu(cpu);
}

// On each in turn, from 0 on.
template <typename F>
void OnEachCpu(F&& function) {
  for (uint32_t cpu = 0; cpu < CpuCount(); ++cpu) OnCpu(cpu, function);
}

// On all at once.
template <typename F>
void OnAllCpus(F&& function) {
  std::remove_reference_t<F>& named = function;
  for (uint32_t cpu = 0; cpu < CpuCount(); ++cpu) {
    if (cpu != ThisCpuNumber()) StartOnCpu(cpu, named);
  }
  named();
  for (uint32_t cpu = 0; cpu < CpuCount(); ++cpu) {
    if (cpu != ThisCpuNumber()) WaitForCpu(cpu);
  }
}

// False: not all of them came.
[[nodiscard]] bool StartOtherCpus(uint32_t count);

// A guest that defines this with `return false` has only processor 0 at first: the others wait for a start-up interrupt, as at
// power-on. CpuCount() is then 1.
[[nodiscard]] bool StartsOtherCpus();
// Where a processor goes that somebody else has started: 64-bit mode, interrupts off, its own stack of guest_stacks or another.
[[noreturn]] void CpuMain(uint32_t number);
// Once it has come. False: it did not. Whoever has come so may be given work, and CpuCount() is `number` + 1 if that was less:
// start them in order.
[[nodiscard]] bool AdoptCpu(uint32_t number);
// By INIT and two start-up interrupts, and AdoptCpu.
[[nodiscard]] bool StartCpu(uint32_t number);

}  // namespace guest

#endif  // VMM_TESTS_GUESTS_RUNTIME_SMP_H_
