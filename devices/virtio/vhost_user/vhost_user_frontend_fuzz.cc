// What a hostile backend sends, as one stream of bytes, to a front end that goes through a device's whole life. The first byte says
// whether descriptors come along, and which of the driver's steps are taken.
#include <sys/socket.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "base/event_loop.h"
#include "base/owned_fd.h"
#include "devices/virtio/vhost_user/vhost_user_frontend.h"
#include "devices/virtio/virtio_endpoint.h"
#include "devices/virtio/virtio_layout.h"
#include "memory/gpa.h"
#include "memory/guest_memory.h"
#include "memory/guest_ram.h"
#include "memory/layout.h"

namespace {

constexpr uint64_t kRamBytes = 1 << 20;

void SendStream(int fd, std::span<const uint8_t> bytes, int attached) {
  iovec vector{const_cast<uint8_t*>(bytes.data()), bytes.size()};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  if (attached >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    cmsghdr* const head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(int));
    *reinterpret_cast<int*>(CMSG_DATA(head)) = attached;
  }
  (void)!::sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  ::shutdown(fd, SHUT_WR);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace vmm;
  if (size < 2 || size > 65536) return 0;
  static const auto ram = *GuestRam::Create({.bytes = kRamBytes});
  static const auto memory = *GuestMemory::Create(*ram, *MemoryLayout::Create(kRamBytes));
  const auto loop = *EventLoop::Create();
  const VhostUserFrontendOptions options{.name = "fuzz",
                                         .queues = 2,
                                         .max_queue_size = 16,
                                         .config_bytes = 8,
                                         .deadline_ms = 50,
                                         .memory = {{Gpa(0), kRamBytes, ram->fd(), 0}}};
  int losses = 0;
  const auto frontend = *VhostUserFrontend::Create(*loop, *memory, options, [&](const absl::Status& why) {
    ++losses;
    if (why.ok()) std::abort();
  });
  const uint8_t steps = data[0];
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return 0;
  const OwnedFd peer(pair[1]);
  SendStream(peer.get(), std::span(data + 1, size - 1), (steps & 1) != 0 ? ram->fd() : -1);
  const VirtioQueueSetup queue{1, 16, Gpa(0x1000), Gpa(0x2000), Gpa(0x3000)};
  if ((steps & 2) != 0 && !frontend->Start(virtio::kFeatureVersion1, std::span(&queue, 1))) std::abort();
  const bool connected = frontend->Connect(OwnedFd(pair[0])).ok();
  uint64_t word = 0;
  frontend->ReadConfig(0, std::as_writable_bytes(std::span(&word, 1)));
  frontend->ReadConfig(0xffff'fff8, std::as_writable_bytes(std::span(&word, 1)));
  frontend->WriteConfig(0, std::as_bytes(std::span(&word, 1)));
  if (!frontend->Start(virtio::kFeatureVersion1, std::span(&queue, 1))) std::abort();
  if ((steps & 4) != 0) (void)frontend->StopQueue(1);
  if ((steps & 8) != 0) (void)frontend->StartQueue(queue);
  frontend->Stop();
  loop->Post([&] { loop->Stop(); });
  loop->Run();
  if (!connected && losses != 0) std::abort();  // it was never had
  if (losses > 1) std::abort();
  return 0;
}
