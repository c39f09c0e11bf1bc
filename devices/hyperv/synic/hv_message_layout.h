// The wire layout of a SynIC message, HV_MESSAGE: what a queue carries and what a slot of the message page (SIM) holds.
//
// Shapes   256 bytes: a header of 16, then up to 240 of payload. Slot n of the page is at n x 256.
// Units    sizes in bytes.
// Threads  plain data. Who may touch a message in shared memory is said where it lives.
// Trust    a message from another process or from guest memory is copied first, checked as a copy, and only that is used.
// Errors   none.
// Source   Hyper-V TLFS, "Inter-Partition Communication" and "SynIC Message Types".
#ifndef VMM_DEVICES_HYPERV_SYNIC_HV_MESSAGE_LAYOUT_H_
#define VMM_DEVICES_HYPERV_SYNIC_HV_MESSAGE_LAYOUT_H_

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace vmm {

inline constexpr uint32_t kHvMessageBytes = 256;
inline constexpr uint32_t kHvMessageHeaderBytes = 16;
inline constexpr uint32_t kHvMessagePayloadBytes = 240;
inline constexpr uint32_t kHvSintCount = 16;

enum class HvMessageType : uint32_t {
  kNone = 0,  // an empty slot
  // 1 to 0x7fffffff: from guests and devices; VMBus uses 1. Bit 31: from the hypervisor.
  kVmBus = 0x00000001,
  kUnmappedGpa = 0x80000000,
  kGpaIntercept = 0x80000001,
  kUnacceptedGpa = 0x80000003,
  kGpaAttributeIntercept = 0x80000004,
  kEnablePartitionVtlIntercept = 0x80000005,
  kTimerExpired = 0x80000010,
  kInvalidVpRegisterValue = 0x80000020,
  kUnrecoverableException = 0x80000021,
  kUnsupportedFeature = 0x80000022,
  kTlbPageSizeMismatch = 0x80000023,
  kEventLogBufferComplete = 0x80000040,
  kHypercallIntercept = 0x80000050,
  kSynicEventIntercept = 0x80000060,
  kSynicSintIntercept = 0x80000061,
  kSynicSintDeliverable = 0x80000062,
  kX64IoPortIntercept = 0x80010000,
  kX64MsrIntercept = 0x80010001,
  kX64CpuidIntercept = 0x80010002,
  kX64ExceptionIntercept = 0x80010003,
  kX64ApicEoi = 0x80010004,
  kX64LegacyFpError = 0x80010005,
  kX64RegisterIntercept = 0x80010006,
  kX64Halt = 0x80010007,
  kX64InterruptionDeliverable = 0x80010008,
  kX64SipiIntercept = 0x80010009,
  kX64RdtscIntercept = 0x8001000a,
  kX64ApicSmi = 0x8001000b,
  kX64InitSipi = 0x8001000d,
  kX64ApicWrite = 0x8001000e,
};

// Only the hypervisor sends these: a message from a guest or a device that claims such a type is forged.
constexpr bool IsHypervisorMessage(HvMessageType type) noexcept { return (static_cast<uint32_t>(type) & 0x80000000u) != 0; }

inline constexpr uint8_t kHvMessagePending = 1;  // HvMessageHeader::flags: more wait, write EOM once the slot is free

struct HvMessageHeader {
  HvMessageType type;
  uint8_t payload_size;  // at most kHvMessagePayloadBytes
  uint8_t flags;         // bit 0 kHvMessagePending, others 0
  uint16_t reserved;     // 0 in a slot. While in a queue: that queue's own use
  uint64_t origination_id;  // intercepts: partition of the sender; guest messages: port; timers: 0
};
static_assert(sizeof(HvMessageHeader) == kHvMessageHeaderBytes);
static_assert(offsetof(HvMessageHeader, type) == 0);
static_assert(offsetof(HvMessageHeader, payload_size) == 4);
static_assert(offsetof(HvMessageHeader, flags) == 5);
static_assert(offsetof(HvMessageHeader, reserved) == 6);
static_assert(offsetof(HvMessageHeader, origination_id) == 8);

struct alignas(16) HvMessage {
  HvMessageHeader header;
  uint8_t payload[kHvMessagePayloadBytes];
};
static_assert(sizeof(HvMessage) == kHvMessageBytes);
static_assert(offsetof(HvMessage, payload) == kHvMessageHeaderBytes);
static_assert(std::is_trivially_copyable_v<HvMessage> && std::is_standard_layout_v<HvMessage>);

// The payload of kTimerExpired.
struct HvTimerMessagePayload {
  uint32_t timer_index;
  uint32_t reserved;
  uint64_t expiration_time;  // units of 100 ns
  uint64_t delivery_time;    // units of 100 ns
};
static_assert(sizeof(HvTimerMessagePayload) == 24);
static_assert(offsetof(HvTimerMessagePayload, expiration_time) == 8);
static_assert(offsetof(HvTimerMessagePayload, delivery_time) == 16);

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_SYNIC_HV_MESSAGE_LAYOUT_H_
