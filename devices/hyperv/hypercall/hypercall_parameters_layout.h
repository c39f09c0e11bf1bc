// The parameters of each hypercall: fixed input headers, list elements. Banks of a sparse set are the variable header.
//
// Shapes   fixed headers are multiples of 8 bytes; lists of 4-byte elements are packed.
// Trust    copies of what the guest wrote. `reserved` must be zero, `pad` may be anything.
// Source   Hyper-V TLFS, "Hypercall Reference". Elements of GetVpIndexFromApicId are 4 bytes, as Linux and OpenVMM have them; a
//          table of the TLFS shows 8.
#ifndef VMM_DEVICES_HYPERV_HYPERCALL_HYPERCALL_PARAMETERS_LAYOUT_H_
#define VMM_DEVICES_HYPERV_HYPERCALL_HYPERCALL_PARAMETERS_LAYOUT_H_

#include <cstddef>
#include <cstdint>

#include "devices/hyperv/hypercall/hv_register_layout.h"
#include "devices/hyperv/hypercall/hv_vp_context_layout.h"
#include "devices/hyperv/synic/hv_message_layout.h"

namespace vmm {

inline constexpr uint64_t kHvPartitionIdSelf = ~uint64_t{0};

// HV_INPUT_VTL: 3:0 target, 4 UseTargetVtl, 7:5 reserved. Without bit 4: the caller's own.
inline constexpr uint8_t kHvInputVtlLevelMask = 0x0f;
inline constexpr uint8_t kHvInputVtlUseTarget = 0x10;
inline constexpr uint8_t kHvInputVtlReserved = 0xe0;

// HV_VP_SET without its banks, which are the variable header: one for each bit of the mask, the lowest first. Bit b of bank n is
// virtual processor 64n + b.
struct HvVpSetHeader {
  uint64_t format;
  uint64_t valid_banks;
};
inline constexpr uint64_t kHvVpSetSparse4k = 0;
inline constexpr uint64_t kHvVpSetAll = 1;
inline constexpr uint32_t kHvVpSetBanks = 64;
inline constexpr uint32_t kHvVpSetBankBits = 64;

// Flags of the flush calls.
inline constexpr uint64_t kHvFlushAllProcessors = 1;
inline constexpr uint64_t kHvFlushAllAddressSpaces = 2;
inline constexpr uint64_t kHvFlushNonGlobalOnly = 4;   // not for lists
inline constexpr uint64_t kHvFlushExtendedRanges = 8;  // lists only

struct HvFlushInput {
  uint64_t address_space;
  uint64_t flags;
  uint64_t processor_mask;
};
static_assert(sizeof(HvFlushInput) == 24);
static_assert(offsetof(HvFlushInput, flags) == 8);
static_assert(offsetof(HvFlushInput, processor_mask) == 16);

struct HvFlushExInput {
  uint64_t address_space;
  uint64_t flags;
  HvVpSetHeader processors;
};
static_assert(sizeof(HvFlushExInput) == 32);
static_assert(offsetof(HvFlushExInput, processors) == 16);

// A list element of the flush calls: 63:12 page, 11:0 additional pages. Extended: 10:0 additional pages, 11 large; and if large:
// 12 size, 20:13 reserved, 63:21 large page.
using HvGvaRange = uint64_t;
inline constexpr uint64_t kHvGvaRangeLarge = uint64_t{1} << 11;
inline constexpr uint64_t kHvGvaRangeLargeReserved = uint64_t{0xff} << 13;

struct HvNotifyLongSpinWaitInput {
  uint32_t spin_count;
  uint32_t pad;
};
static_assert(sizeof(HvNotifyLongSpinWaitInput) == 8);

struct HvSendIpiInput {
  uint32_t vector;
  uint8_t target_vtl;  // HV_INPUT_VTL
  uint8_t reserved[3];
  uint64_t processor_mask;
};
static_assert(sizeof(HvSendIpiInput) == 16);
static_assert(offsetof(HvSendIpiInput, target_vtl) == 4);
static_assert(offsetof(HvSendIpiInput, processor_mask) == 8);

struct HvSendIpiExInput {
  uint32_t vector;
  uint8_t target_vtl;  // HV_INPUT_VTL
  uint8_t reserved[3];
  HvVpSetHeader processors;
};
static_assert(sizeof(HvSendIpiExInput) == 24);
static_assert(offsetof(HvSendIpiExInput, target_vtl) == 4);
static_assert(offsetof(HvSendIpiExInput, processors) == 8);

struct HvPostMessageInput {
  uint32_t connection_id;
  uint32_t reserved;
  uint32_t message_type;
  uint32_t payload_size;
  uint8_t payload[kHvMessagePayloadBytes];
};
static_assert(sizeof(HvPostMessageInput) == 256);
static_assert(offsetof(HvPostMessageInput, message_type) == 8);
static_assert(offsetof(HvPostMessageInput, payload_size) == 12);
static_assert(offsetof(HvPostMessageInput, payload) == 16);

struct HvSignalEventInput {
  uint32_t connection_id;
  uint16_t flag_number;
  uint16_t reserved;
};
static_assert(sizeof(HvSignalEventInput) == 8);
static_assert(offsetof(HvSignalEventInput, flag_number) == 4);

// GetVpRegisters: followed by names (uint32_t), output HvRegisterValue each. SetVpRegisters: by HvSetVpRegistersElement.
struct HvVpRegistersInput {
  uint64_t partition_id;
  uint32_t vp_index;
  uint8_t target_vtl;  // HV_INPUT_VTL
  uint8_t reserved[3];
};
static_assert(sizeof(HvVpRegistersInput) == 16);
static_assert(offsetof(HvVpRegistersInput, vp_index) == 8);
static_assert(offsetof(HvVpRegistersInput, target_vtl) == 12);

struct HvSetVpRegistersElement {
  HvRegisterName name;
  uint32_t reserved[3];
  HvRegisterValue value;
};
static_assert(sizeof(HvSetVpRegistersElement) == 32);
static_assert(offsetof(HvSetVpRegistersElement, value) == 16);

struct HvStartVirtualProcessorInput {
  uint64_t partition_id;
  uint32_t vp_index;
  uint8_t target_vtl;  // a plain number
  uint8_t reserved[3];
  HvInitialVpContext context;
};
static_assert(sizeof(HvStartVirtualProcessorInput) == 240);
static_assert(offsetof(HvStartVirtualProcessorInput, target_vtl) == 12);
static_assert(offsetof(HvStartVirtualProcessorInput, context) == 16);

// Followed by local APIC ids (uint32_t), output VP index (uint32_t) each.
struct HvVpIndexFromApicIdInput {
  uint64_t partition_id;
  uint8_t target_vtl;  // a plain number
  uint8_t reserved[7];
};
static_assert(sizeof(HvVpIndexFromApicIdInput) == 16);
static_assert(offsetof(HvVpIndexFromApicIdInput, target_vtl) == 8);

// Followed by guest page numbers (uint64_t), at most 510 in memory.
struct HvModifyVtlProtectionInput {
  uint64_t partition_id;
  uint32_t flags;      // 0 read, 1 write, 2 kernel execute, 3 user execute
  uint8_t target_vtl;  // HV_INPUT_VTL: whose protections, not whom they restrict
  uint8_t reserved[3];
};
static_assert(sizeof(HvModifyVtlProtectionInput) == 16);
static_assert(offsetof(HvModifyVtlProtectionInput, flags) == 8);
static_assert(offsetof(HvModifyVtlProtectionInput, target_vtl) == 12);
// Until interrupts are let in.
inline constexpr uint16_t kHvProtectedPagesAtOnce = 128;

struct HvEnablePartitionVtlInput {
  uint64_t partition_id;
  uint8_t target_vtl;  // a plain number
  uint8_t flags;       // 0 EnableMbec
  uint8_t reserved[6];
};
static_assert(sizeof(HvEnablePartitionVtlInput) == 16);
static_assert(offsetof(HvEnablePartitionVtlInput, target_vtl) == 8);
static_assert(offsetof(HvEnablePartitionVtlInput, flags) == 9);

// EnableVpVtl has HvStartVirtualProcessorInput.

struct HvTranslateInput {
  uint64_t partition_id;
  uint32_t vp_index;
  uint32_t reserved;
  uint64_t control_flags;  // 63:56 HV_INPUT_VTL
  uint64_t gva_page;
};
static_assert(sizeof(HvTranslateInput) == 32);
static_assert(offsetof(HvTranslateInput, vp_index) == 8);
static_assert(offsetof(HvTranslateInput, control_flags) == 16);
static_assert(offsetof(HvTranslateInput, gva_page) == 24);
inline constexpr uint64_t kHvTranslateValidate = 7;  // 0 read, 1 write, 2 execute: at least one
inline constexpr uint64_t kHvTranslateValidateRead = 1 << 0;
inline constexpr uint64_t kHvTranslateValidateWrite = 1 << 1;
inline constexpr uint64_t kHvTranslateValidateExecute = 1 << 2;
inline constexpr uint64_t kHvTranslatePrivilegeExempt = 1 << 3;
inline constexpr uint64_t kHvTranslateSetAccessedDirty = 1 << 4;
inline constexpr uint64_t kHvTranslateInhibitFlush = 1 << 5;
inline constexpr uint64_t kHvTranslateSupervisor = 1 << 6;
inline constexpr uint64_t kHvTranslateUser = 1 << 7;
inline constexpr uint64_t kHvTranslateEnforceSmap = 1 << 8;
inline constexpr uint64_t kHvTranslateOverrideSmap = 1 << 9;
inline constexpr uint64_t kHvTranslateKnown = (1 << 10) - 1;  // 10, shadow stacks, is not offered
inline constexpr unsigned kHvTranslateInputVtlShift = 56;

// In bits 31:0 of a translation's result. The hypercall is a success with each.
enum class HvTranslationCode : uint32_t {
  kSuccess = 0,
  kPageNotPresent = 1,
  kPrivilegeViolation = 2,
  kInvalidPageTableFlags = 3,
  kGpaUnmapped = 4,
  kGpaNoReadAccess = 5,
  kGpaNoWriteAccess = 6,
  kGpaIllegalOverlayAccess = 7,
  kIntercept = 8,
};
inline constexpr unsigned kHvTranslationCacheTypeShift = 32;  // 39:32, of the page's mapping
inline constexpr uint64_t kHvTranslationOverlay = uint64_t{1} << 40;

struct HvTranslateOutput {
  uint64_t result;
  uint64_t gpa_page;
};
static_assert(sizeof(HvTranslateOutput) == 16);
// As Linux and OpenVMM have it; a table of the TLFS has no event in it.
struct HvTranslateExOutput {
  uint64_t result;
  uint64_t reserved0;
  uint64_t event[4];
  uint64_t gpa_page;
  uint64_t reserved1;
};
static_assert(sizeof(HvTranslateExOutput) == 64);
static_assert(offsetof(HvTranslateExOutput, event) == 16);
static_assert(offsetof(HvTranslateExOutput, gpa_page) == 48);

struct HvAssertVirtualInterruptInput {
  uint64_t partition_id;
  uint64_t control;  // 31:0 type, 32 level, 33 logical destination
  uint64_t destination;
  uint32_t vector;
  uint8_t target_vtl;  // a plain number
  uint8_t reserved0;
  uint16_t reserved1;
};
static_assert(sizeof(HvAssertVirtualInterruptInput) == 32);
static_assert(offsetof(HvAssertVirtualInterruptInput, control) == 8);
static_assert(offsetof(HvAssertVirtualInterruptInput, destination) == 16);
static_assert(offsetof(HvAssertVirtualInterruptInput, vector) == 24);
static_assert(offsetof(HvAssertVirtualInterruptInput, target_vtl) == 28);
inline constexpr uint32_t kHvInterruptFixed = 0;
inline constexpr uint32_t kHvInterruptNmi = 4;
inline constexpr uint64_t kHvInterruptControlLevel = uint64_t{1} << 32;
inline constexpr uint64_t kHvInterruptControlLogical = uint64_t{1} << 33;
inline constexpr uint64_t kHvInterruptControlReserved = ~((uint64_t{1} << 34) - 1);

struct HvInstallInterceptInput {
  uint64_t partition_id;
  uint32_t access;  // 0 read, 1 write, 2 execute; none: removes it
  uint32_t type;
  uint64_t parameter;
};
static_assert(sizeof(HvInstallInterceptInput) == 24);
static_assert(offsetof(HvInstallInterceptInput, access) == 8);
static_assert(offsetof(HvInstallInterceptInput, type) == 12);
static_assert(offsetof(HvInstallInterceptInput, parameter) == 16);
inline constexpr uint32_t kHvInterceptIoPort = 0;
inline constexpr uint32_t kHvInterceptRead = 1;
inline constexpr uint32_t kHvInterceptWrite = 2;

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_HYPERCALL_HYPERCALL_PARAMETERS_LAYOUT_H_
