// What every image format's loader is given, and what it gives back.
//
// Shapes   a loader checks the image, claims its place, has the initramfs placed by PlaceInitramfs, then writes guest RAM.
// Units    bytes.
// Threads  confined to the caller, before any processor runs.
// Trust    file contents are hostile; the rest of the request is the configuration's, but its command line is checked too.
// Errors   INVALID_ARGUMENT: the image or the command line is at fault. RESOURCE_EXHAUSTED: it does not fit in this RAM.
//          What was written to guest RAM before an error stays.
#ifndef VMM_VMM_BOOT_LOAD_REQUEST_H_
#define VMM_VMM_BOOT_LOAD_REQUEST_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "memory/gpa.h"
#include "memory/guest_memory.h"
#include "memory/layout.h"
#include "vmm/boot/boot_entry.h"
#include "vmm/boot/boot_memory_map.h"
#include "vmm/boot/image_file.h"
#include "vmm/boot/ram_placement.h"

namespace vmm {

enum class ImageFormat : uint8_t { kElfPvh, kBzImage, kMultiboot };
[[nodiscard]] const char* ImageFormatName(ImageFormat format);

struct LoadedKernel {
  ImageFormat format = ImageFormat::kElfPvh;
  BootEntry entry;
  // From the first byte that the kernel needs to the last, gaps included.
  Gpa kernel;
  uint64_t kernel_bytes = 0;
  Gpa initramfs;
  uint64_t initramfs_bytes = 0;  // 0: none
};

// Borrowed by a loader for one call.
struct LoadRequest {
  const GuestMemory& memory;
  RamPlacement& placement;
  const std::vector<MemoryMapEntry>& memory_map;
  const ImageFile* initramfs;  // nullptr: none
  const std::string& command_line;
  Gpa acpi_rsdp;  // 0: none
};

// Reads the initramfs into the highest free pages that end at or below `limit`. Call once the kernel's place is claimed.
[[nodiscard]] absl::StatusOr<Gpa> PlaceInitramfs(const LoadRequest& request, Gpa limit);

// Writes it with its NUL. `max_bytes` is the kernel's limit, without the NUL.
[[nodiscard]] absl::Status WriteCommandLine(const LoadRequest& request, const ImageFile& kernel, uint64_t max_bytes);

}  // namespace vmm

#endif  // VMM_VMM_BOOT_LOAD_REQUEST_H_
