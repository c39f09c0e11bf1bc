// A guest's way to the hypercalls: the page, and calls in each form with the whole result value as their answer.
//
// Shapes   the page is the trust level's own; parameter blocks are two pages of each processor's own at each level, input and output.
// Threads  EnableHypercalls: processor 0. The calls: any processor, any level.
// Errors   none: an answer that is no result value is what the test sees. #UD is the caller's to Catch.
// Source   Hyper-V TLFS, "Hypercall Interface".
#ifndef VMM_TESTS_GUESTS_HYPERCALLS_H_
#define VMM_TESTS_GUESTS_HYPERCALLS_H_

#include <cstddef>
#include <cstdint>

#include "devices/hyperv/hv_msr_layout.h"
#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hypercall/hypercall_layout.h"
#include "devices/hyperv/hypercall/hypercall_parameters_layout.h"
#include "tests/guests/runtime/cpu.h"
#include "tests/guests/runtime/memory.h"
#include "tests/guests/runtime/modes.h"
#include "tests/guests/runtime/registers.h"
#include "tests/guests/runtime/smp.h"

namespace guest {

using vmm::HvStatus;
using vmm::HypercallCode;

inline constexpr uint64_t kOurGuestOsId = 0x8100'0000'0000'0001;  // an open source system, of no name
inline constexpr uint32_t kLevels = 2;
inline uint64_t g_hypercall_pages[kLevels];
inline uint64_t& HypercallPage() { return g_hypercall_pages[ThisLevel()]; }

// Again after a test that took the page away, too. It keeps its place.
inline void EnableHypercalls() {
  if (HypercallPage() == 0) HypercallPage() = GpaOf(AllocatePages(1));
  WriteMsr(vmm::kHvMsrGuestOsId, kOurGuestOsId);
  WriteMsr(vmm::kHvMsrHypercall, HypercallPage() | vmm::kHvOverlayEnable);
}

// The parts of an input value.
struct Control {
  HypercallCode code;
  uint16_t reps = 0;
  uint16_t start = 0;
  uint16_t variable = 0;  // units of 8 bytes
  bool fast = false;
  uint64_t raw = 0;  // further bits

  [[nodiscard]] constexpr uint64_t value() const {
    return static_cast<uint64_t>(code) | (fast ? vmm::HypercallInput::kFast : 0) |
           uint64_t{variable} << vmm::HypercallInput::kVariableHeaderShift |
           uint64_t{reps} << vmm::HypercallInput::kRepCountShift |
           uint64_t{start} << vmm::HypercallInput::kRepStartShift | raw;
  }
};

// What a call should answer, all 64 bits of it.
constexpr uint64_t Answer(HvStatus status, uint16_t reps = 0) { return vmm::MakeHypercallResult(status, reps); }
constexpr uint64_t Success(uint16_t reps = 0) { return Answer(HvStatus::kSuccess, reps); }

inline uint64_t CallRaw(uint64_t control, uint64_t first, uint64_t second) {
  Registers registers{.rax = 0xaaaa'aaaa'aaaa'aaaa, .rcx = control, .rdx = first, .r8 = second};
  CallWithRegisters(HypercallPage(), registers);
  return registers.rax;
}
// From 32-bit code: EDX:EAX, EBX:ECX and EDI:ESI.
inline uint64_t CallRaw32(uint64_t control, uint64_t first, uint64_t second) {
  Registers32 registers{.eax = static_cast<uint32_t>(control), .ebx = static_cast<uint32_t>(first >> 32),
                        .ecx = static_cast<uint32_t>(first), .edx = static_cast<uint32_t>(control >> 32),
                        .esi = static_cast<uint32_t>(second), .edi = static_cast<uint32_t>(second >> 32)};
  const Fault fault = CallIn32BitMode(HypercallPage(), registers);
  if (fault.raised()) return ~uint64_t{0};  // no result value is this one
  return uint64_t{registers.edx} << 32 | registers.eax;
}

// Fast, with two registers or with all.
inline uint64_t CallFast(Control control, uint64_t first = 0, uint64_t second = 0) {
  control.fast = true;
  return CallRaw(control.value(), first, second);
}

// The words of the fast form are RDX, R8, XMM0 low, XMM0 high, ...
inline constexpr uint64_t kUntouched = 0xeeee'eeee'eeee'eeee;
inline constexpr size_t kFastWords = vmm::kHypercallFastBytes / 8;
struct Parameters {
  uint64_t* input;
  uint64_t* output;
};
inline Parameters g_parameters[kLevels][kMaxCpus];

inline Parameters& ThisParameters() {
  Parameters& pages = g_parameters[ThisLevel()][ThisCpuNumber()];
  if (pages.input == nullptr) {
    pages.output = static_cast<uint64_t*>(AllocatePages(1));
    pages.input = static_cast<uint64_t*>(AllocatePages(1));
  }
  return pages;
}
inline volatile uint64_t* Output() { return ThisParameters().output; }

// A parameter block that is put together: header, variable header and list in this order.
class Block final {
 public:
  Block() : at_(reinterpret_cast<unsigned char*>(ThisParameters().input)) { memset(at_, 0, kPageBytes); }
  template <typename T>
  Block& Put(const T& value) {
    if (bytes_ + sizeof(T) <= kPageBytes) memcpy(at_ + bytes_, &value, sizeof(T));
    bytes_ += sizeof(T);
    return *this;
  }
  [[nodiscard]] size_t bytes() const { return bytes_; }

 private:
  unsigned char* const at_;
  size_t bytes_ = 0;
};

// With this processor's pages; the output page is full of kUntouched before.
inline uint64_t CallMemory(const Control& control) {
  const Parameters& pages = ThisParameters();
  for (size_t i = 0; i < kPageBytes / 8; ++i) static_cast<volatile uint64_t*>(pages.output)[i] = kUntouched;
  return CallRaw(control.value(), GpaOf(pages.input), GpaOf(pages.output));
}

// The same block in registers, as far as it fits. `words` is all of them as they are afterwards.
inline uint64_t CallInRegisters(Control control, uint64_t (&words)[kFastWords]) {
  control.fast = true;
  Registers registers{.rax = 0xaaaa'aaaa'aaaa'aaaa, .rcx = control.value(), .rdx = words[0], .r8 = words[1]};
  memcpy(registers.xmm, &words[2], sizeof(registers.xmm));
  CallWithRegisters(HypercallPage(), registers);
  words[0] = registers.rdx;
  words[1] = registers.r8;
  memcpy(&words[2], registers.xmm, sizeof(registers.xmm));
  return registers.rax;
}
// What Block has put together.
inline uint64_t CallBlockInRegisters(const Control& control) {
  uint64_t words[kFastWords];
  memcpy(words, ThisParameters().input, sizeof(words));
  return CallInRegisters(control, words);
}

}  // namespace guest

#endif  // VMM_TESTS_GUESTS_HYPERCALLS_H_
