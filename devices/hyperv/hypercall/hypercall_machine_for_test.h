// A dispatcher with memory, XMM registers and a fake partition around it, and a guest's ways of calling it.
//
// Threads  confined.
#ifndef VMM_DEVICES_HYPERV_HYPERCALL_HYPERCALL_MACHINE_FOR_TEST_H_
#define VMM_DEVICES_HYPERV_HYPERCALL_HYPERCALL_MACHINE_FOR_TEST_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <ostream>
#include <span>
#include <vector>

#include "devices/guest_interface.h"
#include "devices/hyperv/hv_cpuid_layout.h"
#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/hypercall/fake_hypercall_services.h"
#include "devices/hyperv/hypercall/hypercall_dispatcher.h"
#include "devices/hyperv/hypercall/hypercall_layout.h"
#include "devices/hyperv/hypercall/hypercall_parameters_layout.h"
#include "memory/access_gate.h"
#include "memory/gpa.h"
#include "memory/guest_memory.h"
#include "memory/guest_ram.h"
#include "memory/layout.h"
#include "memory/level_memory.h"
#include "memory/protection_map.h"

namespace vmm {

class FakeXmm final : public XmmAccess {
 public:
  [[nodiscard]] bool Load(XmmRegisters& xmm) noexcept override {
    ++loads;
    xmm = values;
    return !broken;
  }
  [[nodiscard]] bool Store(const XmmRegisters& xmm) noexcept override {
    ++stores;
    if (!broken_store) values = xmm;
    return !broken_store;
  }
  XmmRegisters values{};
  int loads = 0;
  int stores = 0;
  bool broken = false;
  bool broken_store = false;
};

// What a guest sees of a call.
struct HypercallAnswer {
  HypercallOutcome outcome;
  HvStatus status = HvStatus::kSuccess;
  uint16_t reps = 0;
  bool operator==(const HypercallAnswer&) const = default;
};
inline HypercallAnswer Success(uint16_t reps = 0) { return {HypercallOutcome::kDone, HvStatus::kSuccess, reps}; }
inline HypercallAnswer Failure(HvStatus status, uint16_t reps = 0) { return {HypercallOutcome::kDone, status, reps}; }
inline HypercallAnswer Again(uint16_t reps) { return {HypercallOutcome::kAgain, HvStatus::kSuccess, reps}; }
inline constexpr HypercallAnswer kBlocked{HypercallOutcome::kBlocked};
inline constexpr HypercallAnswer kSwitchVtl{HypercallOutcome::kSwitchVtl};
inline constexpr HypercallAnswer kUndefinedOpcode{HypercallOutcome::kUndefinedOpcode};
inline void PrintTo(const HypercallAnswer& answer, std::ostream* out) {
  *out << "outcome " << static_cast<int>(answer.outcome) << " status 0x" << std::hex << static_cast<int>(answer.status)
       << std::dec << " reps " << answer.reps;
}

// Everything but Virtual Secure Mode.
inline HvOffer OfferOfEverything() {
  HvOffer offer;
  for (const HvPrivilege privilege :
       {HvPrivilege::kPartitionId, HvPrivilege::kPostMessages, HvPrivilege::kSignalEvents, HvPrivilege::kVpRegisters,
        HvPrivilege::kExtendedHypercalls, HvPrivilege::kStartVirtualProcessor}) {
    offer.With(privilege);
  }
  return offer.With(HvFeature::kXmmInput).With(HvFeature::kXmmOutput);
}

// The parts of an input value.
struct Control {
  HypercallCode code;
  uint16_t reps = 0;
  uint16_t start = 0;
  uint16_t variable = 0;  // units of 8 bytes
  bool fast = false;
  uint64_t raw = 0;  // further bits

  [[nodiscard]] uint64_t value() const {
    return static_cast<uint64_t>(code) | (fast ? HypercallInput::kFast : 0) |
           uint64_t{variable} << HypercallInput::kVariableHeaderShift | uint64_t{reps} << HypercallInput::kRepCountShift |
           uint64_t{start} << HypercallInput::kRepStartShift | raw;
  }
};

class HypercallMachine final {
 public:
  static constexpr Gpa kInput{0x1'0000};
  static constexpr Gpa kOutput{0x2'0000};
  static constexpr uint64_t kRamBytes = kMiB;
  static constexpr VpIndex kVp{1};  // who calls
  static constexpr std::byte kUntouched{0xee};

  explicit HypercallMachine(const HvOffer& offer = OfferOfEverything(), Vtl vtl = kVtl0)
      : level_memory(*memory, *map, gate, vtl.raw()), dispatcher(kVp, vtl, offer, level_memory, services) {
    static_cast<void>(memory->Fill(kOutput, kUntouched, kPageBytes));
  }

  template <typename T>
  void PutInput(const T& value, uint64_t offset = 0) {
    static_cast<void>(memory->WriteObject(kInput + offset, value));
  }
  template <typename T>
  void PutList(uint64_t offset, const std::vector<T>& list) {
    static_cast<void>(memory->Write(kInput + offset, std::as_bytes(std::span(list))));
  }
  template <typename T>
  [[nodiscard]] T Output(uint64_t offset = 0) const {
    T value{};
    static_cast<void>(memory->ReadObject(kOutput + offset, value));
    return value;
  }
  // True: nothing in [from, to) of the output page was written.
  [[nodiscard]] bool IsOutputUntouched(uint64_t from = 0, uint64_t to = kPageBytes) const {
    for (uint64_t at = from; at < to; ++at) {
      if (Output<std::byte>(at) != kUntouched) return false;
    }
    return true;
  }

  // The caller's registers: RDX/R8 or EBX:ECX/EDI:ESI are the parameters.
  static HypercallRegisters Caller64(uint64_t control, uint64_t first, uint64_t second) {
    return {.rax = 0xaaaa'aaaa'aaaa'aaaa, .rbx = 0xb, .rcx = control, .rdx = first, .rsi = 0x51, .rdi = 0xd1, .r8 = second,
            .long_mode = true, .protected_mode = true, .cpl = 0};
  }
  // Upper halves hold what 32-bit code cannot see.
  static HypercallRegisters Caller32(uint64_t control, uint64_t first, uint64_t second) {
    constexpr uint64_t kJunk = 0xbad0'0000'0000'0000;
    const auto low = [](uint64_t value) { return kJunk | (value & 0xffff'ffff); };
    return {.rax = low(control), .rbx = low(first >> 32), .rcx = low(first), .rdx = low(control >> 32), .rsi = low(second),
            .rdi = low(second >> 32), .r8 = kJunk, .long_mode = false, .protected_mode = true, .cpl = 0};
  }

  // One execution. `registers` is what the guest has then.
  HypercallAnswer Step(HypercallRegisters& made) {
    registers = made;
    const HypercallOutcome outcome = dispatcher.Dispatch(registers, xmm);
    made = registers;
    HypercallAnswer answer{outcome};
    if (outcome == HypercallOutcome::kDone) {
      const uint64_t result = registers.long_mode ? registers.rax : registers.rdx << 32 | registers.rax;
      answer.status = static_cast<HvStatus>(result & 0xffff);
      answer.reps = static_cast<uint16_t>(result >> 32 & 0xfff);
      // Whatever else is in a result is a bug, and no status is this one.
      if (MakeHypercallResult(answer.status, answer.reps) != result) answer.status = static_cast<HvStatus>(0xffff);
    } else if (outcome == HypercallOutcome::kAgain) {
      const uint64_t control = registers.long_mode ? registers.rcx : registers.rdx << 32 | (registers.rax & 0xffff'ffff);
      answer.reps = HypercallInput(control).rep_start();
    }
    return answer;
  }
  // As a guest sees it: executed until it is done.
  HypercallAnswer Run(HypercallRegisters made) {
    executions = 0;
    for (;;) {
      const HypercallAnswer answer = Step(made);
      ++executions;
      if (answer.outcome != HypercallOutcome::kAgain) return answer;
    }
  }
  HypercallAnswer CallMemory(const Control& control, Gpa input = kInput, Gpa output = kOutput) {
    return Run(Caller64(control.value(), input.raw(), output.raw()));
  }
  HypercallAnswer CallFast(Control control, uint64_t first = 0, uint64_t second = 0) {
    control.fast = true;
    return Run(Caller64(control.value(), first, second));
  }

  // Before the dispatcher, which refers to them.
  std::unique_ptr<GuestMemory> memory =
      *GuestMemory::Create(**GuestRam::Create({.bytes = kRamBytes}), *MemoryLayout::Create(kRamBytes));
  // What VTL1 lets VTL0 do.
  std::unique_ptr<ProtectionMap> map = *ProtectionMap::Create(*MemoryLayout::Create(kRamBytes), 2);
  AccessGate gate;
  LevelMemory level_memory;
  FakeHypercallServices services;
  FakeXmm xmm;
  HypercallDispatcher dispatcher;
  HypercallRegisters registers{};
  int executions = 0;
};

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_HYPERCALL_HYPERCALL_MACHINE_FOR_TEST_H_
