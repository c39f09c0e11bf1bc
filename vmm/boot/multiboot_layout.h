// What a multiboot kernel carries, and what it finds in EBX: header, information, module list, memory map.
//
// Source   Multiboot Specification 0.6.96: "The layout of Multiboot header", "Boot information format".
#ifndef VMM_VMM_BOOT_MULTIBOOT_LAYOUT_H_
#define VMM_VMM_BOOT_MULTIBOOT_LAYOUT_H_

#include <cstddef>
#include <cstdint>

#include "memory/gpa.h"
#include "vmm/boot/boot_layout.h"

namespace vmm {

inline constexpr uint32_t kMultibootHeaderMagic = 0x1bad'b002;
inline constexpr uint32_t kMultibootBootMagic = 0x2bad'b002;  // EAX
// The header lies, aligned, within the file's first bytes.
inline constexpr uint64_t kMultibootSearchBytes = 8192;
inline constexpr uint64_t kMultibootAlignment = 4;

// Flags of the header: a loader refuses what it does not know of bits 0 to 15.
inline constexpr uint32_t kMultibootAlignModules = 1 << 0;
inline constexpr uint32_t kMultibootWantsMemory = 1 << 1;
inline constexpr uint32_t kMultibootRequiredFlags = 0xffff;
inline constexpr uint32_t kMultibootHasAddresses = 1 << 16;

struct MultibootHeader {
  uint32_t magic;
  uint32_t flags;
  uint32_t checksum;  // the three add up to 0
  // With kMultibootHasAddresses only:
  uint32_t header_address;
  uint32_t load_address;
  uint32_t load_end_address;  // 0: to the end of the file
  uint32_t bss_end_address;   // 0: no bss
  uint32_t entry_address;
};
static_assert(sizeof(MultibootHeader) == 32);
inline constexpr uint64_t kMultibootShortHeaderBytes = 12;

// Flags of the information: which of its fields mean something.
inline constexpr uint32_t kMultibootInfoMemory = 1 << 0;
inline constexpr uint32_t kMultibootInfoCommandLine = 1 << 2;
inline constexpr uint32_t kMultibootInfoModules = 1 << 3;
inline constexpr uint32_t kMultibootInfoMemoryMap = 1 << 6;

struct MultibootInfo {
  uint32_t flags;
  uint32_t lower_kib;  // from 0
  uint32_t upper_kib;  // from 1 MiB to the first hole
  uint32_t boot_device;
  uint32_t command_line;
  uint32_t module_count;
  uint32_t modules;  // MultibootModule[module_count]
  uint32_t symbols[4];
  uint32_t memory_map_bytes;
  uint32_t memory_map;  // MultibootMemoryMapEntry[]
  uint32_t rest[9];     // drives, BIOS, loader's name, APM, video: absent
};
static_assert(offsetof(MultibootInfo, command_line) == 16);
static_assert(offsetof(MultibootInfo, module_count) == 20);
static_assert(offsetof(MultibootInfo, memory_map_bytes) == 44);
static_assert(sizeof(MultibootInfo) == 88);

struct MultibootModule {
  uint32_t start;
  uint32_t end;  // not included
  uint32_t text;
  uint32_t reserved;
};
static_assert(sizeof(MultibootModule) == 16);

struct [[gnu::packed]] MultibootMemoryMapEntry {
  uint32_t following_bytes;  // of this entry, this field not counted
  uint64_t start;
  uint64_t bytes;
  uint32_t type;  // e820's numbers
};
static_assert(sizeof(MultibootMemoryMapEntry) == 24);

// In the page that PVH's start info has for other kernels.
inline constexpr Gpa kMultibootInfoBase = kPvhStartInfoBase;
inline constexpr Gpa kMultibootModulesBase = kMultibootInfoBase + 0x60;
inline constexpr Gpa kMultibootModuleTextBase = kMultibootInfoBase + 0x70;  // an empty text
inline constexpr Gpa kMultibootMemoryMapBase = kMultibootInfoBase + 0x80;
inline constexpr uint64_t kMultibootInfoBytes = kPvhStartInfoBytes;
static_assert(kMultibootInfoBase + sizeof(MultibootInfo) <= kMultibootModulesBase);
static_assert(kMultibootModulesBase + sizeof(MultibootModule) <= kMultibootModuleTextBase);
static_assert(kMultibootMemoryMapBase + kMaxMemoryMapEntries * sizeof(MultibootMemoryMapEntry) <=
              kMultibootInfoBase + kMultibootInfoBytes);

}  // namespace vmm

#endif  // VMM_VMM_BOOT_MULTIBOOT_LAYOUT_H_
