// A backend that answers as the protocol wants it, or in any other way that a test says. Testonly: for tests of the front end; runs on a
// thread of its own until the front end closes.
#ifndef VMM_DEVICES_VIRTIO_VHOST_USER_FAKE_VHOST_USER_PEER_H_
#define VMM_DEVICES_VIRTIO_VHOST_USER_FAKE_VHOST_USER_PEER_H_

#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <span>
#include <string>
#include <thread>
#include <utility>

#include "base/owned_fd.h"
#include "devices/virtio/vhost_user/vhost_user_channel.h"
#include "devices/virtio/vhost_user/vhost_user_layout.h"
#include "devices/virtio/virtio_layout.h"

namespace vmm {

class FakeVhostUserPeer final {
 public:
  // Called for each message first. True: it was dealt with, by whatever was sent or not sent.
  using Answer = std::function<bool(FakeVhostUserPeer& peer, VhostUserMessage& message)>;

  explicit FakeVhostUserPeer(Answer answer = nullptr) : answer_(std::move(answer)) {
    int pair[2] = {-1, -1};
    (void)!::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);
    front_end_.Reset(pair[0]);
    fd_ = pair[1];
    thread_ = std::thread([this, socket = OwnedFd(pair[1])]() mutable { Run(std::move(socket)); });
  }
  FakeVhostUserPeer(const FakeVhostUserPeer&) = delete;
  FakeVhostUserPeer& operator=(const FakeVhostUserPeer&) = delete;
  ~FakeVhostUserPeer() {
    front_end_.Reset();
    thread_.join();
  }

  // The front end's end, once.
  [[nodiscard]] OwnedFd TakeSocket() { return std::move(front_end_); }

  // On the peer's thread.
  template <typename T>
  void Reply(const VhostUserMessage& to, const T& payload, std::span<const int> fds = {}) {
    Send(to.header.request, vhost_user::kFlagReply, std::as_bytes(std::span(&payload, 1)), fds);
  }
  void Send(uint32_t request, uint32_t flags, std::span<const std::byte> payload, std::span<const int> fds = {}) {
    (void)channel_->Send(request, flags, payload, fds, VhostUserChannel::NowMs() + 1000);
  }
  void SendRaw(std::string_view bytes) { (void)!::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL); }
  // After which the front end's requests end.
  void HangUp() { ::shutdown(fd_, SHUT_RDWR); }
  [[nodiscard]] OwnedFd& requests() { return requests_; }

  uint64_t features = virtio::kFeatureVersion1 | vhost_user::kFeatureProtocolFeatures;
  uint64_t protocol_features = vhost_user::kProtocolMq | vhost_user::kProtocolReplyAck | vhost_user::kProtocolConfig |
                               vhost_user::kProtocolBackendReq;
  uint64_t queues = 2;

 private:
  void Run(OwnedFd socket) {
    VhostUserChannel channel(std::move(socket));
    channel_ = &channel;
    VhostUserMessage message;
    while (channel.Receive(message, VhostUserChannel::NowMs() + 60'000).ok()) {
      if (answer_ && answer_(*this, message)) continue;
      AnswerAsTheProtocolWants(message);
    }
  }
  void AnswerAsTheProtocolWants(VhostUserMessage& message) {
    using vhost_user::Request;
    switch (static_cast<Request>(message.header.request)) {
      case Request::kGetFeatures: return Reply(message, features);
      case Request::kGetProtocolFeatures: return Reply(message, protocol_features);
      case Request::kGetQueueNum: return Reply(message, queues);
      case Request::kGetConfig: return Send(message.header.request, vhost_user::kFlagReply, message.payload());
      case Request::kGetVringBase: return Reply(message, *message.As<vhost_user::VringState>());
      case Request::kSetBackendReqFd: requests_ = std::move(message.fds[0]); break;
      default: break;
    }
    if ((message.header.flags & vhost_user::kFlagNeedReply) != 0) Reply(message, uint64_t{0});
  }

  const Answer answer_;
  OwnedFd front_end_;
  int fd_ = -1;
  VhostUserChannel* channel_ = nullptr;  // the thread's
  OwnedFd requests_;
  std::thread thread_;
};

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_VHOST_USER_FAKE_VHOST_USER_PEER_H_
