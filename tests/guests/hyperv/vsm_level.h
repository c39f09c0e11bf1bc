// VTL1 of this guest: a secure kernel of a few lines, on every processor, that runs what VTL0 asks it to and answers intercepts.
//
// Shapes   one image, two levels. VTL1 has its own page map, stacks, descriptor tables, APIC, hypercall page, assist pages and
//          message pages; `ThisCpu()`, faults, handlers and assertions work there as at VTL0, each level with its own.
//          EnableVtl1() first; EnableProtection() before pages are protected.
//
//   InVtl1([&] { EXPECT_EQ(ReadMsr(vmm::kHvMsrVpIndex), 0); });                  here, as a VTL call
//   const Protected page(gpa, vmm::kHvProtectRead);                             for a scope
//   const Intercepts seen = Intercepted(Reply::kSkip, [&] { Store<uint8_t>(gpa, 1); });
//   EXPECT_EQ(seen.count, 1u);  EXPECT_EQ(seen.Memory(0).gpa, gpa);
//
// Threads  each processor its own VTL1. What VTL1 does by itself (an intercept, an interrupt) prints and asserts nothing: it may have
//          stopped VTL0 in the middle of a line.
// Errors   an intercept that nobody expects ends the guest.
// Source   Hyper-V TLFS, "Virtual Secure Mode".
#ifndef VMM_TESTS_GUESTS_HYPERV_VSM_LEVEL_H_
#define VMM_TESTS_GUESTS_HYPERV_VSM_LEVEL_H_

#include <cstdint>
#include <type_traits>

#include "devices/hyperv/synic/hv_message_layout.h"
#include "devices/hyperv/vsm/intercept_message_layout.h"
#include "tests/guests/hyperv/vsm_calls.h"
#include "tests/guests/runtime/atomic.h"

namespace guest {

inline constexpr uint32_t kMaxVsmCpus = 8;
inline constexpr uint8_t kInterceptVector = 0xf3;  // SINT0 of VTL1

// General registers of the level below, which VTL1 keeps for it. The assembly of vsm_level.cc knows the order.
struct VtlFrame {
  uint64_t rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15, pad;
};
static_assert(sizeof(VtlFrame) == 16 * 8);

// --- Bringing it up -----------------------------------------------------------------------------------------------------

// What VTL1 of processor `cpu` begins with.
HvInitialVpContext SecureContext(uint32_t cpu);
// On all processors, unless it is there already; for tests about the enabling itself, in three steps.
void EnableVtl1();
void EnableVtl1OnPartition();      // on processor 0
void EnableVtl1OnThisCpu();        // on processor 0
void EnableVtl1OnCpu(uint32_t cpu);  // from VTL1 of processor 0, for another one; then enters it there
// VsmPartitionConfig: protections may be set, the default is no restriction. Once.
void EnableProtection();

// --- Calls --------------------------------------------------------------------------------------------------------------

// Addresses in the hypercall pages.
uint64_t VtlCallEntry();
uint64_t VtlReturnEntry();  // of VTL1's
void CallInVtl1(void (*function)(void*), void* argument);

// Runs it in VTL1 of this processor, with interrupts on there. At VTL1 already: just runs it.
template <typename F>
void InVtl1(F&& function) {
  if (ThisLevel() == 1) return function();
  using Function = std::remove_reference_t<F>;
  CallInVtl1([](void* f) { (*static_cast<Function*>(f))(); }, const_cast<void*>(static_cast<const void*>(&function)));
}

// --- What VTL1 of a processor has seen ----------------------------------------------------------------------------------

struct VtlCounts {
  Atomic<uint32_t> calls, interrupts, others;  // entries by reason
  uint32_t first_reason;                       // of the very first entry
};
VtlCounts& CountsOf(uint32_t cpu);
// What VTL0 of `cpu` will have in its general registers; RAX and RCX unless the return is fast. RSP is nobody's but its own.
VtlFrame& FrameOf(uint32_t cpu);
vmm::HvVpAssistPage& AssistPage(uint32_t cpu);       // of VTL1
vmm::HvMessage* SecureMessagePage(uint32_t cpu);     // of VTL1
uint64_t SecureInterruptCount(uint32_t cpu, uint8_t vector);
// VTL1 of this processor returns so from now on: fast leaves RAX and RCX alone.
void SetFastReturn(bool fast);
// And so: with interrupts on, which it then takes at its very entry. Tests enter with them off.
void SetOpenReturn(bool open);

// --- Intercepts ---------------------------------------------------------------------------------------------------------

using InterceptHandler = void (*)(const vmm::HvMessage& message, VtlFrame& frame);
enum class Reply : uint8_t {
  kFatal,  // nobody expects one
  kRetry,  // nothing: VTL0 tries again
  kLift,   // the page is free again
  kSkip,   // RIP behind the instruction, whose length the message has
  kRaise,  // #GP(0)
  kCall,   // the handler
};

inline constexpr uint32_t kMostIntercepts = 16;
struct Intercepts {
  uint32_t count = 0;
  vmm::HvMessage messages[kMostIntercepts] = {};  // the first of them
  [[nodiscard]] const vmm::HvMemoryIntercept& Memory(uint32_t number) const {
    return *reinterpret_cast<const vmm::HvMemoryIntercept*>(messages[number].payload);
  }
  template <typename Payload>
  [[nodiscard]] const Payload& As(uint32_t number) const {
    return *reinterpret_cast<const Payload*>(messages[number].payload);
  }
};
// Of this processor, from here on; clears what was seen.
void SetReply(Reply reply, InterceptHandler handler = nullptr);
const Intercepts& SeenOf(uint32_t cpu);

// The intercepts that `function` causes on this processor, and how VTL1 answers each.
template <typename F>
Intercepts Intercepted(Reply reply, F&& function) {
  SetReply(reply);
  function();
  const Intercepts seen = SeenOf(ThisCpuNumber());
  SetReply(Reply::kFatal);
  return seen;
}

// --- Protections --------------------------------------------------------------------------------------------------------

// By VTL1 of this processor, from either level.
uint64_t Protect(uint64_t gpa, uint32_t flags, uint16_t pages = 1);

// What every way to enforce protections can do; `kHvProtectAll` lifts them.
inline constexpr uint32_t kNoAccess = 0;
inline constexpr uint32_t kReadExecute = vmm::kHvProtectRead | vmm::kHvProtectKernelExecute | vmm::kHvProtectUserExecute;

class Protected final {
 public:
  Protected(uint64_t gpa, uint32_t flags, uint16_t pages = 1);
  ~Protected();
  Protected(const Protected&) = delete;
  Protected& operator=(const Protected&) = delete;

 private:
  const uint64_t gpa_;
  const uint16_t pages_;
};

}  // namespace guest

#endif  // VMM_TESTS_GUESTS_HYPERV_VSM_LEVEL_H_
