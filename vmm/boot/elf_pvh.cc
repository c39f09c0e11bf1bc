#include "vmm/boot/elf_pvh.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "vmm/boot/boot_layout.h"
#include "vmm/boot/elf_layout.h"
#include "vmm/boot/pvh_layout.h"

namespace vmm {
namespace {

// Both are far above what kernels have, and bound the monitor's memory.
constexpr uint16_t kMaxProgramHeaders = 128;
constexpr uint64_t kMaxNoteBytes = 64 * 1024;

template <typename T>
std::span<std::byte> BytesOf(T& object) {
  return std::as_writable_bytes(std::span(&object, 1));
}

absl::StatusOr<std::vector<Elf64ProgramHeader>> ReadProgramHeaders(const ImageFile& kernel) {
  Elf64Header header;
  RETURN_IF_ERROR(kernel.Read(0, BytesOf(header), "the ELF header"));
  if (std::memcmp(header.magic, kElfMagic, sizeof(kElfMagic)) != 0) return kernel.Refuse("not an ELF file");
  if (header.file_class != kElfClass64) {
    return kernel.Refuse(absl::StrCat("ELF class ", header.file_class, ", only 64-bit (2) kernels are loaded"));
  }
  if (header.data_encoding != kElfLittleEndian || header.machine != kElfMachineX86_64) {
    return kernel.Refuse(absl::StrCat("ELF data encoding ", header.data_encoding, " for machine ", header.machine,
                                      ", this one is 1 (little endian) and 62 (x86-64)"));
  }
  if (header.type != kElfTypeExecutable && header.type != kElfTypeShared) {
    return kernel.Refuse(absl::StrCat("ELF type ", header.type, " is no executable (2 or 3)"));
  }
  if (header.program_header_bytes != sizeof(Elf64ProgramHeader)) {
    return kernel.Refuse(absl::StrCat("ELF program headers of ", header.program_header_bytes, " bytes, the format has ",
                                      sizeof(Elf64ProgramHeader)));
  }
  if (header.program_header_count == 0 || header.program_header_count > kMaxProgramHeaders) {
    return kernel.Refuse(absl::StrCat(header.program_header_count, " ELF program headers, 1 to ", kMaxProgramHeaders,
                                      " can be loaded"));
  }
  std::vector<Elf64ProgramHeader> headers(header.program_header_count);
  RETURN_IF_ERROR(kernel.Read(header.program_header_offset, std::as_writable_bytes(std::span(headers)),
                              "the ELF program header table"));
  return headers;
}

// The entry point in one note segment, if it is there.
absl::StatusOr<std::optional<uint64_t>> FindEntryNote(const ImageFile& kernel, const Elf64ProgramHeader& segment) {
  if (segment.file_bytes > kMaxNoteBytes) {
    return kernel.Refuse(absl::StrCat("ELF notes of ", segment.file_bytes, " bytes, at most ", kMaxNoteBytes, " are read"));
  }
  std::vector<std::byte> notes(segment.file_bytes);
  RETURN_IF_ERROR(kernel.Read(segment.offset, notes, "an ELF note segment"));
  const uint64_t alignment = segment.alignment == 8 ? 8 : 4;
  const auto padded = [alignment](uint64_t bytes) { return (bytes + alignment - 1) & ~(alignment - 1); };

  // All sums are of 32-bit sizes in 64 bits: nothing wraps.
  for (uint64_t at = 0; at + sizeof(ElfNoteHeader) <= notes.size();) {
    ElfNoteHeader note;
    std::memcpy(&note, notes.data() + at, sizeof(note));
    const uint64_t name = at + sizeof(note);
    const uint64_t descriptor = at + padded(sizeof(note) + note.name_bytes);
    if (descriptor + note.descriptor_bytes > notes.size()) {
      return kernel.Refuse(absl::StrCat("the ELF note at offset ", segment.offset + at, " has a name of ", note.name_bytes,
                                        " and a descriptor of ", note.descriptor_bytes, " bytes, its segment ends at ",
                                        segment.offset + notes.size()));
    }
    if (note.type == kXenNotePhys32Entry && note.name_bytes == sizeof(kXenNoteName) &&
        std::memcmp(notes.data() + name, kXenNoteName, sizeof(kXenNoteName)) == 0) {
      uint64_t entry = 0;
      if (note.descriptor_bytes != 4 && note.descriptor_bytes != 8) {
        return kernel.Refuse(absl::StrCat("the PVH note holds ", note.descriptor_bytes, " bytes, 4 or 8 make an address"));
      }
      std::memcpy(&entry, notes.data() + descriptor, note.descriptor_bytes);
      return entry;
    }
    at += padded(descriptor - at + note.descriptor_bytes);
  }
  return std::nullopt;
}

absl::Status WriteStartInfo(const LoadRequest& request, const LoadedKernel& loaded) {
  PvhStartInfo info{};
  info.magic = kPvhMagic;
  info.version = kPvhVersion;
  info.command_line = kCommandLineBase.raw();
  info.acpi_rsdp = request.acpi_rsdp.raw();
  info.memory_map = kPvhMemoryMapBase.raw();
  info.memory_map_entries = static_cast<uint32_t>(request.memory_map.size());
  bool written = request.memory.Fill(kPvhStartInfoBase, std::byte{0}, kPvhStartInfoBytes);
  if (loaded.initramfs_bytes != 0) {
    info.module_count = 1;
    info.module_list = kPvhModuleListBase.raw();
    const PvhModule module{loaded.initramfs.raw(), loaded.initramfs_bytes, 0, 0};
    written &= request.memory.WriteObject(kPvhModuleListBase, module);
  }
  written &= request.memory.WriteObject(kPvhStartInfoBase, info);
  Gpa at = kPvhMemoryMapBase;
  for (const MemoryMapEntry& entry : request.memory_map) {
    const PvhMemoryMapEntry wire{entry.start.raw(), entry.bytes, static_cast<uint32_t>(entry.type), 0};
    written &= request.memory.WriteObject(at, wire);
    at = at + sizeof(wire);
  }
  return written ? absl::OkStatus() : absl::InternalError("write the PVH start info: low memory is not RAM");
}

}  // namespace

absl::StatusOr<LoadedKernel> LoadElfPvh(const ImageFile& kernel, const LoadRequest& request) {
  ASSIGN_OR_RETURN(const std::vector<Elf64ProgramHeader> headers, ReadProgramHeaders(kernel));

  // First all checks and claims, then all reads: a bad image is refused before much of it is read.
  uint64_t low = UINT64_MAX;
  uint64_t high = 0;
  std::optional<uint64_t> entry;
  for (size_t i = 0; i < headers.size(); ++i) {
    const Elf64ProgramHeader& segment = headers[i];
    if (segment.type == kElfSegmentNote && !entry) {
      ASSIGN_OR_RETURN(entry, FindEntryNote(kernel, segment));
    }
    if (segment.type != kElfSegmentLoad) continue;
    if (segment.file_bytes > segment.memory_bytes) {
      return kernel.Refuse(absl::StrCat("ELF segment ", i, " has ", segment.file_bytes, " bytes in the file for ",
                                        segment.memory_bytes, " in memory"));
    }
    if (segment.memory_bytes == 0) continue;
    if (!kernel.Holds(segment.offset, segment.file_bytes)) {
      return kernel.Refuse(absl::StrCat("ELF segment ", i, " is ", segment.file_bytes, " bytes at offset ", segment.offset,
                                        ", the file has ", kernel.bytes(), " bytes"));
    }
    if (!request.placement.Claim(Gpa(segment.physical_address), segment.memory_bytes)) {
      return kernel.RefuseSize(absl::StrCat("ELF segment ", i, " wants ", segment.memory_bytes, " bytes at 0x",
                                            absl::Hex(segment.physical_address),
                                            ", which are not all free RAM between 1 MiB and the end of low RAM"));
    }
    low = std::min(low, segment.physical_address);
    high = std::max(high, segment.physical_address + segment.memory_bytes);  // inside RAM, so it did not wrap
  }
  if (high == 0) return kernel.Refuse("no ELF segment is to be loaded");
  if (!entry) return kernel.Refuse("an ELF file without the PVH entry note (Xen, type 18): built without CONFIG_PVH?");
  const bool entry_is_loaded = std::any_of(headers.begin(), headers.end(), [&entry](const Elf64ProgramHeader& segment) {
    return segment.type == kElfSegmentLoad && *entry - segment.physical_address < segment.file_bytes;
  });
  if (!entry_is_loaded) {
    return kernel.Refuse(absl::StrCat("the PVH entry 0x", absl::Hex(*entry), " is in no ELF segment's file contents"));
  }

  for (size_t i = 0; i < headers.size(); ++i) {
    const Elf64ProgramHeader& segment = headers[i];
    if (segment.type != kElfSegmentLoad || segment.memory_bytes == 0) continue;
    const Gpa start{segment.physical_address};
    RETURN_IF_ERROR(kernel.ReadIntoGuest(segment.offset, request.memory, start, segment.file_bytes,
                                         absl::StrCat("ELF segment ", i)));
    if (!request.memory.Fill(start + segment.file_bytes, std::byte{0}, segment.memory_bytes - segment.file_bytes)) {
      return absl::InternalError(absl::StrCat("clear ELF segment ", i, ": claimed memory is not RAM"));
    }
  }

  LoadedKernel loaded;
  loaded.format = ImageFormat::kElfPvh;
  loaded.kernel = Gpa(low);
  loaded.kernel_bytes = high - low;
  if (request.initramfs != nullptr) {
    ASSIGN_OR_RETURN(loaded.initramfs, PlaceInitramfs(request, kMmioHoleStart));
    loaded.initramfs_bytes = request.initramfs->bytes();
  }
  RETURN_IF_ERROR(WriteCommandLine(request, kernel, kCommandLineBytes - 1));
  RETURN_IF_ERROR(WriteStartInfo(request, loaded));
  ASSIGN_OR_RETURN(loaded.entry, WriteBootEntryProtected32(request.memory, Gpa(*entry)));
  loaded.entry.rbx = kPvhStartInfoBase.raw();
  return loaded;
}

}  // namespace vmm
