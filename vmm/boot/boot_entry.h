// How the first processor enters a loaded kernel: its registers as plain values, for whoever sets them.
//
// Shapes   everything that is not named here is zero; the interrupt table is empty (limit 0) and interrupts are off.
// Units    register values as the processor holds them; segment fields as its hidden segment registers hold them.
// Threads  immutable once built. WriteBootEntry*: before any processor runs.
// Errors   WriteBootEntry*: INTERNAL where low memory is not RAM, which MemoryLayout excludes.
// Source   Linux "Documentation/arch/x86/boot.rst": "64-bit Boot Protocol"; Xen "docs/misc/pvh.pandoc": "Direct boot ABI";
//          Intel SDM volume 3, "Segment Descriptors".
#ifndef VMM_VMM_BOOT_BOOT_ENTRY_H_
#define VMM_VMM_BOOT_BOOT_ENTRY_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "memory/gpa.h"
#include "memory/guest_memory.h"

namespace vmm {

enum class CpuMode : uint8_t {
  kProtected32,  // flat segments, no paging
  kLong64,       // the first 4 GiB mapped to themselves
};

struct BootSegment {
  uint64_t base = 0;
  uint32_t limit = 0;  // in bytes, the granularity already applied
  uint16_t selector = 0;
  uint8_t type = 0;
  uint8_t dpl = 0;
  bool present = false;
  bool s = false;   // code or data, not a system segment
  bool l = false;   // 64-bit code
  bool db = false;  // 32-bit code, data
  bool g = false;
  bool operator==(const BootSegment&) const = default;
};

struct BootEntry {
  CpuMode mode = CpuMode::kLong64;
  uint64_t rip = 0;
  uint64_t rsp = 0;
  uint64_t rax = 0;
  uint64_t rbx = 0;
  uint64_t rsi = 0;
  uint64_t rflags = 2;
  uint64_t cr0 = 0;
  uint64_t cr3 = 0;
  uint64_t cr4 = 0;
  uint64_t efer = 0;
  Gpa gdt_base;
  uint16_t gdt_limit = 0;
  BootSegment code;  // CS
  BootSegment data;  // DS, ES, SS; FS and GS too
  BootSegment task;  // TR: a busy TSS at 0, which VMX demands; nothing uses it
};

// Both write the GDT (the second the page tables too) and fill in all but the general registers' arguments.
[[nodiscard]] absl::StatusOr<BootEntry> WriteBootEntryProtected32(const GuestMemory& memory, Gpa entry);
[[nodiscard]] absl::StatusOr<BootEntry> WriteBootEntryLong64(const GuestMemory& memory, Gpa entry);

}  // namespace vmm

#endif  // VMM_VMM_BOOT_BOOT_ENTRY_H_
