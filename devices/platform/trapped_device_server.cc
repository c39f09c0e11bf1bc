#include "devices/platform/trapped_device_server.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <span>
#include <utility>

#include "base/status_macros.h"

namespace vmm {
namespace {
// A flood of accesses may not keep the host side of the device from its turn.
constexpr int kMaxBatch = 64;
}  // namespace

void RegisterPublisher::Store(size_t offset) noexcept {
  // release: pairs with the proxy's acquire. Stored before the system call that tells the guest, which orders more.
  if (page_ != nullptr) page_->registers[offset].store(words_[offset].Pack(), std::memory_order_release);
}

void RegisterPublisher::Publish(size_t offset, uint8_t value, uint16_t credit) noexcept {
  const PublishedWord word{sequence_, value, credit, true};
  if (word.Pack() == words_[offset].Pack()) return;
  words_[offset] = word;
  Store(offset);
}

void RegisterPublisher::Withdraw(size_t offset) noexcept {
  if (!words_[offset].valid) return;
  words_[offset] = {};
  Store(offset);
}

void RegisterPublisher::EndAccess() noexcept {
  for (size_t offset = 0; offset < words_.size(); ++offset) {
    PublishedWord& word = words_[offset];
    if (!word.valid || word.sequence == sequence_) continue;
    word.sequence = sequence_;
    Store(offset);
  }
}

void SendTrappedEvent(TrappedKind kind, absl::string_view text) {
  TrappedMessage message{};
  message.version = kTrappedVersion;
  message.kind = kind;
  message.bytes = static_cast<uint8_t>(std::min(text.size(), message.text.size()));
  text.copy(message.text.data(), message.bytes);
  (void)!::send(kTrappedEventFd, &message, sizeof(message), MSG_DONTWAIT | MSG_NOSIGNAL);
}

absl::StatusOr<std::unique_ptr<TrappedDeviceServer>> TrappedDeviceServer::Create(EventLoop& loop, int socket,
                                                                                 IoDevice& model,
                                                                                 RegisterPublisher& publisher,
                                                                                 std::function<void()> after_batch) {
  std::unique_ptr<TrappedDeviceServer> server(
      new TrappedDeviceServer(loop, socket, model, publisher, std::move(after_batch)));
  RETURN_IF_ERROR(loop.Watch(socket, EPOLLIN, [raw = server.get()](uint32_t) { raw->OnReadable(); }));
  return server;
}

TrappedDeviceServer::~TrappedDeviceServer() { loop_.Unwatch(socket_); }

void TrappedDeviceServer::OnReadable() {
  for (int i = 0; i < kMaxBatch; ++i) {
    TrappedMessage message;
    const ssize_t got = ::recv(socket_, &message, sizeof(message), MSG_DONTWAIT | MSG_TRUNC);
    const int error = errno;
    if (got < 0 && error == EINTR) continue;
    if (got < 0 && error == EAGAIN) break;
    if (got != sizeof(message) || !Handle(message)) {
      loop_.Unwatch(socket_);
      loop_.Stop();
      break;
    }
  }
  after_batch_();
}

bool TrappedDeviceServer::Handle(const TrappedMessage& message) {
  if (message.version != kTrappedVersion) return false;
  const bool batch = message.kind == TrappedKind::kByteWrites;
  if (batch ? message.bytes == 0 || message.bytes > kMaxByteWrites : !IsTrappedAccessSize(message.bytes)) return false;
  const uint32_t count = batch ? message.bytes : 1;
  if (message.sequence != sequence_ + count) return false;
  sequence_ = message.sequence;
  switch (message.kind) {
    case TrappedKind::kRead: {
      publisher_.BeginAccess(sequence_);
      TrappedMessage reply{};
      reply.version = kTrappedVersion;
      reply.kind = TrappedKind::kReply;
      reply.bytes = message.bytes;
      reply.sequence = message.sequence;
      reply.value = ~uint64_t{0};
      model_.Read(message.offset, std::as_writable_bytes(std::span(&reply.value, 1)).first(message.bytes));
      publisher_.EndAccess();
      // One reply for each request that the monitor waits for: there is room.
      return ::send(socket_, &reply, sizeof(reply), MSG_DONTWAIT | MSG_NOSIGNAL) == sizeof(reply);
    }
    case TrappedKind::kWrite:
      publisher_.BeginAccess(sequence_);
      model_.Write(message.offset, std::as_bytes(std::span(&message.value, 1)).first(message.bytes));
      publisher_.EndAccess();
      return true;
    case TrappedKind::kByteWrites:
      for (uint32_t i = 0; i < count; ++i) {
        publisher_.BeginAccess(message.sequence - count + 1 + i);
        const auto value = std::byte{message.writes[i].value};
        model_.Write(message.writes[i].offset, std::span(&value, 1));
      }
      publisher_.EndAccess();
      return true;
    default:
      return false;
  }
}

}  // namespace vmm
