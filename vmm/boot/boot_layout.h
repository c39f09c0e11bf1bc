// Where the loaders put what a kernel needs at its entry: all of it below 640 KiB, the ACPI tables below 1 MiB.
//
// Shapes   GDT, stack, zero page (Linux) or start info (PVH), page tables, command line; kernels begin at 1 MiB.
// Units    Gpa and bytes.
// Source   Linux "Documentation/arch/x86/boot.rst": "Memory Layout" (what lies below 640 KiB is the loader's).
#ifndef VMM_VMM_BOOT_BOOT_LAYOUT_H_
#define VMM_VMM_BOOT_BOOT_LAYOUT_H_

#include <cstdint>

#include "memory/gpa.h"
#include "memory/layout.h"

namespace vmm {

inline constexpr Gpa kBootStackBase{0x5000};
inline constexpr uint64_t kBootStackBytes = kPageBytes;
inline constexpr Gpa kBootGdtBase{0x6000};
inline constexpr uint64_t kBootGdtBytes = 6 * 8;
inline constexpr Gpa kZeroPageBase{0x7000};
inline constexpr uint64_t kZeroPageBytes = kPageBytes;
inline constexpr Gpa kPvhStartInfoBase{0x8000};  // the start info, then its module list, then its memory map
inline constexpr Gpa kPvhModuleListBase{0x8040};
inline constexpr Gpa kPvhMemoryMapBase{0x8080};
inline constexpr uint64_t kPvhStartInfoBytes = kPageBytes;
inline constexpr Gpa kPageTablesBase{0x9000};  // PML4, PDPT, then one page directory for each of the first 4 GiB
inline constexpr uint64_t kPageTablesBytes = 6 * kPageBytes;
inline constexpr Gpa kCommandLineBase{0x20000};
// With the terminating NUL. Linux for x86 keeps no more (COMMAND_LINE_SIZE) and would cut the rest off without a word.
inline constexpr uint64_t kCommandLineBytes = 2048;

// The end of what a PC calls conventional memory, and the traditional place of the extended BIOS data area.
inline constexpr Gpa kLowRamEnd{0x9fc00};
// Where a kernel without a pointer to the RSDP looks for it. Reserved in the memory map with everything from kLowRamEnd up.
inline constexpr Gpa kAcpiTablesBase{0xe0000};
inline constexpr uint64_t kAcpiTablesBytes = 0x1fff0;
// The real-mode reset vector, within the tables' area: its last 16 bytes are not theirs.
inline constexpr Gpa kResetStubBase{0xffff0};
inline constexpr uint64_t kResetStubBytes = 16;
inline constexpr Gpa kHighRamStart{kMiB};

// The zero page's table is the shorter of the two formats.
inline constexpr uint32_t kMaxMemoryMapEntries = 128;

static_assert(kBootStackBase + kBootStackBytes <= kBootGdtBase);
static_assert(kBootGdtBase + kBootGdtBytes <= kZeroPageBase);
static_assert(kZeroPageBase + kZeroPageBytes <= kPvhStartInfoBase);
static_assert(kPvhStartInfoBase + kPvhStartInfoBytes <= kPageTablesBase);
static_assert(kPageTablesBase + kPageTablesBytes <= kCommandLineBase);
static_assert(kPageTablesBase.page_offset() == 0 && kZeroPageBase.page_offset() == 0);
static_assert(kCommandLineBase + kCommandLineBytes <= kLowRamEnd);
static_assert(kLowRamEnd <= kAcpiTablesBase);
static_assert(kAcpiTablesBase + kAcpiTablesBytes <= kResetStubBase);
static_assert(kResetStubBase + kResetStubBytes <= kHighRamStart);
static_assert(kHighRamStart.raw() <= MemoryLayout::kMinRamBytes, "every machine has RAM for all of the above");

}  // namespace vmm

#endif  // VMM_VMM_BOOT_BOOT_LAYOUT_H_
