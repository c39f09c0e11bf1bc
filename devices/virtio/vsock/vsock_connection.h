// One stream between a port of the guest and a Unix socket of the host: its state, credit and the bytes on their way to the host.
//
// Shapes   kBufferBytes of room for what the guest sends and the host does not take yet; nothing is kept of what the host sends: it is
//          read from its socket into the guest's buffers when the guest has credit for it.
// Units    bytes; counters of the protocol are modulo 2^32.
// Threads  confined.
// Trust    the guest may send what it likes (a packet beyond its credit breaks this connection), the host's process may stop reading,
//          close, or be gone at any time.
// Errors   values.
// Source   Virtual I/O Device (VIRTIO) Version 1.2, "Socket Device", "Buffer Space Management".
//
// Invariant: received_ - forwarded_ == bytes in waiting_ <= kBufferBytes.
#ifndef VMM_DEVICES_VIRTIO_VSOCK_VSOCK_CONNECTION_H_
#define VMM_DEVICES_VIRTIO_VSOCK_VSOCK_CONNECTION_H_

#include <sys/uio.h>

#include <compare>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/owned_fd.h"

namespace vmm {

struct VsockPorts {
  uint32_t guest = 0;
  uint32_t host = 0;
  auto operator<=>(const VsockPorts&) const = default;
};

class VsockConnection final {
 public:
  static constexpr uint32_t kBufferBytes = 64 * 1024;

  enum class State : uint8_t {
    kGreeting,  // a process of the host has connected and is to say CONNECT port; no port of the guest yet
    kOffered,   // the guest has been sent REQUEST
    kAsked,     // the guest has sent REQUEST; a process of the host is being connected to
    kOpen,
    kDraining,  // the guest is done with it, the host has not taken all
  };
  // What is to be sent to the guest.
  enum Pending : uint8_t { kNothing = 0, kRequest = 1, kResponse = 2, kShutdown = 4, kCreditUpdate = 8 };

  VsockConnection(VsockPorts ports, State state) : ports(ports), state(state) {}

  const VsockPorts ports;
  State state;
  OwnedFd socket;
  uint8_t pending = kNothing;
  bool queued = false;         // in the device's order of those that have something for the guest
  bool readable = false;       // the host may have sent something that has not been read yet
  uint32_t watched = 0;        // epoll events of the socket that are waited for; kUnwatched in the device
  uint32_t our_shutdown = 0;   // flags that the guest has been told, or will be
  uint32_t guest_shutdown = 0;
  uint64_t deadline_ms = 0;    // 0: none
  uint64_t asked_id = 0;       // of kAsked

  // The guest's credit for us.
  void HearCredit(uint32_t buf_alloc, uint32_t fwd_cnt) noexcept {
    peer_buffer_ = buf_alloc;
    peer_forwarded_ = fwd_cnt;
  }
  [[nodiscard]] uint32_t Credit() const noexcept {
    const uint32_t on_the_way = sent_ - peer_forwarded_;
    return on_the_way < peer_buffer_ ? peer_buffer_ - on_the_way : 0;
  }
  void Sent(uint32_t bytes) noexcept { sent_ += bytes; }

  // Our credit for the guest; Told when a packet with these numbers goes out.
  [[nodiscard]] uint32_t forwarded() const noexcept { return forwarded_; }
  void Told() noexcept { told_ = forwarded_; }
  // The guest counts on less room than there is, by enough to be told.
  [[nodiscard]] bool ShouldTell() const noexcept { return forwarded_ - told_ >= kBufferBytes / 4; }

  // Bytes of the guest: to the socket as far as it takes them, the rest waits. False: beyond the credit, nothing was taken.
  [[nodiscard]] bool Take(std::span<const iovec> data, uint32_t bytes) noexcept;
  // What waits, as far as it goes.
  void Flush() noexcept;
  [[nodiscard]] bool waiting() const noexcept { return !waiting_.empty(); }
  // The host's process takes no more: everything is dropped from now on.
  [[nodiscard]] bool host_refuses() const noexcept { return host_refuses_; }

 private:
  // How much the socket took; less than there was: not now.
  size_t Write(std::span<const iovec> data) noexcept;

  uint32_t peer_buffer_ = 0;
  uint32_t peer_forwarded_ = 0;
  uint32_t sent_ = 0;
  uint32_t received_ = 0;
  uint32_t forwarded_ = 0;
  uint32_t told_ = 0;
  std::vector<std::byte> waiting_;
  bool host_refuses_ = false;
};

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_VSOCK_VSOCK_CONNECTION_H_
