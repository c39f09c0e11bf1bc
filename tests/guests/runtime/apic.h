// The local APIC of this processor, in both its modes, and the I/O APIC's redirection table.
//
// Shapes   xAPIC (memory) until EnableX2Apic, which is one way: back leads through INIT.
// Units    registers by their xAPIC offsets in both modes; APIC ids are processor numbers.
// Threads  each processor its own local APIC; the I/O APIC: one processor at a time.
// Source   Intel SDM volume 3, "Advanced Programmable Interrupt Controller (APIC)"; 82093AA datasheet, "Register Description".
#ifndef VMM_TESTS_GUESTS_RUNTIME_APIC_H_
#define VMM_TESTS_GUESTS_RUNTIME_APIC_H_

#include <cstdint>

namespace guest {

inline constexpr uint32_t kApicId = 0x20;
inline constexpr uint32_t kApicVersion = 0x30;
inline constexpr uint32_t kApicTpr = 0x80;
inline constexpr uint32_t kApicEoi = 0xb0;
inline constexpr uint32_t kApicSpurious = 0xf0;
inline constexpr uint32_t kApicIsr = 0x100;  // to 0x170
inline constexpr uint32_t kApicIrr = 0x200;  // to 0x270
inline constexpr uint32_t kApicIcr = 0x300;
inline constexpr uint32_t kApicIcrHigh = 0x310;  // xAPIC only
inline constexpr uint32_t kApicLvtTimer = 0x320;
inline constexpr uint32_t kApicTimerInitial = 0x380;
inline constexpr uint32_t kApicTimerCurrent = 0x390;
inline constexpr uint32_t kApicTimerDivide = 0x3e0;

inline constexpr uint32_t kMsrApicBase = 0x1b;
inline constexpr uint32_t kSpuriousVector = 0xfe;

[[nodiscard]] uint32_t ReadApic(uint32_t offset);
void WriteApic(uint32_t offset, uint32_t value);
// Both halves: in xAPIC mode the high one first.
void WriteIcr(uint32_t destination, uint32_t low);
void SignalEoi();

// Software-enables it, with everything else as INIT leaves it. Done at the start of each processor.
void EnableApic();
// False: this processor has none.
bool EnableX2Apic();
[[nodiscard]] bool InX2ApicMode();

void SendIpi(uint32_t cpu, uint8_t vector);

// Whether `vector` waits (IRR) or is in service (ISR) here.
[[nodiscard]] bool IsRequested(uint8_t vector);
[[nodiscard]] bool IsInService(uint8_t vector);

// One entry of the I/O APIC: fixed delivery to `cpu`, physical mode, high active.
enum class Trigger : uint8_t { kEdge, kLevel };
void RouteIoApic(uint32_t input, uint8_t vector, uint32_t cpu, Trigger trigger);
void MaskIoApic(uint32_t input);

}  // namespace guest

#endif  // VMM_TESTS_GUESTS_RUNTIME_APIC_H_
