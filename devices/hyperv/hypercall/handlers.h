// The handlers of the table, one a hypercall, by what they are about. Each says only what is its own: kinds, sizes and privileges
// are in the table, forms and registers in the dispatcher.
//
// Threads  the calling VP's, within Dispatch.
// Trust    parameters are the guest's, copied; each is checked here or said in HypercallServices to be checked there.
// Errors   HvStatus as the TLFS has it for the call; where sources differ, the .cc says which was taken.
#ifndef VMM_DEVICES_HYPERV_HYPERCALL_HANDLERS_H_
#define VMM_DEVICES_HYPERV_HYPERCALL_HANDLERS_H_

#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hypercall/hypercall_call.h"

namespace vmm::hypercalls {

// flush_calls.cc
[[nodiscard]] HvStatus FlushVirtualAddressSpace(HypercallCall& call) noexcept;
[[nodiscard]] HvStatus FlushVirtualAddressList(HypercallCall& call) noexcept;
[[nodiscard]] HvStatus FlushVirtualAddressSpaceEx(HypercallCall& call) noexcept;
[[nodiscard]] HvStatus FlushVirtualAddressListEx(HypercallCall& call) noexcept;

// ipi_calls.cc
[[nodiscard]] HvStatus SendSyntheticClusterIpi(HypercallCall& call) noexcept;
[[nodiscard]] HvStatus SendSyntheticClusterIpiEx(HypercallCall& call) noexcept;

// message_calls.cc
[[nodiscard]] HvStatus PostMessage(HypercallCall& call) noexcept;
[[nodiscard]] HvStatus SignalEvent(HypercallCall& call) noexcept;

// register_calls.cc
[[nodiscard]] HvStatus GetVpRegisters(HypercallCall& call) noexcept;
[[nodiscard]] HvStatus SetVpRegisters(HypercallCall& call) noexcept;

// processor_calls.cc
[[nodiscard]] HvStatus StartVirtualProcessor(HypercallCall& call) noexcept;
[[nodiscard]] HvStatus GetVpIndexFromApicId(HypercallCall& call) noexcept;
[[nodiscard]] HvStatus NotifyLongSpinWait(HypercallCall& call) noexcept;

// vsm_calls.cc
[[nodiscard]] HvStatus ModifyVtlProtectionMask(HypercallCall& call) noexcept;
[[nodiscard]] HvStatus EnablePartitionVtl(HypercallCall& call) noexcept;
[[nodiscard]] HvStatus EnableVpVtl(HypercallCall& call) noexcept;
[[nodiscard]] HvStatus TranslateVirtualAddress(HypercallCall& call) noexcept;
[[nodiscard]] HvStatus TranslateVirtualAddressEx(HypercallCall& call) noexcept;
[[nodiscard]] HvStatus AssertVirtualInterrupt(HypercallCall& call) noexcept;
[[nodiscard]] HvStatus InstallIntercept(HypercallCall& call) noexcept;

// partition_calls.cc
[[nodiscard]] HvStatus GetPartitionId(HypercallCall& call) noexcept;
[[nodiscard]] HvStatus ExtQueryCapabilities(HypercallCall& call) noexcept;

}  // namespace vmm::hypercalls

#endif  // VMM_DEVICES_HYPERV_HYPERCALL_HANDLERS_H_
