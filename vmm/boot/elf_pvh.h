// Loads a 64-bit ELF kernel (vmlinux) that has a PVH entry point.
//
// Shapes   segments go to their physical addresses; the entry is the Xen note PHYS32_ENTRY, in 32-bit mode without paging,
//          EBX pointing to the start info. An ELF file without that note is refused.
// Threads  confined to the caller, before any processor runs.
// Trust    the file is hostile: every header is read once and checked; each segment is free RAM above 1 MiB, claimed once.
// Errors   as load_request.h.
// Source   Xen "docs/misc/pvh.pandoc": "Direct boot ABI"; elf_layout.h; pvh_layout.h.
#ifndef VMM_VMM_BOOT_ELF_PVH_H_
#define VMM_VMM_BOOT_ELF_PVH_H_

#include "absl/status/statusor.h"
#include "vmm/boot/image_file.h"
#include "vmm/boot/load_request.h"

namespace vmm {

[[nodiscard]] absl::StatusOr<LoadedKernel> LoadElfPvh(const ImageFile& kernel, const LoadRequest& request);

}  // namespace vmm

#endif  // VMM_VMM_BOOT_ELF_PVH_H_
