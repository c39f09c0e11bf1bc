#include "devices/platform/trapped_device_server.h"

#include <sys/socket.h>

#include <array>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "base/owned_fd.h"
#include "base/status_matchers.h"
#include "devices/platform/trapped_device_proxy.h"

namespace vmm {
namespace {

// Offset 0 counts writes; any read gives that count, and register 5 publishes it.
class CountingModel final : public IoDevice {
 public:
  explicit CountingModel(RegisterPublisher& publisher) : publisher_(publisher) {}
  void Read(uint64_t, std::span<std::byte> data) noexcept override { data[0] = std::byte{count_}; }
  void Write(uint64_t, std::span<const std::byte>) noexcept override { publisher_.Publish(5, ++count_, 0); }

 private:
  RegisterPublisher& publisher_;
  uint8_t count_ = 0;
};

class TrappedDeviceServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    server.reset();  // before its loop: a test may start anew
    int fds[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
    monitor = OwnedFd(fds[0]);
    device = OwnedFd(fds[1]);
    ASSERT_OK_AND_ASSIGN(loop, EventLoop::Create());
    ASSERT_OK_AND_ASSIGN(server, TrappedDeviceServer::Create(*loop, device.get(), model, publisher, [this] { ++batches; }));
  }
  void Send(TrappedMessage message, size_t bytes = sizeof(TrappedMessage)) {
    ASSERT_EQ(::send(monitor.get(), &message, bytes, MSG_NOSIGNAL), static_cast<ssize_t>(bytes));
  }
  static TrappedMessage Message(TrappedKind kind, uint8_t bytes, uint32_t sequence) {
    TrappedMessage message{};
    message.version = kTrappedVersion;
    message.kind = kind;
    message.bytes = bytes;
    message.sequence = sequence;
    return message;
  }

  PublishedPage page{};
  RegisterPublisher publisher{&page};
  CountingModel model{publisher};
  OwnedFd monitor, device;
  std::unique_ptr<EventLoop> loop;
  std::unique_ptr<TrappedDeviceServer> server;
  int batches = 0;
};

TEST_F(TrappedDeviceServerTest, EndOfFileEndsTheLoopAfterEverythingQueued) {
  Send(Message(TrappedKind::kWrite, 1, 1));
  Send(Message(TrappedKind::kByteWrites, 3, 4));
  Send(Message(TrappedKind::kRead, 1, 5));
  ::shutdown(monitor.get(), SHUT_WR);
  loop->Run();
  TrappedMessage reply;
  ASSERT_EQ(::recv(monitor.get(), &reply, sizeof(reply), MSG_DONTWAIT), 152);
  EXPECT_EQ(reply.kind, TrappedKind::kReply);
  EXPECT_EQ(reply.sequence, 5u);
  EXPECT_EQ(reply.value & 0xff, 4u);
  EXPECT_EQ(batches, 1);
  const PublishedWord word = PublishedWord::Unpack(page.registers[5].load());
  EXPECT_EQ(word.value, 4);
  EXPECT_EQ(word.sequence, 5u) << "the read is taken account of, too";
}

TEST_F(TrappedDeviceServerTest, NonsenseEndsTheLoop) {
  const std::vector<TrappedMessage> nonsense = {
      Message(TrappedKind::kReply, 1, 1), Message(TrappedKind::kRead, 3, 1),       Message(TrappedKind::kRead, 1, 2),
      Message(TrappedKind::kWrite, 0, 1), Message(TrappedKind::kByteWrites, 65, 65), Message(TrappedKind::kByteWrites, 0, 0),
  };
  for (const TrappedMessage& message : nonsense) {
    SetUp();
    Send(message);
    loop->Run();  // would not come back
  }
  SetUp();
  Send(Message(TrappedKind::kRead, 1, 1), 24);
  loop->Run();
}

TEST_F(TrappedDeviceServerTest, ProxyAndServerAgree) {
  TrappedDeviceProxy proxy(std::move(monitor), &page, [](const std::string& reason) { ADD_FAILURE() << reason; }, 10'000);
  std::thread processor([&] {
    for (int i = 1; i <= 200; ++i) {
      const std::byte zero{};
      proxy.Write(1, std::span(&zero, 1));
      std::byte value{};
      proxy.Read(5, std::span(&value, 1));
      EXPECT_EQ(std::to_integer<int>(value), i & 0xff);
    }
    proxy.Close();
  });
  loop->Run();
  processor.join();
}

}  // namespace
}  // namespace vmm
