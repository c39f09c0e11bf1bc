#include "devices/hyperv/hypercall/hypercall_dispatcher.h"

#include <algorithm>
#include <cstring>
#include <span>

#include "devices/hyperv/hypercall/fast_registers.h"
#include "devices/hyperv/hypercall/hypercall_table.h"
#include "devices/hyperv/hypercall/vsm_services.h"

namespace vmm {
namespace {

constexpr uint64_t kLow32 = 0xffff'ffff;

// The high register's low half above the low register's: how a 32-bit caller passes 64 bits.
constexpr uint64_t Pair(uint64_t high, uint64_t low) noexcept { return high << 32 | (low & kLow32); }

HypercallInput InputValue(const HypercallRegisters& registers) noexcept {
  return HypercallInput(registers.long_mode ? registers.rcx : Pair(registers.rdx, registers.rax));
}
uint64_t FirstParameter(const HypercallRegisters& registers) noexcept {
  return registers.long_mode ? registers.rdx : Pair(registers.rbx, registers.rcx);
}
uint64_t SecondParameter(const HypercallRegisters& registers) noexcept {
  return registers.long_mode ? registers.r8 : Pair(registers.rdi, registers.rsi);
}

void SetResult(HypercallRegisters& registers, uint64_t result) noexcept {
  if (registers.long_mode) {
    registers.rax = result;
  } else {
    registers.rax = result & kLow32;
    registers.rdx = result >> 32;
  }
}

void SetContinuation(HypercallRegisters& registers, HypercallInput input) noexcept {
  if (registers.long_mode) {
    registers.rcx = input.raw();
  } else {
    registers.rax = input.raw() & kLow32;
    registers.rdx = input.raw() >> 32;
  }
}

constexpr size_t ToSlots(size_t bytes) noexcept {
  return (bytes + kHypercallSlotBytes - 1) / kHypercallSlotBytes * kHypercallSlotBytes;
}

// The input value against the call's row.
bool IsWellFormed(HypercallInput input, const HypercallRow& row) noexcept {
  if (input.has_reserved_bits()) return false;
  if (input.variable_header_bytes() != 0 && !row.variable_header) return false;
  if (row.kind == HypercallKind::kSimple) return input.rep_count() == 0 && input.rep_start() == 0;
  return input.rep_start() < input.rep_count();  // a count of 0 has no start below it
}

HvStatus CheckBlock(Gpa gpa, size_t bytes) noexcept {
  if (bytes == 0) return HvStatus::kSuccess;  // the address means nothing
  if (gpa.raw() % kHypercallParameterAlignment != 0) return HvStatus::kInvalidAlignment;
  if (bytes > kPageBytes - gpa.page_offset()) return HvStatus::kInvalidAlignment;
  return HvStatus::kSuccess;
}

// Written by one thread: no locked access is needed.
void Count(std::atomic<uint64_t>& counter) noexcept {
  counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

}  // namespace

HypercallOutcome HypercallDispatcher::Dispatch(HypercallRegisters& registers, XmmAccess& xmm) noexcept {
  const Answer answer = Run(registers, xmm);
  switch (answer.outcome) {
    case HypercallOutcome::kDone:
      SetResult(registers, MakeHypercallResult(answer.status, answer.reps));
      Count(answer.status == HvStatus::kSuccess ? succeeded_ : failed_);
      break;
    case HypercallOutcome::kAgain:
      SetContinuation(registers, InputValue(registers).WithRepStart(answer.reps));
      Count(continued_);
      break;
    case HypercallOutcome::kBlocked:
      Count(continued_);
      break;
    case HypercallOutcome::kSwitchVtl:
      Count(switched_);
      break;
    case HypercallOutcome::kUndefinedOpcode:
    case HypercallOutcome::kNotOffered:
      Count(undefined_);
      break;
  }
  return answer.outcome;
}

HypercallDispatcher::Answer HypercallDispatcher::Run(HypercallRegisters& registers, XmmAccess& xmm) noexcept {
  constexpr Answer kUndefined{HypercallOutcome::kUndefinedOpcode};
  if (registers.cpl != 0 || !registers.protected_mode) return kUndefined;
  const HypercallInput input = InputValue(registers);
  // A switch of trust levels has registers and errors of its own, and takes no parameters. With one level there is nowhere to go.
  VsmServices* const vsm = caller_.vsm();
  const bool is_call = input.code() == static_cast<uint16_t>(HypercallCode::kVtlCall);
  if (is_call || input.code() == static_cast<uint16_t>(HypercallCode::kVtlReturn)) {
    const VtlSwitchRequest request{.control_word = input.raw(),
                                   .control_input = registers.long_mode ? registers.rax : registers.rcx & kLow32};
    const bool switched = vsm != nullptr && (is_call ? vsm->VtlCall(request) : vsm->VtlReturn(request));
    return switched ? Answer{HypercallOutcome::kSwitchVtl} : kUndefined;
  }

  const HypercallRow* const row = FindHypercall(input.code());
  if (row == nullptr) return Done(HvStatus::kInvalidHypercallCode);
  // A partition without levels does not know these calls.
  if (row->privilege == HvPrivilege::kVsm && vsm == nullptr) return Done(HvStatus::kInvalidHypercallCode);
  if (row->privilege.has_value() && !caller_.offer.Has(*row->privilege)) return Done(HvStatus::kAccessDenied);
  if (!IsWellFormed(input, *row)) return Done(HvStatus::kInvalidHypercallInput);

  const uint16_t start = input.rep_start();
  const Frame frame = MakeFrame(registers, input, *row);
  FastRegisters file;
  if (input.fast()) {
    if (frame.input_bytes > kHypercallFastBytes || ToSlots(frame.input_bytes) + frame.output_bytes > kHypercallFastBytes) {
      return Done(HvStatus::kInvalidHypercallInput, start);
    }
    if (frame.input_bytes > kHypercallSlotBytes && !caller_.offer.Has(HvFeature::kXmmInput)) return kUndefined;
    if (frame.output_bytes != 0 && (!registers.long_mode || !caller_.offer.Has(HvFeature::kXmmOutput))) {
      return Done(HvStatus::kInvalidHypercallInput, start);
    }
    if (!file.Load(registers, xmm, ToSlots(frame.input_bytes) + frame.output_bytes)) {
      return Done(HvStatus::kOperationFailed, start);
    }
    std::memcpy(input_.data(), file.bytes().data(), frame.input_bytes);
  } else {
    const HvStatus status = FetchMemory(frame);
    if (status != HvStatus::kSuccess) return Done(status, start);
  }
  std::fill_n(output_.begin(), frame.output_bytes, std::byte{0});

  const std::span<const std::byte> bytes(input_.data(), frame.input_bytes);
  const uint32_t variable_bytes = input.variable_header_bytes();
  const uint32_t list_offset = row->header_bytes + variable_bytes;
  const uint32_t end = std::min<uint32_t>(input.rep_count(), uint32_t{start} + row->reps_at_once);
  HypercallCall call(caller_,
                     {.header = bytes.first(row->header_bytes),
                      .variable = bytes.subspan(row->header_bytes, variable_bytes),
                      .list = bytes.subspan(list_offset),
                      .output = std::span(output_).first(frame.output_bytes)},
                     start, static_cast<uint16_t>(end));
  const HvStatus status = row->handler(call);
  if (call.is_blocked()) return {HypercallOutcome::kBlocked};

  // What takes effect is given back: a simple call's output on success, a rep call's elements that were completed now.
  uint32_t from = 0;
  uint32_t to = 0;
  if (row->kind == HypercallKind::kRep) {
    from = start * row->output_element_bytes;
    to = call.rep() * row->output_element_bytes;
  } else if (status == HvStatus::kSuccess) {
    to = frame.output_bytes;
  }
  if (from != to) {
    const std::span<const std::byte> made = std::span<const std::byte>(output_).subspan(from, to - from);
    if (input.fast()) {
      if (!file.Store(ToSlots(frame.input_bytes) + from, made, registers, xmm)) return Done(HvStatus::kOperationFailed, start);
    } else if (!memory_.Write(frame.output + from, made)) {
      // It could be written before the handler ran: another processor has taken it away meanwhile.
      return Done(HvStatus::kInvalidHypercallInput, start);
    }
  }
  if (status == HvStatus::kSuccess && call.rep() < input.rep_count()) return {HypercallOutcome::kAgain, status, call.rep()};
  return Done(status, call.rep());
}

HypercallDispatcher::Frame HypercallDispatcher::MakeFrame(const HypercallRegisters& registers, HypercallInput input,
                                                          const HypercallRow& row) noexcept {
  // At most 256 + 8184 + 4095 x 32: no sum here wraps.
  const uint32_t count = input.rep_count();
  return {.input = Gpa(FirstParameter(registers)),
          .output = Gpa(SecondParameter(registers)),
          .input_bytes = row.header_bytes + input.variable_header_bytes() + count * row.input_element_bytes,
          .output_bytes = row.output_bytes + count * row.output_element_bytes};
}

HvStatus HypercallDispatcher::FetchMemory(const Frame& frame) noexcept {
  if (const HvStatus status = CheckBlock(frame.input, frame.input_bytes); status != HvStatus::kSuccess) return status;
  if (const HvStatus status = CheckBlock(frame.output, frame.output_bytes); status != HvStatus::kSuccess) return status;
  // Both are within a page now, and so within the buffers.
  if (frame.input_bytes != 0 && !memory_.Read(frame.input, std::span(input_).first(frame.input_bytes))) {
    return HvStatus::kInvalidHypercallInput;
  }
  // Before anything is done that could not be told.
  if (frame.output_bytes != 0 && !memory_.CanWrite(frame.output, frame.output_bytes)) return HvStatus::kInvalidHypercallInput;
  return HvStatus::kSuccess;
}

HypercallDispatcher::Stats HypercallDispatcher::stats() const noexcept {
  return {.succeeded = succeeded_.load(std::memory_order_relaxed),
          .failed = failed_.load(std::memory_order_relaxed),
          .continued = continued_.load(std::memory_order_relaxed),
          .undefined = undefined_.load(std::memory_order_relaxed),
          .switched = switched_.load(std::memory_order_relaxed)};
}

}  // namespace vmm
