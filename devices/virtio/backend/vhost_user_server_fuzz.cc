// A hostile front end: messages, most of them well formed, in any order, with descriptors of several kinds.
//
// Shapes   a record: request (its top bit: the header as it stands in the payload, no other), flags and kinds of descriptors, payload size;
//          then the payload.
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "base/event_loop.h"
#include "base/owned_fd.h"
#include "devices/virtio/backend/backend_device.h"
#include "devices/virtio/backend/backend_queue.h"
#include "devices/virtio/backend/fake_guest_driver.h"
#include "devices/virtio/backend/vhost_user_server.h"
#include "devices/virtio/vhost_user/vhost_user_channel.h"
#include "devices/virtio/vhost_user/vhost_user_layout.h"
#include "devices/virtio/virtio_layout.h"

namespace {

using namespace vmm;

class FuzzDevice final : public BackendDevice {
 public:
  uint64_t features() const noexcept override { return 3 | virtio::kFeatureRingPacked; }
  uint16_t queue_count() const noexcept override { return 2; }
  std::span<const std::byte> config() const noexcept override { return config_; }
  bool Process(uint16_t, BackendQueue& queue) noexcept override {
    for (int i = 0; i < 4; ++i) {
      if (queue.Pop(chain_) != BackendQueue::PopResult::kChain) return false;
      for (const iovec& vector : chain_.writable) std::memset(vector.iov_base, 0x55, vector.iov_len);
      queue.Push(chain_, static_cast<uint32_t>(chain_.writable_bytes));
    }
    return true;
  }

 private:
  std::vector<std::byte> config_{24};
  QueueChain chain_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 8192) return 0;
  const FakeGuestRam ram;
  const OwnedFd event(::eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK));
  const auto loop = *EventLoop::Create();
  FuzzDevice device;
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return 0;
  bool ended = false;
  const auto server = *VhostUserServer::Create(*loop, OwnedFd(pair[0]), device,
                                               {.on_end =
                                                    [&](const absl::Status&) {
                                                      ended = true;
                                                      loop->Stop();
                                                    },
                                                .on_fault = [](uint16_t, BackendQueue::Fault) {}});
  VhostUserChannel front_end{OwnedFd(pair[1])};
  int records = 0;
  while (size >= 3 && records++ < 48) {
    const uint8_t request = data[0];
    const uint8_t kinds = data[1];
    const size_t bytes = std::min<size_t>(data[2], size - 3);
    const std::span<const std::byte> payload = std::as_bytes(std::span(data + 3, bytes));
    data += 3 + bytes;
    size -= 3 + bytes;
    if ((request & 0x80) != 0) {
      (void)!::send(front_end.fd(), payload.data(), payload.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      continue;
    }
    std::vector<int> fds;
    for (int i = 0; i < (kinds >> 4 & 7); ++i) fds.push_back((kinds & 1) != 0 ? event.get() : ram.fd());
    if (!front_end.Send(request, (kinds & 2) != 0 ? vhost_user::kFlagNeedReply : 0, payload, fds, VhostUserChannel::NowMs()).ok()) break;
  }
  ::shutdown(front_end.fd(), SHUT_WR);
  if (!ended) loop->Run();
  return 0;
}
