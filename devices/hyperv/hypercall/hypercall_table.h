// Which hypercalls there are, and what each one's parameters look like: one row a call.
//
// Shapes   rows in ascending order of code.
// Units    bytes; reps in elements.
// Threads  immutable.
// Trust    none needed: ours.
// Errors   FindHypercall: nullptr, which is INVALID_HYPERCALL_CODE.
// Source   Hyper-V TLFS, "Hypercall Reference".
#ifndef VMM_DEVICES_HYPERV_HYPERCALL_HYPERCALL_TABLE_H_
#define VMM_DEVICES_HYPERV_HYPERCALL_HYPERCALL_TABLE_H_

#include <cstdint>
#include <optional>
#include <span>

#include "devices/hyperv/hv_cpuid_layout.h"
#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hypercall/hypercall_call.h"
#include "devices/hyperv/hypercall/hypercall_layout.h"

namespace vmm {

enum class HypercallKind : uint8_t { kSimple, kRep };

struct HypercallRow {
  HypercallCode code;
  const char* name;
  HypercallKind kind;
  uint16_t header_bytes;  // fixed input, a multiple of 8
  bool variable_header = false;
  uint16_t output_bytes = 0;          // simple calls
  uint16_t input_element_bytes = 0;   // rep calls
  uint16_t output_element_bytes = 0;  // rep calls
  // Rep calls: elements until interrupts are let in. At least 1.
  uint16_t reps_at_once = 0;
  std::optional<HvPrivilege> privilege;
  // kSuccess: a simple call is done, a rep call has done all elements that it was given.
  HvStatus (*handler)(HypercallCall&) noexcept;
};

[[nodiscard]] const HypercallRow* FindHypercall(uint16_t code) noexcept;
[[nodiscard]] std::span<const HypercallRow> AllHypercalls() noexcept;

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_HYPERCALL_HYPERCALL_TABLE_H_
