#include "devices/virtio/net/stream_wire.h"

#include <arpa/inet.h>
#include <sys/socket.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/event_loop.h"
#include "base/owned_fd.h"
#include "base/status_matchers.h"
#include "devices/virtio/net/net_layout.h"

namespace vmm {
namespace {

namespace vn = virtio_net;

class StreamWireTest : public testing::Test, public NetWireUser {
 protected:
  void SetUp() override {
    int pair[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    ours_.Reset(pair[0]);
    theirs_.Reset(pair[1]);
    ASSERT_OK_AND_ASSIGN(loop_, EventLoop::Create());
    ASSERT_OK_AND_ASSIGN(wire_, StreamWire::Create(*loop_, ours_.get(), [this](const char* why) { gone_ = why; }));
    wire_->Serve(*this);
  }
  void OnReadable(uint16_t) override { ++readable_; }
  void OnWritable(uint16_t) override {
    ++writable_;
    wire_->WantOutput(0, false);
  }
  // What has happened so far; once.
  void RunLoop() {
    loop_->Post([this] { loop_->Post([this] { loop_->Stop(); }); });
    loop_->Run();
  }
  static std::string Framed(const std::string& frame) {
    const uint32_t length = htonl(static_cast<uint32_t>(frame.size()));
    return std::string(reinterpret_cast<const char*>(&length), sizeof(length)) + frame;
  }
  void Put(const std::string& bytes) { ASSERT_EQ(::send(theirs_.get(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size())); }
  std::string Get(size_t bytes) {
    std::string all(bytes, 0);
    const ssize_t got = ::recv(theirs_.get(), all.data(), bytes, MSG_DONTWAIT);
    return all.substr(0, got > 0 ? static_cast<size_t>(got) : 0);
  }
  NetWire::SendResult Send(const std::string& frame) {
    vn::Header header{};
    iovec packet[] = {{&header, sizeof(header)}, {const_cast<char*>(frame.data()), frame.size()}};
    return wire_->Send(0, packet);
  }
  std::string Receive(size_t room = 100'000) {
    std::string header(12, 'x'), rest(room, 0);
    iovec vectors[] = {{header.data(), 5}, {header.data() + 5, 7}, {rest.data(), rest.size()}};
    const size_t got = wire_->Receive(0, vectors);
    if (got == 0) return "nothing";
    if (got > 12 + room) return "too large";
    EXPECT_EQ(header.substr(0, 10), std::string(10, 0));
    return rest.substr(0, got - 12);
  }

  OwnedFd ours_, theirs_;
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<StreamWire> wire_;
  std::string gone_;
  int readable_ = 0, writable_ = 0;
};

TEST_F(StreamWireTest, FramesGoOutWithTheirLength) {
  EXPECT_EQ(Send("an ethernet frame"), NetWire::SendResult::kSent);
  EXPECT_EQ(Get(100), Framed("an ethernet frame"));
}

TEST_F(StreamWireTest, FramesComeInHoweverTheStreamCutsThem) {
  const std::string one(60'000, '1'), two(65'000, '2'), three = "three: a small one";
  const std::string all = Framed(one) + Framed("short") + Framed(two) + Framed(three);
  size_t put = 0;
  std::vector<std::string> got;
  for (size_t step = 1; put < all.size(); step = step * 2 + 1) {
    const size_t bytes = std::min(step, all.size() - put);
    Put(all.substr(put, bytes));
    put += bytes;
    for (std::string frame = Receive(); frame != "nothing"; frame = Receive()) got.push_back(frame);
  }
  ASSERT_EQ(got.size(), 3u);  // shorter than an Ethernet header is none
  EXPECT_EQ(got[0], one);
  EXPECT_EQ(got[1], two);
  EXPECT_EQ(got[2], three);
  EXPECT_EQ(gone_, "");
}

TEST_F(StreamWireTest, AFrameLargerThanTheRoomIsLostAndTheNextIsNot) {
  Put(Framed(std::string(2000, 'a')) + Framed("the next one is here"));
  EXPECT_EQ(Receive(1000), "too large");
  EXPECT_EQ(Receive(1000), "the next one is here");
}

TEST_F(StreamWireTest, AFrameThatGoesHalfIsFinishedFirst) {
  const std::string frame(60'000, 'f');
  size_t sent = 0;
  while (Send(frame) == NetWire::SendResult::kSent) ++sent;
  ASSERT_GT(sent, 1u);
  wire_->WantOutput(0, true);
  const std::string framed = Framed(frame);
  std::string all;
  for (std::string part = Get(1 << 20); !part.empty(); part = Get(1 << 20)) all += part;
  RunLoop();
  EXPECT_EQ(writable_, 1);
  for (std::string part = Get(1 << 20); !part.empty(); part = Get(1 << 20)) all += part;
  ASSERT_EQ(all.size(), sent * framed.size());
  for (size_t i = 0; i < sent; ++i) ASSERT_EQ(all.substr(i * framed.size(), framed.size()), framed) << i;
}

TEST_F(StreamWireTest, ALengthThatNoFrameHasEndsIt) {
  const uint32_t length = htonl(vn::kMaxFrameBytes + 1);
  Put(std::string(reinterpret_cast<const char*>(&length), 4));
  EXPECT_EQ(Receive(), "nothing");
  EXPECT_NE(gone_.find("no frame has"), std::string::npos);
  EXPECT_EQ(Send("is not sent any more"), NetWire::SendResult::kRefused);
  Put(Framed("is not received either"));
  EXPECT_EQ(Receive(), "nothing");
}

TEST_F(StreamWireTest, TheEndOfTheOtherSideIsTold) {
  theirs_.Reset();
  RunLoop();
  EXPECT_NE(gone_.find("gone"), std::string::npos);
  EXPECT_EQ(readable_, 0);
}

TEST_F(StreamWireTest, InputIsToldWhereItIsWanted) {
  wire_->WantInput(0, true);
  Put(Framed("fourteen bytes or so"));
  RunLoop();
  EXPECT_GE(readable_, 1);
  EXPECT_EQ(Receive(), "fourteen bytes or so");
}

}  // namespace
}  // namespace vmm
