#include "devices/virtio/net/stream_wire.h"

#include <arpa/inet.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/status_macros.h"
#include "devices/virtio/net/net_layout.h"

namespace vmm {
namespace {

namespace vn = virtio_net;

using Length = uint32_t;

// Copies to [at, at + bytes) of `to`, as far as that has room.
void Scatter(std::span<iovec> to, size_t at, const std::byte* from, size_t bytes) {
  for (const iovec& vector : to) {
    if (bytes == 0) return;
    if (at >= vector.iov_len) {
      at -= vector.iov_len;
      continue;
    }
    const size_t part = std::min(vector.iov_len - at, bytes);
    std::memcpy(static_cast<std::byte*>(vector.iov_base) + at, from, part);
    from += part;
    bytes -= part;
    at = 0;
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<StreamWire>> StreamWire::Create(EventLoop& loop, int fd, std::function<void(const char*)> on_gone) {
  std::unique_ptr<StreamWire> wire(new StreamWire(loop, fd, std::move(on_gone)));
  RETURN_IF_ERROR(loop.Watch(fd, 0, [raw = wire.get()](uint32_t events) { raw->OnEvents(events); }));
  return wire;
}

StreamWire::~StreamWire() {
  if (!gone_) loop_.Unwatch(fd_);
}

void StreamWire::Gone(const char* why) noexcept {
  if (std::exchange(gone_, true)) return;
  loop_.Unwatch(fd_);
  on_gone_(why);
}

void StreamWire::Rearm() noexcept {
  const uint32_t events = (wants_input_ ? EPOLLIN : 0u) | (wants_output_ || !unsent_.empty() ? EPOLLOUT : 0u);
  if (!gone_ && std::exchange(armed_, events) != events) (void)loop_.Rearm(fd_, events);
}

void StreamWire::WantInput(uint16_t, bool wanted) noexcept {
  wants_input_ = wanted;
  Rearm();
}

void StreamWire::WantOutput(uint16_t, bool wanted) noexcept {
  wants_output_ = wanted;
  Rearm();
}

// ---- To the other end

bool StreamWire::Flush() noexcept {
  while (sent_ < unsent_.size()) {
    iovec rest{unsent_.data() + sent_, unsent_.size() - sent_};
    msghdr message{};
    message.msg_iov = &rest;
    message.msg_iovlen = 1;
    const ssize_t done = ::sendmsg(fd_, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return false;  // busy, or gone: then epoll says so
    sent_ += static_cast<size_t>(done);
  }
  unsent_.clear();
  sent_ = 0;
  return true;
}

NetWire::SendResult StreamWire::Send(uint16_t, std::span<iovec> packet) noexcept {
  if (gone_) return SendResult::kRefused;
  if (!Flush()) return SendResult::kBusy;
  // The length takes the header's place, in front of what follows it in its vector.
  Length length = 0;
  size_t bytes = 0;
  for (const iovec& vector : packet) bytes += vector.iov_len;
  bytes -= sizeof(vn::Header);
  length = htonl(static_cast<uint32_t>(bytes));
  packet[0].iov_base = static_cast<std::byte*>(packet[0].iov_base) + sizeof(vn::Header) - sizeof(length);
  packet[0].iov_len -= sizeof(vn::Header) - sizeof(length);
  std::memcpy(packet[0].iov_base, &length, sizeof(length));
  msghdr message{};
  message.msg_iov = packet.data();
  message.msg_iovlen = packet.size();
  ssize_t done;
  do {
    done = ::sendmsg(fd_, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (done < 0 && errno == EINTR);
  if (done < 0) return errno == EAGAIN || errno == ENOBUFS ? SendResult::kBusy : SendResult::kRefused;
  auto skip = static_cast<size_t>(done);
  if (skip == bytes + sizeof(length)) return SendResult::kSent;
  for (const iovec& vector : packet) {
    const size_t skipped = std::min(skip, vector.iov_len);
    skip -= skipped;
    const auto* const from = static_cast<const std::byte*>(vector.iov_base);
    unsent_.insert(unsent_.end(), from + skipped, from + vector.iov_len);
  }
  Rearm();
  return SendResult::kSent;
}

// ---- From the other end

const std::byte* StreamWire::NextFrame(size_t& bytes) noexcept {
  while (end_ - begin_ >= sizeof(Length)) {
    Length length = 0;
    std::memcpy(&length, buffer_.data() + begin_, sizeof(length));
    bytes = ntohl(length);
    if (bytes > vn::kMaxFrameBytes) {
      Gone("the other end of its stream sent a length that no frame has");
      return nullptr;
    }
    if (end_ - begin_ - sizeof(length) < bytes) return nullptr;
    const std::byte* const frame = buffer_.data() + begin_ + sizeof(length);
    begin_ += sizeof(length) + bytes;
    if (bytes >= vn::kEthernetBytes) return frame;
  }
  return nullptr;
}

bool StreamWire::Fill() noexcept {
  if (gone_) return false;
  // What is left is less than a frame: moving it leaves room for another.
  std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
  end_ -= std::exchange(begin_, 0);
  iovec room{buffer_.data() + end_, buffer_.size() - end_};
  msghdr message{};
  message.msg_iov = &room;
  message.msg_iovlen = 1;
  ssize_t got;
  do {
    got = ::recvmsg(fd_, &message, MSG_DONTWAIT);
  } while (got < 0 && errno == EINTR);
  if (got == 0 || (got < 0 && errno != EAGAIN)) Gone("the other end of its stream has gone");
  if (got <= 0) return false;
  end_ += static_cast<size_t>(got);
  return true;
}

size_t StreamWire::Receive(uint16_t, std::span<iovec> room) noexcept {
  size_t bytes = 0;
  const std::byte* frame = NextFrame(bytes);
  while (frame == nullptr) {
    if (!Fill()) return 0;
    frame = NextFrame(bytes);
  }
  const vn::Header header{};
  Scatter(room, 0, reinterpret_cast<const std::byte*>(&header), offsetof(vn::Header, num_buffers));
  Scatter(room, sizeof(header), frame, bytes);
  return sizeof(header) + bytes;
}

void StreamWire::OnEvents(uint32_t events) {
  if ((events & EPOLLOUT) != 0) {
    const bool flushed = Flush();
    Rearm();
    if (flushed && wants_output_) user_->OnWritable(0);
  }
  if (gone_) return;
  if ((events & EPOLLIN) != 0) {
    user_->OnReadable(0);
  } else if ((events & (EPOLLHUP | EPOLLERR)) != 0) {
    Gone("the other end of its stream has gone");
  }
}

}  // namespace vmm
