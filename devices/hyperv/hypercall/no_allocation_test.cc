// No hypercall allocates, whatever becomes of it: this program's operator new counts.
#include <cstdlib>
#include <new>

#include <gtest/gtest.h>

#include "devices/guest_interface.h"
#include "devices/hyperv/hv_cpuid_layout.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/hypercall/hypercall_layout.h"
#include "devices/hyperv/hypercall/hypercall_machine_for_test.h"
#include "devices/hyperv/hypercall/hypercall_parameters_layout.h"
#include "devices/hyperv/hypercall/hypercall_table.h"
#include "devices/hyperv/hypercall/vp_context_for_test.h"

namespace {
thread_local int allocations = 0;
}  // namespace

void* operator new(size_t bytes) {
  ++allocations;
  if (void* const memory = std::malloc(bytes != 0 ? bytes : 1)) return memory;
  std::abort();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace vmm {
namespace {

TEST(NoAllocationTest, EveryHypercallInEveryForm) {
  HypercallMachine m(OfferOfEverything().With(HvPrivilege::kVsm), kVtl1);  // its lists have room already
  m.services.has_vsm = true;
  m.PutInput(HvStartVirtualProcessorInput{.partition_id = kHvPartitionIdSelf, .vp_index = 2, .context = LongModeContext()});
  m.xmm.values[0] = {1, 1};
  int calls = 0;
  int starts = 0;
  const int before = allocations;
  for (const HypercallRow& row : AllHypercalls()) {
    for (uint16_t reps = 0; reps <= 120; reps = static_cast<uint16_t>(reps + 40)) {
      for (const uint16_t variable : {0, 1}) {
        const Control control{.code = row.code, .reps = reps, .variable = variable};
        m.services.Forget();
        static_cast<void>(m.CallMemory(control));
        starts += static_cast<int>(m.services.started.size());
        static_cast<void>(m.CallFast(control, 0x20, 1));
        static_cast<void>(m.Run(HypercallMachine::Caller32(control.value(), HypercallMachine::kInput.raw(), 0x8000)));
        calls += 3;
      }
    }
  }
  EXPECT_EQ(allocations, before);
  EXPECT_EQ(calls, static_cast<int>(AllHypercalls().size()) * 24);
  EXPECT_EQ(starts, 1);
  EXPECT_GT(m.dispatcher.stats().succeeded, 20u);
  EXPECT_GT(m.dispatcher.stats().continued, 0u);
  EXPECT_GT(m.dispatcher.stats().failed, 20u);
}

}  // namespace
}  // namespace vmm
