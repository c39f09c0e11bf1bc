// Loads a multiboot (version 1) kernel: a freestanding test kernel, in the TEST machine.
//
// Shapes   an ELF32 file, or any file whose header gives the addresses itself; loaded where it says, entered in 32-bit mode
//          without paging, EAX the magic, EBX the information: memory, memory map, command line, at most one module.
// Threads  confined to the caller, before any processor runs.
// Trust    the file is hostile: header and segments are read once and checked; each is free RAM above 1 MiB, claimed once.
// Errors   as load_request.h.
// Source   Multiboot Specification 0.6.96, "Machine state"; multiboot_layout.h; elf_layout.h.
//
// A 64-bit ELF file is refused, as by other loaders: `objcopy -O elf32-i386` wraps 64-bit code.
#ifndef VMM_VMM_BOOT_MULTIBOOT_H_
#define VMM_VMM_BOOT_MULTIBOOT_H_

#include "absl/status/statusor.h"
#include "vmm/boot/image_file.h"
#include "vmm/boot/load_request.h"

namespace vmm {

[[nodiscard]] absl::StatusOr<LoadedKernel> LoadMultiboot(const ImageFile& kernel, const LoadRequest& request);

}  // namespace vmm

#endif  // VMM_VMM_BOOT_MULTIBOOT_H_
