// Loads a Linux bzImage by the 64-bit boot protocol.
//
// Shapes   the protected-mode kernel at its preferred address, or where that is not free RAM and the kernel is relocatable
//          at the lowest place that is; entered 0x200 bytes in, in 64-bit mode, RSI pointing to the zero page.
// Threads  confined to the caller, before any processor runs.
// Trust    the file is hostile: the setup header is read once and checked. What is copied to the zero page is for the kernel.
// Errors   as load_request.h. Refused too: protocols before 2.12, kernels without a 64-bit entry or loaded low.
// Source   Linux "Documentation/arch/x86/boot.rst": "64-bit Boot Protocol"; linux_boot_layout.h.
#ifndef VMM_VMM_BOOT_BZIMAGE_H_
#define VMM_VMM_BOOT_BZIMAGE_H_

#include "absl/status/statusor.h"
#include "vmm/boot/image_file.h"
#include "vmm/boot/load_request.h"

namespace vmm {

[[nodiscard]] absl::StatusOr<LoadedKernel> LoadBzImage(const ImageFile& kernel, const LoadRequest& request);

}  // namespace vmm

#endif  // VMM_VMM_BOOT_BZIMAGE_H_
