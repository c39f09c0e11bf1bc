// What a vsock device is started with, for whoever starts one.
#ifndef VMM_DEVICES_VIRTIO_VSOCK_VSOCK_OPTIONS_H_
#define VMM_DEVICES_VIRTIO_VSOCK_VSOCK_OPTIONS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace vmm {

// 0 to 2 and the highest are the specification's own.
[[nodiscard]] constexpr bool IsGuestCid(uint32_t cid) noexcept { return cid > 2 && cid != ~uint32_t{0}; }

[[nodiscard]] inline std::vector<std::string> VsockDeviceArguments(uint32_t guest_cid) { return {absl::StrCat("--guest-cid=", guest_cid)}; }

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_VSOCK_VSOCK_OPTIONS_H_
