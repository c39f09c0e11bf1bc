// Ports and numbers of the devices that freestanding test kernels expect. The guests of tests/guests share none of this file:
// they hold the numbers on their own, so that a slip here is found there.
//
// Source   QEMU: "docs/specs/fw_cfg" (legacy interface), "isa-debug-exit", "pc-testdev"; Bochs' shutdown port.
#ifndef VMM_DEVICES_PLATFORM_TEST_MACHINE_TEST_MACHINE_LAYOUT_H_
#define VMM_DEVICES_PLATFORM_TEST_MACHINE_TEST_MACHINE_LAYOUT_H_

#include <cstdint>

#include "memory/gpa.h"

namespace vmm {

inline constexpr uint16_t kFwCfgPort = 0x510;  // the selector, 2 bytes wide
inline constexpr uint16_t kFwCfgPorts = 2;     // data is the second byte
inline constexpr uint16_t kFwCfgSignature = 0x00;
inline constexpr uint16_t kFwCfgRamBytes = 0x03;
inline constexpr uint16_t kFwCfgProcessors = 0x05;
inline constexpr uint16_t kFwCfgMaxProcessors = 0x0f;

inline constexpr uint16_t kScratchPort = 0xe0;
inline constexpr uint16_t kRemapPort = 0xe4;
inline constexpr uint16_t kScratchBytesPort = 0xe8;
inline constexpr uint16_t kTestRegisterPorts = 4;  // of each of the three

inline constexpr uint16_t kDebugExitPort = 0xf4;
inline constexpr uint16_t kDebugExitPorts = 4;

inline constexpr uint16_t kInterruptLinesPort = 0x2000;  // one byte a line
inline constexpr uint16_t kInterruptLines = 24;

inline constexpr uint16_t kShutdownPort = 0x8900;
inline constexpr char kShutdownText[] = "Shutdown";

inline constexpr Gpa kTestStorageBase{0xff00'0000};
inline constexpr uint64_t kTestStorageBytes = 64 * 1024;

}  // namespace vmm

#endif  // VMM_DEVICES_PLATFORM_TEST_MACHINE_TEST_MACHINE_LAYOUT_H_
