#include "devices/hyperv/test_device/hyperv_test_device.h"

#include <algorithm>
#include <cstring>

namespace vmm {
namespace {

enum class Command : uint8_t {
  kCreateSintRoute = 1,
  kDestroySintRoute = 2,
  kRaiseSint = 3,
  kCreateMessageConnection = 4,
  kDestroyMessageConnection = 5,
  kCreateEventConnection = 6,
  kDestroyEventConnection = 7,
};

}  // namespace

void HypervTestDevice::Read(uint64_t, std::span<std::byte> data) noexcept { std::ranges::fill(data, std::byte{0}); }

void HypervTestDevice::Write(uint64_t offset, std::span<const std::byte> data) noexcept {
  uint32_t word;
  if (offset != 0 || data.size() != sizeof(word)) return;
  std::memcpy(&word, data.data(), sizeof(word));
  const uint32_t connection = word >> 24;
  const VpIndex vp((word >> 8) & 0xff);
  const auto sint = Sint::From(word & 0xff);
  if (!sint) return;
  Port port{.id = connection, .type = PortType::kMessage, .vp = vp, .vtl = kVtl0, .sint = *sint};
  // What Add and Remove refuse (a connection that exists, or does not) the device cannot tell its guest.
  switch (static_cast<Command>((word >> 16) & 0xff)) {
    case Command::kCreateSintRoute:
    case Command::kDestroySintRoute: return;
    case Command::kRaiseSint: raiser_.RaiseSint(vp, *sint); return;
    case Command::kCreateMessageConnection: (void)connections_.Add(connection, port); return;
    case Command::kCreateEventConnection:
      port.type = PortType::kEvent;
      port.base_flag = connection;  // flag 0 of the connection is flag `connection` of the source
      port.flag_count = 1;
      (void)connections_.Add(connection, port);
      return;
    case Command::kDestroyMessageConnection:
    case Command::kDestroyEventConnection: (void)connections_.Remove(connection); return;
  }
}

}  // namespace vmm
