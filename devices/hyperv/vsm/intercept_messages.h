// The messages by which a level is told of what it did not allow a lower one.
//
// Shapes   pure functions from the state of the level that was stopped to a message for SINT0 of the one that stopped it.
// Threads  any; nothing allocates.
// Trust    the state is the lower level's own, as the processor had it: nothing in it is taken for true but by the receiver.
// Errors   none: what is not known is left out, as each function says.
// Source   Hyper-V TLFS, "Intercept Message Formats", "Memory Access Violations".
//
// The origin of the message is 0, as OpenVMM has it. CR8 is in the header's length byte (as OpenVMM; the TLFS: all of it is the
// length): a reader that does not mask sees the length alone while VTL0 runs at CR8 0, as any 64-bit kernel but Windows does.
#ifndef VMM_DEVICES_HYPERV_VSM_INTERCEPT_MESSAGES_H_
#define VMM_DEVICES_HYPERV_VSM_INTERCEPT_MESSAGES_H_

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/hypercall/hv_register_layout.h"
#include "devices/hyperv/hypercall/hv_vp_context_layout.h"
#include "devices/hyperv/synic/hv_message_layout.h"
#include "devices/hyperv/vsm/intercept_message_layout.h"
#include "memory/gpa.h"

namespace vmm {

// The level that was stopped, at the instruction that was not executed.
struct InterceptedState {
  VpIndex vp{0};
  Vtl vtl{0};
  uint8_t cpl = 0;
  uint8_t instruction_length = 0;  // 0: not known
  uint8_t cr8 = 0;
  bool debug_active = false;          // DR7 has a breakpoint enabled
  bool interruption_pending = false;  // it was stopped while an event was delivered
  bool interrupt_shadow = false;
  uint64_t cr0 = 0;
  uint64_t efer = 0;
  uint64_t rip = 0;
  uint64_t rflags = 0;
  HvSegmentRegister cs{};
  HvSegmentRegister ds{};
  HvSegmentRegister es{};
  HvSegmentRegister ss{};
  std::array<uint64_t, kHvInterceptGprs> gprs{};  // in the order of HvRegisterName
};

struct InterceptedAccess {
  HvInterceptAccess access = HvInterceptAccess::kRead;
  Gpa gpa;                           // the lowest byte that failed
  std::optional<uint64_t> gva;       // none for an access of the page walk's own
  uint32_t cache_type = kHvCacheWriteBack;
  bool tlb_locked = false;
  uint8_t tpr_priority = 0;
  std::span<const uint8_t> instruction{};  // at most 16 are taken
};

// kGpaIntercept. A fetch has no instruction bytes, nor has an access while an event was delivered. A data access that is a fault
// of the instruction has RFLAGS.RF set, as the processor would push it.
[[nodiscard]] HvMessage MakeMemoryIntercept(const InterceptedState& state, const InterceptedAccess& access) noexcept;

// kX64MsrIntercept: RDMSR or WRMSR. The value of a write is in EDX:EAX.
[[nodiscard]] HvMessage MakeMsrIntercept(const InterceptedState& state, HvInterceptAccess access, uint32_t msr) noexcept;

// kX64RegisterIntercept: a write of `value` to `name`, or of what is at the linear address `value.low`.
[[nodiscard]] HvMessage MakeRegisterIntercept(const InterceptedState& state, HvRegisterName name, HvRegisterValue value,
                                              bool memory_operand) noexcept;

struct InterceptedIo {
  HvInterceptAccess access = HvInterceptAccess::kRead;
  uint16_t port = 0;
  uint8_t size = 1;  // 1, 2 or 4
  bool string = false;
  bool rep = false;
  std::span<const uint8_t> instruction{};
};
// kX64IoPortIntercept.
[[nodiscard]] HvMessage MakeIoPortIntercept(const InterceptedState& state, const InterceptedIo& io) noexcept;

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_VSM_INTERCEPT_MESSAGES_H_
