// The processor state in which a boot protocol enters a kernel.
//
// Threads  the vCPU's creator, before its first Run.
// Errors   Status of the register ioctls.
// Source   Linux, "The Linux/x86 Boot Protocol", 64-bit; Xen, "x86/HVM direct boot ABI"; Intel SDM volume 3.
#ifndef VMM_VCPU_INITIAL_STATE_H_
#define VMM_VCPU_INITIAL_STATE_H_

#include <cstdint>

#include "absl/status/status.h"
#include "kvm/vcpu.h"
#include "memory/gpa.h"

namespace vmm {

struct InitialState {
  enum class Mode : uint8_t {
    kProtected32,  // flat segments, paging off (PVH, multiboot)
    kLong64,       // flat segments, 4-level paging on through cr3
  };
  Mode mode = Mode::kProtected32;
  uint64_t rip = 0;
  uint64_t rsp = 0;
  uint64_t rax = 0;
  uint64_t rbx = 0;
  uint64_t rsi = 0;
  Gpa cr3;        // kLong64
  Gpa gdt_base;   // holds descriptors for the selectors below
  uint16_t gdt_limit = 0;
  uint16_t code_selector = 0x10;
  uint16_t data_selector = 0x18;
};

absl::Status SetInitialState(kvm::Vcpu& vcpu, const InitialState& state);

}  // namespace vmm

#endif  // VMM_VCPU_INITIAL_STATE_H_
