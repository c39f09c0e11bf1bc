#include "devices/virtio/vhost_user/vhost_user_channel.h"

#include <poll.h>
#include <sys/socket.h>
#include <time.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "base/errno_status.h"
#include "base/status_macros.h"

namespace vmm {
namespace {

namespace vu = vhost_user;

absl::Status Closed() { return absl::UnavailableError("the peer closed the connection"); }

}  // namespace

int64_t VhostUserChannel::NowMs() noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * int64_t{1000} + now.tv_nsec / 1'000'000;
}

absl::Status VhostUserChannel::Await(short events, int64_t deadline_ms) {
  while (true) {
    const int64_t left = deadline_ms - NowMs();
    pollfd poll_fd{socket_.get(), events, 0};
    const int ready = ::poll(&poll_fd, 1, static_cast<int>(std::clamp<int64_t>(left, 0, 60'000)));
    const int error = errno;
    if (ready > 0) return absl::OkStatus();
    if (ready < 0 && error != EINTR) return ErrnoStatus(error, "wait for the peer");
    if (ready == 0 && left <= 0) return absl::DeadlineExceededError("the peer did not answer in time");
  }
}

absl::Status VhostUserChannel::Send(uint32_t request, uint32_t flags, std::span<const std::byte> payload, std::span<const int> fds,
                                    int64_t deadline_ms) {
  if (payload.size() > vu::kMaxPayloadBytes || fds.size() > vu::kMaxFds) {
    return absl::InvalidArgumentError(absl::StrCat("send request ", request, ": ", payload.size(), " bytes are too many"));
  }
  std::array<std::byte, sizeof(vu::Header) + vu::kMaxPayloadBytes> bytes;
  const vu::Header header{request, flags | vu::kVersion, static_cast<uint32_t>(payload.size())};
  std::memcpy(bytes.data(), &header, sizeof(header));
  if (!payload.empty()) std::memcpy(bytes.data() + sizeof(header), payload.data(), payload.size());
  const size_t total = sizeof(header) + payload.size();
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * vu::kMaxFds)> control{};
  size_t sent = 0;
  while (sent < total) {
    iovec vector{bytes.data() + sent, total - sent};
    msghdr message{};
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    if (sent == 0 && !fds.empty()) {
      message.msg_control = control.data();
      message.msg_controllen = CMSG_SPACE(sizeof(int) * fds.size());
      cmsghdr* const head = CMSG_FIRSTHDR(&message);
      head->cmsg_level = SOL_SOCKET;
      head->cmsg_type = SCM_RIGHTS;
      head->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
      std::memcpy(CMSG_DATA(head), fds.data(), sizeof(int) * fds.size());
    }
    const ssize_t done = ::sendmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    const int error = errno;
    if (done > 0) {
      sent += static_cast<size_t>(done);
    } else if (done < 0 && error == EAGAIN) {
      RETURN_IF_ERROR(Await(POLLOUT, deadline_ms));
    } else if (done < 0 && (error == EPIPE || error == ECONNRESET)) {
      return Closed();
    } else if (done < 0 && error != EINTR) {
      return ErrnoStatus(error, absl::StrCat("send request ", request));
    }
  }
  return absl::OkStatus();
}

absl::Status VhostUserChannel::ReceiveBytes(std::span<std::byte> out, VhostUserMessage* with_fds, int64_t deadline_ms) {
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * vu::kMaxFds)> control;
  size_t got = 0;
  while (got < out.size()) {
    iovec vector{out.data() + got, out.size() - got};
    msghdr message{};
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const ssize_t done = ::recvmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    const int error = errno;
    if (done < 0) {
      if (error == EINTR) continue;
      if (error == ECONNRESET) return Closed();
      if (error != EAGAIN) return ErrnoStatus(error, "receive from the peer");
      RETURN_IF_ERROR(Await(POLLIN, deadline_ms));
      continue;
    }
    // Taken out first: what came is ours to close, whatever else is wrong.
    bool too_many = (message.msg_flags & MSG_CTRUNC) != 0;
    for (cmsghdr* head = CMSG_FIRSTHDR(&message); head != nullptr; head = CMSG_NXTHDR(&message, head)) {
      if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS) continue;
      const size_t count = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      for (size_t i = 0; i < count; ++i) {
        int fd;
        std::memcpy(&fd, CMSG_DATA(head) + i * sizeof(int), sizeof(int));
        OwnedFd owned(fd);
        if (with_fds == nullptr || with_fds->fd_count == with_fds->fds.size()) {
          too_many = true;
        } else {
          with_fds->fds[with_fds->fd_count++] = std::move(owned);
        }
      }
    }
    if (too_many) return absl::InvalidArgumentError("the peer sent descriptors that no message has");
    if (done == 0) return Closed();
    got += static_cast<size_t>(done);
  }
  return absl::OkStatus();
}

absl::Status VhostUserChannel::Receive(VhostUserMessage& message, int64_t deadline_ms) {
  for (size_t i = 0; i < message.fd_count; ++i) message.fds[i].Reset();
  message.fd_count = 0;
  message.header.size = 0;
  vu::Header header;
  RETURN_IF_ERROR(ReceiveBytes(std::as_writable_bytes(std::span(&header, 1)), &message, deadline_ms));
  if ((header.flags & vu::kVersionMask) != vu::kVersion) {
    return absl::InvalidArgumentError(absl::StrCat("the peer speaks version ", header.flags & vu::kVersionMask, " of the protocol, not 1"));
  }
  if (header.size > vu::kMaxPayloadBytes) {
    return absl::InvalidArgumentError(absl::StrCat("the peer sent a payload of ", header.size, " bytes with request ", header.request));
  }
  if (header.size != 0) RETURN_IF_ERROR(ReceiveBytes(std::span(message.bytes).first(header.size), nullptr, deadline_ms));
  message.header = header;
  return absl::OkStatus();
}

}  // namespace vmm
