#include "devices/platform/trapped_device_proxy.h"

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace vmm {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int kShortMs = 100;
constexpr absl::Duration kGenerous = absl::Seconds(10);

// Plays the device's process on a thread of its own: answers each message by what `answer` does.
class FakePeer final {
 public:
  using Answer = std::function<void(int socket, const TrappedMessage& message)>;
  FakePeer(OwnedFd socket, Answer answer) : socket_(std::move(socket)), thread_([this, answer] {
    TrappedMessage message;
    while (::recv(socket_.get(), &message, sizeof(message), 0) == sizeof(message)) answer(socket_.get(), message);
  }) {}
  ~FakePeer() {
    ::shutdown(socket_.get(), SHUT_RDWR);
    thread_.join();
  }

  static TrappedMessage Reply(const TrappedMessage& request, uint64_t value) {
    TrappedMessage reply{};
    reply.version = kTrappedVersion;
    reply.kind = TrappedKind::kReply;
    reply.bytes = request.bytes;
    reply.sequence = request.sequence;
    reply.value = value;
    return reply;
  }
  static void Send(int socket, const TrappedMessage& message) {
    ::send(socket, &message, sizeof(message), MSG_NOSIGNAL);
  }

 private:
  OwnedFd socket_;
  std::thread thread_;
};

class TrappedDeviceProxyTest : public ::testing::Test {
 protected:
  void Make(const PublishedPage* page = nullptr, int deadline_ms = kShortMs) {
    int fds[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
    peer_end = OwnedFd(fds[1]);
    proxy = std::make_unique<TrappedDeviceProxy>(
        OwnedFd(fds[0]), page,
        [this](const std::string& reason) {
          // A callback that uses the device again must find no lock held.
          EXPECT_EQ(ReadByte(0), 0xff);
          ++failures;
          failure = reason;
        },
        deadline_ms);
  }
  void Serve(FakePeer::Answer answer) { peer = std::make_unique<FakePeer>(std::move(peer_end), std::move(answer)); }

  uint8_t ReadByte(uint64_t offset) {
    std::byte byte{0xff};
    proxy->Read(offset, std::span(&byte, 1));
    return std::to_integer<uint8_t>(byte);
  }
  void WriteByte(uint64_t offset, uint8_t value) {
    const std::byte byte{value};
    proxy->Write(offset, std::span(&byte, 1));
  }
  void ExpectFailedOnce(const std::string& reason) {
    const absl::Time start = absl::Now();
    for (int i = 0; i < 1000; ++i) {
      EXPECT_EQ(ReadByte(5), 0xff);
      WriteByte(0, 'x');
    }
    EXPECT_LT(absl::Now() - start, kGenerous) << "a failed device makes nobody wait";
    EXPECT_TRUE(proxy->failed());
    EXPECT_EQ(failures, 1);
    EXPECT_THAT(failure, HasSubstr(reason));
  }

  std::atomic<int> failures{0};
  std::string failure;
  OwnedFd peer_end;
  std::unique_ptr<TrappedDeviceProxy> proxy;
  std::unique_ptr<FakePeer> peer;
};

TEST_F(TrappedDeviceProxyTest, ReadReturnsTheReplysBytes) {
  Make(nullptr, 10'000);
  Serve([](int socket, const TrappedMessage& message) {
    FakePeer::Send(socket, FakePeer::Reply(message, 0x1122334455667700 + message.offset));
  });
  std::array<std::byte, 4> data{};
  proxy->Read(6, data);
  EXPECT_THAT(data, ElementsAre(std::byte{0x06}, std::byte{0x77}, std::byte{0x66}, std::byte{0x55}));
  EXPECT_EQ(failures, 0);
}

TEST_F(TrappedDeviceProxyTest, WritesArePostedAndNumbered) {
  Make();
  WriteByte(3, 0xab);
  proxy->WriteBytes(std::array<TrappedByteWrite, 2>{{{0, 'h'}, {0, 'i'}}});
  TrappedMessage message;
  ASSERT_EQ(::recv(peer_end.get(), &message, sizeof(message), MSG_DONTWAIT), 152);
  EXPECT_EQ(message.kind, TrappedKind::kWrite);
  EXPECT_EQ(message.sequence, 1u);
  EXPECT_EQ(message.offset, 3u);
  EXPECT_EQ(message.value, 0xabu);
  ASSERT_EQ(::recv(peer_end.get(), &message, sizeof(message), MSG_DONTWAIT), 152);
  EXPECT_EQ(message.kind, TrappedKind::kByteWrites);
  EXPECT_EQ(message.bytes, 2);
  EXPECT_EQ(message.sequence, 3u);
  EXPECT_EQ(message.writes[1].value, 'i');
}

TEST_F(TrappedDeviceProxyTest, LongByteRunsAreCutAtSixtyFour) {
  Make();
  std::vector<TrappedByteWrite> writes(100, {0, 'a'});
  proxy->WriteBytes(writes);
  TrappedMessage message;
  ASSERT_EQ(::recv(peer_end.get(), &message, sizeof(message), MSG_DONTWAIT), 152);
  EXPECT_EQ(message.bytes, 64);
  EXPECT_EQ(message.sequence, 64u);
  ASSERT_EQ(::recv(peer_end.get(), &message, sizeof(message), MSG_DONTWAIT), 152);
  EXPECT_EQ(message.bytes, 36);
  EXPECT_EQ(message.sequence, 100u);
}

TEST_F(TrappedDeviceProxyTest, DeadPeerFailsTheRead) {
  Make();
  peer_end.Reset();
  EXPECT_EQ(ReadByte(5), 0xff);
  ExpectFailedOnce("closed the connection");
}

TEST_F(TrappedDeviceProxyTest, PeerThatDiesDuringTheReadFailsIt) {
  Make(nullptr, 10'000);
  Serve([](int socket, const TrappedMessage&) { ::shutdown(socket, SHUT_RDWR); });
  EXPECT_EQ(ReadByte(5), 0xff);
  ExpectFailedOnce("closed the connection");
}

TEST_F(TrappedDeviceProxyTest, StuckPeerFailsTheReadAtItsDeadline) {
  Make();
  const absl::Time start = absl::Now();
  EXPECT_EQ(ReadByte(5), 0xff);
  EXPECT_GE(absl::Now() - start, absl::Milliseconds(kShortMs) / 2);
  EXPECT_LT(absl::Now() - start, kGenerous);
  ExpectFailedOnce("no reply to a read within 100 ms");
}

TEST_F(TrappedDeviceProxyTest, StuckPeerFailsTheWriteThatFindsItsQueueFull) {
  Make();
  const absl::Time start = absl::Now();
  for (int i = 0; i < 100'000 && !proxy->failed(); ++i) WriteByte(0, 'x');
  EXPECT_LT(absl::Now() - start, kGenerous);
  ExpectFailedOnce("queue stayed full");
}

TEST_F(TrappedDeviceProxyTest, SlowPeerWithinTheDeadlineIsFine) {
  Make(nullptr, 10'000);
  Serve([](int socket, const TrappedMessage& message) {
    ::poll(nullptr, 0, 30);
    FakePeer::Send(socket, FakePeer::Reply(message, 7));
  });
  EXPECT_EQ(ReadByte(5), 7);
  EXPECT_EQ(ReadByte(5), 7);
  EXPECT_EQ(failures, 0);
}

struct Lie {
  const char* name;
  std::function<void(int socket, TrappedMessage reply)> send;
  const char* reason;
};
class TrappedDeviceProxyLieTest : public TrappedDeviceProxyTest, public ::testing::WithParamInterface<Lie> {};

TEST_P(TrappedDeviceProxyLieTest, FailsTheDeviceOnce) {
  Make(nullptr, 10'000);
  Serve([lie = GetParam()](int socket, const TrappedMessage& message) { lie.send(socket, FakePeer::Reply(message, 7)); });
  EXPECT_EQ(ReadByte(5), 0xff);
  ExpectFailedOnce(GetParam().reason);
}
INSTANTIATE_TEST_SUITE_P(
    All, TrappedDeviceProxyLieTest,
    ::testing::Values(
        Lie{"ShortMessage", [](int s, TrappedMessage m) { ::send(s, &m, 24, MSG_NOSIGNAL); }, "message of 24 bytes"},
        Lie{"LongMessage",
            [](int s, TrappedMessage m) {
              std::array<TrappedMessage, 2> two{m, m};
              ::send(s, two.data(), sizeof(two), MSG_NOSIGNAL);
            },
            "message of 304 bytes"},
        Lie{"OldSequence", [](int s, TrappedMessage m) { --m.sequence; FakePeer::Send(s, m); }, "replied to access 0 instead of 1"},
        Lie{"FutureSequence", [](int s, TrappedMessage m) { ++m.sequence; FakePeer::Send(s, m); }, "replied to access 2 instead of 1"},
        Lie{"OtherVersion", [](int s, TrappedMessage m) { m.version = 9; FakePeer::Send(s, m); }, "protocol version 9"},
        Lie{"OtherKind", [](int s, TrappedMessage m) { m.kind = TrappedKind::kRead; FakePeer::Send(s, m); }, "not the reply"},
        Lie{"OtherWidth", [](int s, TrappedMessage m) { m.bytes = 8; FakePeer::Send(s, m); }, "not the reply"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST_F(TrappedDeviceProxyTest, SecondReplyToOneReadIsStaleForTheNext) {
  Make(nullptr, 10'000);
  Serve([](int socket, const TrappedMessage& message) {
    FakePeer::Send(socket, FakePeer::Reply(message, 7));
    FakePeer::Send(socket, FakePeer::Reply(message, 8));
  });
  EXPECT_EQ(ReadByte(5), 7);
  EXPECT_EQ(ReadByte(5), 0xff);
  ExpectFailedOnce("replied to access 1 instead of 2");
}

TEST_F(TrappedDeviceProxyTest, ProcessorsThatWaitForAStuckReadAreFreedWithIt) {
  Make();
  const absl::Time start = absl::Now();
  std::vector<std::thread> processors;
  for (int i = 0; i < 8; ++i) {
    processors.emplace_back([this] { EXPECT_EQ(ReadByte(5), 0xff); });
  }
  for (std::thread& processor : processors) processor.join();
  EXPECT_LT(absl::Now() - start, kGenerous);
  EXPECT_EQ(failures, 1);
}

TEST_F(TrappedDeviceProxyTest, ProcessorsReadAndWriteAtOnceAndEachGetsItsOwnReply) {
  Make(nullptr, 10'000);
  Serve([](int socket, const TrappedMessage& message) {
    if (message.kind == TrappedKind::kRead) FakePeer::Send(socket, FakePeer::Reply(message, message.offset));
  });
  std::vector<std::thread> processors;
  for (uint8_t i = 0; i < 4; ++i) {
    processors.emplace_back([this, i] {
      for (int n = 0; n < 200; ++n) {
        WriteByte(0, i);
        EXPECT_EQ(ReadByte(i), i);
      }
    });
  }
  for (std::thread& processor : processors) processor.join();
  EXPECT_EQ(failures, 0);
}

TEST_F(TrappedDeviceProxyTest, PublishedValueIsUsedOnlyWhenItCoversWhatWasSent) {
  PublishedPage page{};
  Make(&page, 10'000);
  const auto publish = [&](uint32_t sequence, uint8_t value, uint16_t credit) {
    page.registers[5].store(PublishedWord{sequence, value, credit, true}.Pack(), std::memory_order_release);
  };
  std::atomic<int> asked{0};
  Serve([&](int socket, const TrappedMessage& message) {
    if (message.kind != TrappedKind::kRead) return;
    ++asked;
    FakePeer::Send(socket, FakePeer::Reply(message, 0x11));
  });
  publish(0, 0x60, 0);
  EXPECT_EQ(ReadByte(5), 0x60);
  WriteByte(0, 'a');  // access 1
  EXPECT_EQ(ReadByte(5), 0x11) << "not taken account of: asked, access 2";
  publish(2, 0x60, 2);
  WriteByte(0, 'b');  // 3
  WriteByte(0, 'c');  // 4
  EXPECT_EQ(ReadByte(5), 0x60) << "within the credit";
  WriteByte(0, 'd');  // 5
  EXPECT_EQ(ReadByte(5), 0x11) << "credit used up; access 6";
  publish(6, 0x60, 100);
  WriteByte(4, 0x10);  // 7: not to offset 0
  EXPECT_EQ(ReadByte(5), 0x11) << "no credit for other registers; access 8";
  publish(9, 0x60, 100);
  EXPECT_EQ(ReadByte(5), 0x11) << "a number from the future is no proof; access 9";
  EXPECT_EQ(ReadByte(5), 0x60) << "now it is";
  page.registers[5].store(0, std::memory_order_release);
  EXPECT_EQ(ReadByte(5), 0x11);
  EXPECT_EQ(asked, 5);
}

TEST_F(TrappedDeviceProxyTest, CloseIsNoFailure) {
  Make();
  WriteByte(0, 'a');
  proxy->Close();
  EXPECT_EQ(ReadByte(5), 0xff);
  TrappedMessage message;
  EXPECT_EQ(::recv(peer_end.get(), &message, sizeof(message), MSG_DONTWAIT), 152);
  EXPECT_EQ(::recv(peer_end.get(), &message, sizeof(message), MSG_DONTWAIT), 0);
  EXPECT_EQ(failures, 0);
}

}  // namespace
}  // namespace vmm
