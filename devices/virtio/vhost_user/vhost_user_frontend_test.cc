#include "devices/virtio/vhost_user/vhost_user_frontend.h"

#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "absl/status/status.h"
#include "base/event_loop.h"
#include "base/owned_fd.h"
#include "base/status_matchers.h"
#include "devices/virtio/vhost_user/fake_vhost_user_peer.h"
#include "devices/virtio/vhost_user/vhost_user_channel.h"
#include "devices/virtio/vhost_user/vhost_user_layout.h"
#include "devices/virtio/virtio_endpoint.h"
#include "devices/virtio/virtio_layout.h"
#include "memory/gpa.h"
#include "memory/guest_memory.h"
#include "memory/guest_ram.h"
#include "memory/layout.h"

namespace vmm {
namespace {

namespace vu = vhost_user;
using Request = vu::Request;
using Code = absl::StatusCode;

bool Is(const VhostUserMessage& message, Request request) { return message.header.request == static_cast<uint32_t>(request); }

class Events final : public VirtioEvents {
 public:
  void OnConfigChanged() noexcept override { ++config_changes; }
  void OnNeedsReset() noexcept override { ++resets; }
  int config_changes = 0;
  int resets = 0;
};

// The front end on this thread, which is its loop's too.
class VhostUserFrontendTest : public testing::Test {
 protected:
  static constexpr uint64_t kRamBytes = 1 << 20;

  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(const MemoryLayout layout, MemoryLayout::Create(kRamBytes));
    ASSERT_OK_AND_ASSIGN(ram_, GuestRam::Create({.bytes = kRamBytes}));
    ASSERT_OK_AND_ASSIGN(memory_, GuestMemory::Create(*ram_, layout));
    ASSERT_OK_AND_ASSIGN(loop_, EventLoop::Create());
    Make(/*deadline_ms=*/5000);
  }
  void Make(int deadline_ms) {
    const VhostUserFrontendOptions options{.name = "x",
                                           .queues = 2,
                                           .max_queue_size = 16,
                                           .config_bytes = 8,
                                           .deadline_ms = deadline_ms,
                                           .memory = {{Gpa(0), kRamBytes, ram_->fd(), 0}}};
    ASSERT_OK_AND_ASSIGN(frontend_, VhostUserFrontend::Create(*loop_, *memory_, options, [this](const absl::Status& why) {
                           lost_.push_back(why);
                           loop_->Stop();
                         }));
    frontend_->SetEvents(&events_);
  }
  // A peer that answers one request so, and all others well.
  absl::Status ConnectTo(FakeVhostUserPeer::Answer answer) {
    auto next = std::make_unique<FakeVhostUserPeer>(std::move(answer));
    const absl::Status status = frontend_->Connect(next->TakeSocket());
    peer_ = std::move(next);  // the one before ends: its connection is closed by now
    return status;
  }
  absl::Status ConnectToOneThatAnswers(Request request, std::function<void(FakeVhostUserPeer&, VhostUserMessage&)> answer) {
    return ConnectTo([request, answer = std::move(answer)](FakeVhostUserPeer& peer, VhostUserMessage& message) {
      if (!Is(message, request)) return false;
      answer(peer, message);
      return true;
    });
  }
  bool Start() {
    const VirtioQueueSetup queue{0, 16, Gpa(0x1000), Gpa(0x2000), Gpa(0x3000)};
    return frontend_->Start(virtio::kFeatureVersion1, std::span(&queue, 1));
  }
  void ExpectLost(Code code, const std::string& text) {
    if (lost_.empty()) loop_->Run();
    ASSERT_EQ(lost_.size(), 1u);
    EXPECT_THAT(lost_[0], StatusIs(code, text));
    EXPECT_THAT(lost_[0], StatusIs(code, "device 'x'"));
  }

  std::unique_ptr<GuestRam> ram_;
  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<EventLoop> loop_;
  Events events_;
  std::vector<absl::Status> lost_;
  // A peer lives until its connection is closed.
  std::unique_ptr<FakeVhostUserPeer> peer_;
  std::unique_ptr<VhostUserFrontend> frontend_;
};

TEST_F(VhostUserFrontendTest, OptionsBeyondTheProtocolAreRefused) {
  for (const VhostUserFrontendOptions& options : std::vector<VhostUserFrontendOptions>{
           {.queues = 0, .memory = {{}}}, {.queues = 256, .memory = {{}}}, {.memory = {}}, {.memory = std::vector<VhostUserMemory>(9)},
           {.config_bytes = 257, .memory = {{}}}}) {
    EXPECT_THAT(VhostUserFrontend::Create(*loop_, *memory_, options, nullptr), StatusIs(Code::kInvalidArgument, "beyond the protocol"));
  }
}

TEST_F(VhostUserFrontendTest, ABackendThatAnswersWellIsConnected) {
  ASSERT_OK(ConnectTo(nullptr));
  EXPECT_TRUE(Start());
  frontend_->Stop();
  EXPECT_TRUE(lost_.empty());
}

TEST_F(VhostUserFrontendTest, WrongAnswersOfTheHandshakeAreRefused) {
  struct Case {
    Request request;
    std::function<void(FakeVhostUserPeer&, VhostUserMessage&)> answer;
    Code code;
    std::string text;
  };
  const std::vector<Case> cases = {
      {Request::kGetFeatures, [](auto& peer, auto& message) { peer.Reply(message, uint64_t{vu::kFeatureProtocolFeatures}); }, Code::kFailedPrecondition, "VIRTIO_F_VERSION_1"},
      {Request::kGetFeatures, [](auto& peer, auto& message) { peer.Reply(message, virtio::kFeatureVersion1); }, Code::kFailedPrecondition, "PROTOCOL_FEATURES"},
      {Request::kGetFeatures, [](auto& peer, auto& message) { peer.Reply(message, uint32_t{0}); }, Code::kInvalidArgument, "4 bytes in place of 8"},
      {Request::kGetFeatures, [](auto& peer, auto& message) { peer.Send(message.header.request, 0, message.payload()); }, Code::kInvalidArgument, "answered request 1 by 1"},
      {Request::kGetFeatures, [](auto& peer, auto&) { peer.Send(2, vu::kFlagReply, {}); }, Code::kInvalidArgument, "answered request 1 by 2"},
      {Request::kGetFeatures, [](auto& peer, auto&) { peer.SendRaw(std::string(12, '\0')); }, Code::kInvalidArgument, "version 0"},
      {Request::kGetFeatures, [](auto& peer, auto&) { peer.SendRaw(std::string("\1\0\0\0\5\0\0\0\1\x10\0\0", 12)); }, Code::kInvalidArgument, "payload of 4097"},
      {Request::kGetFeatures, [](auto& peer, auto&) { peer.HangUp(); }, Code::kUnavailable, "closed the connection"},
      {Request::kGetProtocolFeatures, [](auto& peer, auto& message) { peer.Reply(message, uint64_t{0}); }, Code::kFailedPrecondition, "no configuration space"},
      {Request::kGetQueueNum, [](auto& peer, auto& message) { peer.Reply(message, uint64_t{1}); }, Code::kFailedPrecondition, "has 1 queues, 2 are wanted"},
      {Request::kGetConfig, [](auto& peer, auto& message) { peer.Send(message.header.request, vu::kFlagReply, {}); }, Code::kInvalidArgument, "0 bytes of configuration"},
      {Request::kSetMemTable, [](auto& peer, auto& message) { peer.Reply(message, uint64_t{1}); }, Code::kFailedPrecondition, "could not map guest memory"},
      {Request::kGetFeatures, [](auto& peer, auto& message) { const int fds[] = {0}; peer.Reply(message, uint64_t{0}, fds); }, Code::kInvalidArgument, "with 1 descriptors"},
  };
  for (const Case& one : cases) {
    EXPECT_THAT(ConnectToOneThatAnswers(one.request, one.answer), StatusIs(one.code, one.text));
  }
  EXPECT_TRUE(lost_.empty());
  // None of them did lasting harm.
  EXPECT_OK(ConnectTo(nullptr));
}

TEST_F(VhostUserFrontendTest, ASilentBackendCostsItsDeadlineAndNoMore) {
  Make(/*deadline_ms=*/20);
  EXPECT_THAT(ConnectToOneThatAnswers(Request::kGetFeatures, [](auto&, auto&) {}), StatusIs(Code::kDeadlineExceeded, "did not answer in time"));
  EXPECT_THAT(ConnectToOneThatAnswers(Request::kGetFeatures, [](auto& peer, auto&) { peer.SendRaw("half"); }),
              StatusIs(Code::kDeadlineExceeded, "did not answer in time"));
}

TEST_F(VhostUserFrontendTest, OneThatFallsSilentLaterIsLostAndTheDriverGoesOn) {
  Make(/*deadline_ms=*/200);
  ASSERT_OK(ConnectToOneThatAnswers(Request::kGetVringBase, [](auto&, auto&) {}));
  EXPECT_TRUE(Start());
  frontend_->Stop();
  ExpectLost(Code::kDeadlineExceeded, "did not answer in time");
  EXPECT_TRUE(Start());  // for the next backend
}

TEST_F(VhostUserFrontendTest, AConfigurationOfItsOwnNeedsNoneOfTheBackends) {
  const std::string config = "12 bytes own";
  const auto bytes = std::as_bytes(std::span(config));
  const VhostUserFrontendOptions options{.name = "x",
                                         .device_id = virtio::DeviceId::kNet,
                                         .queues = 2,
                                         .max_queue_size = 16,
                                         .config_bytes = 12,
                                         .own_config = {bytes.begin(), bytes.end()},
                                         .own_features = 1 << 5,
                                         .withheld_features = 1,
                                         .memory = {{Gpa(0), kRamBytes, ram_->fd(), 0}}};
  ASSERT_OK_AND_ASSIGN(frontend_, VhostUserFrontend::Create(*loop_, *memory_, options, nullptr));
  uint64_t offered = 0, told = 0;
  ASSERT_OK(ConnectTo([&](FakeVhostUserPeer& peer, VhostUserMessage& message) {
    // No configuration space, and a count of pairs.
    if (Is(message, Request::kGetProtocolFeatures)) return peer.Reply(message, uint64_t{vu::kProtocolMq}), true;
    if (Is(message, Request::kGetQueueNum)) return peer.Reply(message, uint64_t{1}), true;
    if (Is(message, Request::kGetFeatures)) return peer.Reply(message, offered = virtio::kFeatureVersion1 | vu::kFeatureProtocolFeatures | 3), true;
    if (Is(message, Request::kSetFeatures)) told = message.As<uint64_t>().value_or(0);
    return false;
  }));
  EXPECT_EQ(frontend_->features() & 0x3f, 0x22u);
  std::string read(12, 0);
  frontend_->ReadConfig(0, std::as_writable_bytes(std::span(read)));
  EXPECT_EQ(read, config);
  frontend_->WriteConfig(0, std::as_bytes(std::span("x", 1)));
  frontend_->ReadConfig(0, std::as_writable_bytes(std::span(read)));
  EXPECT_EQ(read, config);
  const VirtioQueueSetup queue{0, 16, Gpa(0x1000), Gpa(0x2000), Gpa(0x3000)};
  ASSERT_TRUE(frontend_->Start(virtio::kFeatureVersion1 | 0x22, std::span(&queue, 1)));
  EXPECT_EQ(told & 0x3f, 2u);
}

TEST_F(VhostUserFrontendTest, OneThatStopsAnotherQueueIsLost) {
  ASSERT_OK(ConnectToOneThatAnswers(Request::kGetVringBase, [](auto& peer, auto& message) { peer.Reply(message, vu::VringState{7, 0}); }));
  EXPECT_TRUE(Start());
  frontend_->Stop();
  ExpectLost(Code::kInvalidArgument, "another queue");
}

TEST_F(VhostUserFrontendTest, OneThatHangsUpIsLostOnce) {
  ASSERT_OK(ConnectToOneThatAnswers(Request::kSetVringEnable, [](auto& peer, auto&) { peer.HangUp(); }));
  EXPECT_TRUE(Start());
  ExpectLost(Code::kUnavailable, "closed the connection");
  frontend_->Stop();
}

TEST_F(VhostUserFrontendTest, ANewBackendMustOfferWhatTheDriverHas) {
  ASSERT_OK(ConnectToOneThatAnswers(Request::kGetFeatures, [](auto& peer, auto& message) { peer.Reply(message, peer.features | 4); }));
  EXPECT_THAT(ConnectTo(nullptr), StatusIs(Code::kFailedPrecondition, "lacks the features 0x4"));
  EXPECT_THAT(ConnectToOneThatAnswers(Request::kGetProtocolFeatures, [](auto& peer, auto& message) { peer.Reply(message, vu::kProtocolConfig); }),
              StatusIs(Code::kFailedPrecondition, "lacks the features 0x4"));
}

TEST_F(VhostUserFrontendTest, TheInflightRegionIsKeptForTheNextBackendAndBounded) {
  std::vector<vu::Inflight> set;
  uint64_t bytes = 4096;
  const auto answer = [&](FakeVhostUserPeer& peer, VhostUserMessage& message) {
    peer.protocol_features |= vu::kProtocolInflightShmfd;
    if (Is(message, Request::kSetInflightFd)) set.push_back(*message.As<vu::Inflight>());
    if (!Is(message, Request::kGetInflightFd)) return false;
    const int fds[] = {ram_->fd()};
    peer.Reply(message, vu::Inflight{bytes, 0, 2, 16, 0}, fds);
    return true;
  };
  ASSERT_OK(ConnectTo(answer));
  EXPECT_TRUE(Start());
  ASSERT_OK(ConnectTo(answer));
  ASSERT_EQ(set.size(), 2u);
  EXPECT_EQ(set[1].mmap_size, 4096u);
  EXPECT_EQ(set[1].queue_size, 16);
  frontend_->Stop();
  bytes = uint64_t{1} << 40;
  EXPECT_TRUE(Start());
  ExpectLost(Code::kInvalidArgument, "in-flight region of 1099511627776 bytes");
}

TEST_F(VhostUserFrontendTest, APackedRingIsResumedWithAnInflightRegionAlone) {
  const VirtioQueueSetup queue{0, 16, Gpa(0x1000), Gpa(0x2000), Gpa(0x3000)};
  constexpr uint64_t kFeatures = virtio::kFeatureVersion1 | virtio::kFeatureRingPacked;
  bool region = false;
  std::vector<uint32_t> bases;
  const auto answer = [&](FakeVhostUserPeer& peer, VhostUserMessage& message) {
    peer.features |= virtio::kFeatureRingPacked;
    if (region) peer.protocol_features |= vu::kProtocolInflightShmfd;
    if (Is(message, Request::kSetVringBase)) bases.push_back(message.As<vu::VringState>()->num);
    if (!Is(message, Request::kGetInflightFd)) return false;
    const int fds[] = {ram_->fd()};
    peer.Reply(message, vu::Inflight{4096, 0, 2, 16, 0}, fds);
    return true;
  };
  ASSERT_OK(ConnectTo(answer));
  ASSERT_TRUE(frontend_->Start(kFeatures, std::span(&queue, 1)));
  EXPECT_THAT(ConnectTo(answer), StatusIs(Code::kFailedPrecondition, "a packed ring cannot be resumed"));
  frontend_->Stop();
  // One that no backend has had yet begins at its start.
  ASSERT_TRUE(frontend_->Start(kFeatures, std::span(&queue, 1)));
  ASSERT_OK(ConnectTo(answer));
  frontend_->Stop();

  region = true;
  Make(5000);
  ASSERT_OK(ConnectTo(answer));
  ASSERT_TRUE(frontend_->Start(kFeatures, std::span(&queue, 1)));
  ASSERT_OK(ConnectTo(answer));
  frontend_->Stop();
  EXPECT_EQ(bases, std::vector<uint32_t>(4, 1u << 31 | 1u << 15));
}

// The region may say that something of this queue is in flight, and nobody is there to take it back.
TEST_F(VhostUserFrontendTest, AQueueThatIsResetBetweenTwoBackendsCostsADeviceReset) {
  const auto answer = [&](FakeVhostUserPeer& peer, VhostUserMessage& message) {
    peer.protocol_features |= vu::kProtocolInflightShmfd;
    if (!Is(message, Request::kGetInflightFd)) return false;
    const int fds[] = {ram_->fd()};
    peer.Reply(message, vu::Inflight{4096, 0, 2, 16, 0}, fds);
    return true;
  };
  ASSERT_OK(ConnectTo(answer));
  ASSERT_TRUE(Start());
  EXPECT_TRUE(frontend_->StopQueue(0));
  EXPECT_TRUE(frontend_->StartQueue({0, 16, Gpa(0x1000), Gpa(0x2000), Gpa(0x3000)}));
  peer_->HangUp();
  ExpectLost(Code::kUnavailable, "closed the connection");
  EXPECT_FALSE(frontend_->StopQueue(0));
  frontend_->Stop();
  ASSERT_OK(ConnectTo(answer));
  EXPECT_TRUE(Start());
}

TEST_F(VhostUserFrontendTest, RequestsOfABackendAreBoundedAndChecked) {
  ASSERT_OK(ConnectTo(nullptr));
  VhostUserChannel requests(std::move(peer_->requests()));
  ASSERT_OK(requests.Send(static_cast<uint32_t>(vu::BackendRequest::kConfigChange), 0, {}, {}, VhostUserChannel::NowMs() + 1000));
  for (int i = 0; i < 230; ++i) {  // as many as the socket takes at once
    (void)requests.Send(static_cast<uint32_t>(vu::BackendRequest::kConfigChange), 0, {}, {}, VhostUserChannel::NowMs() + 1000);
  }
  ExpectLost(Code::kResourceExhausted, "floods");
  EXPECT_EQ(events_.config_changes, 200);
}

TEST_F(VhostUserFrontendTest, ErrorsOfABackendsQueuesAreCountedAndBounded) {
  std::atomic<int> error_fd{-1};
  OwnedFd error;
  ASSERT_OK(ConnectTo([&](FakeVhostUserPeer&, VhostUserMessage& message) {
    if (!Is(message, Request::kSetVringErr) || message.fd_count != 1) return false;
    error = std::move(message.fds[0]);
    message.fd_count = 0;
    error_fd = error.get();
    return true;
  }));
  EXPECT_TRUE(Start());
  while (error_fd < 0) std::this_thread::yield();
  const uint64_t one = 1;
  // One that does not stop telling.
  std::atomic<bool> done{false};
  std::thread hostile([&] {
    while (!done) (void)!::write(error_fd, &one, sizeof(one));
  });
  ExpectLost(Code::kResourceExhausted, "floods us with errors");
  done = true;
  hostile.join();
  EXPECT_GE(frontend_->queue_faults(), 200u);
  EXPECT_GE(events_.resets, 200);
}

TEST_F(VhostUserFrontendTest, ARequestThatWasNotGrantedCostsTheBackendItsConnection) {
  ASSERT_OK(ConnectTo(nullptr));
  VhostUserChannel requests(std::move(peer_->requests()));
  ASSERT_OK(requests.Send(3, 0, {}, {}, VhostUserChannel::NowMs() + 1000));
  ExpectLost(Code::kInvalidArgument, "request 3, which it was not granted");
}

}  // namespace
}  // namespace vmm
