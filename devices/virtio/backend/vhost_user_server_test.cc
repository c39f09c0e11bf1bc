// What a front end may not ask of the server. Its life as it should be is loopback_test.cc.
#include "devices/virtio/backend/vhost_user_server.h"

#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <span>
#include <utility>

#include <gtest/gtest.h>

#include "absl/status/status.h"
#include "base/event_loop.h"
#include "base/owned_fd.h"
#include "base/status_matchers.h"
#include "devices/virtio/backend/backend_device.h"
#include "devices/virtio/backend/backend_queue.h"
#include "devices/virtio/backend/inflight_layout.h"
#include "devices/virtio/vhost_user/vhost_user_channel.h"
#include "devices/virtio/vhost_user/vhost_user_layout.h"

namespace vmm {
namespace {

namespace vu = vhost_user;
using Code = absl::StatusCode;
using vu::Request;

class IdleDevice final : public BackendDevice {
 public:
  uint64_t features() const noexcept override { return 0; }
  uint16_t queue_count() const noexcept override { return 2; }
  bool Process(uint16_t, BackendQueue&) noexcept override { return false; }
};

class VhostUserServerTest : public testing::Test {
 protected:
  void SetUp() override { Connect(); }
  void Connect() {
    server_.reset();
    int pair[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    front_end_ = std::make_unique<VhostUserChannel>(OwnedFd(pair[0]));
    ASSERT_OK_AND_ASSIGN(loop_, EventLoop::Create());
    ended_ = absl::UnknownError("it has not ended");
    ASSERT_OK_AND_ASSIGN(server_, VhostUserServer::Create(*loop_, OwnedFd(pair[1]), device_,
                                                          {.on_end =
                                                               [this](const absl::Status& status) {
                                                                 ended_ = status;
                                                                 loop_->Stop();
                                                               },
                                                           .on_fault = [](uint16_t, BackendQueue::Fault) {}}));
  }
  template <typename T>
  void Send(Request request, const T& payload, std::span<const int> fds = {}) {
    ASSERT_OK(front_end_->Send(static_cast<uint32_t>(request), 0, std::as_bytes(std::span(&payload, 1)), fds, VhostUserChannel::NowMs() + 1000));
  }
  // How the connection ends when nothing else is sent.
  absl::Status End() {
    ::shutdown(front_end_->fd(), SHUT_WR);
    loop_->Run();
    return ended_;
  }

  IdleDevice device_;
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<VhostUserServer> server_;
  std::unique_ptr<VhostUserChannel> front_end_;
  absl::Status ended_;
};

TEST_F(VhostUserServerTest, AnInflightRegionIsGivenAndTakenBack) {
  Send(Request::kGetInflightFd, vu::Inflight{0, 0, 2, 256, 0});
  Send(Request::kGetInflightFd, vu::Inflight{0, 0, 1, 64, 0});
  EXPECT_OK(End());
  VhostUserMessage reply;
  ASSERT_OK(front_end_->Receive(reply, VhostUserChannel::NowMs()));
  const auto first = reply.As<vu::Inflight>();
  ASSERT_TRUE(first.has_value());
  EXPECT_EQ(first->mmap_size, 2 * vu::InflightStride(256));
  ASSERT_EQ(reply.fd_count, 1u);
  // Nobody can cut it under the process that writes to it.
  EXPECT_NE(::ftruncate(reply.fds[0].get(), 0), 0);
  const OwnedFd region = std::move(reply.fds[0]);
  Connect();
  const int fds[] = {region.get()};
  Send(Request::kSetInflightFd, *first, fds);
  EXPECT_OK(End());
}

TEST_F(VhostUserServerTest, AnInflightRegionThatMakesNoSenseEndsTheConnection) {
  const OwnedFd region(::memfd_create("region", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(region.get(), 1 << 20), 0);
  int pipe_ends[2];
  ASSERT_EQ(::pipe(pipe_ends), 0);
  const OwnedFd pipe_read(pipe_ends[0]), pipe_write(pipe_ends[1]);
  const uint64_t enough = 2 * vu::InflightStride(256);
  const struct {
    vu::Inflight inflight;
    int fd;
  } bad[] = {
      {{enough, 0, 3, 256, 0}, region.get()},                              // more queues than there are
      {{enough, 0, 0, 256, 0}, region.get()},
      {{enough, 0, 2, 0, 0}, region.get()},
      {{enough - 1, 0, 2, 256, 0}, region.get()},                          // too small for them
      {{2 << 20, 0, 2, 256, 0}, region.get()},                             // larger than its file
      {{enough, (1 << 20) - 64, 2, 256, 0}, region.get()},                 // over its end
      {{enough, ~uint64_t{63}, 2, 256, 0}, region.get()},                  // behind all ends
      {{enough, 8, 2, 256, 0}, region.get()},                              // not aligned
      {{~uint64_t{0}, 64, 2, 256, 0}, region.get()},
      {{enough, 0, 2, 256, 0}, pipe_read.get()},                           // no file
  };
  for (const auto& [inflight, fd] : bad) {
    Connect();
    const int fds[] = {fd};
    Send(Request::kSetInflightFd, inflight, fds);
    EXPECT_THAT(End(), StatusIs(Code::kInvalidArgument, "in-flight region")) << inflight.mmap_size << " at " << inflight.mmap_offset;
  }
  Connect();
  Send(Request::kSetInflightFd, vu::Inflight{enough, 0, 2, 256, 0});
  EXPECT_THAT(End(), StatusIs(Code::kInvalidArgument, "0 descriptors in place of 1"));
  Connect();
  Send(Request::kGetInflightFd, vu::Inflight{0, 0, 3, 256, 0});
  EXPECT_THAT(End(), StatusIs(Code::kInvalidArgument, "in-flight region"));
  Connect();
  Send(Request::kGetInflightFd, uint64_t{0});
  EXPECT_THAT(End(), StatusIs(Code::kInvalidArgument, "8 bytes in place of 24"));
}

TEST_F(VhostUserServerTest, TheBaseOfASplitRingIsAnIndex) {
  Send(Request::kSetVringBase, vu::VringState{0, 0x1'0000});
  EXPECT_THAT(End(), StatusIs(Code::kInvalidArgument, "a base of 65536"));
}

}  // namespace
}  // namespace vmm
