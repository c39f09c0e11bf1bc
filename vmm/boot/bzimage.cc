#include "vmm/boot/bzimage.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>
#include <span>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "vmm/boot/boot_layout.h"
#include "vmm/boot/linux_boot_layout.h"

namespace vmm {
namespace {

// The header as the file has it, zero past its own end.
absl::StatusOr<LinuxSetupHeader> ReadSetupHeader(const ImageFile& kernel) {
  LinuxSetupHeader header{};
  const std::span<std::byte> bytes = std::as_writable_bytes(std::span(&header, 1));
  RETURN_IF_ERROR(kernel.Read(kSetupHeaderOffset, bytes.first(kSetupHeaderMinEnd - kSetupHeaderOffset), "the setup header"));
  if (header.boot_flag != kSetupBootFlag || header.header != kSetupMagic) {
    return kernel.Refuse(absl::StrCat("no setup header: boot flag 0x", absl::Hex(uint16_t{header.boot_flag}), ", magic 0x",
                                      absl::Hex(uint32_t{header.header})));
  }
  const uint16_t version = header.version;
  if (version < kSetupMinVersion) {
    return kernel.Refuse(absl::StrCat("boot protocol ", version >> 8, ".", version & 0xff, ", 2.12 is the oldest loaded"));
  }
  if ((header.loadflags & kLoadedHigh) == 0) return kernel.Refuse("a zImage, which loads below 1 MiB: only a bzImage is loaded");
  if ((header.xloadflags & kXlfKernel64) == 0) {
    return kernel.Refuse(absl::StrCat("no 64-bit entry point (xloadflags 0x", absl::Hex(uint16_t{header.xloadflags}), ")"));
  }
  const uint64_t end = kSetupHeaderJump + header.jump_bytes;
  if (end < kSetupHeaderMinEnd || end > kSetupHeaderMaxEnd) {
    return kernel.Refuse(absl::StrCat("the setup header ends at ", end, ", boot protocol 2.12 and later end between ",
                                      kSetupHeaderMinEnd, " and ", kSetupHeaderMaxEnd));
  }
  RETURN_IF_ERROR(kernel.Read(kSetupHeaderMinEnd,
                              bytes.subspan(kSetupHeaderMinEnd - kSetupHeaderOffset, end - kSetupHeaderMinEnd),
                              "the setup header"));
  return header;
}

// Claims init_size bytes: decompression works in them, and all of the kernel's own first steps.
absl::StatusOr<Gpa> PlaceKernel(const ImageFile& kernel, const LinuxSetupHeader& header, RamPlacement& placement) {
  const uint64_t bytes = header.init_size;
  const uint32_t alignment = header.kernel_alignment;
  const Gpa preferred{header.pref_address};
  if (placement.Claim(preferred, bytes)) return preferred;
  if (header.relocatable_kernel == 0) {
    return kernel.RefuseSize(absl::StrCat("it is not relocatable and needs ", bytes, " bytes at 0x",
                                          absl::Hex(preferred.raw()), ", which are not all free RAM"));
  }
  const std::optional<Gpa> place = placement.Lowest(bytes, alignment);
  if (!place || !placement.Claim(*place, bytes)) {
    return kernel.RefuseSize(absl::StrCat("it needs ", bytes, " bytes of guest RAM aligned to ", alignment,
                                          ", the largest free part below the MMIO hole has ",
                                          placement.LargestFreeBytes(kMmioHoleStart), " bytes"));
  }
  return *place;
}

absl::Status WriteZeroPage(const LoadRequest& request, LinuxSetupHeader header, const LoadedKernel& loaded) {
  LinuxZeroPage page{};
  header.type_of_loader = kLoaderUndefined;
  header.code32_start = static_cast<uint32_t>(loaded.kernel.raw());
  header.cmd_line_ptr = static_cast<uint32_t>(kCommandLineBase.raw());
  header.setup_data = 0;  // a list that only a loader fills
  header.ramdisk_image = static_cast<uint32_t>(loaded.initramfs.raw());
  header.ramdisk_size = static_cast<uint32_t>(loaded.initramfs_bytes);
  page.ext_ramdisk_image = static_cast<uint32_t>(loaded.initramfs.raw() >> 32);
  page.ext_ramdisk_size = static_cast<uint32_t>(loaded.initramfs_bytes >> 32);
  page.header = header;
  page.acpi_rsdp_addr = request.acpi_rsdp.raw();
  page.e820_entries = static_cast<uint8_t>(request.memory_map.size());
  for (size_t i = 0; i < request.memory_map.size(); ++i) {
    const MemoryMapEntry& entry = request.memory_map[i];
    page.e820_table[i] = {entry.start.raw(), entry.bytes, static_cast<uint32_t>(entry.type)};
  }
  return request.memory.WriteObject(kZeroPageBase, page) ? absl::OkStatus()
                                                         : absl::InternalError("write the zero page: low memory is not RAM");
}

}  // namespace

absl::StatusOr<LoadedKernel> LoadBzImage(const ImageFile& kernel, const LoadRequest& request) {
  ASSIGN_OR_RETURN(const LinuxSetupHeader header, ReadSetupHeader(kernel));
  const uint32_t sectors = header.setup_sects == 0 ? kSetupDefaultSectors : header.setup_sects;
  const uint64_t offset = (uint64_t{sectors} + 1) * kSetupSectorBytes;  // one more: the boot sector
  const uint64_t bytes = uint64_t{header.syssize} * 16;
  if (offset >= kernel.bytes()) {
    return kernel.Refuse(absl::StrCat("setup header says ", sectors, " setup sectors, the file has ", kernel.bytes(), " bytes"));
  }
  if (!kernel.Holds(offset, bytes)) {
    return kernel.Refuse(absl::StrCat("setup header says ", bytes, " bytes of kernel at offset ", offset, ", the file has ",
                                      kernel.bytes(), " bytes"));
  }
  if (bytes <= kLinuxEntry64Offset) {
    return kernel.Refuse(absl::StrCat("setup header says ", bytes, " bytes of kernel, its entry point is at byte ",
                                      kLinuxEntry64Offset));
  }
  if (header.init_size < bytes) {
    return kernel.Refuse(absl::StrCat("setup header says ", bytes, " bytes of kernel start in ", uint32_t{header.init_size},
                                      " bytes of memory"));
  }
  if (!std::has_single_bit(uint32_t{header.kernel_alignment})) {
    return kernel.Refuse(absl::StrCat("setup header says kernel alignment ", uint32_t{header.kernel_alignment},
                                      ", which is no power of two"));
  }

  LoadedKernel loaded;
  loaded.format = ImageFormat::kBzImage;
  ASSIGN_OR_RETURN(loaded.kernel, PlaceKernel(kernel, header, request.placement));
  loaded.kernel_bytes = header.init_size;
  RETURN_IF_ERROR(kernel.ReadIntoGuest(offset, request.memory, loaded.kernel, bytes, "the kernel"));
  if (request.initramfs != nullptr) {
    ASSIGN_OR_RETURN(loaded.initramfs, PlaceInitramfs(request, Gpa(uint64_t{header.initrd_addr_max} + 1)));
    loaded.initramfs_bytes = request.initramfs->bytes();
  }
  RETURN_IF_ERROR(WriteCommandLine(request, kernel, header.cmdline_size));
  RETURN_IF_ERROR(WriteZeroPage(request, header, loaded));
  ASSIGN_OR_RETURN(loaded.entry, WriteBootEntryLong64(request.memory, loaded.kernel + kLinuxEntry64Offset));
  loaded.entry.rsi = kZeroPageBase.raw();
  return loaded;
}

}  // namespace vmm
