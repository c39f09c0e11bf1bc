// What the fuzz targets of all formats share: a small machine, one load, and what must hold whatever the image was.
#ifndef VMM_VMM_BOOT_FUZZ_LOADER_H_
#define VMM_VMM_BOOT_FUZZ_LOADER_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "vmm/boot/load_request.h"

namespace vmm {

// Loads `image` with an initramfs of a page. Aborts where a broken promise of the loaders shows: a kernel or initramfs
// outside free RAM, the two overlapping, an entry outside the kernel, a byte written in the reserved range or the ACPI area.
void FuzzLoad(std::span<const std::byte> image, ImageFormat format);

}  // namespace vmm

#endif  // VMM_VMM_BOOT_FUZZ_LOADER_H_
