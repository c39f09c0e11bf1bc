#include "devices/hyperv/hypercall/hypercall_table.h"

#include <algorithm>
#include <array>

#include "devices/hyperv/hypercall/handlers.h"
#include "devices/hyperv/hypercall/hypercall_parameters_layout.h"

namespace vmm {
namespace {

// A page holds fewer elements than this, so that such a call is never cut.
constexpr uint16_t kAllReps = HypercallInput::kRepMask;
// Registers of another processor take its thread's time and KVM's: some microseconds each, and an entry should take 50 at most.
constexpr uint16_t kRegistersAtOnce = 16;

constexpr std::array kRows = {
    HypercallRow{.code = HypercallCode::kFlushVirtualAddressSpace,
                 .name = "FlushVirtualAddressSpace",
                 .kind = HypercallKind::kSimple,
                 .header_bytes = sizeof(HvFlushInput),
                 .handler = hypercalls::FlushVirtualAddressSpace},
    HypercallRow{.code = HypercallCode::kFlushVirtualAddressList,
                 .name = "FlushVirtualAddressList",
                 .kind = HypercallKind::kRep,
                 .header_bytes = sizeof(HvFlushInput),
                 .input_element_bytes = sizeof(HvGvaRange),
                 .reps_at_once = kAllReps,
                 .handler = hypercalls::FlushVirtualAddressList},
    HypercallRow{.code = HypercallCode::kNotifyLongSpinWait,
                 .name = "NotifyLongSpinWait",
                 .kind = HypercallKind::kSimple,
                 .header_bytes = sizeof(HvNotifyLongSpinWaitInput),
                 .handler = hypercalls::NotifyLongSpinWait},
    HypercallRow{.code = HypercallCode::kSendSyntheticClusterIpi,
                 .name = "SendSyntheticClusterIpi",
                 .kind = HypercallKind::kSimple,
                 .header_bytes = sizeof(HvSendIpiInput),
                 .handler = hypercalls::SendSyntheticClusterIpi},
    HypercallRow{.code = HypercallCode::kModifyVtlProtectionMask,
                 .name = "ModifyVtlProtectionMask",
                 .kind = HypercallKind::kRep,
                 .header_bytes = sizeof(HvModifyVtlProtectionInput),
                 .input_element_bytes = sizeof(uint64_t),
                 .reps_at_once = kHvProtectedPagesAtOnce,
                 .privilege = HvPrivilege::kVsm,
                 .handler = hypercalls::ModifyVtlProtectionMask},
    HypercallRow{.code = HypercallCode::kEnablePartitionVtl,
                 .name = "EnablePartitionVtl",
                 .kind = HypercallKind::kSimple,
                 .header_bytes = sizeof(HvEnablePartitionVtlInput),
                 .privilege = HvPrivilege::kVsm,
                 .handler = hypercalls::EnablePartitionVtl},
    HypercallRow{.code = HypercallCode::kEnableVpVtl,
                 .name = "EnableVpVtl",
                 .kind = HypercallKind::kSimple,
                 .header_bytes = sizeof(HvStartVirtualProcessorInput),
                 .privilege = HvPrivilege::kVsm,
                 .handler = hypercalls::EnableVpVtl},
    HypercallRow{.code = HypercallCode::kFlushVirtualAddressSpaceEx,
                 .name = "FlushVirtualAddressSpaceEx",
                 .kind = HypercallKind::kSimple,
                 .header_bytes = sizeof(HvFlushExInput),
                 .variable_header = true,
                 .handler = hypercalls::FlushVirtualAddressSpaceEx},
    HypercallRow{.code = HypercallCode::kFlushVirtualAddressListEx,
                 .name = "FlushVirtualAddressListEx",
                 .kind = HypercallKind::kRep,
                 .header_bytes = sizeof(HvFlushExInput),
                 .variable_header = true,
                 .input_element_bytes = sizeof(HvGvaRange),
                 .reps_at_once = kAllReps,
                 .handler = hypercalls::FlushVirtualAddressListEx},
    HypercallRow{.code = HypercallCode::kSendSyntheticClusterIpiEx,
                 .name = "SendSyntheticClusterIpiEx",
                 .kind = HypercallKind::kSimple,
                 .header_bytes = sizeof(HvSendIpiExInput),
                 .variable_header = true,
                 .handler = hypercalls::SendSyntheticClusterIpiEx},
    HypercallRow{.code = HypercallCode::kGetPartitionId,
                 .name = "GetPartitionId",
                 .kind = HypercallKind::kSimple,
                 .header_bytes = 0,
                 .output_bytes = sizeof(uint64_t),
                 .privilege = HvPrivilege::kPartitionId,
                 .handler = hypercalls::GetPartitionId},
    HypercallRow{.code = HypercallCode::kInstallIntercept,
                 .name = "InstallIntercept",
                 .kind = HypercallKind::kSimple,
                 .header_bytes = sizeof(HvInstallInterceptInput),
                 .privilege = HvPrivilege::kVsm,
                 .handler = hypercalls::InstallIntercept},
    HypercallRow{.code = HypercallCode::kGetVpRegisters,
                 .name = "GetVpRegisters",
                 .kind = HypercallKind::kRep,
                 .header_bytes = sizeof(HvVpRegistersInput),
                 .input_element_bytes = sizeof(HvRegisterName),
                 .output_element_bytes = sizeof(HvRegisterValue),
                 .reps_at_once = kRegistersAtOnce,
                 .privilege = HvPrivilege::kVpRegisters,
                 .handler = hypercalls::GetVpRegisters},
    HypercallRow{.code = HypercallCode::kSetVpRegisters,
                 .name = "SetVpRegisters",
                 .kind = HypercallKind::kRep,
                 .header_bytes = sizeof(HvVpRegistersInput),
                 .input_element_bytes = sizeof(HvSetVpRegistersElement),
                 .reps_at_once = kRegistersAtOnce,
                 .privilege = HvPrivilege::kVpRegisters,
                 .handler = hypercalls::SetVpRegisters},
    HypercallRow{.code = HypercallCode::kTranslateVirtualAddress,
                 .name = "TranslateVirtualAddress",
                 .kind = HypercallKind::kSimple,
                 .header_bytes = sizeof(HvTranslateInput),
                 .output_bytes = sizeof(HvTranslateOutput),
                 .privilege = HvPrivilege::kVsm,
                 .handler = hypercalls::TranslateVirtualAddress},
    HypercallRow{.code = HypercallCode::kPostMessage,
                 .name = "PostMessage",
                 .kind = HypercallKind::kSimple,
                 .header_bytes = sizeof(HvPostMessageInput),
                 .privilege = HvPrivilege::kPostMessages,
                 .handler = hypercalls::PostMessage},
    HypercallRow{.code = HypercallCode::kSignalEvent,
                 .name = "SignalEvent",
                 .kind = HypercallKind::kSimple,
                 .header_bytes = sizeof(HvSignalEventInput),
                 .privilege = HvPrivilege::kSignalEvents,
                 .handler = hypercalls::SignalEvent},
    HypercallRow{.code = HypercallCode::kAssertVirtualInterrupt,
                 .name = "AssertVirtualInterrupt",
                 .kind = HypercallKind::kSimple,
                 .header_bytes = sizeof(HvAssertVirtualInterruptInput),
                 .privilege = HvPrivilege::kVsm,
                 .handler = hypercalls::AssertVirtualInterrupt},
    HypercallRow{.code = HypercallCode::kStartVirtualProcessor,
                 .name = "StartVirtualProcessor",
                 .kind = HypercallKind::kSimple,
                 .header_bytes = sizeof(HvStartVirtualProcessorInput),
                 .privilege = HvPrivilege::kStartVirtualProcessor,
                 .handler = hypercalls::StartVirtualProcessor},
    HypercallRow{.code = HypercallCode::kGetVpIndexFromApicId,
                 .name = "GetVpIndexFromApicId",
                 .kind = HypercallKind::kRep,
                 .header_bytes = sizeof(HvVpIndexFromApicIdInput),
                 .input_element_bytes = sizeof(uint32_t),
                 .output_element_bytes = sizeof(uint32_t),
                 .reps_at_once = kAllReps,
                 .privilege = HvPrivilege::kStartVirtualProcessor,
                 .handler = hypercalls::GetVpIndexFromApicId},
    HypercallRow{.code = HypercallCode::kTranslateVirtualAddressEx,
                 .name = "TranslateVirtualAddressEx",
                 .kind = HypercallKind::kSimple,
                 .header_bytes = sizeof(HvTranslateInput),
                 .output_bytes = sizeof(HvTranslateExOutput),
                 .privilege = HvPrivilege::kVsm,
                 .handler = hypercalls::TranslateVirtualAddressEx},
    HypercallRow{.code = HypercallCode::kExtQueryCapabilities,
                 .name = "ExtQueryCapabilities",
                 .kind = HypercallKind::kSimple,
                 .header_bytes = 0,
                 .output_bytes = sizeof(uint64_t),
                 .privilege = HvPrivilege::kExtendedHypercalls,
                 .handler = hypercalls::ExtQueryCapabilities},
};
static_assert(std::is_sorted(kRows.begin(), kRows.end(), [](const auto& a, const auto& b) { return a.code < b.code; }));
static_assert(std::all_of(kRows.begin(), kRows.end(), [](const HypercallRow& row) {
  const bool rep = row.kind == HypercallKind::kRep;
  return row.header_bytes % 8 == 0 && row.output_bytes % 8 == 0 && (rep ? row.output_bytes == 0 : row.input_element_bytes == 0) &&
         rep == (row.reps_at_once != 0) && (rep || row.output_element_bytes == 0);
}));

}  // namespace

const HypercallRow* FindHypercall(uint16_t code) noexcept {
  const auto wanted = static_cast<HypercallCode>(code);
  const auto row = std::lower_bound(kRows.begin(), kRows.end(), wanted,
                                    [](const HypercallRow& candidate, HypercallCode value) { return candidate.code < value; });
  return row != kRows.end() && row->code == wanted ? &*row : nullptr;
}

std::span<const HypercallRow> AllHypercalls() noexcept { return kRows; }

}  // namespace vmm
