// The registers of the MC146818 real-time clock and its CMOS memory.
//
// Shapes   index port, data port; 128 bytes behind them.
// Source   Motorola, "MC146818A Real-Time Clock"; the century byte where PC firmware has it, named by the FADT.
#ifndef VMM_DEVICES_PLATFORM_RTC_CMOS_LAYOUT_H_
#define VMM_DEVICES_PLATFORM_RTC_CMOS_LAYOUT_H_

#include <cstdint>

namespace vmm {

inline constexpr uint16_t kCmosPort = 0x70;  // index: 6:0 register, 7 NMI mask (not here); 0x71 data
inline constexpr uint16_t kCmosPorts = 2;
inline constexpr uint8_t kCmosBytes = 128;

inline constexpr uint8_t kCmosSeconds = 0x00;
inline constexpr uint8_t kCmosMinutes = 0x02;
inline constexpr uint8_t kCmosHours = 0x04;
inline constexpr uint8_t kCmosDayOfWeek = 0x06;  // 1 is Sunday
inline constexpr uint8_t kCmosDayOfMonth = 0x07;
inline constexpr uint8_t kCmosMonth = 0x08;
inline constexpr uint8_t kCmosYear = 0x09;  // of the century
inline constexpr uint8_t kCmosRegisterA = 0x0a;
inline constexpr uint8_t kCmosRegisterB = 0x0b;
inline constexpr uint8_t kCmosRegisterC = 0x0c;
inline constexpr uint8_t kCmosRegisterD = 0x0d;
inline constexpr uint8_t kCmosCentury = 0x32;

// A: 7 update in progress, 6:4 divider (2: running), 3:0 rate.
inline constexpr uint8_t kCmosUpdateInProgress = 0x80;
inline constexpr uint8_t kCmosDividerRunning = 0x26;
// B: 7 SET (the guest is writing the time), 2 binary, 1 24 hours.
inline constexpr uint8_t kCmosSet = 0x80;
inline constexpr uint8_t kCmosBinary = 0x04;
inline constexpr uint8_t kCmos24Hours = 0x02;
inline constexpr uint8_t kCmosPm = 0x80;  // of the hours, in 12-hour form
// D: 7 valid RAM and time.
inline constexpr uint8_t kCmosValid = 0x80;

}  // namespace vmm

#endif  // VMM_DEVICES_PLATFORM_RTC_CMOS_LAYOUT_H_
