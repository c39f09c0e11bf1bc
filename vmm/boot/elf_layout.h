// The parts of an ELF file that loading a kernel needs: 64-bit ones, and 32-bit ones for multiboot.
//
// Source   System V ABI, "Object Files" and its AMD64 supplement; Xen "public/elfnote.h" for the note.
#ifndef VMM_VMM_BOOT_ELF_LAYOUT_H_
#define VMM_VMM_BOOT_ELF_LAYOUT_H_

#include <cstddef>
#include <cstdint>

namespace vmm {

inline constexpr uint8_t kElfMagic[4] = {0x7f, 'E', 'L', 'F'};
inline constexpr uint8_t kElfClass32 = 1;
inline constexpr uint8_t kElfClass64 = 2;
inline constexpr uint8_t kElfLittleEndian = 1;
inline constexpr uint16_t kElfTypeExecutable = 2;
inline constexpr uint16_t kElfTypeShared = 3;  // position independent
inline constexpr uint16_t kElfMachine386 = 3;
inline constexpr uint16_t kElfMachineX86_64 = 62;
inline constexpr uint32_t kElfSegmentLoad = 1;
inline constexpr uint32_t kElfSegmentNote = 4;
inline constexpr uint32_t kXenNotePhys32Entry = 18;
inline constexpr char kXenNoteName[4] = {'X', 'e', 'n', '\0'};

struct Elf64Header {
  uint8_t magic[4];
  uint8_t file_class;
  uint8_t data_encoding;
  uint8_t ident_version;
  uint8_t ident_rest[9];
  uint16_t type;
  uint16_t machine;
  uint32_t version;
  uint64_t entry;
  uint64_t program_header_offset;
  uint64_t section_header_offset;
  uint32_t flags;
  uint16_t header_bytes;
  uint16_t program_header_bytes;
  uint16_t program_header_count;
  uint16_t section_header_bytes;
  uint16_t section_header_count;
  uint16_t section_name_index;
};
static_assert(sizeof(Elf64Header) == 64);
static_assert(offsetof(Elf64Header, type) == 16);
static_assert(offsetof(Elf64Header, program_header_offset) == 32);
static_assert(offsetof(Elf64Header, program_header_bytes) == 54);

struct Elf64ProgramHeader {
  uint32_t type;
  uint32_t flags;
  uint64_t offset;
  uint64_t virtual_address;
  uint64_t physical_address;
  uint64_t file_bytes;
  uint64_t memory_bytes;
  uint64_t alignment;
};
static_assert(sizeof(Elf64ProgramHeader) == 56);
static_assert(offsetof(Elf64ProgramHeader, physical_address) == 24);

struct Elf32Header {
  uint8_t magic[4];
  uint8_t file_class;
  uint8_t data_encoding;
  uint8_t ident_version;
  uint8_t ident_rest[9];
  uint16_t type;
  uint16_t machine;
  uint32_t version;
  uint32_t entry;
  uint32_t program_header_offset;
  uint32_t section_header_offset;
  uint32_t flags;
  uint16_t header_bytes;
  uint16_t program_header_bytes;
  uint16_t program_header_count;
  uint16_t section_header_bytes;
  uint16_t section_header_count;
  uint16_t section_name_index;
};
static_assert(sizeof(Elf32Header) == 52);
static_assert(offsetof(Elf32Header, program_header_offset) == 28);
static_assert(offsetof(Elf32Header, program_header_bytes) == 42);

struct Elf32ProgramHeader {
  uint32_t type;
  uint32_t offset;
  uint32_t virtual_address;
  uint32_t physical_address;
  uint32_t file_bytes;
  uint32_t memory_bytes;
  uint32_t flags;
  uint32_t alignment;
};
static_assert(sizeof(Elf32ProgramHeader) == 32);

// Followed by the name and the descriptor, each padded to the segment's alignment of 4 or 8.
struct ElfNoteHeader {
  uint32_t name_bytes;
  uint32_t descriptor_bytes;
  uint32_t type;
};
static_assert(sizeof(ElfNoteHeader) == 12);

}  // namespace vmm

#endif  // VMM_VMM_BOOT_ELF_LAYOUT_H_
