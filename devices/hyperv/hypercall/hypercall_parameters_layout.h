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

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_HYPERCALL_HYPERCALL_PARAMETERS_LAYOUT_H_
