#include "devices/hyperv/hypercall/initial_vp_context.h"

#include <cstdint>
#include <initializer_list>

namespace vmm {
namespace {

constexpr uint64_t Bit(unsigned bit) noexcept { return uint64_t{1} << bit; }

constexpr uint64_t kRflagsFixed = Bit(1);
constexpr uint64_t kRflagsVirtual8086 = Bit(17);
constexpr uint64_t kRflagsReserved = ~uint64_t{0x3f'ffff} | Bit(3) | Bit(5) | Bit(15);
constexpr uint64_t kEferLongModeEnable = Bit(8);
constexpr uint64_t kEferLongModeActive = Bit(10);
// SCE, LME, LMA, NXE, SVME, LMSLE, FFXSR, TCE.
constexpr uint64_t kEferKnown = Bit(0) | Bit(8) | Bit(10) | Bit(11) | Bit(12) | Bit(13) | Bit(14) | Bit(15);
constexpr uint64_t kCr0Protected = Bit(0);
constexpr uint64_t kCr0NotWriteThrough = Bit(29);
constexpr uint64_t kCr0CacheDisable = Bit(30);
constexpr uint64_t kCr0Paging = Bit(31);
constexpr uint64_t kCr4Pae = Bit(5);
constexpr uint64_t kCr4La57 = Bit(12);
constexpr uint64_t kCr4Pcid = Bit(17);
constexpr uint64_t kHighHalf = ~uint64_t{0xffff'ffff};
constexpr uint64_t kCr3Reserved = ~uint64_t{0xf'ffff'ffff'ffff};  // above any physical address

constexpr uint16_t kTypeMask = 0x0f;
constexpr uint16_t kTypeBusyTss16 = 0x3;
constexpr uint16_t kTypeBusyTss = 0xb;
constexpr uint16_t kTypeLdt = 0x2;
constexpr uint16_t kNonSystem = 1 << 4;
constexpr uint16_t kPresent = 1 << 7;
constexpr uint16_t kLong = 1 << 13;
constexpr uint16_t kDefault = 1 << 14;
constexpr uint16_t kGranularity = 1 << 15;

bool IsPresent(const HvSegmentRegister& segment) noexcept { return (segment.attributes & kPresent) != 0; }

bool IsCanonical(uint64_t address, bool five_levels) noexcept {
  const unsigned unused = five_levels ? 64 - 57 : 64 - 48;
  return static_cast<uint64_t>(static_cast<int64_t>(address << unused) >> unused) == address;
}

// Only what a descriptor could have loaded: with pages as unit the low 12 bits are ones, with bytes the high 12 are zeroes.
bool IsLimitPossible(const HvSegmentRegister& segment) noexcept {
  if ((segment.attributes & kGranularity) != 0) return (segment.limit & 0xfff) == 0xfff;
  return (segment.limit & 0xfff0'0000) == 0;
}

// Registers with a type that code runs by, or data lies in.
bool CheckSegment(const HvSegmentRegister& segment) noexcept {
  if ((segment.attributes & kHvSegmentReserved) != 0) return false;
  return !IsPresent(segment) || ((segment.attributes & kNonSystem) != 0 && IsLimitPossible(segment));
}

bool CheckSystemSegment(const HvSegmentRegister& segment) noexcept {
  if ((segment.attributes & kHvSegmentReserved) != 0) return false;
  return !IsPresent(segment) || ((segment.attributes & kNonSystem) == 0 && IsLimitPossible(segment));
}

bool CheckModes(const HvInitialVpContext& c) noexcept {
  if ((c.efer & ~kEferKnown) != 0) return false;
  if (((c.cr0 | c.cr4) & kHighHalf) != 0 || (c.cr3 & kCr3Reserved) != 0) return false;
  if ((c.cr0 & kCr0Paging) != 0 && (c.cr0 & kCr0Protected) == 0) return false;
  if ((c.cr0 & kCr0NotWriteThrough) != 0 && (c.cr0 & kCr0CacheDisable) == 0) return false;
  const bool long_mode = (c.efer & kEferLongModeActive) != 0;
  if (long_mode != ((c.efer & kEferLongModeEnable) != 0 && (c.cr0 & kCr0Paging) != 0)) return false;
  if (long_mode && (c.cr4 & kCr4Pae) == 0) return false;
  if (!long_mode && (c.cr4 & kCr4Pcid) != 0) return false;
  if ((c.rflags & kRflagsReserved) != 0 || (c.rflags & kRflagsFixed) == 0) return false;
  if ((c.rflags & kRflagsVirtual8086) != 0 && (long_mode || (c.cr0 & kCr0Protected) == 0)) return false;
  return true;
}

bool CheckSegments(const HvInitialVpContext& c) noexcept {
  const bool long_mode = (c.efer & kEferLongModeActive) != 0;
  const bool five_levels = (c.cr4 & kCr4La57) != 0;
  for (const HvSegmentRegister* const segment : {&c.cs, &c.ds, &c.es, &c.fs, &c.gs, &c.ss}) {
    if (!CheckSegment(*segment)) return false;
  }
  // Code must be somewhere, and be of one width.
  if (!IsPresent(c.cs) || (c.cs.base & kHighHalf) != 0) return false;
  if ((c.cs.attributes & kLong) != 0 && (!long_mode || (c.cs.attributes & kDefault) != 0)) return false;
  for (const HvSegmentRegister* const segment : {&c.ds, &c.es, &c.ss}) {
    if (IsPresent(*segment) && (segment->base & kHighHalf) != 0) return false;
  }
  for (const HvSegmentRegister* const segment : {&c.fs, &c.gs, &c.tr}) {
    if (!IsCanonical(segment->base, five_levels)) return false;
  }
  if (!CheckSystemSegment(c.tr) || !CheckSystemSegment(c.ldtr)) return false;
  // There is no "unusable" task register: it is a busy one.
  const uint16_t tr_type = c.tr.attributes & kTypeMask;
  if (!IsPresent(c.tr) || (tr_type != kTypeBusyTss && (long_mode || tr_type != kTypeBusyTss16))) return false;
  if (IsPresent(c.ldtr) && ((c.ldtr.attributes & kTypeMask) != kTypeLdt || !IsCanonical(c.ldtr.base, five_levels))) return false;
  return IsCanonical(c.idtr.base, five_levels) && IsCanonical(c.gdtr.base, five_levels);
}

bool CheckRip(const HvInitialVpContext& c) noexcept {
  if ((c.cs.attributes & kLong) == 0) return (c.rip & kHighHalf) == 0;
  return IsCanonical(c.rip, (c.cr4 & kCr4La57) != 0);
}

// UC, WC, WT, WP, WB, UC-.
bool CheckPat(uint64_t pat) noexcept {
  for (unsigned entry = 0; entry < 8; ++entry) {
    const uint8_t type = static_cast<uint8_t>(pat >> (entry * 8));
    if (type > 7 || type == 2 || type == 3) return false;
  }
  return true;
}

}  // namespace

bool CheckInitialVpContext(const HvInitialVpContext& context) noexcept {
  return CheckModes(context) && CheckSegments(context) && CheckRip(context) && CheckPat(context.pat);
}

}  // namespace vmm
