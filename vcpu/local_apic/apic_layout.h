// The numbers and bits of the local APIC: registers, MSRs, interrupt command, local vector table.
//
// A register has one number in both modes: in xAPIC its offset in the page is number << 4, in x2APIC its MSR is 0x800 + number.
//
// Source   Intel SDM volume 3, "Advanced Programmable Interrupt Controller (APIC)"; AMD APM volume 2, "Advanced Programmable
//          Interrupt Controller (APIC)".
#ifndef VMM_VCPU_LOCAL_APIC_APIC_LAYOUT_H_
#define VMM_VCPU_LOCAL_APIC_APIC_LAYOUT_H_

#include <cstdint>

namespace vmm {

inline constexpr uint32_t kApicPageBytes = 0x1000;
inline constexpr uint8_t kApicFirstVector = 16;  // those below are the processor's own: an error to send or to receive

enum class ApicRegister : uint8_t {
  kId = 0x02,
  kVersion = 0x03,
  kTpr = 0x08,
  kPpr = 0x0a,
  kEoi = 0x0b,
  kLdr = 0x0d,
  kDfr = 0x0e,  // xAPIC only
  kSvr = 0x0f,
  kIsr0 = 0x10,  // eight of each, 32 vectors a register
  kTmr0 = 0x18,
  kIrr0 = 0x20,
  kEsr = 0x28,
  kIcrLow = 0x30,   // x2APIC: all 64 bits
  kIcrHigh = 0x31,  // xAPIC only
  kLvtTimer = 0x32,
  kLvtThermal = 0x33,
  kLvtPerformance = 0x34,
  kLvtLint0 = 0x35,
  kLvtLint1 = 0x36,
  kLvtError = 0x37,
  kInitialCount = 0x38,
  kCurrentCount = 0x39,
  kDivide = 0x3e,
  kSelfIpi = 0x3f,  // x2APIC only
};
inline constexpr uint8_t kApicRegisterCount = 0x40;  // numbers from here on are reserved
inline constexpr uint32_t kApicLvtCount = 6;         // kLvtTimer to kLvtError

inline constexpr uint32_t kMsrApicBase = 0x1b;
inline constexpr uint32_t kMsrTscDeadline = 0x6e0;
inline constexpr uint32_t kMsrX2apicFirst = 0x800;
inline constexpr uint32_t kMsrX2apicCount = 0x100;

// IA32_APIC_BASE: 8 BSP, 10 x2APIC, 11 enabled, 12 to the physical address width: the page. The rest is reserved.
inline constexpr uint64_t kApicBaseBsp = uint64_t{1} << 8;
inline constexpr uint64_t kApicBaseX2apic = uint64_t{1} << 10;
inline constexpr uint64_t kApicBaseEnabled = uint64_t{1} << 11;
inline constexpr uint64_t kApicDefaultPage = 0xfee0'0000;

// Version: 7:0 0x14 (an integrated APIC), 23:16 the last local vector table entry, 24 EOI broadcasts can be suppressed.
inline constexpr uint32_t kApicVersion = 0x14 | (kApicLvtCount - 1) << 16;
inline constexpr uint32_t kApicVersionSuppressesEoi = uint32_t{1} << 24;

// SVR: 7:0 the spurious vector, 8 software enable, 9 focus checking (kept, means nothing), 12 suppress EOI broadcasts.
inline constexpr uint32_t kSvrEnabled = uint32_t{1} << 8;
inline constexpr uint32_t kSvrSuppressEoi = uint32_t{1} << 12;
inline constexpr uint32_t kSvrWritable = 0x3ff;
inline constexpr uint32_t kSvrReset = 0xff;

// DFR: 31:28 the model, the rest reads as ones. LDR in xAPIC: 31:24 the logical id.
inline constexpr uint32_t kDfrReset = 0xffff'ffff;
inline constexpr uint32_t kDfrModelMask = 0xf000'0000;
inline constexpr uint32_t kDfrFlat = 0xf;
inline constexpr uint32_t kDfrCluster = 0x0;
inline constexpr unsigned kXapicIdShift = 24;  // of ID, LDR and ICR high

// Local vector table: 7:0 vector, 10:8 delivery mode, 12 delivery status (read-only, never busy), 13 polarity, 14 remote IRR
// (read-only), 15 level, 16 masked, 18:17 timer mode. Each entry has some of them.
inline constexpr uint32_t kLvtVectorMask = 0xff;
inline constexpr unsigned kLvtModeShift = 8;
inline constexpr uint32_t kLvtModeMask = 7u << kLvtModeShift;
inline constexpr uint32_t kLvtDeliveryStatus = 1u << 12;
inline constexpr uint32_t kLvtPolarity = 1u << 13;
inline constexpr uint32_t kLvtRemoteIrr = 1u << 14;
inline constexpr uint32_t kLvtLevel = 1u << 15;
inline constexpr uint32_t kLvtMasked = 1u << 16;
inline constexpr unsigned kLvtTimerModeShift = 17;
inline constexpr uint32_t kLvtTimerPeriodic = 1u << kLvtTimerModeShift;
inline constexpr uint32_t kLvtTimerTscDeadline = 2u << kLvtTimerModeShift;

// ICR low: 7:0 vector, 10:8 delivery mode, 11 logical, 12 delivery status (read-only, never busy), 14 assert, 15 level,
// 19:18 shorthand. ICR high: the destination, 8 bits at 31:24 in xAPIC, all 32 in x2APIC.
inline constexpr uint32_t kIcrVectorMask = 0xff;
inline constexpr unsigned kIcrModeShift = 8;
inline constexpr uint32_t kIcrLogical = 1u << 11;
inline constexpr uint32_t kIcrDeliveryStatus = 1u << 12;
inline constexpr uint32_t kIcrAssert = 1u << 14;
inline constexpr uint32_t kIcrLevel = 1u << 15;
inline constexpr unsigned kIcrShorthandShift = 18;
inline constexpr uint32_t kIcrReserved = 0xfff3'2000;  // delivery status is not among them: what is written there is dropped
enum class IcrShorthand : uint8_t { kNone = 0, kSelf = 1, kAll = 2, kAllButSelf = 3 };

enum class ApicDeliveryMode : uint8_t {
  kFixed = 0,
  kLowestPriority = 1,
  kSmi = 2,
  kRemoteRead = 3,  // not supported by any processor of today
  kNmi = 4,
  kInit = 5,
  kStartup = 6,
  kExtInt = 7,  // local vector table only
};

// ESR. The others are of processors with an APIC bus, or (4, redirectable IPI) of those that cannot send lowest priority.
inline constexpr uint32_t kEsrSendIllegalVector = 1u << 5;
inline constexpr uint32_t kEsrReceiveIllegalVector = 1u << 6;
inline constexpr uint32_t kEsrIllegalRegister = 1u << 7;

// Divide configuration: bits 3, 1, 0 are the exponent less one, 111 divides by one.
inline constexpr uint32_t kDivideWritable = 0xb;

}  // namespace vmm

#endif  // VMM_VCPU_LOCAL_APIC_APIC_LAYOUT_H_
