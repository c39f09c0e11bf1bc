// What the test devices ask of the monitor: interrupt lines, and a page's host mapping.
//
// Threads  any.
// Trust    line and address are the guest's, unchecked: who implements this checks them.
// Errors   none: what cannot be done is not done.
#ifndef VMM_DEVICES_PLATFORM_TEST_MACHINE_TEST_MACHINE_HOST_H_
#define VMM_DEVICES_PLATFORM_TEST_MACHINE_TEST_MACHINE_HOST_H_

#include <cstdint>

#include "memory/gpa.h"

namespace vmm {

class TestMachineHost {
 public:
  virtual ~TestMachineHost() = default;
  // The level of an input of the I/O APIC, kept until it is changed.
  virtual void SetInterruptLevel(uint32_t line, bool high) noexcept = 0;
  // Takes the page that holds `guest_gpa` out of the host's page tables, and so out of KVM's; its contents stay, and the next
  // access brings it back.
  virtual void DropMapping(Gpa guest_gpa) noexcept = 0;
};

}  // namespace vmm

#endif  // VMM_DEVICES_PLATFORM_TEST_MACHINE_TEST_MACHINE_HOST_H_
