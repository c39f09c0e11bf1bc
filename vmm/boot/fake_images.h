// Kernel images made up by tests: small, well formed, and open to being spoilt field by field.
//
// Use FakeBzImage, FakeElf and FakeMultiboot for every rule of the loaders; guest_kernel_test.cc loads real ones.
#ifndef VMM_VMM_BOOT_FAKE_IMAGES_H_
#define VMM_VMM_BOOT_FAKE_IMAGES_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/owned_fd.h"
#include "vmm/boot/elf_layout.h"
#include "vmm/boot/linux_boot_layout.h"
#include "vmm/boot/multiboot_layout.h"

namespace vmm {

using ImageBytes = std::vector<std::byte>;

// `header` is as Linux 6.12 has it, for `kernel_bytes` of kernel filled with 0x90 that prefers 2 MiB and needs 1 MiB.
struct FakeBzImage {
  LinuxSetupHeader header = DefaultHeader();
  uint64_t setup_sectors = 4;  // that the file has, whatever the header says
  uint64_t kernel_bytes = 0x1000;

  static LinuxSetupHeader DefaultHeader();
  [[nodiscard]] ImageBytes Build() const;
};

// One segment of code at 2 MiB with 0x1000 bytes of zeros behind, and the PVH note whose entry is 0x10 bytes into it.
struct FakeElf {
  static constexpr uint64_t kLoadAddress = 0x20'0000;
  static constexpr uint64_t kCodeBytes = 0x100;

  Elf64Header header = DefaultHeader();
  std::vector<Elf64ProgramHeader> segments = DefaultSegments();
  ElfNoteHeader note{.name_bytes = 4, .descriptor_bytes = 4, .type = kXenNotePhys32Entry};
  char note_name[4] = {'X', 'e', 'n', '\0'};
  uint64_t entry = kLoadAddress + 0x10;

  // In the file: the header, room for 4 program headers, the notes, the code.
  static constexpr uint64_t kNoteOffset = 0x200;
  static constexpr uint64_t kNoteBytes = 0x40;
  static constexpr uint64_t kCodeOffset = 0x240;
  static Elf64Header DefaultHeader();
  static std::vector<Elf64ProgramHeader> DefaultSegments();
  [[nodiscard]] ImageBytes Build() const;
};

// An ELF32 file with one segment of code at 4 MiB with 0x1000 bytes of zeros behind, and a multiboot header that begins it.
// With kMultibootHasAddresses in the header's flags, the addresses there say the same.
struct FakeMultiboot {
  static constexpr uint32_t kLoadAddress = 0x40'0000;
  static constexpr uint32_t kCodeBytes = 0x100;
  static constexpr uint32_t kCodeOffset = 0x100;
  static constexpr uint32_t kEntry = kLoadAddress + 0x20;

  Elf32Header elf = DefaultElf();
  std::vector<Elf32ProgramHeader> segments = DefaultSegments();
  MultibootHeader header = DefaultHeader();
  uint32_t header_offset = kCodeOffset;
  bool fix_checksum = true;

  static Elf32Header DefaultElf();
  static std::vector<Elf32ProgramHeader> DefaultSegments();
  static MultibootHeader DefaultHeader();
  [[nodiscard]] ImageBytes Build() const;
};

// A regular file without a name that holds `bytes`.
[[nodiscard]] OwnedFd MakeImageFile(std::span<const std::byte> bytes);

}  // namespace vmm

#endif  // VMM_VMM_BOOT_FAKE_IMAGES_H_
