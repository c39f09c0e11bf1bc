#include "vcpu/cpuid.h"

#include <algorithm>
#include <bit>

namespace vmm {
namespace {

constexpr uint32_t Bit(uint32_t n) { return 1u << n; }

// KVM's paravirtual features (leaf 0x40000001, EAX) that do not make the kernel write guest memory unasked.
constexpr uint32_t kKvmFeatures = Bit(KVM_FEATURE_CLOCKSOURCE) | Bit(KVM_FEATURE_NOP_IO_DELAY) |
                                  Bit(KVM_FEATURE_CLOCKSOURCE2) | Bit(KVM_FEATURE_PV_UNHALT) |
                                  Bit(KVM_FEATURE_PV_SEND_IPI) | Bit(KVM_FEATURE_POLL_CONTROL) |
                                  Bit(KVM_FEATURE_PV_SCHED_YIELD) | Bit(KVM_FEATURE_CLOCKSOURCE_STABLE_BIT);

// Bits to shift an APIC id by to drop the processor's number in its package.
uint32_t TopologyShift(uint32_t processors) { return static_cast<uint32_t>(std::bit_width(processors - 1)); }

bool IsDropped(uint32_t function) {
  switch (function) {
    case 0x05:  // MONITOR/MWAIT
    case 0x06:  // thermal and power
    case 0x0a:  // performance monitoring
    case 0x0f:  // resource director monitoring
    case 0x10:  // resource director allocation
    case 0x12:  // SGX
    case 0x14:  // processor trace
    case 0x8000'000a:  // SVM
    case 0x8000'001b:  // instruction-based sampling
    case 0x8000'001f:  // memory encryption
    case 0x8000'0022:  // performance monitoring, AMD
      return true;
    default:
      return false;
  }
}

// What processors leave to hypervisors.
bool IsHypervisors(uint32_t function) { return function >= 0x4000'0000 && function <= 0x4fff'ffff; }

// Topology leaves are made here, whatever KVM reported.
bool IsTopology(uint32_t function) { return function == 0x0b || function == 0x1f; }

void AddTopologyLeaf(std::vector<kvm_cpuid_entry2>& out, uint32_t function, const CpuidOptions& options, uint32_t index) {
  const uint32_t shift = TopologyShift(options.processors);
  const auto add = [&](uint32_t level, uint32_t type, uint32_t level_shift, uint32_t count) {
    kvm_cpuid_entry2 entry{};
    entry.function = function;
    entry.index = level;
    entry.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
    entry.eax = level_shift;
    entry.ebx = count;
    entry.ecx = level | type << 8;
    entry.edx = index;
    out.push_back(entry);
  };
  add(0, /*thread*/ 1, 0, 1);
  add(1, /*core*/ 2, shift, options.processors);
  add(2, /*invalid: the end*/ 0, 0, 0);
}

constexpr uint32_t kIntelEbx = 0x756e'6547;  // "Genu"

void Adjust(kvm_cpuid_entry2& entry, const CpuidOptions& options, uint32_t index, bool intel) {
  const uint32_t processors = options.processors;
  switch (entry.function) {
    case 0x01:
      entry.ebx = (entry.ebx & 0x0000'ffff) | index << 24 | std::min(processors, 255u) << 16;
      entry.ecx &= ~(Bit(3) /*MONITOR*/ | Bit(5) /*VMX*/ | Bit(15) /*PDCM*/ | Bit(24));
      if (options.tsc_deadline_timer) entry.ecx |= Bit(24);
      entry.ecx |= Bit(31);  // a hypervisor is present
      entry.edx &= ~Bit(28);
      if (processors > 1) entry.edx |= Bit(28);  // the count above is valid
      break;
    case 0x04:
    case 0x8000'001d:
      // Cache leaves. Level 3 is shared by the package, the others belong to one core.
      if ((entry.eax & 0x1f) != 0) {
        const uint32_t level = entry.eax >> 5 & 7;
        const uint32_t sharing = level >= 3 ? (1u << TopologyShift(processors)) - 1 : 0;
        entry.eax = (entry.eax & 0x3fff) | sharing << 14;
        if (entry.function == 0x04) entry.eax |= std::min((1u << TopologyShift(processors)) - 1, 63u) << 26;
      }
      break;
    case 0x07:
      if (entry.index == 0) {
        entry.ebx &= ~Bit(2);   // SGX
        entry.ecx &= ~Bit(30);  // SGX launch control
      }
      break;
    case 0x4000'0001:
      entry.eax &= kKvmFeatures;
      break;
    case 0x8000'0001:
      entry.ecx &= ~(Bit(2) /*SVM*/ | Bit(10) /*IBS*/ | Bit(23) /*PerfCtrExtCore*/ | Bit(24) | Bit(28));
      if (intel) break;  // the rest is AMD's, and reserved there
      entry.ecx |= Bit(22);  // topology extensions: 0x8000001d and 0x8000001e are right
      if (processors > 1) entry.ecx |= Bit(1);  // CmpLegacy: cores, not threads
      break;
    case 0x8000'0008:
      if (intel) break;
      entry.ecx = (entry.ecx & ~0xf0ffu) | TopologyShift(processors) << 12 | (processors - 1);
      break;
    case 0x8000'001e:
      entry.eax = index;               // extended APIC id
      entry.ebx = index & 0xff;        // core id, one thread a core
      entry.ecx = 0;                   // node 0 of one
      entry.edx = 0;
      break;
    default:
      break;
  }
}

}  // namespace

std::vector<kvm_cpuid_entry2> GuestCpuid(std::span<const kvm_cpuid_entry2> supported, const CpuidOptions& options,
                                         uint32_t index) {
  std::vector<kvm_cpuid_entry2> out;
  out.reserve(supported.size() + 6 + options.hypervisor.size());
  uint32_t highest_basic = 0;
  bool intel = false;
  for (const kvm_cpuid_entry2& entry : supported) {
    if (entry.function == 0) {  // KVM lists it first
      highest_basic = entry.eax;
      intel = entry.ebx == kIntelEbx;
    }
    if (IsDropped(entry.function) || IsTopology(entry.function)) continue;
    if (!options.hypervisor.empty() && IsHypervisors(entry.function)) continue;
    out.push_back(entry);
    Adjust(out.back(), options, index, intel);
  }
  if (highest_basic >= 0x0b) AddTopologyLeaf(out, 0x0b, options, index);
  if (highest_basic >= 0x1f) AddTopologyLeaf(out, 0x1f, options, index);
  for (const CpuidLeaf& leaf : options.hypervisor) {
    kvm_cpuid_entry2 entry{};
    entry.function = leaf.function;
    entry.eax = leaf.eax;
    entry.ebx = leaf.ebx;
    entry.ecx = leaf.ecx;
    entry.edx = leaf.edx;
    out.push_back(entry);
  }
  return out;
}

}  // namespace vmm
