// What a partition offers its guest, and the CPUID leaves that say so. The same on all processors and at all times.
//
// Shapes   seven leaves, 0x40000000 to 0x40000006. Nothing is said of nesting, isolation, or what is for a root partition.
// Threads  pure functions.
// Errors   none; what the options may be is checked by configuration.
// Source   Hyper-V TLFS, "Feature and Interface Discovery".
//
// An offer is a promise: each privilege has its MSRs or hypercalls behind it in this room, and nothing is offered that has not.
#ifndef VMM_DEVICES_HYPERV_CPUID_HV_CPUID_H_
#define VMM_DEVICES_HYPERV_CPUID_HV_CPUID_H_

#include <array>
#include <cstdint>

#include "devices/cpuid_leaf.h"
#include "devices/hyperv/hv_cpuid_layout.h"

namespace vmm {

inline constexpr uint32_t kHvCpuidFirst = 0x4000'0000;
inline constexpr uint32_t kHvCpuidLast = 0x4000'0006;
using HvCpuidLeaf = CpuidLeaf;
using HvCpuid = std::array<HvCpuidLeaf, kHvCpuidLast - kHvCpuidFirst + 1>;

// 0x40000006 EAX: hardware that the hypervisor uses for this partition. For the guest's information.
enum class HvHardware : uint8_t {
  kApicOverlayAssist = 0,
  kMsrBitmaps = 1,
  kSecondLevelTranslation = 3,
};
constexpr uint32_t HvHardwareBit(HvHardware bit) { return uint32_t{1} << static_cast<unsigned>(bit); }

// `hardware` is of HvHardwareBit: what the host is known to use, 0 where nobody has asked it.
[[nodiscard]] HvCpuid HvCpuidLeaves(const HvOffer& offer, uint32_t hardware = 0) noexcept;

// Most of it is advice: a guest may use what it is not advised to.
struct HvOfferOptions {
  uint32_t max_vps = 1;
  bool remote_tlb_flush = true;   // by hypercall
  bool cluster_ipi = true;        // by hypercall
  bool ex_processor_masks = true; // the forms of both for more than 64 processors
  bool relaxed_timing = true;     // watchdogs off: a host may stop a processor for long
  // KVM gives up the hardware's virtual APIC for a processor that has an auto-EOI source.
  bool no_auto_eoi = true;
  // A kernel's own x2APIC is no slower than these MSRs, and needs no exit at all where the hardware virtualizes it.
  bool apic_msrs = false;
  // ACPI's reset register does as well, and Linux asks for it alone.
  bool reset_msr = false;
  // A Linux that is no root partition (before it gave every partition an output page) asks for its id at boot through a null
  // pointer, if it may ask: only for guests that are known to do better.
  bool partition_id = false;
  bool vsm = false;  // Virtual Secure Mode: there are levels above VTL0
  uint32_t spin_retries = 0xfff;  // before a guest says that it spins for long; 0 or all ones: it is not to
};

// The same at all levels. GUEST_IDLE is not offered: HLT does what it would.
[[nodiscard]] HvOffer StandardHvOffer(const HvOfferOptions& options) noexcept;

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_CPUID_HV_CPUID_H_
