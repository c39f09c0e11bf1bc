// From the registers of a hypercall to its result: everything that is the same for all calls. What a call does is in its handler;
// which calls there are is in hypercall_table.cc.
//
// The order of checks, where the first that fails is the answer:
//   1. CPL 0, protected mode; VtlCall and VtlReturn where VsmServices does not let them    #UD
//   2. the code is in the table; those of VSM: and VSM is offered                        INVALID_HYPERCALL_CODE
//   3. the partition has the privilege                                                   ACCESS_DENIED
//   4. the input value: reserved bits, a variable header or reps where the call has none,
//      none where it needs them, rep start not below rep count                           INVALID_HYPERCALL_INPUT
//   5. fast: more than seven slots                                                       INVALID_HYPERCALL_INPUT
//            XMM input that was not offered                                              #UD
//            output that was not offered, or by a 32-bit caller                          INVALID_HYPERCALL_INPUT
//      memory: a block that is not aligned to 8, or crosses a page                       INVALID_ALIGNMENT
//              a block that is not in RAM, or where the caller's level may not read (input)
//              or write (output)                                                         INVALID_HYPERCALL_INPUT
//   6. the parameters, in the order of their structure                                   the handler's
// Where sources differ: a block across pages is INVALID_ALIGNMENT, as the TLFS has it (OpenVMM: _INPUT), also where it is so
// large that no address would do. A block outside RAM is _INPUT, as OpenVMM and KVM have it (TLFS: _ALIGNMENT). So is one that a
// higher level protects, as in OpenVMM (TLFS: a memory intercept to that level, which knows better what its guest does). The TLFS forbids
// that input and output overlap, and has no status for it; Linux gives GetVpIndexFromApicId one address for both. So it is let
// pass: input is copied before output is written, and who does it with a call that continues spoils its own parameters. A rep
// call that fails after step 4 says that the elements before its start are done: they are, if this is where it was told to
// continue.
//
// Shapes   one object a virtual processor and trust level: two pages of buffer.
// Units    bytes; reps in elements.
// Threads  Dispatch: confined to the VP's thread, not re-entrant. stats: any.
// Trust    registers and memory are the guest's. Input is copied once, and the copy is checked and used. Output is written once,
//          behind the handler, in whole: a guest that watches its output block sees nothing of a call that is refused.
// Errors   HypercallOutcome; the status is in the result value. Nothing allocates or logs.
// Source   Hyper-V TLFS, "Hypercall Interface".
#ifndef VMM_DEVICES_HYPERV_HYPERCALL_HYPERCALL_DISPATCHER_H_
#define VMM_DEVICES_HYPERV_HYPERCALL_HYPERCALL_DISPATCHER_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "devices/guest_interface.h"
#include "devices/hyperv/hv_cpuid_layout.h"
#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/hypercall/hypercall_call.h"
#include "devices/hyperv/hypercall/hypercall_layout.h"
#include "devices/hyperv/hypercall/hypercall_services.h"
#include "devices/hyperv/hypercall/hypercall_table.h"
#include "memory/gpa.h"
#include "memory/level_memory.h"

namespace vmm {

class HypercallDispatcher final {
 public:
  struct Stats {
    uint64_t succeeded;
    uint64_t failed;     // with a status
    uint64_t continued;  // handed back to the guest to go on with, or to make again
    uint64_t undefined;  // #UD
    uint64_t switched;   // VTL calls and returns
  };

  // `memory` is the caller's level's. It and `services` outlive this.
  HypercallDispatcher(VpIndex vp, Vtl vtl, const HvOffer& offer, const LevelMemory& memory, HypercallServices& services) noexcept
      : caller_{vp, vtl, offer, services}, memory_(memory) {}
  HypercallDispatcher(const HypercallDispatcher&) = delete;
  HypercallDispatcher& operator=(const HypercallDispatcher&) = delete;

  // All but kNotOffered. Of `registers` only those change that hold the result, where to continue, or fast output; none but with
  // kDone and kAgain. Whether a hypercall page is enabled is the caller's to know.
  [[nodiscard]] HypercallOutcome Dispatch(HypercallRegisters& registers, XmmAccess& xmm) noexcept;

  [[nodiscard]] Stats stats() const noexcept;

 private:
  struct Answer {
    HypercallOutcome outcome;
    HvStatus status = HvStatus::kSuccess;
    uint16_t reps = 0;  // completed, absolute
  };
  struct Frame {
    Gpa input;
    Gpa output;
    uint32_t input_bytes;
    uint32_t output_bytes;
  };

  [[nodiscard]] static Answer Done(HvStatus status, uint16_t reps = 0) noexcept {
    return {HypercallOutcome::kDone, status, reps};
  }
  [[nodiscard]] static Frame MakeFrame(const HypercallRegisters& registers, HypercallInput input,
                                       const HypercallRow& row) noexcept;
  [[nodiscard]] Answer Run(HypercallRegisters& registers, XmmAccess& xmm) noexcept;
  [[nodiscard]] HvStatus FetchMemory(const Frame& frame) noexcept;

  const HypercallCaller caller_;
  const LevelMemory& memory_;
  alignas(16) std::array<std::byte, kPageBytes> input_;
  alignas(16) std::array<std::byte, kPageBytes> output_;
  // Counters: relaxed, they order nothing; written by the VP's thread.
  std::atomic<uint64_t> succeeded_{0};
  std::atomic<uint64_t> failed_{0};
  std::atomic<uint64_t> continued_{0};
  std::atomic<uint64_t> undefined_{0};
  std::atomic<uint64_t> switched_{0};
};

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_HYPERCALL_HYPERCALL_DISPATCHER_H_
