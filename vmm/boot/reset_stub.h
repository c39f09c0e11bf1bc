// What a guest finds at the real-mode reset vector, F000:FFF0: code that resets the machine.
//
// There is no firmware, but a kernel may jump there: Linux, told of hardware-reduced ACPI, prefers EFI's reset to the ACPI
// register, has no EFI here, and then restarts "through the BIOS".
//
// Threads  before any processor runs.
// Errors   INTERNAL where the last page below 1 MiB is not RAM, which MemoryLayout excludes.
#ifndef VMM_VMM_BOOT_RESET_STUB_H_
#define VMM_VMM_BOOT_RESET_STUB_H_

#include "absl/status/status.h"
#include "memory/guest_memory.h"

namespace vmm {

[[nodiscard]] absl::Status WriteResetStub(const GuestMemory& memory);

}  // namespace vmm

#endif  // VMM_VMM_BOOT_RESET_STUB_H_
