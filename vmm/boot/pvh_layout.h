// What a PVH kernel finds in EBX: the start info and the two tables that it points to.
//
// Source   Xen "public/arch-x86/hvm/start_info.h", version 1.
#ifndef VMM_VMM_BOOT_PVH_LAYOUT_H_
#define VMM_VMM_BOOT_PVH_LAYOUT_H_

#include <cstddef>
#include <cstdint>

#include "vmm/boot/boot_layout.h"

namespace vmm {

inline constexpr uint32_t kPvhMagic = 0x336e'c578;
inline constexpr uint32_t kPvhVersion = 1;  // the first with a memory map

struct PvhStartInfo {
  uint32_t magic;
  uint32_t version;
  uint32_t flags;
  uint32_t module_count;
  uint64_t module_list;  // PvhModule[module_count]
  uint64_t command_line;
  uint64_t acpi_rsdp;
  uint64_t memory_map;  // PvhMemoryMapEntry[memory_map_entries]
  uint32_t memory_map_entries;
  uint32_t reserved;
};
static_assert(sizeof(PvhStartInfo) == 56);
static_assert(offsetof(PvhStartInfo, acpi_rsdp) == 32);
static_assert(offsetof(PvhStartInfo, memory_map_entries) == 48);

struct PvhModule {
  uint64_t address;
  uint64_t bytes;
  uint64_t command_line;
  uint64_t reserved;
};
static_assert(sizeof(PvhModule) == 32);

struct PvhMemoryMapEntry {
  uint64_t start;
  uint64_t bytes;
  uint32_t type;  // e820's numbers
  uint32_t reserved;
};
static_assert(sizeof(PvhMemoryMapEntry) == 24);

static_assert(kPvhStartInfoBase + sizeof(PvhStartInfo) <= kPvhModuleListBase);
static_assert(kPvhModuleListBase + sizeof(PvhModule) <= kPvhMemoryMapBase);
static_assert(kPvhMemoryMapBase + kMaxMemoryMapEntries * sizeof(PvhMemoryMapEntry) <=
              kPvhStartInfoBase + kPvhStartInfoBytes);

}  // namespace vmm

#endif  // VMM_VMM_BOOT_PVH_LAYOUT_H_
