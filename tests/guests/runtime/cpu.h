// Single instructions of the processor: ports, MSRs, CPUID, control registers, time.
//
// Threads  any processor; what it does is this processor's.
// Errors   none: what the processor refuses is a fault (interrupts.h: Catch, or TryReadMsr and TryWriteMsr there).
#ifndef VMM_TESTS_GUESTS_RUNTIME_CPU_H_
#define VMM_TESTS_GUESTS_RUNTIME_CPU_H_

#include <cstdint>

namespace guest {

inline void Out8(uint16_t port, uint8_t value) { asm volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory"); }
inline void Out16(uint16_t port, uint16_t value) { asm volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory"); }
inline void Out32(uint16_t port, uint32_t value) { asm volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory"); }
inline uint8_t In8(uint16_t port) {
  uint8_t value;
  asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
  return value;
}
inline uint16_t In16(uint16_t port) {
  uint16_t value;
  asm volatile("inw %1, %0" : "=a"(value) : "Nd"(port) : "memory");
  return value;
}
inline uint32_t In32(uint16_t port) {
  uint32_t value;
  asm volatile("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
  return value;
}

inline uint64_t ReadMsr(uint32_t msr) {
  uint32_t low, high;
  asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr) : "memory");
  return uint64_t{high} << 32 | low;
}
inline void WriteMsr(uint32_t msr, uint64_t value) {
  asm volatile("wrmsr" : : "c"(msr), "a"(static_cast<uint32_t>(value)), "d"(static_cast<uint32_t>(value >> 32)) : "memory");
}

struct CpuidResult {
  uint32_t eax, ebx, ecx, edx;
};
inline CpuidResult Cpuid(uint32_t leaf, uint32_t subleaf = 0) {
  CpuidResult result;
  asm volatile("cpuid" : "=a"(result.eax), "=b"(result.ebx), "=c"(result.ecx), "=d"(result.edx) : "a"(leaf), "c"(subleaf));
  return result;
}

inline uint64_t ReadTsc() {
  uint32_t low, high;
  asm volatile("lfence; rdtsc" : "=a"(low), "=d"(high) : : "memory");
  return uint64_t{high} << 32 | low;
}

inline uint64_t ReadCr0() { uint64_t v; asm volatile("mov %%cr0, %0" : "=r"(v) : : "memory"); return v; }
inline uint64_t ReadCr2() { uint64_t v; asm volatile("mov %%cr2, %0" : "=r"(v) : : "memory"); return v; }
inline uint64_t ReadCr3() { uint64_t v; asm volatile("mov %%cr3, %0" : "=r"(v) : : "memory"); return v; }
inline uint64_t ReadCr4() { uint64_t v; asm volatile("mov %%cr4, %0" : "=r"(v) : : "memory"); return v; }
inline uint64_t ReadCr8() { uint64_t v; asm volatile("mov %%cr8, %0" : "=r"(v) : : "memory"); return v; }
inline void WriteCr0(uint64_t v) { asm volatile("mov %0, %%cr0" : : "r"(v) : "memory"); }
inline void WriteCr3(uint64_t v) { asm volatile("mov %0, %%cr3" : : "r"(v) : "memory"); }
inline void WriteCr4(uint64_t v) { asm volatile("mov %0, %%cr4" : : "r"(v) : "memory"); }
inline void WriteCr8(uint64_t v) { asm volatile("mov %0, %%cr8" : : "r"(v) : "memory"); }

inline void Pause() { asm volatile("pause" : : : "memory"); }
inline uint64_t ReadFlags() { uint64_t v; asm volatile("pushfq; popq %0" : "=r"(v) : : "memory"); return v; }
inline bool InterruptsEnabled() { return (ReadFlags() & 0x200) != 0; }
inline void DisableInterrupts() { asm volatile("cli" : : : "memory"); }
inline void EnableInterrupts() { asm volatile("sti" : : : "memory"); }
// Enables interrupts and waits for one; nothing can come between the two.
inline void EnableInterruptsAndHalt() { asm volatile("sti; hlt" : : : "memory"); }

// Off for a scope, and then as they were.
class InterruptsOff final {
 public:
  InterruptsOff() : enabled_(InterruptsEnabled()) { DisableInterrupts(); }
  ~InterruptsOff() {
    if (enabled_) EnableInterrupts();
  }
  InterruptsOff(const InterruptsOff&) = delete;
  InterruptsOff& operator=(const InterruptsOff&) = delete;

 private:
  const bool enabled_;
};

}  // namespace guest

#endif  // VMM_TESTS_GUESTS_RUNTIME_CPU_H_
