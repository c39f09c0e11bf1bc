#include "devices/virtio/vsock/vsock_connection.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

namespace vmm {

size_t VsockConnection::Write(std::span<const iovec> data) noexcept {
  size_t total = 0;
  for (const iovec& part : data) total += part.iov_len;
  if (host_refuses_ || total == 0) return total;
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(data.data());
  message.msg_iovlen = data.size();
  const ssize_t done = ::sendmsg(socket.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (done >= 0) return static_cast<size_t>(done);
  if (errno == EAGAIN || errno == EINTR) return 0;
  host_refuses_ = true;
  return total;
}

bool VsockConnection::Take(std::span<const iovec> data, uint32_t bytes) noexcept {
  if (bytes > kBufferBytes - (received_ - forwarded_)) return false;
  received_ += bytes;
  size_t done = 0;
  // In order: nothing overtakes what waits.
  if (waiting_.empty()) done = Write(data);
  forwarded_ += static_cast<uint32_t>(done);
  for (const iovec& part : data) {
    if (done >= part.iov_len) {
      done -= part.iov_len;
      continue;
    }
    const auto rest = std::span(static_cast<const std::byte*>(part.iov_base), part.iov_len).subspan(done);
    done = 0;
    waiting_.insert(waiting_.end(), rest.begin(), rest.end());
  }
  return true;
}

void VsockConnection::Flush() noexcept {
  if (waiting_.empty()) return;
  const iovec all{waiting_.data(), waiting_.size()};
  const size_t done = Write(std::span(&all, 1));
  forwarded_ += static_cast<uint32_t>(done);
  waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<ptrdiff_t>(done));
  // A connection that was held up once does not keep the room for ever.
  if (waiting_.empty()) std::vector<std::byte>().swap(waiting_);
}

}  // namespace vmm
