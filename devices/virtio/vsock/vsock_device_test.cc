#include "devices/virtio/vsock/vsock_device.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "base/event_fd.h"
#include "base/owned_fd.h"
#include "base/status_matchers.h"
#include "devices/virtio/backend/backend_device.h"
#include "devices/virtio/backend/backend_memory.h"
#include "devices/virtio/backend/backend_queue.h"
#include "devices/virtio/backend/fake_guest_driver.h"
#include "devices/virtio/vsock/vsock_connection.h"
#include "devices/virtio/vsock/vsock_layout.h"
#include "memory/gpa.h"

namespace vmm {
namespace {

namespace vv = virtio_vsock;

constexpr uint64_t kCid = 3;
constexpr uint32_t kPort = 52;
constexpr uint32_t kGuestPort = 1000;
constexpr uint32_t kBoth = vv::kShutdownReceive | vv::kShutdownSend;

class FakeHost final : public VsockHost {
 public:
  void Watch(int fd, uint32_t events) noexcept override {
    if (events == kUnwatched) {
      watched.erase(fd);
    } else {
      watched[fd] = events;
    }
  }
  bool Connect(uint64_t id, uint32_t port) noexcept override {
    asked.emplace_back(id, port);
    return connects;
  }
  void WantAccept(bool wanted) noexcept override { accepts = wanted; }
  void WantTicks(bool wanted) noexcept override { ticks = wanted; }
  uint64_t NowMs() noexcept override { return now; }

  std::map<int, uint32_t> watched;
  std::vector<std::pair<uint64_t, uint32_t>> asked;
  bool connects = true;
  bool accepts = true;
  bool ticks = false;
  uint64_t now = 1;
};

// Sockets are real ones; the guest's side is two rings.
class VsockDeviceTest : public testing::Test, public BackendHost {
 protected:
  static constexpr uint32_t kBufferBytes = 4096;
  static constexpr uint16_t kRingSize = 64;

  void SetUp() override {
    ASSERT_OK(memory_.Add(FakeGuestRam::region(), ram_.fd()));
    ASSERT_OK_AND_ASSIGN(call_, EventFd::Create());
    device_ = std::make_unique<VsockDevice>(host_, kCid, /*again=*/false);
    device_->OnHost(*this);
    for (size_t i = 0; i < std::size(queues_); ++i) {
      queues_[i].Start(drivers_[i].Rings(memory_), 0, 0, memory_, &call_);
    }
    OfferBuffers(32);
  }
  void ConfigChanged() override {}
  void Wake(uint16_t index) override {
    while (device_->Process(index, queues_[index])) {
    }
  }
  // What epoll would say of the sockets that the device watches.
  void Poll() {
    for (int round = 0; round < 100; ++round) {
      bool any = false;
      const auto watched = host_.watched;
      for (const auto& [fd, events] : watched) {
        if (host_.watched.count(fd) == 0) continue;
        pollfd poll_fd{fd, static_cast<short>(events), 0};
        if (::poll(&poll_fd, 1, 0) <= 0) continue;
        any = true;
        device_->OnSocket(fd, static_cast<uint32_t>(poll_fd.revents));
      }
      if (!any) return;
    }
    ADD_FAILURE() << "a socket is ready for ever: the process would spin";
  }

  void OfferBuffers(int count, uint32_t bytes = kBufferBytes) {
    for (int i = 0; i < count; ++i) {
      const auto slot = static_cast<uint64_t>(next_buffer_++ % 32);
      drivers_[vv::kRx].Offer({{kBuffers + slot * kBufferBytes, bytes, true}});
    }
    Wake(vv::kRx);
  }
  vv::Header HeaderOf(vv::Op op, uint32_t guest_port, uint32_t host_port, uint32_t len = 0, uint32_t flags = 0) const {
    return {kCid, vv::kHostCid, guest_port, host_port, len, vv::kTypeStream, static_cast<uint16_t>(op), flags, buf_alloc_, fwd_cnt_};
  }
  void SendRaw(const vv::Header& header, const std::string& data = "") {
    FakeGuestDriver& driver = drivers_[vv::kTx];
    std::memcpy(ram_.At(kTxData), &header, sizeof(header));
    ram_.Put(kTxData + sizeof(header), data);
    // In two pieces, whose border is no packet's.
    const auto bytes = static_cast<uint32_t>(sizeof(header) + data.size());
    driver.Offer({{kTxData, 30}, {kTxData + 30, bytes - 30}});
    Wake(vv::kTx);
    while (driver.Take().has_value()) {
    }
  }
  void Send(vv::Op op, uint32_t host_port = kPort, const std::string& data = "", uint32_t flags = 0, uint32_t guest_port = kGuestPort) {
    SendRaw(HeaderOf(op, guest_port, host_port, static_cast<uint32_t>(data.size()), flags), data);
  }
  struct Received {
    vv::Header header;
    std::string data;
  };
  std::optional<Received> Receive() {
    const auto used = drivers_[vv::kRx].Take();
    if (!used.has_value()) return std::nullopt;
    const Gpa at(drivers_[vv::kRx].descriptor(static_cast<uint16_t>(used->id)).address);
    Received received;
    std::memcpy(&received.header, ram_.At(at), sizeof(received.header));
    EXPECT_EQ(used->bytes, sizeof(received.header) + received.header.len);
    received.data = ram_.Get(at + sizeof(received.header), received.header.len);
    return received;
  }
  void ExpectNext(vv::Op op, uint32_t host_port = kPort, uint32_t guest_port = kGuestPort) {
    last_ = Receive().value_or(Received{});
    EXPECT_EQ(last_.header.op, static_cast<uint16_t>(op));
    EXPECT_EQ(last_.header.src_port, host_port);
    EXPECT_EQ(last_.header.dst_port, guest_port);
    EXPECT_EQ(last_.header.src_cid, vv::kHostCid);
    EXPECT_EQ(last_.header.dst_cid, kCid);
    EXPECT_EQ(last_.header.type, vv::kTypeStream);
  }
  void ExpectNothing() { EXPECT_FALSE(Receive().has_value()); }

  static std::pair<OwnedFd, OwnedFd> Pair() {
    int pair[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    return {OwnedFd(pair[0]), OwnedFd(pair[1])};
  }
  // The host's end of a connection that the guest has asked for.
  OwnedFd GuestConnects(uint32_t host_port = kPort, uint32_t guest_port = kGuestPort) {
    Send(vv::Op::kRequest, host_port, "", 0, guest_port);
    EXPECT_EQ(host_.asked.back().second, host_port);
    auto [ours, theirs] = Pair();
    device_->OnConnected(host_.asked.back().first, std::move(ours));
    ExpectNext(vv::Op::kResponse, host_port, guest_port);
    return std::move(theirs);
  }
  static void Write(const OwnedFd& fd, const std::string& text) {
    ASSERT_EQ(::send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT), static_cast<ssize_t>(text.size()));
  }
  // "": end of file; nullopt: nothing there.
  static std::optional<std::string> Read(const OwnedFd& fd, size_t most = 1 << 20) {
    std::string text(most, '\0');
    const ssize_t got = ::recv(fd.get(), text.data(), text.size(), MSG_DONTWAIT);
    if (got < 0) return std::nullopt;
    text.resize(static_cast<size_t>(got));
    return text;
  }

  static constexpr Gpa kTxData{FakeGuestRam::kBase.raw() + 0x1'0000};
  static constexpr Gpa kBuffers{FakeGuestRam::kBase.raw() + 0x4'0000};
  FakeGuestRam ram_;
  FakeGuestDriver drivers_[vv::kQueues] = {{ram_, kRingSize, FakeGuestRam::kBase},
                                           {ram_, kRingSize, FakeGuestRam::kBase + 0x4000},
                                           {ram_, kRingSize, FakeGuestRam::kBase + 0x8000}};
  BackendMemory memory_;
  EventFd call_{OwnedFd()};
  BackendQueue queues_[vv::kQueues];
  FakeHost host_;
  std::unique_ptr<VsockDevice> device_;
  int next_buffer_ = 0;
  uint32_t buf_alloc_ = 1 << 16;
  uint32_t fwd_cnt_ = 0;
  Received last_{};
};

TEST_F(VsockDeviceTest, AGuestsConnectionCarriesBytesBothWays) {
  const OwnedFd host = GuestConnects();
  Send(vv::Op::kRw, kPort, "from the guest");
  EXPECT_EQ(Read(host), "from the guest");
  Write(host, "from the host");
  Poll();
  ExpectNext(vv::Op::kRw);
  EXPECT_EQ(last_.data, "from the host");
  EXPECT_EQ(last_.header.buf_alloc, VsockConnection::kBufferBytes);
  EXPECT_EQ(last_.header.fwd_cnt, 14u);
  ExpectNothing();
}

TEST_F(VsockDeviceTest, NobodyAtThePortIsARefusal) {
  Send(vv::Op::kRequest);
  ASSERT_EQ(host_.asked.size(), 1u);
  device_->OnConnected(host_.asked[0].first, OwnedFd());
  ExpectNext(vv::Op::kRst);
  EXPECT_EQ(device_->connections(), 0u);
  host_.connects = false;
  Send(vv::Op::kRequest);
  ExpectNext(vv::Op::kRst);
}

TEST_F(VsockDeviceTest, AConnectionThatWasGivenUpIsClosedWhenItComes) {
  Send(vv::Op::kRequest);
  Send(vv::Op::kRst);
  Send(vv::Op::kRequest);  // the same ports again
  ASSERT_EQ(host_.asked.size(), 2u);
  auto [ours, theirs] = Pair();
  device_->OnConnected(host_.asked[0].first, std::move(ours));
  EXPECT_EQ(Read(theirs), "");
  ExpectNothing();
  auto [second, other] = Pair();
  device_->OnConnected(host_.asked[1].first, std::move(second));
  ExpectNext(vv::Op::kResponse);
  device_->OnConnected(999, OwnedFd());
}

TEST_F(VsockDeviceTest, AProcessOfTheHostConnectsByItsGreeting) {
  auto [ours, host] = Pair();
  device_->OnAccepted(std::move(ours));
  Write(host, "CONN");
  Poll();
  ExpectNothing();
  Write(host, "ECT 1000\nearly");
  Poll();
  ExpectNext(vv::Op::kRequest, VsockDevice::kFirstHostPort);
  EXPECT_EQ(Read(host), std::nullopt) << "not before the guest has answered";
  Send(vv::Op::kResponse, VsockDevice::kFirstHostPort);
  EXPECT_EQ(Read(host), absl::StrCat("OK ", VsockDevice::kFirstHostPort, "\n"));
  Poll();
  ExpectNext(vv::Op::kRw, VsockDevice::kFirstHostPort);
  EXPECT_EQ(last_.data, "early");
}

TEST_F(VsockDeviceTest, AGreetingThatIsNoneEndsTheConnection) {
  for (const char* greeting : {"HELLO\n", "CONNECT\n", "CONNECT \n", "CONNECT 4294967296\n", "CONNECT -1\n", "CONNECT +1\n", "CONNECT 1 2\n",
                               "connect 1\n", "CONNECT 000000000000000000000000000000000001\n", "\n"}) {
    auto [ours, host] = Pair();
    device_->OnAccepted(std::move(ours));
    Write(host, greeting);
    Poll();
    char byte;
    EXPECT_LE(::recv(host.get(), &byte, 1, MSG_DONTWAIT), 0) << greeting;
    EXPECT_EQ(device_->connections(), 0u) << greeting;
  }
  ExpectNothing();
  EXPECT_TRUE(host_.watched.empty());
}

TEST_F(VsockDeviceTest, AGuestThatRefusesClosesTheHostsSocket) {
  auto [ours, host] = Pair();
  device_->OnAccepted(std::move(ours));
  Write(host, "CONNECT 1000\n");
  Poll();
  ExpectNext(vv::Op::kRequest, VsockDevice::kFirstHostPort);
  Send(vv::Op::kRst, VsockDevice::kFirstHostPort);
  EXPECT_EQ(Read(host), "");
  ExpectNothing();
}

TEST_F(VsockDeviceTest, SilenceEndsWhatWaitsForAnAnswer) {
  auto [greeting, silent] = Pair();
  device_->OnAccepted(std::move(greeting));
  auto [offered, host] = Pair();
  device_->OnAccepted(std::move(offered));
  Write(host, "CONNECT 1000\n");
  Poll();
  ExpectNext(vv::Op::kRequest, VsockDevice::kFirstHostPort);
  Send(vv::Op::kRequest);
  EXPECT_TRUE(host_.ticks);
  host_.now += VsockDevice::kAnswerMs - 1;
  device_->OnTick();
  EXPECT_EQ(device_->connections(), 3u);
  host_.now += 1;
  device_->OnTick();
  EXPECT_EQ(device_->connections(), 0u);
  EXPECT_FALSE(host_.ticks);
  EXPECT_EQ(Read(silent), "");
  EXPECT_EQ(Read(host), "");
  ExpectNext(vv::Op::kRst);  // the guest's own
  ExpectNext(vv::Op::kRst, VsockDevice::kFirstHostPort);
  ExpectNothing();
}

TEST_F(VsockDeviceTest, TheGuestsCreditBoundsWhatItIsSent) {
  buf_alloc_ = 10;
  const OwnedFd host = GuestConnects();
  Write(host, "0123456789abcdef");
  Poll();
  ExpectNext(vv::Op::kRw);
  EXPECT_EQ(last_.data, "0123456789");
  ExpectNothing();
  fwd_cnt_ = 4;
  Send(vv::Op::kCreditUpdate);
  ExpectNext(vv::Op::kRw);
  EXPECT_EQ(last_.data, "abcd");
  buf_alloc_ = 2;  // shrunk below what is on its way: nothing, not very much
  Send(vv::Op::kCreditUpdate);
  ExpectNothing();
  buf_alloc_ = 100;
  Send(vv::Op::kCreditUpdate);
  ExpectNext(vv::Op::kRw);
  EXPECT_EQ(last_.data, "ef");
}

TEST_F(VsockDeviceTest, OurCreditIsHeldAndOneByteBeyondItBreaksTheConnection) {
  const OwnedFd host = GuestConnects();
  // Fill the host's socket, and then our buffer.
  uint64_t sent = 0;
  uint32_t forwarded = 0;
  const std::string part(0x2000, 'x');
  while (sent - forwarded + part.size() <= VsockConnection::kBufferBytes) {
    Send(vv::Op::kRw, kPort, part);
    sent += part.size();
    while (const auto told = Receive()) {
      EXPECT_EQ(told->header.op, static_cast<uint16_t>(vv::Op::kCreditUpdate));
      forwarded = told->header.fwd_cnt;
      OfferBuffers(1);
    }
    ASSERT_LT(sent, 1u << 24);
  }
  Send(vv::Op::kCreditRequest);
  ExpectNext(vv::Op::kCreditUpdate);
  OfferBuffers(1);
  const auto room = static_cast<uint32_t>(VsockConnection::kBufferBytes - (sent - last_.header.fwd_cnt));
  Send(vv::Op::kRw, kPort, std::string(room, 'y'));
  ExpectNothing();
  sent += room;
  Send(vv::Op::kRw, kPort, "z");
  ExpectNext(vv::Op::kRst);
  EXPECT_EQ(device_->connections(), 0u);
  EXPECT_TRUE(host_.watched.empty());
}

TEST_F(VsockDeviceTest, WhatTheHostDoesNotTakeAtOnceArrivesInOrder) {
  const OwnedFd host = GuestConnects();
  std::string all, got;
  uint32_t forwarded = 0;
  for (int i = 0; i < 200 && all.size() - forwarded + 0x2000 <= VsockConnection::kBufferBytes; ++i) {
    std::string part(0x2000, static_cast<char>('a' + i % 26));
    Send(vv::Op::kRw, kPort, part);
    all += part;
    while (const auto told = Receive()) {
      forwarded = told->header.fwd_cnt;
      OfferBuffers(1);
    }
  }
  EXPECT_NE(host_.watched.begin()->second & EPOLLOUT, 0u);
  // The guest has said all, and is gone: it arrives all the same.
  Send(vv::Op::kShutdown, kPort, "", kBoth);
  ExpectNothing();
  Send(vv::Op::kRst);
  EXPECT_EQ(device_->connections(), 1u);
  while (const auto text = Read(host)) {
    if (text->empty()) break;
    got += *text;
    Poll();
  }
  EXPECT_EQ(got.size(), all.size());
  EXPECT_TRUE(got == all);
  EXPECT_EQ(device_->connections(), 0u);
  ExpectNothing();
}

TEST_F(VsockDeviceTest, WhoDoesNotTakeTheRestInTimeLosesIt) {
  const OwnedFd host = GuestConnects();
  for (uint32_t sent = 0, forwarded = 0; sent - forwarded + 0x2000 <= VsockConnection::kBufferBytes; sent += 0x2000) {
    Send(vv::Op::kRw, kPort, std::string(0x2000, 'x'));
    while (const auto told = Receive()) {
      forwarded = told->header.fwd_cnt;
      OfferBuffers(1);
    }
  }
  Send(vv::Op::kShutdown, kPort, "", kBoth);
  Send(vv::Op::kRst);
  EXPECT_EQ(device_->connections(), 1u);
  host_.now += VsockDevice::kDrainMs;
  device_->OnTick();
  EXPECT_EQ(device_->connections(), 0u);
}

TEST_F(VsockDeviceTest, AHalfClosedHostStillReads) {
  const OwnedFd host = GuestConnects();
  Write(host, "last words");
  ASSERT_EQ(::shutdown(host.get(), SHUT_WR), 0);
  Poll();
  ExpectNext(vv::Op::kRw);
  ExpectNext(vv::Op::kShutdown);
  EXPECT_EQ(last_.header.flags, vv::kShutdownSend);
  Send(vv::Op::kRw, kPort, "answer");
  EXPECT_EQ(Read(host), "answer");
  Send(vv::Op::kShutdown, kPort, "", kBoth);
  ExpectNext(vv::Op::kRst);
  EXPECT_EQ(Read(host), "");
  EXPECT_EQ(device_->connections(), 0u);
}

TEST_F(VsockDeviceTest, AHalfClosedGuestStillReads) {
  const OwnedFd host = GuestConnects();
  Send(vv::Op::kRw, kPort, "question");
  Send(vv::Op::kShutdown, kPort, "", vv::kShutdownSend);
  EXPECT_EQ(Read(host), "question");
  EXPECT_EQ(Read(host), "") << "end of file";
  Write(host, "answer");
  Poll();
  ExpectNext(vv::Op::kRw);
  EXPECT_EQ(last_.data, "answer");
  Send(vv::Op::kRw, kPort, "too late");
  ExpectNext(vv::Op::kRst);
}

TEST_F(VsockDeviceTest, AHostThatIsGoneIsToldAndTheGuestsRstEndsIt) {
  OwnedFd host = GuestConnects();
  Write(host, "bye");
  host.Reset();
  Poll();
  ExpectNext(vv::Op::kRw);
  ExpectNext(vv::Op::kShutdown);
  EXPECT_EQ(last_.header.flags, kBoth);
  Poll();  // does not spin
  Send(vv::Op::kRst);
  EXPECT_EQ(device_->connections(), 0u);
  ExpectNothing();
}

TEST_F(VsockDeviceTest, AHostThatIsGoneDoesNotKeepAConnectionThatTheGuestForgets) {
  OwnedFd host = GuestConnects();
  host.Reset();
  Poll();
  ExpectNext(vv::Op::kShutdown);
  host_.now += VsockDevice::kCloseMs;
  device_->OnTick();
  ExpectNext(vv::Op::kRst);
  EXPECT_EQ(device_->connections(), 0u);
}

TEST_F(VsockDeviceTest, WhatIsSentToAHostThatIsGoneIsDroppedAndWhatItSaidArrives) {
  buf_alloc_ = 0;  // nothing can be delivered yet
  OwnedFd host = GuestConnects();
  Write(host, "said before");
  host.Reset();
  Poll();
  ExpectNothing();
  Send(vv::Op::kRw, kPort, "into the void");
  ExpectNext(vv::Op::kShutdown);
  EXPECT_EQ(last_.header.flags, vv::kShutdownReceive);
  Poll();
  buf_alloc_ = 100;
  Send(vv::Op::kCreditUpdate);
  ExpectNext(vv::Op::kRw);
  EXPECT_EQ(last_.data, "said before");
  ExpectNext(vv::Op::kShutdown);
  EXPECT_EQ(last_.header.flags, kBoth);
  ExpectNothing();
}

TEST_F(VsockDeviceTest, AGuestThatReadsNoMoreIsSentNoMore) {
  OwnedFd host = GuestConnects();
  Send(vv::Op::kShutdown, kPort, "", vv::kShutdownReceive);
  EXPECT_LT(::send(host.get(), "x", 1, MSG_NOSIGNAL), 0);
  Poll();
  ExpectNothing();
  host.Reset();
  Poll();
  ExpectNext(vv::Op::kShutdown);
  EXPECT_EQ(last_.header.flags, kBoth);
}

TEST_F(VsockDeviceTest, PacketsOfNoConnectionAreResetAndResetsAreNotAnswered) {
  for (const vv::Op op : {vv::Op::kRw, vv::Op::kResponse, vv::Op::kShutdown, vv::Op::kCreditUpdate, vv::Op::kInvalid}) {
    Send(op);
    ExpectNext(vv::Op::kRst);
  }
  Send(vv::Op::kRst);
  ExpectNothing();
  vv::Header header = HeaderOf(vv::Op::kRequest, kGuestPort, kPort);
  header.type = 2;  // SEQPACKET, which was not offered
  SendRaw(header);
  const auto reset = Receive();
  ASSERT_TRUE(reset.has_value());
  EXPECT_EQ(reset->header.type, 2);
  EXPECT_EQ(reset->header.op, static_cast<uint16_t>(vv::Op::kRst));
  EXPECT_TRUE(host_.asked.empty());
}

TEST_F(VsockDeviceTest, PacketsOfOthersAreDropped) {
  for (const auto& [src, dst] : {std::pair<uint64_t, uint64_t>{4, 2}, {3, 1}, {3, 3}, {3, 4}, {1ull << 32 | 3, 2}, {3, 1ull << 32 | 2}}) {
    vv::Header header = HeaderOf(vv::Op::kRequest, kGuestPort, kPort);
    header.src_cid = src;
    header.dst_cid = dst;
    SendRaw(header);
  }
  ExpectNothing();
  EXPECT_TRUE(host_.asked.empty());
}

TEST_F(VsockDeviceTest, HalfAHeaderIsDroppedAndALengthBeyondThePacketBreaksTheConnection) {
  drivers_[vv::kTx].Offer({{kTxData, 43}});
  Wake(vv::kTx);
  EXPECT_TRUE(drivers_[vv::kTx].Take().has_value());
  ExpectNothing();
  const OwnedFd host = GuestConnects();
  SendRaw(HeaderOf(vv::Op::kRw, kGuestPort, kPort, /*len=*/5), "four");
  ExpectNext(vv::Op::kRst);
  SendRaw(HeaderOf(vv::Op::kRw, kGuestPort, kPort, /*len=*/0xffff'ffff), "four");
  ExpectNext(vv::Op::kRst);
  EXPECT_EQ(Read(host), "");
}

TEST_F(VsockDeviceTest, ASecondRequestOrAnAnswerToNoneBreaksTheConnection) {
  const OwnedFd host = GuestConnects();
  Send(vv::Op::kRequest);
  ExpectNext(vv::Op::kRst);
  const OwnedFd second = GuestConnects();
  Send(vv::Op::kResponse);
  ExpectNext(vv::Op::kRst);
  Send(vv::Op::kRequest);
  Send(vv::Op::kRw, kPort, "before the answer");
  ExpectNext(vv::Op::kRst);
  EXPECT_EQ(device_->connections(), 0u);
}

TEST_F(VsockDeviceTest, ConnectionsAreBoundedWhoeverMakesThem) {
  std::vector<OwnedFd> kept;
  for (size_t i = 0; i < VsockDevice::kMaxConnections / 2; ++i) {
    auto [ours, theirs] = Pair();
    device_->OnAccepted(std::move(ours));
    kept.push_back(std::move(theirs));
  }
  for (uint32_t port = 1; device_->connections() < VsockDevice::kMaxConnections; ++port) Send(vv::Op::kRequest, port);
  EXPECT_FALSE(host_.accepts);
  Send(vv::Op::kRequest, 9999);
  ExpectNext(vv::Op::kRst, 9999);
  auto [ours, theirs] = Pair();
  device_->OnAccepted(std::move(ours));
  EXPECT_EQ(Read(theirs), "");
  kept.pop_back();
  Poll();
  EXPECT_TRUE(host_.accepts);
}

TEST_F(VsockDeviceTest, AGuestThatTakesNoAnswersIsNotHeardUntilItDoes) {
  while (Receive().has_value()) {
  }
  // No buffers from here on but the 32 that there are.
  const auto packets = static_cast<uint32_t>(VsockDevice::kMaxReplies) + 32 + 50;
  uint32_t taken = 0;
  for (uint32_t i = 0; i < packets; ++i) {
    const vv::Header header = HeaderOf(vv::Op::kRw, kGuestPort, i);
    std::memcpy(ram_.At(kTxData), &header, sizeof(header));
    if (i - taken < kRingSize - 1) drivers_[vv::kTx].Offer({{kTxData, sizeof(header)}});
    Wake(vv::kTx);
    while (drivers_[vv::kTx].Take().has_value()) ++taken;
  }
  EXPECT_EQ(taken, VsockDevice::kMaxReplies + 32);
  uint32_t answers = 0;
  for (int round = 0; round < 1000 && answers < taken; ++round) {
    int given = 0;
    while (Receive().has_value()) ++answers, ++given;
    OfferBuffers(given);
    while (drivers_[vv::kTx].Take().has_value()) ++taken;
  }
  EXPECT_EQ(answers, taken);
  EXPECT_GT(taken, VsockDevice::kMaxReplies + 32) << "what waited has been heard";
}

TEST_F(VsockDeviceTest, ABufferWithoutRoomForDataIsGivenBack) {
  const OwnedFd host = GuestConnects();
  while (Receive().has_value()) {
  }
  // The 31 good ones that are left.
  for (int i = 0; i < 31; ++i) {
    Write(host, "x");
    Poll();
    ExpectNext(vv::Op::kRw);
  }
  OfferBuffers(1, sizeof(vv::Header));
  Write(host, "data");
  Poll();
  const auto used = drivers_[vv::kRx].Take();
  ASSERT_TRUE(used.has_value());
  EXPECT_EQ(used->bytes, 0u);
  OfferBuffers(1);
  ExpectNext(vv::Op::kRw);
  EXPECT_EQ(last_.data, "data");
}

TEST_F(VsockDeviceTest, AResetDeviceClosesItsConnections) {
  const OwnedFd host = GuestConnects();
  auto [greeting, kept] = Pair();
  device_->OnAccepted(std::move(greeting));
  device_->OnReset();
  EXPECT_EQ(Read(host), "");
  EXPECT_EQ(Read(kept), std::nullopt) << "it has not reached the guest yet";
  Poll();
  ExpectNothing();
}

TEST_F(VsockDeviceTest, WhoConnectsBeforeTheDriverHasStartedTheDeviceIsNotTurnedAway) {
  device_ = std::make_unique<VsockDevice>(host_, kCid, /*again=*/true);
  device_->OnHost(*this);
  auto [ours, host] = Pair();
  device_->OnAccepted(std::move(ours));
  Write(host, "CONNECT 1000\n");
  Poll();
  ExpectNothing();  // held back
  device_->OnFeatures(vv::kFeatureStream);
  EXPECT_EQ(device_->connections(), 1u);
  drivers_[vv::kEvent].Offer({{kTxData, 4, true}});
  Wake(vv::kEvent);
  host_.now += VsockDevice::kResetMs;
  device_->OnTick();
  const auto request = Receive();
  ASSERT_TRUE(request.has_value());
  EXPECT_EQ(request->header.op, static_cast<uint16_t>(vv::Op::kRequest));
}

TEST_F(VsockDeviceTest, AProcessAfterAnotherTellsThatConnectionsAreLostOnce) {
  const auto events = [&](bool again) {
    device_ = std::make_unique<VsockDevice>(host_, kCid, again);
    device_->OnHost(*this);
    drivers_[vv::kEvent].Offer({{kTxData, 4, true}});
    ram_.Word<uint32_t>(kTxData) = 77;
    Wake(vv::kEvent);
    Wake(vv::kEvent);
  };
  events(false);
  EXPECT_FALSE(drivers_[vv::kEvent].Take().has_value());
  events(true);
  const auto used = drivers_[vv::kEvent].Take();
  ASSERT_TRUE(used.has_value());
  EXPECT_EQ(used->bytes, 4u);
  EXPECT_EQ(ram_.Word<uint32_t>(kTxData), vv::kEventTransportReset);
  EXPECT_FALSE(drivers_[vv::kEvent].Take().has_value());
}

TEST_F(VsockDeviceTest, NothingIsSaidUntilAResetHasBeenTaken) {
  device_ = std::make_unique<VsockDevice>(host_, kCid, /*again=*/true);
  device_->OnHost(*this);
  Send(vv::Op::kRw);  // of a connection that is lost
  ExpectNothing();
  drivers_[vv::kEvent].Offer({{kTxData, 4, true}});
  Wake(vv::kEvent);
  EXPECT_TRUE(drivers_[vv::kEvent].Take().has_value());
  host_.now += VsockDevice::kResetMs - 1;
  device_->OnTick();
  ExpectNothing();
  EXPECT_TRUE(host_.ticks);
  host_.now += 1;
  device_->OnTick();
  ExpectNext(vv::Op::kRst);
  EXPECT_FALSE(host_.ticks);
}

TEST_F(VsockDeviceTest, ADriverThatGivesNoRoomForEventsIsSpokenToAfterAWhile) {
  device_ = std::make_unique<VsockDevice>(host_, kCid, /*again=*/true);
  device_->OnHost(*this);
  Send(vv::Op::kRw);
  ExpectNothing();
  host_.now += VsockDevice::kAnswerMs;
  device_->OnTick();
  ExpectNext(vv::Op::kRst);
}

TEST_F(VsockDeviceTest, ManyConnectionsShareTheGuestsBuffers) {
  std::vector<OwnedFd> hosts;
  for (uint32_t port = 1; port <= 8; ++port) hosts.push_back(GuestConnects(port));
  for (int i = 0; i < 24; ++i) {  // the buffers that are left
    Write(hosts[0], "x");
    Poll();
    ASSERT_TRUE(Receive().has_value());
  }
  // Each has more to say than fits in one.
  for (const OwnedFd& host : hosts) Write(host, std::string(20'000, 'x'));
  Poll();
  ExpectNothing();
  OfferBuffers(24);
  std::map<uint32_t, int> packets;
  while (const auto received = Receive()) ++packets[received->header.src_port];
  ASSERT_EQ(packets.size(), hosts.size());
  for (const auto& [port, count] : packets) EXPECT_EQ(count, 3) << port;
}

}  // namespace
}  // namespace vmm
