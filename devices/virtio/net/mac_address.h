// A network interface's address.
#ifndef VMM_DEVICES_VIRTIO_NET_MAC_ADDRESS_H_
#define VMM_DEVICES_VIRTIO_NET_MAC_ADDRESS_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace vmm {

using MacAddress = std::array<uint8_t, 6>;

// "52:54:00:12:34:56"; nothing for what is none, or no single interface's (the group bit, all zeros).
[[nodiscard]] std::optional<MacAddress> ParseMacAddress(absl::string_view text);
[[nodiscard]] std::string MacAddressText(const MacAddress& address);
// Locally administered, from the host's generator.
absl::StatusOr<MacAddress> RandomMacAddress();

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_NET_MAC_ADDRESS_H_
