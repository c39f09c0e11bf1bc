// What the hypercalls of Virtual Secure Mode ask of the partition around them.
//
// Shapes   one object for each virtual processor and trust level: whose level calls is known behind this.
// Units    pages are guest page numbers, also virtual ones.
// Threads  the calling virtual processor's thread, outside the guest, no lock held.
// Trust    a VpIndex is below host().vp_count(), a Vtl is at most the caller's and enabled on the partition; what is named guest_
//          is as the guest wrote it. Reserved fields have been checked.
// Errors   the HvStatus that the guest gets; kSuccess only where it has been done. None allocates.
#ifndef VMM_DEVICES_HYPERV_HYPERCALL_VSM_SERVICES_H_
#define VMM_DEVICES_HYPERV_HYPERCALL_VSM_SERVICES_H_

#include <cstdint>
#include <span>

#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/hypercall/hv_vp_context_layout.h"
#include "devices/hyperv/hypercall/hypercall_layout.h"
#include "devices/hyperv/hypercall/hypercall_parameters_layout.h"

namespace vmm {

struct GvaTranslation {
  HvStatus status;
  HvTranslationCode code = HvTranslationCode::kSuccess;  // means something on kSuccess alone, as all below
  uint8_t cache_type = 0;
  bool overlay = false;
  uint64_t gpa_page = 0;  // only where code is kSuccess
};

struct PageProtection {
  HvStatus status;
  uint16_t done;  // pages, from the first on, that are protected so now; all of them on kSuccess
};

class VsmServices {
 public:
  virtual ~VsmServices() = default;

  // False: #UD. True: the call is over, and the processor goes on behind it in the level that was decided.
  [[nodiscard]] virtual bool VtlCall(VtlSwitchRequest request) noexcept = 0;
  [[nodiscard]] virtual bool VtlReturn(VtlSwitchRequest request) noexcept = 0;

  // On the partition.
  [[nodiscard]] virtual bool IsVtlEnabled(Vtl vtl) noexcept = 0;

  // True: another processor holds a lock on the caller's level's translations. This one is brought back when it is released.
  [[nodiscard]] virtual bool MustWaitForTlbLock() noexcept = 0;

  [[nodiscard]] virtual HvStatus EnablePartitionVtl(uint8_t guest_vtl, uint8_t guest_flags) noexcept = 0;
  // The level's number, whether the caller may, and the context are all to be checked.
  [[nodiscard]] virtual HvStatus EnableVpVtl(VpIndex vp, uint8_t guest_vtl, const HvInitialVpContext& guest_context) noexcept = 0;
  // Whether `vtl` of `vp` may be started: kInvalidVpState where it is not enabled on that processor, kAccessDenied where a higher
  // level has denied it.
  [[nodiscard]] virtual HvStatus CheckStart(VpIndex vp, Vtl vtl) noexcept = 0;

  // Whether the caller may protect pages in the name of `owner`, and so.
  [[nodiscard]] virtual HvStatus CheckProtection(Vtl owner, uint32_t guest_flags) noexcept = 0;
  // What passed CheckProtection. At its return nobody below `owner` uses the old rights to the pages that are done.
  // kInvalidParameter for a page outside RAM, kFeatureUnavailable for what the host cannot enforce.
  [[nodiscard]] virtual PageProtection Protect(Vtl owner, uint32_t flags, std::span<const uint64_t> guest_pages) noexcept = 0;

  // Walks the page tables of `vtl` on `vp` with that level's rights. `flags` has valid bits alone. With kHvTranslateInhibitFlush
  // and a level below the caller's, that level's translations on `vp` stay locked.
  [[nodiscard]] virtual GvaTranslation Translate(VpIndex vp, Vtl vtl, uint64_t flags, uint64_t guest_gva_page) noexcept = 0;

  // Fixed (vector 16 to 255) or NMI, to the local APICs of `vtl`, which is below the caller's.
  struct Interrupt {
    bool nmi;
    bool level;
    bool logical;
    uint8_t vector;
    uint64_t destination;  // as in the local APIC's ICR
    bool operator==(const Interrupt&) const = default;
  };
  [[nodiscard]] virtual HvStatus AssertInterrupt(Vtl vtl, const Interrupt& interrupt) noexcept = 0;

  // Accesses of `port` by levels below the caller's; neither: no longer.
  [[nodiscard]] virtual HvStatus InterceptIoPort(uint16_t port, bool reads, bool writes) noexcept = 0;
};

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_HYPERCALL_VSM_SERVICES_H_
