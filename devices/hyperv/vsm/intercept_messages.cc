#include "devices/hyperv/vsm/intercept_messages.h"

#include <algorithm>
#include <cstring>

namespace vmm {
namespace {

constexpr uint64_t kCr0Protected = 1;
constexpr uint64_t kCr0AlignmentMask = 1 << 18;
constexpr uint64_t kEferLongModeActive = 1 << 10;
constexpr uint64_t kRflagsResume = 1 << 16;

constexpr size_t kRax = 0, kRcx = 1, kRdx = 2, kRsi = 6, kRdi = 7;

HvInterceptHeader MakeHeader(const InterceptedState& state, HvInterceptAccess access) noexcept {
  uint16_t execution = static_cast<uint16_t>((state.cpl & 3) | state.vtl.raw() << kHvExecutionVtlShift);
  if ((state.cr0 & kCr0Protected) != 0) execution |= kHvExecutionProtected;
  if ((state.cr0 & kCr0AlignmentMask) != 0) execution |= kHvExecutionAlignmentMask;
  if ((state.efer & kEferLongModeActive) != 0) execution |= kHvExecutionLongMode;
  if (state.debug_active) execution |= kHvExecutionDebugActive;
  if (state.interruption_pending) execution |= kHvExecutionInterruptionPending;
  if (state.interrupt_shadow) execution |= kHvExecutionInterruptShadow;
  return {.vp_index = state.vp.raw(),
          .instruction_length = static_cast<uint8_t>((state.instruction_length & 0xf) | state.cr8 << 4),
          .access = access,
          .execution_state = execution,
          .cs = state.cs,
          .rip = state.rip,
          .rflags = state.rflags};
}

template <typename Payload>
HvMessage MakeMessage(HvMessageType type, const Payload& payload) noexcept {
  static_assert(sizeof(Payload) <= kHvMessagePayloadBytes);
  HvMessage message{};
  message.header.type = type;
  message.header.payload_size = sizeof(Payload);
  std::memcpy(message.payload, &payload, sizeof(Payload));
  return message;
}

uint8_t CopyInstruction(std::span<const uint8_t> instruction, uint8_t (&to)[kHvInterceptInstructionBytes]) noexcept {
  const size_t count = std::min(instruction.size(), kHvInterceptInstructionBytes);
  std::copy_n(instruction.begin(), count, to);
  return static_cast<uint8_t>(count);
}

}  // namespace

HvMessage MakeMemoryIntercept(const InterceptedState& state, const InterceptedAccess& access) noexcept {
  HvMemoryIntercept payload{};
  payload.header = MakeHeader(state, access.access);
  payload.cache_type = access.cache_type;
  payload.tpr_priority = access.tpr_priority;
  payload.gpa = access.gpa.raw();
  if (access.gva.has_value()) {
    payload.gva = *access.gva;
    payload.access_info = kHvAccessGvaValid | kHvAccessGvaGpaValid;
  }
  if (access.tlb_locked) payload.access_info |= kHvAccessTlbLocked;
  if (access.access != HvInterceptAccess::kExecute && !state.interruption_pending) {
    payload.instruction_byte_count = CopyInstruction(access.instruction, payload.instruction_bytes);
    payload.header.rflags |= kRflagsResume;
  }
  payload.ds = state.ds;
  payload.ss = state.ss;
  std::copy(state.gprs.begin(), state.gprs.end(), payload.gprs);
  return MakeMessage(HvMessageType::kGpaIntercept, payload);
}

HvMessage MakeMsrIntercept(const InterceptedState& state, HvInterceptAccess access, uint32_t msr) noexcept {
  HvMsrIntercept payload{};
  payload.header = MakeHeader(state, access);
  payload.msr = msr;
  payload.rdx = state.gprs[kRdx];
  payload.rax = state.gprs[kRax];
  return MakeMessage(HvMessageType::kX64MsrIntercept, payload);
}

HvMessage MakeRegisterIntercept(const InterceptedState& state, HvRegisterName name, HvRegisterValue value,
                                bool memory_operand) noexcept {
  HvRegisterIntercept payload{};
  payload.header = MakeHeader(state, HvInterceptAccess::kWrite);
  payload.flags = memory_operand ? kHvRegisterInterceptMemoryOperand : 0;
  payload.name = name;
  payload.value = value;
  return MakeMessage(HvMessageType::kX64RegisterIntercept, payload);
}

HvMessage MakeIoPortIntercept(const InterceptedState& state, const InterceptedIo& io) noexcept {
  HvIoPortIntercept payload{};
  payload.header = MakeHeader(state, io.access);
  payload.port = io.port;
  payload.access_info = static_cast<uint8_t>((io.size & 7) | (io.string ? kHvIoAccessString : 0) | (io.rep ? kHvIoAccessRep : 0));
  payload.instruction_byte_count = CopyInstruction(io.instruction, payload.instruction_bytes);
  payload.rax = state.gprs[kRax];
  payload.ds = state.ds;
  payload.es = state.es;
  payload.rcx = state.gprs[kRcx];
  payload.rsi = state.gprs[kRsi];
  payload.rdi = state.gprs[kRdi];
  return MakeMessage(HvMessageType::kX64IoPortIntercept, payload);
}

}  // namespace vmm
