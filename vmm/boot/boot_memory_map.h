// The memory map that a kernel is told: the e820 table, and PVH's table, which is the same in wider entries.
//
// Shapes   ascending, not overlapping: RAM below 640 KiB, reserved up to 1 MiB (the ACPI tables are there), RAM, then ECAM
//          and the interrupt controllers reserved, RAM above 4 GiB. The PCI windows are absent: they are the host bridge's.
// Units    bytes; type numbers are e820's.
// Errors   Build: INVALID_ARGUMENT for a range that is not whole pages of RAM above 1 MiB, or overlaps another;
//          RESOURCE_EXHAUSTED where the table would not fit the zero page.
// Threads  any.
// Source   Linux "Documentation/arch/x86/zero-page.rst"; ACPI, "Address Map System Interfaces".
//
// ECAM has to be reserved here or Linux refuses to use it. The 32-bit PCI window must not be: Linux cuts reserved ranges
// out of the host bridge's windows.
#ifndef VMM_VMM_BOOT_BOOT_MEMORY_MAP_H_
#define VMM_VMM_BOOT_BOOT_MEMORY_MAP_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "memory/gpa.h"
#include "memory/layout.h"

namespace vmm {

enum class MemoryMapType : uint32_t { kRam = 1, kReserved = 2 };

struct MemoryMapEntry {
  Gpa start;
  uint64_t bytes;
  MemoryMapType type;
  bool operator==(const MemoryMapEntry&) const = default;
};

// Guest RAM that the kernel must leave alone, and that nothing is loaded into.
struct ReservedRange {
  Gpa start;
  uint64_t bytes;
};

[[nodiscard]] absl::StatusOr<std::vector<MemoryMapEntry>> BuildBootMemoryMap(const MemoryLayout& layout,
                                                                             std::span<const ReservedRange> reserved);

}  // namespace vmm

#endif  // VMM_VMM_BOOT_BOOT_MEMORY_MAP_H_
