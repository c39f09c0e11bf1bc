// The Linux boot protocol's setup header (in a bzImage) and zero page (what the kernel gets).
//
// Source   Linux "Documentation/arch/x86/boot.rst": "The Real-Mode Kernel Header", and "zero-page.rst".
#ifndef VMM_VMM_BOOT_LINUX_BOOT_LAYOUT_H_
#define VMM_VMM_BOOT_LINUX_BOOT_LAYOUT_H_

#include <cstddef>
#include <cstdint>

#include "vmm/boot/boot_layout.h"

namespace vmm {

inline constexpr uint64_t kSetupHeaderOffset = 0x1f1;  // in the file and in the zero page
inline constexpr uint64_t kSetupHeaderJump = 0x202;    // the header ends `jump_bytes` after this
inline constexpr uint64_t kSetupHeaderMaxEnd = 0x290;  // where the zero page's next field begins
inline constexpr uint64_t kSetupSectorBytes = 512;
inline constexpr uint32_t kSetupDefaultSectors = 4;  // what 0 means
inline constexpr uint16_t kSetupBootFlag = 0xaa55;
inline constexpr uint32_t kSetupMagic = 0x5372'6448;  // "HdrS"
inline constexpr uint16_t kSetupMinVersion = 0x020c;  // xloadflags, and with it the 64-bit entry point
inline constexpr uint8_t kLoadedHigh = 1 << 0;
inline constexpr uint16_t kXlfKernel64 = 1 << 0;
inline constexpr uint64_t kLinuxEntry64Offset = 0x200;
inline constexpr uint8_t kLoaderUndefined = 0xff;

struct [[gnu::packed]] LinuxSetupHeader {
  uint8_t setup_sects;
  uint16_t root_flags;
  uint32_t syssize;  // of the protected-mode kernel, in units of 16 bytes
  uint16_t ram_size;
  uint16_t vid_mode;
  uint16_t root_dev;
  uint16_t boot_flag;
  uint8_t jump_opcode;
  uint8_t jump_bytes;
  uint32_t header;
  uint16_t version;
  uint32_t realmode_swtch;
  uint16_t start_sys_seg;
  uint16_t kernel_version;
  uint8_t type_of_loader;
  uint8_t loadflags;
  uint16_t setup_move_size;
  uint32_t code32_start;
  uint32_t ramdisk_image;
  uint32_t ramdisk_size;
  uint32_t bootsect_kludge;
  uint16_t heap_end_ptr;
  uint8_t ext_loader_ver;
  uint8_t ext_loader_type;
  uint32_t cmd_line_ptr;
  uint32_t initrd_addr_max;  // the highest address of its last byte
  uint32_t kernel_alignment;
  uint8_t relocatable_kernel;
  uint8_t min_alignment;
  uint16_t xloadflags;
  uint32_t cmdline_size;  // without the NUL
  uint32_t hardware_subarch;
  uint64_t hardware_subarch_data;
  uint32_t payload_offset;
  uint32_t payload_length;
  uint64_t setup_data;
  uint64_t pref_address;
  uint32_t init_size;
  uint32_t handover_offset;
  // Later versions go on up to kSetupHeaderMaxEnd; the loader copies what is there and uses none of it.
  uint8_t later[kSetupHeaderMaxEnd - 0x268];
};
inline constexpr uint64_t kSetupHeaderMinEnd = 0x268;  // version 2.12's
#define VMM_SETUP_AT(field, offset) \
  static_assert(kSetupHeaderOffset + offsetof(LinuxSetupHeader, field) == (offset))
VMM_SETUP_AT(boot_flag, 0x1fe);
VMM_SETUP_AT(jump_bytes, 0x201);
VMM_SETUP_AT(header, 0x202);
VMM_SETUP_AT(version, 0x206);
VMM_SETUP_AT(type_of_loader, 0x210);
VMM_SETUP_AT(code32_start, 0x214);
VMM_SETUP_AT(ramdisk_image, 0x218);
VMM_SETUP_AT(cmd_line_ptr, 0x228);
VMM_SETUP_AT(initrd_addr_max, 0x22c);
VMM_SETUP_AT(kernel_alignment, 0x230);
VMM_SETUP_AT(xloadflags, 0x236);
VMM_SETUP_AT(cmdline_size, 0x238);
VMM_SETUP_AT(setup_data, 0x250);
VMM_SETUP_AT(pref_address, 0x258);
VMM_SETUP_AT(init_size, 0x260);
VMM_SETUP_AT(later, 0x268);
#undef VMM_SETUP_AT

struct [[gnu::packed]] LinuxE820Entry {
  uint64_t start;
  uint64_t bytes;
  uint32_t type;
};
static_assert(sizeof(LinuxE820Entry) == 20);

struct [[gnu::packed]] LinuxZeroPage {
  uint8_t screen_info_to_tboot[0x070];
  uint64_t acpi_rsdp_addr;
  uint8_t before_ext[0x0c0 - 0x078];
  uint32_t ext_ramdisk_image;  // the upper halves
  uint32_t ext_ramdisk_size;
  uint32_t ext_cmd_line_ptr;
  uint8_t before_e820_entries[0x1e8 - 0x0cc];
  uint8_t e820_entries;
  uint8_t before_header[0x1f1 - 0x1e9];
  LinuxSetupHeader header;
  uint8_t before_e820_table[0x2d0 - 0x290];
  LinuxE820Entry e820_table[kMaxMemoryMapEntries];
  uint8_t rest[0x1000 - 0xcd0];
};
static_assert(sizeof(LinuxZeroPage) == kZeroPageBytes);
static_assert(offsetof(LinuxZeroPage, acpi_rsdp_addr) == 0x070);
static_assert(offsetof(LinuxZeroPage, ext_ramdisk_image) == 0x0c0);
static_assert(offsetof(LinuxZeroPage, ext_cmd_line_ptr) == 0x0c8);
static_assert(offsetof(LinuxZeroPage, e820_entries) == 0x1e8);
static_assert(offsetof(LinuxZeroPage, header) == kSetupHeaderOffset);
static_assert(offsetof(LinuxZeroPage, e820_table) == 0x2d0);

}  // namespace vmm

#endif  // VMM_VMM_BOOT_LINUX_BOOT_LAYOUT_H_
