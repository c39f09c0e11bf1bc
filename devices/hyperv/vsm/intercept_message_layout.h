// The payloads of intercept messages.
//
// Shapes   each begins with a header of 40 bytes that describes the level that was stopped.
// Units    sizes in bytes; a GPA is a byte address.
// Threads  plain data.
// Trust    ours: they go to a guest, so every byte is set.
// Source   Hyper-V TLFS, "Intercept Message Formats" (the older documents have more of it than the web). The header's access type
//          is 0, 1 or 2, as OpenVMM and Microsoft's guests have it; an older structure declares a mask.
#ifndef VMM_DEVICES_HYPERV_VSM_INTERCEPT_MESSAGE_LAYOUT_H_
#define VMM_DEVICES_HYPERV_VSM_INTERCEPT_MESSAGE_LAYOUT_H_

#include <cstddef>
#include <cstdint>

#include "devices/hyperv/hypercall/hv_register_layout.h"
#include "devices/hyperv/hypercall/hv_vp_context_layout.h"
#include "devices/hyperv/synic/hv_message_layout.h"

namespace vmm {

enum class HvInterceptAccess : uint8_t { kRead = 0, kWrite = 1, kExecute = 2 };

// Execution state: 1:0 CPL, 2 CR0.PE, 3 CR0.AM, 4 EFER.LMA, 5 debug registers active, 6 interruption pending, 10:7 level,
// 12 interrupt shadow.
inline constexpr uint16_t kHvExecutionProtected = 1 << 2;
inline constexpr uint16_t kHvExecutionAlignmentMask = 1 << 3;
inline constexpr uint16_t kHvExecutionLongMode = 1 << 4;
inline constexpr uint16_t kHvExecutionDebugActive = 1 << 5;
inline constexpr uint16_t kHvExecutionInterruptionPending = 1 << 6;
inline constexpr unsigned kHvExecutionVtlShift = 7;
inline constexpr uint16_t kHvExecutionInterruptShadow = 1 << 12;

struct HvInterceptHeader {
  uint32_t vp_index;
  uint8_t instruction_length;  // 3:0, 0 if not known; 7:4 CR8
  HvInterceptAccess access;
  uint16_t execution_state;
  HvSegmentRegister cs;
  uint64_t rip;
  uint64_t rflags;
};
static_assert(sizeof(HvInterceptHeader) == 40);
static_assert(offsetof(HvInterceptHeader, instruction_length) == 4);
static_assert(offsetof(HvInterceptHeader, access) == 5);
static_assert(offsetof(HvInterceptHeader, execution_state) == 6);
static_assert(offsetof(HvInterceptHeader, cs) == 8);
static_assert(offsetof(HvInterceptHeader, rip) == 24);
static_assert(offsetof(HvInterceptHeader, rflags) == 32);

inline constexpr uint32_t kHvCacheUncached = 0;
inline constexpr uint32_t kHvCacheWriteCombining = 1;
inline constexpr uint32_t kHvCacheWriteThrough = 4;
inline constexpr uint32_t kHvCacheWriteProtected = 5;
inline constexpr uint32_t kHvCacheWriteBack = 6;

inline constexpr uint8_t kHvAccessGvaValid = 1;
inline constexpr uint8_t kHvAccessGvaGpaValid = 2;
inline constexpr uint8_t kHvAccessTlbLocked = 8;

inline constexpr size_t kHvInterceptInstructionBytes = 16;
inline constexpr size_t kHvInterceptGprs = 16;

// kUnmappedGpa, kGpaIntercept. Newer documents end it behind the instruction bytes: who reads 80 bytes finds what it looks for.
struct HvMemoryIntercept {
  HvInterceptHeader header;
  uint32_t cache_type;
  uint8_t instruction_byte_count;
  uint8_t access_info;
  uint8_t tpr_priority;
  uint8_t reserved;
  uint64_t gva;
  uint64_t gpa;
  uint8_t instruction_bytes[kHvInterceptInstructionBytes];
  HvSegmentRegister ds;
  HvSegmentRegister ss;
  uint64_t gprs[kHvInterceptGprs];  // RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15
};
static_assert(sizeof(HvMemoryIntercept) == kHvMessagePayloadBytes);
static_assert(offsetof(HvMemoryIntercept, cache_type) == 40);
static_assert(offsetof(HvMemoryIntercept, instruction_byte_count) == 44);
static_assert(offsetof(HvMemoryIntercept, access_info) == 45);
static_assert(offsetof(HvMemoryIntercept, tpr_priority) == 46);
static_assert(offsetof(HvMemoryIntercept, gva) == 48);
static_assert(offsetof(HvMemoryIntercept, gpa) == 56);
static_assert(offsetof(HvMemoryIntercept, instruction_bytes) == 64);
static_assert(offsetof(HvMemoryIntercept, ds) == 80);
static_assert(offsetof(HvMemoryIntercept, ss) == 96);
static_assert(offsetof(HvMemoryIntercept, gprs) == 112);

// kX64MsrIntercept.
struct HvMsrIntercept {
  HvInterceptHeader header;
  uint32_t msr;
  uint32_t reserved;
  uint64_t rdx;
  uint64_t rax;
};
static_assert(sizeof(HvMsrIntercept) == 64);
static_assert(offsetof(HvMsrIntercept, msr) == 40);
static_assert(offsetof(HvMsrIntercept, rdx) == 48);
static_assert(offsetof(HvMsrIntercept, rax) == 56);

// kX64RegisterIntercept.
inline constexpr uint8_t kHvRegisterInterceptMemoryOperand = 1;
struct HvRegisterIntercept {
  HvInterceptHeader header;
  uint8_t flags;  // 0 memory operand: the value is its address
  uint8_t reserved[3];
  HvRegisterName name;
  HvRegisterValue value;  // that was to be written
};
static_assert(sizeof(HvRegisterIntercept) == 64);
static_assert(offsetof(HvRegisterIntercept, flags) == 40);
static_assert(offsetof(HvRegisterIntercept, name) == 44);
static_assert(offsetof(HvRegisterIntercept, value) == 48);

// kX64IoPortIntercept.
inline constexpr uint8_t kHvIoAccessString = 1 << 3;  // 2:0 the size: 1, 2 or 4
inline constexpr uint8_t kHvIoAccessRep = 1 << 4;
struct HvIoPortIntercept {
  HvInterceptHeader header;
  uint16_t port;
  uint8_t access_info;
  uint8_t instruction_byte_count;
  uint32_t reserved;
  uint64_t rax;
  uint8_t instruction_bytes[kHvInterceptInstructionBytes];
  HvSegmentRegister ds;
  HvSegmentRegister es;
  uint64_t rcx;
  uint64_t rsi;
  uint64_t rdi;
};
static_assert(sizeof(HvIoPortIntercept) == 128);
static_assert(offsetof(HvIoPortIntercept, port) == 40);
static_assert(offsetof(HvIoPortIntercept, access_info) == 42);
static_assert(offsetof(HvIoPortIntercept, instruction_byte_count) == 43);
static_assert(offsetof(HvIoPortIntercept, rax) == 48);
static_assert(offsetof(HvIoPortIntercept, instruction_bytes) == 56);
static_assert(offsetof(HvIoPortIntercept, ds) == 72);
static_assert(offsetof(HvIoPortIntercept, es) == 88);
static_assert(offsetof(HvIoPortIntercept, rcx) == 104);
static_assert(offsetof(HvIoPortIntercept, rsi) == 112);
static_assert(offsetof(HvIoPortIntercept, rdi) == 120);

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_VSM_INTERCEPT_MESSAGE_LAYOUT_H_
