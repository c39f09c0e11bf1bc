// One end of a vhost-user connection: whole messages with their descriptors, out and in, each with a deadline.
//
// Units    deadlines are milliseconds of CLOCK_MONOTONIC.
// Threads  confined, or under the owner's lock.
// Trust    the peer may send anything: sizes are bounded (kMaxPayloadBytes, kMaxFds), half a message is waited for until the deadline,
//          descriptors that came along are owned by the message and closed with it.
// Errors   DEADLINE_EXCEEDED; UNAVAILABLE where the peer has closed; INVALID_ARGUMENT for what the protocol does not have. After any of
//          them the connection is of no use: what follows may be the rest of a message.
#ifndef VMM_DEVICES_VIRTIO_VHOST_USER_VHOST_USER_CHANNEL_H_
#define VMM_DEVICES_VIRTIO_VHOST_USER_VHOST_USER_CHANNEL_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/owned_fd.h"
#include "devices/virtio/vhost_user/vhost_user_layout.h"

namespace vmm {

struct VhostUserMessage {
  vhost_user::Header header{};
  std::array<std::byte, vhost_user::kMaxPayloadBytes> bytes;
  std::array<OwnedFd, vhost_user::kMaxFds> fds;
  size_t fd_count = 0;

  [[nodiscard]] std::span<const std::byte> payload() const { return std::span(bytes).first(header.size); }
  // The payload, where it is exactly a T.
  template <typename T>
  [[nodiscard]] std::optional<T> As() const {
    static_assert(std::is_trivially_copyable_v<T>);
    if (header.size != sizeof(T)) return std::nullopt;
    T value;
    std::memcpy(&value, bytes.data(), sizeof(T));
    return value;
  }
};

class VhostUserChannel final {
 public:
  // A connected SOCK_STREAM socket; no call of ours blocks on it, whatever its flags are.
  explicit VhostUserChannel(OwnedFd socket) noexcept : socket_(std::move(socket)) {}

  [[nodiscard]] int fd() const noexcept { return socket_.get(); }
  static int64_t NowMs() noexcept;
  // The socket, for whoever keeps it; the channel has none then.
  [[nodiscard]] OwnedFd Take() noexcept { return std::move(socket_); }

  absl::Status Send(uint32_t request, uint32_t flags, std::span<const std::byte> payload, std::span<const int> fds, int64_t deadline_ms);
  absl::Status Receive(VhostUserMessage& message, int64_t deadline_ms);

 private:
  absl::Status Await(short events, int64_t deadline_ms);
  absl::Status ReceiveBytes(std::span<std::byte> out, VhostUserMessage* with_fds, int64_t deadline_ms);
  OwnedFd socket_;
};

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_VHOST_USER_VHOST_USER_CHANNEL_H_
