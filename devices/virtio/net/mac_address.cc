#include "devices/virtio/net/mac_address.h"

#include <sys/random.h>

#include <cerrno>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "base/errno_status.h"

namespace vmm {

std::optional<MacAddress> ParseMacAddress(absl::string_view text) {
  const std::vector<absl::string_view> parts = absl::StrSplit(text, ':');
  MacAddress address{};
  if (parts.size() != address.size()) return std::nullopt;
  for (size_t i = 0; i < parts.size(); ++i) {
    uint32_t byte = 0;
    if (parts[i].size() != 2 || !absl::ascii_isxdigit(static_cast<unsigned char>(parts[i][0])) ||
        !absl::ascii_isxdigit(static_cast<unsigned char>(parts[i][1])) || !absl::SimpleHexAtoi(parts[i], &byte)) {
      return std::nullopt;
    }
    address[i] = static_cast<uint8_t>(byte);
  }
  if ((address[0] & 1) != 0 || address == MacAddress{}) return std::nullopt;
  return address;
}

std::string MacAddressText(const MacAddress& address) {
  return absl::StrFormat("%02x:%02x:%02x:%02x:%02x:%02x", address[0], address[1], address[2], address[3], address[4], address[5]);
}

absl::StatusOr<MacAddress> RandomMacAddress() {
  MacAddress address;
  if (::getrandom(address.data(), address.size(), 0) != static_cast<ssize_t>(address.size())) return ErrnoStatus(errno, "get random bytes");
  address[0] = static_cast<uint8_t>((address[0] & 0xfe) | 0x02);
  return address;
}

}  // namespace vmm
