#include "vmm/boot/load_kernel.h"

#include <cstddef>
#include <cstring>
#include <optional>
#include <span>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "vmm/boot/bzimage.h"
#include "vmm/boot/elf_layout.h"
#include "vmm/boot/elf_pvh.h"
#include "vmm/boot/image_file.h"
#include "vmm/boot/linux_boot_layout.h"
#include "vmm/boot/multiboot.h"
#include "vmm/boot/ram_placement.h"

namespace vmm {
namespace {

absl::StatusOr<ImageFormat> DetectFormat(const ImageFile& kernel) {
  uint8_t first[4];
  RETURN_IF_ERROR(kernel.Read(0, std::as_writable_bytes(std::span(first)), "the magic"));
  if (std::memcmp(first, kElfMagic, sizeof(first)) == 0) return ImageFormat::kElfPvh;
  if (kernel.Holds(kSetupHeaderJump, sizeof(uint32_t))) {
    uint32_t magic = 0;
    RETURN_IF_ERROR(kernel.Read(kSetupHeaderJump, std::as_writable_bytes(std::span(&magic, 1)), "the setup header's magic"));
    if (magic == kSetupMagic) return ImageFormat::kBzImage;
  }
  return kernel.Refuse(absl::StrCat("neither an ELF file nor a bzImage: ", kernel.bytes(), " bytes that begin with ",
                                    absl::Hex(first[0], absl::kZeroPad2), " ", absl::Hex(first[1], absl::kZeroPad2), " ",
                                    absl::Hex(first[2], absl::kZeroPad2), " ", absl::Hex(first[3], absl::kZeroPad2)));
}

}  // namespace

absl::StatusOr<LoadedKernel> LoadKernel(int kernel_fd, absl::string_view name, const GuestMemory& memory,
                                        const MemoryLayout& layout, const LoadOptions& options) {
  ASSIGN_OR_RETURN(const ImageFile kernel, ImageFile::Open(kernel_fd, "kernel", name));
  ImageFormat format = ImageFormat::kMultiboot;
  std::string command_line = options.command_line;
  if (options.multiboot) {
    const size_t slash = name.rfind('/');
    command_line = absl::StrCat(slash == absl::string_view::npos ? name : name.substr(slash + 1), " ", options.command_line);
  } else {
    ASSIGN_OR_RETURN(format, DetectFormat(kernel));
  }
  std::optional<ImageFile> initramfs;
  if (options.initramfs_fd >= 0) {
    ASSIGN_OR_RETURN(initramfs, ImageFile::Open(options.initramfs_fd, "initramfs", options.initramfs_name));
  }
  ASSIGN_OR_RETURN(const std::vector<MemoryMapEntry> memory_map, BuildBootMemoryMap(layout, options.reserved));
  RamPlacement placement(layout, options.reserved);
  const LoadRequest request{.memory = memory,
                            .placement = placement,
                            .memory_map = memory_map,
                            .initramfs = initramfs ? &*initramfs : nullptr,
                            .command_line = command_line,
                            .acpi_rsdp = options.acpi_rsdp};
  switch (format) {
    case ImageFormat::kElfPvh: return LoadElfPvh(kernel, request);
    case ImageFormat::kBzImage: return LoadBzImage(kernel, request);
    case ImageFormat::kMultiboot: return LoadMultiboot(kernel, request);
  }
  return absl::InternalError("load kernel: no loader for the format");
}

}  // namespace vmm
