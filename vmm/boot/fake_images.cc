#include "vmm/boot/fake_images.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace vmm {

LinuxSetupHeader FakeBzImage::DefaultHeader() {
  LinuxSetupHeader header{};
  header.setup_sects = 4;
  header.syssize = 0x1000 / 16;
  header.boot_flag = kSetupBootFlag;
  header.jump_opcode = 0xeb;
  header.jump_bytes = 0x6a;
  header.header = kSetupMagic;
  header.version = 0x020f;
  header.loadflags = kLoadedHigh;
  header.code32_start = 0x10'0000;
  header.initrd_addr_max = 0x7fff'ffff;
  header.kernel_alignment = 0x20'0000;
  header.relocatable_kernel = 1;
  header.min_alignment = 21;
  header.xloadflags = kXlfKernel64 | 2;
  header.cmdline_size = 2047;
  header.pref_address = 0x20'0000;
  header.init_size = 0x10'0000;
  return header;
}

ImageBytes FakeBzImage::Build() const {
  const uint64_t offset = (setup_sectors + 1) * kSetupSectorBytes;
  ImageBytes image(offset + kernel_bytes, std::byte{0});
  std::fill(image.begin() + static_cast<ptrdiff_t>(offset), image.end(), std::byte{0x90});
  std::memcpy(image.data() + kSetupHeaderOffset, &header, sizeof(header));
  return image;
}

Elf64Header FakeElf::DefaultHeader() {
  Elf64Header header{};
  std::memcpy(header.magic, kElfMagic, sizeof(kElfMagic));
  header.file_class = kElfClass64;
  header.data_encoding = kElfLittleEndian;
  header.ident_version = 1;
  header.type = kElfTypeExecutable;
  header.machine = kElfMachineX86_64;
  header.version = 1;
  header.entry = kLoadAddress;
  header.program_header_offset = sizeof(Elf64Header);
  header.header_bytes = sizeof(Elf64Header);
  header.program_header_bytes = sizeof(Elf64ProgramHeader);
  header.program_header_count = 2;
  return header;
}

std::vector<Elf64ProgramHeader> FakeElf::DefaultSegments() {
  return {
      {.type = kElfSegmentLoad, .flags = 5, .offset = kCodeOffset, .virtual_address = 0xffff'ffff'8020'0000,
       .physical_address = kLoadAddress, .file_bytes = kCodeBytes, .memory_bytes = kCodeBytes + 0x1000, .alignment = 0x1000},
      {.type = kElfSegmentNote, .flags = 4, .offset = kNoteOffset, .virtual_address = 0, .physical_address = 0,
       .file_bytes = kNoteBytes, .memory_bytes = kNoteBytes, .alignment = 4},
  };
}

ImageBytes FakeElf::Build() const {
  ImageBytes image(kCodeOffset + kCodeBytes, std::byte{0});
  std::fill(image.begin() + kCodeOffset, image.end(), std::byte{0x90});
  std::memcpy(image.data(), &header, sizeof(header));
  std::memcpy(image.data() + sizeof(header), segments.data(), segments.size() * sizeof(segments[0]));
  // A note of somebody else's comes first, with a name that needs padding.
  const ElfNoteHeader other{.name_bytes = 5, .descriptor_bytes = 3, .type = kXenNotePhys32Entry};
  std::byte* at = image.data() + kNoteOffset;
  std::memcpy(at, &other, sizeof(other));
  std::memcpy(at + sizeof(other), "Else", 5);
  at += sizeof(other) + 8 + 4;
  std::memcpy(at, &note, sizeof(note));
  std::memcpy(at + sizeof(note), note_name, sizeof(note_name));
  std::memcpy(at + sizeof(note) + sizeof(note_name), &entry, sizeof(entry));
  return image;
}

Elf32Header FakeMultiboot::DefaultElf() {
  Elf32Header elf{};
  std::memcpy(elf.magic, kElfMagic, sizeof(kElfMagic));
  elf.file_class = kElfClass32;
  elf.data_encoding = kElfLittleEndian;
  elf.ident_version = 1;
  elf.type = kElfTypeExecutable;
  elf.machine = kElfMachine386;
  elf.version = 1;
  elf.entry = kEntry;
  elf.program_header_offset = sizeof(Elf32Header);
  elf.header_bytes = sizeof(Elf32Header);
  elf.program_header_bytes = sizeof(Elf32ProgramHeader);
  elf.program_header_count = 1;
  return elf;
}

std::vector<Elf32ProgramHeader> FakeMultiboot::DefaultSegments() {
  return {{.type = kElfSegmentLoad, .offset = kCodeOffset, .virtual_address = kLoadAddress, .physical_address = kLoadAddress,
           .file_bytes = kCodeBytes, .memory_bytes = kCodeBytes + 0x1000, .flags = 7, .alignment = 0x1000}};
}

MultibootHeader FakeMultiboot::DefaultHeader() {
  return {.magic = kMultibootHeaderMagic, .flags = kMultibootWantsMemory, .checksum = 0, .header_address = kLoadAddress,
          .load_address = kLoadAddress, .load_end_address = kLoadAddress + kCodeBytes,
          .bss_end_address = kLoadAddress + kCodeBytes + 0x1000, .entry_address = kEntry};
}

ImageBytes FakeMultiboot::Build() const {
  ImageBytes image(std::max(kCodeOffset + kCodeBytes, header_offset + uint32_t{sizeof(header)}), std::byte{0});
  std::fill_n(image.begin() + kCodeOffset, kCodeBytes, std::byte{0x90});
  std::memcpy(image.data(), &elf, sizeof(elf));
  std::memcpy(image.data() + sizeof(elf), segments.data(), segments.size() * sizeof(segments[0]));
  MultibootHeader written = header;
  if (fix_checksum) written.checksum = ~(written.magic + written.flags) + 1;
  std::memcpy(image.data() + header_offset, &written, sizeof(written));
  return image;
}

OwnedFd MakeImageFile(std::span<const std::byte> bytes) {
  OwnedFd fd(::memfd_create("image", MFD_CLOEXEC));
  size_t done = 0;
  while (fd.valid() && done < bytes.size()) {
    const ssize_t put = ::write(fd.get(), bytes.data() + done, bytes.size() - done);
    if (put <= 0) return OwnedFd();
    done += static_cast<size_t>(put);
  }
  return fd;
}

}  // namespace vmm
