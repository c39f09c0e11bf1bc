#include "vmm/boot/multiboot.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "vmm/boot/boot_layout.h"
#include "vmm/boot/elf_layout.h"
#include "vmm/boot/multiboot_layout.h"

namespace vmm {
namespace {

// Far above what kernels have; bounds the monitor's memory.
constexpr uint16_t kMaxProgramHeaders = 128;

// A piece of the file and its place. Widths of 64 bits: sums of the file's 32-bit numbers do not wrap.
struct Segment {
  uint64_t offset;
  uint64_t file_bytes;
  uint64_t start;
  uint64_t memory_bytes;
};

struct Image {
  std::vector<Segment> segments;
  uint64_t entry = 0;
};

struct FoundHeader {
  MultibootHeader header;
  uint64_t offset;
};

absl::StatusOr<FoundHeader> FindHeader(const ImageFile& kernel) {
  std::vector<std::byte> start(std::min(kernel.bytes(), kMultibootSearchBytes));
  RETURN_IF_ERROR(kernel.Read(0, start, "the part with the multiboot header"));
  for (uint64_t at = 0; at + kMultibootShortHeaderBytes <= start.size(); at += kMultibootAlignment) {
    FoundHeader found{.header = {}, .offset = at};
    // What lies beyond the short form is looked at only where the flags say that it is there.
    std::memcpy(&found.header, start.data() + at, std::min<uint64_t>(sizeof(MultibootHeader), start.size() - at));
    const MultibootHeader& header = found.header;
    if (header.magic != kMultibootHeaderMagic || header.magic + header.flags + header.checksum != 0) continue;
    if ((header.flags & kMultibootHasAddresses) != 0 && start.size() - at < sizeof(MultibootHeader)) {
      return kernel.Refuse(absl::StrCat("the multiboot header at offset ", at, " is cut off after ", start.size() - at, " bytes"));
    }
    return found;
  }
  return kernel.Refuse(absl::StrCat("no multiboot header in the first ", start.size(), " bytes: the TEST machine starts no other"));
}

absl::StatusOr<Image> ImageByAddresses(const ImageFile& kernel, const FoundHeader& found) {
  const MultibootHeader& header = found.header;
  if (header.header_address < header.load_address || header.header_address - header.load_address > found.offset) {
    return kernel.Refuse(absl::StrCat("the multiboot header at offset ", found.offset, " cannot be at 0x",
                                      absl::Hex(header.header_address), " of an image that begins at 0x",
                                      absl::Hex(header.load_address)));
  }
  const uint64_t offset = found.offset - (header.header_address - header.load_address);
  uint64_t file_bytes = kernel.bytes() - offset;
  if (header.load_end_address != 0) {
    if (header.load_end_address <= header.load_address || header.load_end_address - header.load_address > file_bytes) {
      return kernel.Refuse(absl::StrCat("the multiboot image is 0x", absl::Hex(header.load_address), " to 0x",
                                        absl::Hex(header.load_end_address), ", the file has ", file_bytes, " bytes of it"));
    }
    file_bytes = header.load_end_address - header.load_address;
  }
  uint64_t memory_bytes = file_bytes;
  if (header.bss_end_address != 0) {
    if (header.bss_end_address < header.load_address + file_bytes) {
      return kernel.Refuse(absl::StrCat("the multiboot bss ends at 0x", absl::Hex(header.bss_end_address), ", its image at 0x",
                                        absl::Hex(header.load_address + file_bytes)));
    }
    memory_bytes = header.bss_end_address - header.load_address;
  }
  if (uint64_t{header.entry_address} - header.load_address >= file_bytes) {
    return kernel.Refuse(absl::StrCat("the multiboot entry 0x", absl::Hex(header.entry_address), " is not in the image"));
  }
  return Image{.segments = {{offset, file_bytes, header.load_address, memory_bytes}}, .entry = header.entry_address};
}

absl::StatusOr<Image> ImageByElf(const ImageFile& kernel) {
  Elf32Header header;
  RETURN_IF_ERROR(kernel.Read(0, std::as_writable_bytes(std::span(&header, 1)), "the ELF header"));
  if (std::memcmp(header.magic, kElfMagic, sizeof(kElfMagic)) != 0) {
    return kernel.Refuse("its multiboot header gives no addresses, and it is not an ELF file");
  }
  if (header.file_class != kElfClass32 || header.data_encoding != kElfLittleEndian || header.machine != kElfMachine386) {
    return kernel.Refuse(absl::StrCat("ELF class ", header.file_class, " for machine ", header.machine,
                                      ", a multiboot kernel is of class 1 (32-bit) for 3 (386): objcopy -O elf32-i386 makes one"));
  }
  if (header.type != kElfTypeExecutable) return kernel.Refuse(absl::StrCat("ELF type ", header.type, " is no executable (2)"));
  if (header.program_header_bytes != sizeof(Elf32ProgramHeader)) {
    return kernel.Refuse(absl::StrCat("ELF program headers of ", header.program_header_bytes, " bytes, the format has ",
                                      sizeof(Elf32ProgramHeader)));
  }
  if (header.program_header_count == 0 || header.program_header_count > kMaxProgramHeaders) {
    return kernel.Refuse(absl::StrCat(header.program_header_count, " ELF program headers, 1 to ", kMaxProgramHeaders,
                                      " can be loaded"));
  }
  std::vector<Elf32ProgramHeader> headers(header.program_header_count);
  RETURN_IF_ERROR(kernel.Read(header.program_header_offset, std::as_writable_bytes(std::span(headers)),
                              "the ELF program header table"));
  Image image;
  bool entry_is_loaded = false;
  for (size_t i = 0; i < headers.size(); ++i) {
    const Elf32ProgramHeader& segment = headers[i];
    if (segment.type != kElfSegmentLoad || segment.memory_bytes == 0) continue;
    if (segment.file_bytes > segment.memory_bytes) {
      return kernel.Refuse(absl::StrCat("ELF segment ", i, " has ", segment.file_bytes, " bytes in the file for ",
                                        segment.memory_bytes, " in memory"));
    }
    if (!kernel.Holds(segment.offset, segment.file_bytes)) {
      return kernel.Refuse(absl::StrCat("ELF segment ", i, " is ", segment.file_bytes, " bytes at offset ", segment.offset,
                                        ", the file has ", kernel.bytes(), " bytes"));
    }
    image.segments.push_back({segment.offset, segment.file_bytes, segment.physical_address, segment.memory_bytes});
    // The entry is a virtual address.
    if (!entry_is_loaded && uint64_t{header.entry} - segment.virtual_address < segment.file_bytes) {
      entry_is_loaded = true;
      image.entry = uint64_t{header.entry} - segment.virtual_address + segment.physical_address;
    }
  }
  if (image.segments.empty()) return kernel.Refuse("no ELF segment is to be loaded");
  if (!entry_is_loaded) {
    return kernel.Refuse(absl::StrCat("the ELF entry 0x", absl::Hex(header.entry), " is in no segment's file contents"));
  }
  return image;
}

absl::Status WriteInfo(const LoadRequest& request, const LoadedKernel& loaded) {
  MultibootInfo info{};
  info.flags = kMultibootInfoMemory | kMultibootInfoCommandLine | kMultibootInfoMemoryMap;
  info.command_line = static_cast<uint32_t>(kCommandLineBase.raw());
  info.memory_map = static_cast<uint32_t>(kMultibootMemoryMapBase.raw());
  info.memory_map_bytes = static_cast<uint32_t>(request.memory_map.size() * sizeof(MultibootMemoryMapEntry));
  bool written = request.memory.Fill(kMultibootInfoBase, std::byte{0}, kMultibootInfoBytes);
  Gpa at = kMultibootMemoryMapBase;
  for (const MemoryMapEntry& entry : request.memory_map) {
    const MultibootMemoryMapEntry wire{sizeof(MultibootMemoryMapEntry) - sizeof(uint32_t), entry.start.raw(), entry.bytes,
                                       static_cast<uint32_t>(entry.type)};
    written &= request.memory.WriteObject(at, wire);
    at = at + sizeof(wire);
    if (entry.type != MemoryMapType::kRam) continue;
    // Below the hole at 3 GiB, so 32 bits hold it.
    if (entry.start == Gpa(0)) info.lower_kib = static_cast<uint32_t>(entry.bytes / 1024);
    if (entry.start == kHighRamStart) info.upper_kib = static_cast<uint32_t>(entry.bytes / 1024);
  }
  if (loaded.initramfs_bytes != 0) {
    info.flags |= kMultibootInfoModules;
    info.module_count = 1;
    info.modules = static_cast<uint32_t>(kMultibootModulesBase.raw());
    const MultibootModule module{static_cast<uint32_t>(loaded.initramfs.raw()),
                                 static_cast<uint32_t>(loaded.initramfs.raw() + loaded.initramfs_bytes),
                                 static_cast<uint32_t>(kMultibootModuleTextBase.raw()), 0};
    written &= request.memory.WriteObject(kMultibootModulesBase, module);
  }
  written &= request.memory.WriteObject(kMultibootInfoBase, info);
  return written ? absl::OkStatus() : absl::InternalError("write the multiboot information: low memory is not RAM");
}

}  // namespace

absl::StatusOr<LoadedKernel> LoadMultiboot(const ImageFile& kernel, const LoadRequest& request) {
  ASSIGN_OR_RETURN(const FoundHeader found, FindHeader(kernel));
  const uint32_t unknown =
      found.header.flags & kMultibootRequiredFlags & ~(kMultibootAlignModules | kMultibootWantsMemory);
  if (unknown != 0) {
    return kernel.Refuse(absl::StrCat("the multiboot header requires what is not offered (flags 0x", absl::Hex(unknown), ")"));
  }
  Image image;
  if ((found.header.flags & kMultibootHasAddresses) != 0) {
    ASSIGN_OR_RETURN(image, ImageByAddresses(kernel, found));
  } else {
    ASSIGN_OR_RETURN(image, ImageByElf(kernel));
  }

  // First all checks and claims, then all reads: a bad image is refused before much of it is read.
  uint64_t low = UINT64_MAX;
  uint64_t high = 0;
  for (const Segment& segment : image.segments) {
    if (!request.placement.Claim(Gpa(segment.start), segment.memory_bytes)) {
      return kernel.RefuseSize(absl::StrCat("it wants ", segment.memory_bytes, " bytes at 0x", absl::Hex(segment.start),
                                            ", which are not all free RAM between 1 MiB and the end of low RAM"));
    }
    low = std::min(low, segment.start);
    high = std::max(high, segment.start + segment.memory_bytes);
  }
  for (const Segment& segment : image.segments) {
    const Gpa start{segment.start};
    RETURN_IF_ERROR(kernel.ReadIntoGuest(segment.offset, request.memory, start, segment.file_bytes, "a multiboot segment"));
    if (!request.memory.Fill(start + segment.file_bytes, std::byte{0}, segment.memory_bytes - segment.file_bytes)) {
      return absl::InternalError("clear a multiboot segment: claimed memory is not RAM");
    }
  }

  LoadedKernel loaded;
  loaded.format = ImageFormat::kMultiboot;
  loaded.kernel = Gpa(low);
  loaded.kernel_bytes = high - low;
  if (request.initramfs != nullptr) {
    ASSIGN_OR_RETURN(loaded.initramfs, PlaceInitramfs(request, kMmioHoleStart));
    loaded.initramfs_bytes = request.initramfs->bytes();
  }
  RETURN_IF_ERROR(WriteCommandLine(request, kernel, kCommandLineBytes - 1));
  RETURN_IF_ERROR(WriteInfo(request, loaded));
  ASSIGN_OR_RETURN(loaded.entry, WriteBootEntryProtected32(request.memory, Gpa(image.entry)));
  loaded.entry.rax = kMultibootBootMagic;
  loaded.entry.rbx = kMultibootInfoBase.raw();
  return loaded;
}

}  // namespace vmm
