#include "devices/platform/trapped_device_proxy.h"

#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace vmm {
namespace {

enum class Waited : uint8_t { kReady, kTimedOut };

int64_t DeadlineAfter(int ms) {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1'000'000'000 + now.tv_nsec + ms * int64_t{1'000'000};
}

Waited WaitFor(int fd, short events, int64_t deadline_ns) {
  while (true) {
    pollfd poll_fd{fd, events, 0};
    // Up, so that the last wait does not spin for the rest of a millisecond.
    const int64_t left = (deadline_ns - DeadlineAfter(0) + 999'999) / 1'000'000;
    const int ready = ::poll(&poll_fd, 1, static_cast<int>(std::clamp<int64_t>(left, 0, 1 << 30)));
    if (ready > 0) return Waited::kReady;
    // EINTR is the only error: a VP thread is kicked by signals.
    if (left <= 0) return Waited::kTimedOut;
  }
}

}  // namespace

TrappedDeviceProxy::TrappedDeviceProxy(OwnedFd socket, const PublishedPage* page, FailureCallback on_failed, int deadline_ms)
    : socket_(std::move(socket)), page_(page), on_failed_(std::move(on_failed)), deadline_ms_(deadline_ms) {}

bool TrappedDeviceProxy::Begin() noexcept {
  if (failed()) return false;
  {
    std::unique_lock lock(mutex_);
    const bool free =
        turn_.wait_for(lock, std::chrono::milliseconds(deadline_ms_), [this] { return !busy_ || failed(); });
    if (failed()) return false;
    if (free) return busy_ = true;
  }
  Fail(absl::StrCat("other processors' accesses took more than ", deadline_ms_, " ms"));
  return false;
}

void TrappedDeviceProxy::End(Failure failure) noexcept {
  // Before the turn ends: the next one finds it failed and does not use the socket.
  if (!failure.empty()) Fail(std::move(failure));
  {
    const std::lock_guard lock(mutex_);
    busy_ = false;
  }
  turn_.notify_one();
}

void TrappedDeviceProxy::Fail(Failure failure) noexcept {
  {
    // Under the lock, so that no waiter goes to sleep after it looked.
    const std::lock_guard lock(mutex_);
    if (failed_.exchange(true, std::memory_order_acq_rel)) return;
  }
  turn_.notify_all();
  if (on_failed_) on_failed_(failure);
}

TrappedDeviceProxy::Failure TrappedDeviceProxy::Send(const TrappedMessage& message, int64_t deadline_ns) noexcept {
  while (true) {
    const ssize_t sent = ::send(socket_.get(), &message, sizeof(message), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent == sizeof(message)) {
      sent_.store(sent_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
      return {};
    }
    const int error = errno;
    if (sent < 0 && error == EINTR) continue;
    if (sent < 0 && (error == EPIPE || error == ECONNRESET)) return "its process closed the connection";
    if (sent < 0 && error != EAGAIN) return absl::StrCat("send to its process: errno ", error);
    if (WaitFor(socket_.get(), POLLOUT, deadline_ns) == Waited::kTimedOut) {
      return absl::StrCat("its queue stayed full for ", deadline_ms_, " ms");
    }
  }
}

TrappedDeviceProxy::Failure TrappedDeviceProxy::ReceiveReply(uint32_t sequence, size_t bytes, int64_t deadline_ns,
                                                             uint64_t& value) noexcept {
  TrappedMessage reply;
  while (true) {
    // MSG_TRUNC: the true length of a message that is too long.
    const ssize_t got = ::recv(socket_.get(), &reply, sizeof(reply), MSG_DONTWAIT | MSG_TRUNC);
    const int error = errno;
    if (got == sizeof(reply)) break;
    if (got == 0 || (got < 0 && error == ECONNRESET)) return "its process closed the connection";
    if (got > 0) return absl::StrCat("it sent a message of ", got, " bytes");
    if (error == EINTR) continue;
    if (error != EAGAIN) return absl::StrCat("receive from its process: errno ", error);
    if (WaitFor(socket_.get(), POLLIN, deadline_ns) == Waited::kTimedOut) {
      return absl::StrCat("no reply to a read within ", deadline_ms_, " ms");
    }
  }
  if (reply.version != kTrappedVersion) return absl::StrCat("it sent protocol version ", reply.version);
  if (reply.kind != TrappedKind::kReply || reply.bytes != bytes) return "it sent a message that is not the reply asked for";
  if (reply.sequence != sequence) {
    return absl::StrCat("it replied to access ", reply.sequence, " instead of ", sequence);
  }
  value = reply.value;
  return {};
}

bool TrappedDeviceProxy::ReadPublished(uint64_t offset, std::span<std::byte> data) noexcept {
  if (page_ == nullptr || data.size() != 1 || offset >= kPublishedRegisters) return false;
  // acquire: pairs with the device's release store; nothing else is read from the page, so this only keeps the load in place.
  const PublishedWord word = PublishedWord::Unpack(page_->registers[offset].load(std::memory_order_acquire));
  if (!word.valid) return false;
  // Differences, so that the numbers may wrap. A sequence from the future is a lie: the round trip will find out.
  const uint32_t outstanding = sequence_ - word.sequence;
  const uint32_t since_barrier = sequence_ - barrier_sequence_;
  if (outstanding > since_barrier || outstanding > word.credit) return false;
  data[0] = std::byte{word.value};
  return true;
}

void TrappedDeviceProxy::CountWrites(uint64_t offset, size_t bytes, uint32_t count) noexcept {
  sequence_ += count;
  if (offset != 0 || bytes != 1) barrier_sequence_ = sequence_;
  // Keep the distance far from wrapping when only offset 0 is ever written.
  if (sequence_ - barrier_sequence_ > (1u << 20)) barrier_sequence_ = sequence_ - (1u << 19);
}

void TrappedDeviceProxy::Read(uint64_t offset, std::span<std::byte> data) noexcept {
  std::fill(data.begin(), data.end(), std::byte{0xff});
  const int64_t deadline_ns = DeadlineAfter(deadline_ms_);
  if (!IsTrappedAccessSize(data.size()) || !Begin()) return;
  if (ReadPublished(offset, data)) return End({});
  TrappedMessage request{};
  request.version = kTrappedVersion;
  request.kind = TrappedKind::kRead;
  request.bytes = static_cast<uint8_t>(data.size());
  request.sequence = barrier_sequence_ = ++sequence_;
  request.offset = offset;
  uint64_t value = 0;
  Failure failure = Send(request, deadline_ns);
  if (failure.empty()) failure = ReceiveReply(request.sequence, data.size(), deadline_ns, value);
  if (failure.empty()) std::memcpy(data.data(), &value, data.size());
  End(std::move(failure));
}

void TrappedDeviceProxy::Write(uint64_t offset, std::span<const std::byte> data) noexcept {
  const int64_t deadline_ns = DeadlineAfter(deadline_ms_);
  if (!IsTrappedAccessSize(data.size()) || !Begin()) return;
  CountWrites(offset, data.size(), 1);
  TrappedMessage message{};
  message.version = kTrappedVersion;
  message.kind = TrappedKind::kWrite;
  message.bytes = static_cast<uint8_t>(data.size());
  message.sequence = sequence_;
  message.offset = offset;
  std::memcpy(&message.value, data.data(), data.size());
  End(Send(message, deadline_ns));
}

void TrappedDeviceProxy::WriteBytes(std::span<const TrappedByteWrite> writes) noexcept {
  const int64_t deadline_ns = DeadlineAfter(deadline_ms_);
  if (writes.empty() || !Begin()) return;
  Failure failure;
  while (!writes.empty() && failure.empty()) {
    const auto part = writes.first(std::min(writes.size(), kMaxByteWrites));
    writes = writes.subspan(part.size());
    TrappedMessage message{};
    message.version = kTrappedVersion;
    message.kind = TrappedKind::kByteWrites;
    message.bytes = static_cast<uint8_t>(part.size());
    for (size_t i = 0; i < part.size(); ++i) {
      CountWrites(part[i].offset, 1, 1);
      message.writes[i] = part[i];
    }
    message.sequence = sequence_;
    failure = Send(message, deadline_ns);
  }
  End(std::move(failure));
}

void TrappedDeviceProxy::CheckProgress() noexcept {
  if (failed()) return;
  // Before the queue is looked at: what is sent in between makes the two differ, and the next call decides.
  const uint32_t sent = sent_.load(std::memory_order_relaxed);
  int waiting = 0;
  if (::ioctl(socket_.get(), SIOCOUTQ, &waiting) != 0) waiting = 0;
  const bool still = waiting > 0 && waiting == waiting_before_ && sent == sent_before_;
  sent_before_ = sent;
  waiting_before_ = waiting;
  stuck_calls_ = still ? stuck_calls_ + 1 : 0;
  if (stuck_calls_ >= 2) Fail(absl::StrCat("it took no message for ", deadline_ms_, " ms"));
}

void TrappedDeviceProxy::Close() noexcept {
  {
    const std::lock_guard lock(mutex_);
    failed_.store(true, std::memory_order_release);
  }
  turn_.notify_all();
  ::shutdown(socket_.get(), SHUT_WR);
}

}  // namespace vmm
