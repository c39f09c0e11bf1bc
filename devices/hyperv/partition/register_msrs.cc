#include "devices/hyperv/partition/register_msrs.h"

#include "devices/cpuid_leaf.h"
#include "devices/hyperv/cpuid/hv_cpuid.h"
#include "devices/hyperv/hv_msr_layout.h"

namespace vmm {
namespace {

constexpr uint32_t Raw(HvRegisterName name) { return static_cast<uint32_t>(name); }
constexpr bool IsWithin(HvRegisterName name, HvRegisterName first, HvRegisterName last) {
  return Raw(name) >= Raw(first) && Raw(name) <= Raw(last);
}

// Names that lie as the MSRs do.
struct Range {
  HvRegisterName first;
  HvRegisterName last;
  uint32_t msr;
};
constexpr Range kRanges[] = {
    {HvRegisterName::kCrashP0, HvRegisterName::kCrashCtl, kHvMsrCrashP0},
    {HvRegisterName::kTscFrequency, HvRegisterName::kApicFrequency, kHvMsrTscFrequency},
    {HvRegisterName::kSint0, HvRegisterName::kSint15, kHvMsrSint0},
    {HvRegisterName::kScontrol, HvRegisterName::kEom, kHvMsrScontrol},
    {HvRegisterName::kStimer0Config, HvRegisterName::kStimer3Count, kHvMsrStimer0Config},
    {HvRegisterName::kVpRuntime, HvRegisterName::kVpRuntime, kHvMsrVpRuntime},
    {HvRegisterName::kHypercall, HvRegisterName::kHypercall, kHvMsrHypercall},
    {HvRegisterName::kGuestOsId, HvRegisterName::kGuestOsId, kHvMsrGuestOsId},
    {HvRegisterName::kVpIndex, HvRegisterName::kVpIndex, kHvMsrVpIndex},
    {HvRegisterName::kTimeRefCount, HvRegisterName::kTimeRefCount, kHvMsrTimeRefCount},
    {HvRegisterName::kVpAssistPage, HvRegisterName::kVpAssistPage, kHvMsrVpAssistPage},
    {HvRegisterName::kReferenceTsc, HvRegisterName::kReferenceTsc, kHvMsrReferenceTsc},
};

}  // namespace

std::optional<uint32_t> MsrOfRegister(HvRegisterName name) noexcept {
  for (const Range& range : kRanges) {
    if (IsWithin(name, range.first, range.last)) return range.msr + (Raw(name) - Raw(range.first));
  }
  return std::nullopt;
}

bool IsReadOnlyMsr(uint32_t msr) noexcept {
  return msr == kHvMsrVpIndex || msr == kHvMsrVpRuntime || msr == kHvMsrTimeRefCount || msr == kHvMsrTscFrequency ||
         msr == kHvMsrApicFrequency || msr == kHvMsrSversion;
}

std::optional<HvRegisterValue> CpuidRegister(HvRegisterName name, const HvOffer& offer) noexcept {
  uint32_t function;
  switch (name) {
    case HvRegisterName::kHypervisorVersion: function = 0x4000'0002; break;
    case HvRegisterName::kPrivilegesAndFeatures: function = 0x4000'0003; break;
    case HvRegisterName::kFeatures: function = 0x4000'0004; break;
    case HvRegisterName::kLimits: function = 0x4000'0005; break;
    case HvRegisterName::kHardwareFeatures: function = 0x4000'0006; break;
    default: return std::nullopt;
  }
  for (const CpuidLeaf& leaf : HvCpuidLeaves(offer)) {
    if (leaf.function != function) continue;
    return HvRegisterValue{.low = uint64_t{leaf.ebx} << 32 | leaf.eax, .high = uint64_t{leaf.edx} << 32 | leaf.ecx};
  }
  return std::nullopt;
}

bool IsArchitectural(HvRegisterName name) noexcept {
  const uint32_t kind = Raw(name) >> 16;  // 1: pending events and interruptions; then one number a kind
  return kind >= 0x0001 && kind <= 0x0008;
}

}  // namespace vmm
