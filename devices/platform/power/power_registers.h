// Ports by which a guest ends its machine. The ACPI tables name the same numbers.
//
// Source   ACPI, "Hardware-reduced ACPI": "Sleep Control and Status Registers"; "Reset Register"; QEMU, "pvpanic device".
#ifndef VMM_DEVICES_PLATFORM_POWER_POWER_REGISTERS_H_
#define VMM_DEVICES_PLATFORM_POWER_POWER_REGISTERS_H_

#include <cstdint>

namespace vmm {

inline constexpr uint16_t kAcpiSleepControlPort = 0x600;
inline constexpr uint16_t kAcpiSleepStatusPort = 0x601;
inline constexpr uint16_t kAcpiResetPort = 0x602;
inline constexpr uint16_t kAcpiPmPorts = 3;

// SLEEP_CONTROL: bit 5 SLP_EN, bits 4:2 SLP_TYPx.
inline constexpr uint8_t kSleepEnable = 1 << 5;
inline constexpr uint8_t kSleepTypeShift = 2;
inline constexpr uint8_t kSleepTypeMask = 7;
inline constexpr uint8_t kSleepTypeS5 = 5;  // the value that \_S5 gives
// SLEEP_STATUS: bit 7 WAK_STS, write one to clear. Nothing here ever wakes.
inline constexpr uint8_t kResetValue = 0x01;

inline constexpr uint16_t kPvpanicPort = 0x505;
inline constexpr uint8_t kPvpanicPanicked = 1 << 0;
inline constexpr uint8_t kPvpanicCrashLoaded = 1 << 1;  // a crash kernel takes over: the machine goes on

inline constexpr uint16_t kDebugPort = 0xe9;
inline constexpr uint8_t kDebugPortPresent = 0xe9;  // what a read gives, so that a guest can tell

}  // namespace vmm

#endif  // VMM_DEVICES_PLATFORM_POWER_POWER_REGISTERS_H_
