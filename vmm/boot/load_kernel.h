// Loads a kernel and its initramfs into guest RAM, and says how a processor enters it.
//
// Shapes   the format is found by its magic: ELF with a PVH entry, or bzImage; multiboot where the caller says so. One more
//          format is one more loader beside elf_pvh.h, bzimage.h and multiboot.h, and a line in LoadKernel.
// Units    bytes.
// Threads  confined to the caller, before any processor runs. May be called again for a restart.
// Trust    both files are hostile; see load_request.h.
// Errors   "load kernel 'name': why, with the numbers"; codes as load_request.h. Guest RAM is then undefined.
#ifndef VMM_VMM_BOOT_LOAD_KERNEL_H_
#define VMM_VMM_BOOT_LOAD_KERNEL_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "memory/gpa.h"
#include "memory/guest_memory.h"
#include "memory/layout.h"
#include "vmm/boot/boot_memory_map.h"
#include "vmm/boot/load_request.h"

namespace vmm {

struct LoadOptions {
  int initramfs_fd = -1;  // borrowed, a regular file; -1: none
  std::string initramfs_name;
  std::string command_line;
  Gpa acpi_rsdp;  // 0: none
  // A multiboot kernel and nothing else: an ELF file may be one or a PVH kernel, and the machine decides what it is taken for.
  // Its command line begins with the image's file name, without the folder, which is no business of a guest's.
  bool multiboot = false;
  // RAM that the kernel is told to leave alone, above 1 MiB.
  std::vector<ReservedRange> reserved;
};

// `kernel_fd` is borrowed and must be a regular file; `name` is for messages.
[[nodiscard]] absl::StatusOr<LoadedKernel> LoadKernel(int kernel_fd, absl::string_view name, const GuestMemory& memory,
                                                      const MemoryLayout& layout, const LoadOptions& options);

}  // namespace vmm

#endif  // VMM_VMM_BOOT_LOAD_KERNEL_H_
