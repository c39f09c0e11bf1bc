#include "vmm/hyperv/guest_msrs.h"

namespace vmm {
namespace {

constexpr uint64_t Bit(unsigned bit) noexcept { return uint64_t{1} << bit; }

constexpr uint32_t kApicBase = 0x1b;
constexpr uint32_t kSgxHashFirst = 0x8c;
constexpr uint32_t kSgxHashLast = 0x8f;
constexpr uint32_t kSysenterFirst = 0x174;
constexpr uint32_t kSysenterLast = 0x176;
constexpr uint32_t kMiscEnable = 0x1a0;
constexpr uint32_t kEfer = 0xc000'0080;
constexpr uint32_t kStar = 0xc000'0081;
constexpr uint32_t kSfmask = 0xc000'0084;
constexpr uint32_t kTscAux = 0xc000'0103;

// SCE, LME, NXE, FFXSR, AutoIBRS: KVM asks its own and the processor's features of these. The others (SVME first of all) belong to
// what this machine's CPUID does not show.
constexpr uint64_t kEferLme = Bit(8);
constexpr uint64_t kEferLma = Bit(10);
constexpr uint64_t kEferChangeable = Bit(0) | kEferLme | Bit(11) | Bit(14) | Bit(21);

constexpr uint64_t kApicX2 = Bit(10);
constexpr uint64_t kApicEnabled = Bit(11);

constexpr uint64_t kMiscPerfMonitoring = Bit(7);               // ignored
constexpr uint64_t kMiscReadOnly = Bit(11) | Bit(12);          // branch trace and PEBS unavailable

std::optional<uint64_t> EferAsWritten(uint64_t old, uint64_t value, bool paging) noexcept {
  value = (value & ~kEferLma) | (old & kEferLma);
  const uint64_t changed = old ^ value;
  if ((changed & ~kEferChangeable) != 0) return std::nullopt;
  if (paging && (changed & kEferLme) != 0) return std::nullopt;
  return value;
}

std::optional<uint64_t> ApicBaseAsWritten(uint64_t old, uint64_t value) noexcept {
  const bool enabled = (value & kApicEnabled) != 0, x2 = (value & kApicX2) != 0;
  if (x2 && !enabled) return std::nullopt;
  const bool was_enabled = (old & kApicEnabled) != 0, was_x2 = (old & kApicX2) != 0;
  if (was_x2 && enabled && !x2) return std::nullopt;
  if (!was_enabled && x2) return std::nullopt;
  return value;
}

}  // namespace

std::optional<uint64_t> AsGuestWrites(uint32_t msr, uint64_t old, uint64_t value, bool paging) noexcept {
  if (msr == kEfer) return EferAsWritten(old, value, paging);
  if (msr == kApicBase) return ApicBaseAsWritten(old, value);
  if (msr == kMiscEnable) {
    if (((old ^ value) & kMiscReadOnly) != 0) return std::nullopt;
    return (value & ~kMiscPerfMonitoring) | (old & kMiscPerfMonitoring);
  }
  // There is no SGX in this machine (vcpu/cpuid.h).
  if (msr >= kSgxHashFirst && msr <= kSgxHashLast) return std::nullopt;
  if ((msr >= kSysenterFirst && msr <= kSysenterLast) || (msr >= kStar && msr <= kSfmask) || msr == kTscAux) return value;
  return std::nullopt;
}

bool ReadMsrAsGuest(kvm::Vcpu& vcpu, uint32_t msr, uint64_t& value) noexcept {
  if (msr >= kSgxHashFirst && msr <= kSgxHashLast) return false;
  const auto got = vcpu.GetMsr(msr);
  if (got.ok()) value = *got;
  return got.ok();
}

bool WriteMsrAsGuest(kvm::Vcpu& vcpu, uint32_t msr, uint64_t value) noexcept {
  constexpr uint64_t kCr0Paging = Bit(31);
  uint64_t old = 0;
  if (!ReadMsrAsGuest(vcpu, msr, old)) return false;
  const auto written = AsGuestWrites(msr, old, value, (vcpu.synced_sregs().cr0 & kCr0Paging) != 0);
  return written.has_value() && vcpu.SetMsr(msr, *written);
}

}  // namespace vmm
