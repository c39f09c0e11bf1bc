// What hypercalls ask of the partition around them. A handler decodes and checks; the work is behind this.
//
// Threads  the calling virtual processor's thread, outside the guest, no lock held. One object for each VP, or one for all that
//          knows whose thread it is on.
// Trust    a VpIndex is below host().vp_count(), a Vtl is at most the caller's, structures have had their reserved fields
//          checked. Connection ids, flag numbers, register names and register values are as the guest wrote them.
// Errors   the HvStatus that the guest gets; kSuccess only where it has been done. None allocates.
#ifndef VMM_DEVICES_HYPERV_HYPERCALL_HYPERCALL_SERVICES_H_
#define VMM_DEVICES_HYPERV_HYPERCALL_HYPERCALL_SERVICES_H_

#include <cstdint>

#include "devices/hyperv/hv_host.h"
#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/hypercall/hv_register_layout.h"
#include "devices/hyperv/hypercall/hv_vp_context_layout.h"
#include "devices/hyperv/synic/hv_message_layout.h"

namespace vmm {

class VsmServices;

class HypercallServices {
 public:
  virtual ~HypercallServices() = default;

  // Interrupts and the TLB of one trust level, at most the caller's.
  [[nodiscard]] virtual PartitionHost& host(Vtl vtl) noexcept = 0;
  [[nodiscard]] virtual uint64_t partition_id() const noexcept = 0;

  // `message` has type (not 0, bit 31 clear), payload size and payload, and zeroes behind it; the origin is the implementor's to
  // set. kInvalidConnectionId, kInvalidPortId, kInsufficientBuffers, kInvalidSynicState, kInvalidVpIndex.
  [[nodiscard]] virtual HvStatus PostMessage(VpIndex poster, uint32_t connection, const HvMessage& message) noexcept = 0;
  // Also kInvalidParameter for a flag that the port has not.
  [[nodiscard]] virtual HvStatus SignalEvent(uint32_t connection, uint16_t flag) noexcept = 0;

  // Which names there are, and which of them the caller may use on itself, is decided in here. kInvalidParameter for a name that
  // is unknown or may not be written, kInvalidRegisterValue for a value, kAccessDenied. The value is used on kSuccess only.
  [[nodiscard]] virtual HvStatus GetRegister(VpIndex vp, Vtl vtl, HvRegisterName name, HvRegisterValue& value) noexcept = 0;
  [[nodiscard]] virtual HvStatus SetRegister(VpIndex vp, Vtl vtl, HvRegisterName name, const HvRegisterValue& value) noexcept = 0;

  // `vp` is not the caller; `context` has passed CheckInitialVpContext. kInvalidVpState where it has been started;
  // kInvalidRegisterValue where the host's processor refuses what the check cannot know (CR3 or CR4 bits).
  [[nodiscard]] virtual HvStatus StartVirtualProcessor(VpIndex vp, Vtl vtl, const HvInitialVpContext& context) noexcept = 0;

  // Null: there is no level but VTL0. Asked only where HvPrivilege::kVsm is offered; always the same answer.
  [[nodiscard]] virtual VsmServices* vsm() noexcept { return nullptr; }
};

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_HYPERCALL_HYPERCALL_SERVICES_H_
