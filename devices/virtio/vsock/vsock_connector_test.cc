// The connector's process for real: this program is started again as it.
#include "devices/virtio/vsock/vsock_connector.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>

#include <gtest/gtest.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/owned_fd.h"
#include "base/status_matchers.h"
#include "devices/virtio/vsock/vsock_device.h"
#include "sandbox/child_process.h"
#include "sandbox/jail_options.h"

namespace vmm {
namespace {

class VsockConnectorTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = "/tmp/vsockXXXXXX";  // short: a socket's path
    ASSERT_NE(::mkdtemp(folder_.data()), nullptr);
    path_ = folder_ + "/s";
    JailOptions jail;
#ifdef VMM_DYNAMIC_LINK
    jail.waive_seccomp = true;  // a sanitizer's runtime makes calls of its own
#endif
    ASSERT_OK_AND_ASSIGN(connector_, StartVsockConnector(path_, jail, -1));
  }
  void TearDown() override {
    for (const char* name : {"/s", "/s_7", "/s_4294967295"}) ::unlink((folder_ + name).c_str());
    ::rmdir(folder_.c_str());
  }
  void Ask(const void* request, size_t bytes) {
    ASSERT_EQ(::send(connector_.device_end.get(), request, bytes, MSG_NOSIGNAL), static_cast<ssize_t>(bytes));
  }
  struct Answer {
    ConnectAnswer answer{};
    OwnedFd socket;
  };
  std::optional<Answer> Receive() {
    pollfd poll_fd{connector_.device_end.get(), POLLIN, 0};
    if (::poll(&poll_fd, 1, 30'000) <= 0) return std::nullopt;
    Answer answer;
    iovec vector{&answer.answer, sizeof(answer.answer)};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    if (::recvmsg(connector_.device_end.get(), &message, MSG_CMSG_CLOEXEC) != static_cast<ssize_t>(sizeof(answer.answer))) return std::nullopt;
    if (const cmsghdr* const header = CMSG_FIRSTHDR(&message)) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(header), sizeof(fd));
      answer.socket.Reset(fd);
    }
    return answer;
  }

  std::string folder_, path_;
  VsockConnector connector_;
};

TEST_F(VsockConnectorTest, ConnectsToItsPathWithThePortAndNowhereElse) {
  ASSERT_OK_AND_ASSIGN(const OwnedFd listening, ListenForVsock(path_ + "_7"));
  ConnectRequest request{42, 7, 0};
  Ask(&request, sizeof(request));
  auto answer = Receive();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->answer.id, 42u);
  EXPECT_EQ(answer->answer.error, 0);
  const OwnedFd accepted(::accept4(listening.get(), nullptr, nullptr, SOCK_CLOEXEC));
  ASSERT_TRUE(accepted.valid() && answer->socket.valid());
  ASSERT_EQ(::send(answer->socket.get(), "hello", 5, 0), 5);
  char text[8];
  EXPECT_EQ(::recv(accepted.get(), text, sizeof(text), 0), 5);

  request = {43, 8, 0};
  Ask(&request, sizeof(request));
  answer = Receive();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->answer.id, 43u);
  EXPECT_EQ(answer->answer.error, ENOENT);
  EXPECT_FALSE(answer->socket.valid());
}

TEST_F(VsockConnectorTest, WhatIsNoRequestIsNotAnsweredAndTheNextOneIs) {
  ASSERT_OK_AND_ASSIGN(const OwnedFd listening, ListenForVsock(path_ + "_4294967295"));
  ConnectRequest request{1, 0xffff'ffff, 0};
  Ask(&request, sizeof(request) - 1);
  Ask("/etc/passwd", 11);
  Ask(&request, sizeof(request));
  const auto answer = Receive();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->answer.error, 0);
}

TEST_F(VsockConnectorTest, EndsWhenTheDevicesEndIsClosed) {
  connector_.device_end.Reset();
  ASSERT_OK_AND_ASSIGN(const ExitStatus status, connector_.process.Wait(30'000));
  EXPECT_EQ(status.Describe(), "exited with code 0");
}

TEST_F(VsockConnectorTest, TheMachinesSocketIsItsUsersAloneAndIsNotTakenFromAnother) {
  ASSERT_OK_AND_ASSIGN(OwnedFd listening, ListenForVsock(path_));
  struct stat about {};
  ASSERT_EQ(::stat(path_.c_str(), &about), 0);
  EXPECT_EQ(about.st_mode & 0777, 0600u);
  EXPECT_EQ(ListenForVsock(path_).status().code(), absl::StatusCode::kAlreadyExists);
  listening.Reset();
  EXPECT_OK(ListenForVsock(path_));
}

}  // namespace
}  // namespace vmm

int main(int argc, char** argv) {
  if (argc > 3 && absl::string_view(argv[1]) == "device") return vmm::RunVsockDevice(argc, argv);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
