#include "devices/hyperv/vsm/vp_registers.h"

#include <algorithm>
#include <array>
#include <bit>

#include "devices/hyperv/hypercall/hv_vp_context_layout.h"

namespace vmm {
namespace {

using Name = HvRegisterName;
using Storage = RegisterStorage;
using Check = RegisterCheck;

constexpr LowerRegister One(Name name, Check check) { return {name, name, Storage::kPrivate, check}; }

// General registers and the floating point state are as the level that asks has them, since they are shared; who writes them here
// would write his own, in the middle of his call.
constexpr std::array kRegisters = {
    LowerRegister{Name::kRax, Name::kRbx, Storage::kShared, Check::kReadOnly},
    One(Name::kRsp, Check::kNone),
    LowerRegister{Name::kRbp, Name::kR15, Storage::kShared, Check::kReadOnly},
    One(Name::kRip, Check::kCanonical),
    One(Name::kRflags, Check::kRflags),
    One(Name::kCr0, Check::kCr0),
    LowerRegister{Name::kCr2, Name::kCr2, Storage::kShared, Check::kReadOnly},
    One(Name::kCr3, Check::kCr3),
    One(Name::kCr4, Check::kHigh32Zero),
    One(Name::kCr8, Check::kCr8),
    LowerRegister{Name::kXcr0, Name::kXcr0, Storage::kShared, Check::kReadOnly},
    LowerRegister{Name::kDr0, Name::kDr3, Storage::kShared, Check::kNone},
    LowerRegister{Name::kDr6, Name::kDr6, Storage::kDr6, Check::kHigh32Zero},
    One(Name::kDr7, Check::kHigh32Zero),
    LowerRegister{Name::kEs, Name::kGs, Storage::kPrivate, Check::kSegment},
    One(Name::kLdtr, Check::kSystemSegment),
    One(Name::kTr, Check::kTaskSegment),
    LowerRegister{Name::kIdtr, Name::kGdtr, Storage::kPrivate, Check::kTable},
    One(Name::kTsc, Check::kReadOnly),
    One(Name::kEfer, Check::kEfer),
    One(Name::kKernelGsBase, Check::kCanonical),
    One(Name::kApicBase, Check::kSameValue),
    One(Name::kPat, Check::kPat),
    One(Name::kSysenterCs, Check::kHigh32Zero),
    LowerRegister{Name::kSysenterEip, Name::kSysenterEsp, Storage::kPrivate, Check::kCanonical},
    One(Name::kStar, Check::kNone),
    LowerRegister{Name::kLstar, Name::kCstar, Storage::kPrivate, Check::kCanonical},
    One(Name::kSfmask, Check::kHigh32Zero),
    One(Name::kInitialApicId, Check::kReadOnly),
    One(Name::kTscAux, Check::kHigh32Zero),
};
static_assert(std::is_sorted(kRegisters.begin(), kRegisters.end(),
                             [](const LowerRegister& a, const LowerRegister& b) { return a.last < b.first; }));

constexpr uint64_t Bit(unsigned bit) noexcept { return uint64_t{1} << bit; }
constexpr uint64_t kHighHalf = ~uint64_t{0xffff'ffff};
constexpr uint64_t kRflagsFixed = Bit(1);
constexpr uint64_t kRflagsReserved = ~uint64_t{0x3f'ffff} | Bit(3) | Bit(5) | Bit(15);
constexpr uint64_t kCr0Protected = Bit(0);
constexpr uint64_t kCr0NotWriteThrough = Bit(29);
constexpr uint64_t kCr0CacheDisable = Bit(30);
constexpr uint64_t kCr0Paging = Bit(31);
// SCE, LME, LMA, NXE, SVME, LMSLE, FFXSR, TCE.
constexpr uint64_t kEferKnown = Bit(0) | Bit(8) | Bit(10) | Bit(11) | Bit(12) | Bit(13) | Bit(14) | Bit(15);
constexpr uint64_t kCr3Reserved = ~uint64_t{0x800f'ffff'ffff'ffff};  // above any physical address; 63 keeps the TLB

constexpr uint16_t kTypeMask = 0x0f;
constexpr uint16_t kTypeLdt = 0x2;
constexpr uint16_t kTypeBusyTss16 = 0x3;
constexpr uint16_t kTypeBusyTss = 0xb;
constexpr uint16_t kNonSystem = 1 << 4;
constexpr uint16_t kPresent = 1 << 7;
constexpr uint16_t kGranularity = 1 << 15;

bool IsCanonical(uint64_t address, bool five_levels) noexcept {
  const unsigned unused = five_levels ? 64 - 57 : 64 - 48;
  return static_cast<uint64_t>(static_cast<int64_t>(address << unused) >> unused) == address;
}

bool IsCr0(uint64_t cr0) noexcept {
  if ((cr0 & kHighHalf) != 0) return false;
  if ((cr0 & kCr0Paging) != 0 && (cr0 & kCr0Protected) == 0) return false;
  return (cr0 & kCr0NotWriteThrough) == 0 || (cr0 & kCr0CacheDisable) != 0;
}

// UC, WC, WT, WP, WB, UC-.
bool IsPat(uint64_t pat) noexcept {
  for (unsigned entry = 0; entry < 8; ++entry) {
    const uint8_t type = static_cast<uint8_t>(pat >> (entry * 8));
    if (type > 7 || type == 2 || type == 3) return false;
  }
  return true;
}

bool IsSegment(const HvSegmentRegister& segment, bool system, bool five_levels) noexcept {
  if ((segment.attributes & kHvSegmentReserved) != 0 || !IsCanonical(segment.base, five_levels)) return false;
  if ((segment.attributes & kPresent) == 0) return true;
  if (((segment.attributes & kNonSystem) != 0) == system) return false;
  // Only what a descriptor could have loaded.
  if ((segment.attributes & kGranularity) != 0) return (segment.limit & 0xfff) == 0xfff;
  return (segment.limit & 0xfff0'0000) == 0;
}

bool IsTaskSegment(const HvSegmentRegister& segment, bool five_levels) noexcept {
  if ((segment.attributes & kPresent) == 0 || !IsSegment(segment, /*system=*/true, five_levels)) return false;
  const uint16_t type = segment.attributes & kTypeMask;
  return type == kTypeBusyTss || type == kTypeBusyTss16;
}

bool IsLdt(const HvSegmentRegister& segment, bool five_levels) noexcept {
  if (!IsSegment(segment, /*system=*/true, five_levels)) return false;
  return (segment.attributes & kPresent) == 0 || (segment.attributes & kTypeMask) == kTypeLdt;
}

}  // namespace

const LowerRegister* FindLowerRegister(HvRegisterName name) noexcept {
  const auto row = std::lower_bound(kRegisters.begin(), kRegisters.end(), name,
                                    [](const LowerRegister& candidate, Name wanted) { return candidate.last < wanted; });
  return row != kRegisters.end() && row->first <= name ? &*row : nullptr;
}

std::span<const LowerRegister> AllLowerRegisters() noexcept { return kRegisters; }

bool IsAcceptable(RegisterCheck check, const HvRegisterValue& value, bool five_levels) noexcept {
  const uint64_t low = value.low;
  switch (check) {
    case Check::kSegment: return IsSegment(std::bit_cast<HvSegmentRegister>(value), /*system=*/false, five_levels);
    case Check::kSystemSegment: return IsLdt(std::bit_cast<HvSegmentRegister>(value), five_levels);
    case Check::kTaskSegment: return IsTaskSegment(std::bit_cast<HvSegmentRegister>(value), five_levels);
    case Check::kTable: return IsCanonical(std::bit_cast<HvTableRegister>(value).base, five_levels);
    case Check::kCanonical: return IsCanonical(low, five_levels);
    case Check::kRflags: return (low & kRflagsFixed) != 0 && (low & kRflagsReserved) == 0;
    case Check::kCr0: return IsCr0(low);
    case Check::kHigh32Zero: return (low & kHighHalf) == 0;
    case Check::kCr3: return (low & kCr3Reserved) == 0;
    case Check::kCr8: return low <= 0xf;
    case Check::kEfer: return (low & ~kEferKnown) == 0;
    case Check::kPat: return IsPat(low);
    case Check::kNone:
    case Check::kReadOnly:
    case Check::kSameValue: break;
  }
  return true;
}

}  // namespace vmm
