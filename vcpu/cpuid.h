// The CPUID that the guest sees: what KVM can do, less what this machine does not have, with the machine's own topology.
//
// Shapes   one package, one thread a core; the APIC id of a processor is its index.
// Threads  pure functions.
// Source   Intel SDM volume 2, "CPUID"; AMD APM volume 3, "Obtaining Processor Information Via the CPUID Instruction";
//          Linux, "KVM CPUID bits".
//
// Left out: performance counters, MONITOR/MWAIT, thermal and power leaves, nested virtualization, SGX, and the KVM
// features by which the kernel writes into guest memory on its own (asynchronous page faults, steal time, PV EOI).
#ifndef VMM_VCPU_CPUID_H_
#define VMM_VCPU_CPUID_H_

#include <cstdint>
#include <span>
#include <vector>

#include "devices/cpuid_leaf.h"
#include "kvm/uapi.h"

namespace vmm {

struct CpuidOptions {
  uint32_t processors = 1;
  bool tsc_deadline_timer = true;  // KVM_CAP_TSC_DEADLINE_TIMER
  // Another hypervisor's leaves, from 0x40000000, in place of KVM's own; borrowed for the call. Empty: KVM's. Never both, KVM's moved
  // up to 0x40000100: Linux takes the highest that it finds.
  std::span<const CpuidLeaf> hypervisor = {};
};

// `supported` is what KVM_GET_SUPPORTED_CPUID answered. `index` < options.processors.
[[nodiscard]] std::vector<kvm_cpuid_entry2> GuestCpuid(std::span<const kvm_cpuid_entry2> supported,
                                                       const CpuidOptions& options, uint32_t index);

}  // namespace vmm

#endif  // VMM_VCPU_CPUID_H_
