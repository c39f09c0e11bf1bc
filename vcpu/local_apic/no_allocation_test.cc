// What a VP's thread and posters do between two entries allocates nothing: this program's operator new counts.
#include <cstdint>
#include <cstdlib>
#include <new>
#include <optional>

#include <gtest/gtest.h>

#include "devices/hyperv/hv_msr_layout.h"
#include "devices/hyperv/hv_types.h"
#include "vcpu/local_apic/apic_bus.h"
#include "vcpu/local_apic/apic_directory.h"
#include "vcpu/local_apic/apic_layout.h"
#include "vcpu/local_apic/apic_sint_interrupts.h"
#include "vcpu/local_apic/fake_apic_host.h"
#include "vcpu/local_apic/local_apic.h"

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

TEST(NoAllocationTest, FromPostToEoi) {
  ApicDirectory directory;
  FakeApicClock clock;
  FakeApicDeadline deadline;
  FakeKick kick;
  LocalApic apic({}, directory, clock, deadline, kick);
  ASSERT_TRUE(directory.Add(apic).ok());
  ApicSintInterrupts sints(apic);
  ASSERT_TRUE(apic.WriteMsr(kMsrApicBase, apic.apic_base() | kApicBaseX2apic));
  ASSERT_TRUE(apic.WriteMsr(kMsrX2apicFirst + 0x0f, 0x1ff));
  sints.Configure(Sint::Of<0>(), 0x51);
  int taken = 0;
  const int before = allocations;
  for (uint32_t n = 0; n < 1000; ++n) {
    static_cast<void>(apic.Arm());
    sints.Raise(Sint::Of<0>());
    static_cast<void>(apic.WriteMsr(kMsrX2apicFirst + 0x30, 0x4161));
    static_cast<void>(apic.WriteMsr(kMsrX2apicFirst + 0x32, 0x71 | kLvtTimerPeriodic));
    static_cast<void>(apic.WriteMsr(kMsrX2apicFirst + 0x38, 100));
    clock.ticks += 1000;
    apic.OnDeadline();
    apic.Disarm();
    apic.RunPending();
    while (const std::optional<uint8_t> vector = apic.NextInterrupt()) {
      apic.Accept(*vector);
      static_cast<void>(apic.WriteMsr(kHvMsrEoi, 0));
      ++taken;
    }
  }
  EXPECT_EQ(allocations, before);
  EXPECT_EQ(taken, 3000);
}

}  // namespace
}  // namespace vmm
