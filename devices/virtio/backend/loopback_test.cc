// Front end and back end against each other, over a real socket, each on a thread of its own: what a guest's driver sees of both.
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "base/event_loop.h"
#include "base/mutex.h"
#include "base/owned_fd.h"
#include "base/status_matchers.h"
#include "devices/virtio/backend/backend_device.h"
#include "devices/virtio/backend/backend_queue.h"
#include "devices/virtio/backend/fake_guest_driver.h"
#include "devices/virtio/backend/vhost_user_server.h"
#include "devices/virtio/vhost_user/vhost_user_frontend.h"
#include "devices/virtio/virtio_endpoint.h"
#include "devices/virtio/virtio_layout.h"
#include "memory/gpa.h"
#include "memory/guest_memory.h"
#include "memory/guest_ram.h"
#include "memory/layout.h"
#include "memory/ram_mapping.h"

namespace vmm {
namespace {

// Answers each chain by what it read, backwards.
class EchoDevice final : public BackendDevice {
 public:
  uint64_t features() const noexcept override { return 1; }
  uint16_t queue_count() const noexcept override { return 2; }
  std::span<const std::byte> config() const noexcept override { return std::as_bytes(std::span(config_text)); }
  bool WriteConfig(uint32_t offset, std::span<const std::byte> data) noexcept override {
    if (offset != 0 || data.size() != 1) return false;
    config_text[0] = static_cast<char>(data[0]);
    return true;
  }
  void OnHost(BackendHost& to) override { host = &to; }
  void OnFeatures(uint64_t accepted) noexcept override { features_accepted = accepted; }
  bool Process(uint16_t, BackendQueue& queue) noexcept override {
    while (!stuck && queue.Pop(chain_) == BackendQueue::PopResult::kChain) {
      std::string text(chain_.readable_bytes, 0);
      chain_.Read(0, std::as_writable_bytes(std::span(text)));
      const std::string back(text.rbegin(), text.rend());
      queue.Push(chain_, static_cast<uint32_t>(chain_.Write(0, std::as_bytes(std::span(back)))));
    }
    return false;
  }
  std::string config_text = "configuration";
  std::atomic<uint64_t> features_accepted{0};
  std::atomic<bool> stuck{false};
  BackendHost* host = nullptr;

 private:
  QueueChain chain_;
};

// A backend on a thread of its own, until its front end goes or it is ended, as a process that dies.
class Backend {
 public:
  explicit Backend(OwnedFd socket, bool stuck) {
    device.stuck = stuck;
    loop_ = *EventLoop::Create();
    server_ = *VhostUserServer::Create(*loop_, std::move(socket), device,
                                       {.on_end =
                                            [this](const absl::Status& status) {
                                              result = status;
                                              loop_->Stop();
                                            },
                                        .on_fault = [this](uint16_t, BackendQueue::Fault fault) { fault_seen = fault; }});
    thread_ = std::thread([this] {
      loop_->Run();
      server_.reset();
    });
  }
  ~Backend() {
    loop_->Stop();
    thread_.join();
  }
  void Post(std::function<void()> task) { loop_->Post(std::move(task)); }

  EchoDevice device;
  absl::Status result;
  std::atomic<BackendQueue::Fault> fault_seen{BackendQueue::Fault::kNone};

 private:
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<VhostUserServer> server_;
  std::thread thread_;
};

class Events final : public VirtioEvents {
 public:
  void OnConfigChanged() noexcept override { Count(config_changes); }
  void OnNeedsReset() noexcept override { Count(resets); }
  void Await(const int& counter, int value) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    mutex.lock();
    while (counter < value) changed.wait(mutex);
    mutex.unlock();
  }
  void Count(int& counter) {
    MutexLock lock(mutex);
    ++counter;
    changed.notify_all();
  }
  Mutex mutex;
  std::condition_variable_any changed;
  int config_changes = 0;
  int resets = 0;
  int losses = 0;
};

class LoopbackTest : public testing::Test {
 protected:
  static constexpr uint64_t kRamBytes = 4 << 20;

  explicit LoopbackTest(std::vector<RamPart> reserved = {}) : reserved_(std::move(reserved)) {}
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(const MemoryLayout layout, MemoryLayout::Create(kRamBytes));
    ASSERT_OK_AND_ASSIGN(ram_, GuestRam::Create({.bytes = kRamBytes, .reserved = reserved_}));
    ASSERT_OK_AND_ASSIGN(memory_, GuestMemory::Create(*ram_, layout));
    std::vector<VhostUserMemory> given;
    for (const DeviceRam& part : RamForDevices(*ram_->files(), layout)) given.push_back({part.start, part.bytes, part.fd, part.fd_offset});
    guest_.emplace(ram_->fd());
    driver_.emplace(*guest_, 16);
    ASSERT_OK_AND_ASSIGN(loop_, EventLoop::Create());
    thread_ = std::thread([this] { loop_->Run(); });
    const VhostUserFrontendOptions options{.name = "echo",
                                           .queues = 2,
                                           .max_queue_size = 16,
                                           .config_bytes = 13,
                                           .memory = std::move(given)};
    ASSERT_OK_AND_ASSIGN(frontend_, VhostUserFrontend::Create(*loop_, *memory_, options, [this](const absl::Status& why) {
                           lost_ = why;
                           events_.Count(events_.losses);
                         }));
    frontend_->SetEvents(&events_);
    ASSERT_OK(Connect());
  }
  void TearDown() override {
    OnLoop([this] { frontend_->Close(); });
    backend_.reset();
    loop_->Stop();
    thread_.join();
  }
  void OnLoop(const std::function<void()>& task) {
    Events done;
    loop_->Post([&] {
      task();
      done.Count(done.losses);
    });
    done.Await(done.losses, 1);
  }
  absl::Status Connect(bool stuck = false) {
    int pair[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return absl::InternalError("socketpair");
    backend_ = std::make_unique<Backend>(OwnedFd(pair[1]), stuck);
    absl::Status status;
    OnLoop([&] { status = frontend_->Connect(OwnedFd(pair[0])); });
    return status;
  }
  void Start() {
    const VirtioQueueSetup queue = Queue();
    ASSERT_TRUE(frontend_->Start(virtio::kFeatureVersion1 | virtio::kFeatureEventIdx | 1, std::span(&queue, 1)));
  }
  VirtioQueueSetup Queue() { return {1, 16, driver_->descriptors(), driver_->available(), driver_->used()}; }
  void Offer(const std::string& text) {
    const Gpa at = driver_->data();
    guest_->Put(at, text);
    driver_->Offer({{at, static_cast<uint32_t>(text.size())}, {at + 0x800, 64, true}});
    frontend_->Kick(1);
  }
  std::string Answer() {
    while (true) {
      if (const auto used = driver_->Take()) return guest_->Get(driver_->data() + 0x800, used->bytes);
      driver_->used_event() = driver_->used_index();
      pollfd poll_fd{frontend_->call_fd(1), POLLIN, 0};
      ::poll(&poll_fd, 1, 20);  // not for ever: the answer may have come before the event was named
      uint64_t count;
      (void)!::read(poll_fd.fd, &count, sizeof(count));
    }
  }
  std::string Ask(const std::string& text) {
    Offer(text);
    return Answer();
  }
  char ConfigByte(uint32_t offset) {
    char byte = '?';
    frontend_->ReadConfig(offset, std::as_writable_bytes(std::span(&byte, 1)));
    return byte;
  }

  const std::vector<RamPart> reserved_;
  std::unique_ptr<GuestRam> ram_;
  std::unique_ptr<GuestMemory> memory_;
  std::optional<FakeGuestRam> guest_;
  std::optional<FakeGuestDriver> driver_;
  std::unique_ptr<EventLoop> loop_;
  std::thread thread_;
  Events events_;
  absl::Status lost_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<VhostUserFrontend> frontend_;
};

TEST_F(LoopbackTest, FeaturesAndConfigurationAreTheBackends) {
  EXPECT_EQ(frontend_->features(), virtio::kFeatureVersion1 | virtio::kFeatureIndirectDesc | virtio::kFeatureEventIdx |
                                       virtio::kFeatureRingReset | 1);
  EXPECT_EQ(ConfigByte(12), 'n');
  const char written = 'C';
  frontend_->WriteConfig(0, std::as_bytes(std::span(&written, 1)));
  EXPECT_EQ(ConfigByte(0), 'C');
  frontend_->WriteConfig(1, std::as_bytes(std::span(&written, 1)));  // not a field that may be written
  EXPECT_EQ(ConfigByte(1), 'o');
}

TEST_F(LoopbackTest, RequestsAreAnsweredAgainAndAgain) {
  Start();
  for (int i = 0; i < 100; ++i) {
    const std::string text = "request " + std::to_string(i);
    EXPECT_EQ(Ask(text), std::string(text.rbegin(), text.rend()));
  }
  EXPECT_EQ(backend_->device.features_accepted & 0xff, 1u);
}

TEST_F(LoopbackTest, AStoppedDeviceDoesNothingAndStartsAfresh) {
  Start();
  EXPECT_EQ(Ask("one"), "eno");
  frontend_->Stop();
  Offer("two");
  frontend_->Stop();
  EXPECT_EQ(driver_->Take(), std::nullopt);
  // The driver sets its rings up anew.
  std::memset(guest_->At(driver_->available()), 0, 0x2000);
  driver_.emplace(*guest_, 16);
  Start();
  EXPECT_EQ(Ask("three"), "eerht");
}

TEST_F(LoopbackTest, OneQueueIsStoppedAndStarted) {
  Start();
  EXPECT_EQ(Ask("one"), "eno");
  EXPECT_TRUE(frontend_->StopQueue(1));
  std::memset(guest_->At(driver_->available()), 0, 0x2000);
  driver_.emplace(*guest_, 16);
  EXPECT_TRUE(frontend_->StartQueue(Queue()));
  EXPECT_EQ(Ask("two"), "owt");
}

TEST_F(LoopbackTest, ABackendThatDiesIsReplacedAndWhatWaitedIsAnsweredOnce) {
  Start();
  EXPECT_EQ(Ask("one"), "eno");
  for (int life = 1; life <= 5; ++life) {
    backend_->device.stuck = true;
    Offer("waits" + std::to_string(life));
    backend_.reset();
    events_.Await(events_.losses, life);
    EXPECT_THAT(lost_, StatusIs(absl::StatusCode::kUnavailable, "device 'echo'"));
    // Between two backends a driver may do anything, also start the device again.
    EXPECT_TRUE(frontend_->StartQueue(Queue()));
    ASSERT_OK(Connect());
    EXPECT_EQ(Answer(), std::to_string(life) + "stiaw");
    EXPECT_EQ(driver_->Take(), std::nullopt);
    EXPECT_EQ(Ask("alive"), "evila");
  }
}

TEST_F(LoopbackTest, ADeviceThatIsStartedWithoutABackendStartsWithTheNext) {
  backend_.reset();
  events_.Await(events_.losses, 1);
  Start();
  Offer("early");
  ASSERT_OK(Connect());
  EXPECT_EQ(Answer(), "ylrae");
}

TEST_F(LoopbackTest, ADetachedDeviceNeedsAResetAndStartsNoMore) {
  Start();
  OnLoop([this] { frontend_->Detach(); });
  events_.Await(events_.resets, 1);
  frontend_->Stop();
  const VirtioQueueSetup queue = Queue();
  EXPECT_FALSE(frontend_->Start(virtio::kFeatureVersion1, std::span(&queue, 1)));
  EXPECT_FALSE(frontend_->StartQueue(queue));
  EXPECT_THAT(Connect(), StatusIs(absl::StatusCode::kFailedPrecondition, "given up"));
  EXPECT_EQ(events_.losses, 0);
}

TEST_F(LoopbackTest, AChangeOfConfigurationIsFetchedAndTold) {
  backend_->Post([this] {
    backend_->device.config_text[0] = 'K';
    backend_->device.host->ConfigChanged();
  });
  events_.Await(events_.config_changes, 1);
  EXPECT_EQ(ConfigByte(0), 'K');
}

TEST_F(LoopbackTest, RingsOutsideOfMemoryStartNothingAndCostNoBackend) {
  for (const Gpa bad : {Gpa(kRamBytes - 4), Gpa(kRamBytes), Gpa(~uint64_t{0} - 1)}) {
    VirtioQueueSetup queue = Queue();
    queue.device = bad;
    EXPECT_FALSE(frontend_->Start(virtio::kFeatureVersion1, std::span(&queue, 1)));
    queue = Queue();
    queue.descriptors = bad;
    EXPECT_FALSE(frontend_->Start(virtio::kFeatureVersion1, std::span(&queue, 1)));
  }
  frontend_->Stop();
  EXPECT_EQ(events_.losses, 0);
  Start();
  EXPECT_EQ(Ask("better"), "retteb");
}

// The confused deputy: memory that is not the device's, named by the guest that may not touch it either.
class LoopbackReservedTest : public LoopbackTest {
 protected:
  static constexpr uint64_t kStart = 2 << 20, kBytes = 1 << 20;
  LoopbackReservedTest() : LoopbackTest({{kStart, kBytes}}) {}
};

TEST_F(LoopbackReservedTest, ADescriptorOfReservedMemoryStopsTheQueueAndIsCounted) {
  const std::vector<std::byte> secret(kBytes, std::byte{0x5a});
  ASSERT_TRUE(memory_->Write(Gpa(kStart), secret));
  int faults = 0;
  const auto refused = [&](std::initializer_list<FakeGuestDriver::Segment> chain) {
    Start();
    backend_->fault_seen = BackendQueue::Fault::kNone;
    driver_->Offer(chain);
    frontend_->Kick(1);
    events_.Await(events_.resets, ++faults);
    EXPECT_EQ(backend_->fault_seen, BackendQueue::Fault::kAddress);
    EXPECT_EQ(frontend_->queue_faults(), static_cast<uint64_t>(faults));
    EXPECT_FALSE(driver_->Take().has_value());
    frontend_->Stop();
    std::memset(guest_->At(driver_->available()), 0, 0x2000);
    driver_.emplace(*guest_, 16);
  };
  const Gpa mine = driver_->data();
  refused({{Gpa(kStart), 64}, {mine, 64, true}});             // read into an answer
  refused({{mine, 64}, {Gpa(kStart + 4096), 64, true}});      // written over
  refused({{Gpa(kStart - 32), 64}, {mine, 64, true}});        // over its start
  refused({{mine, 64}, {Gpa(kStart + kBytes - 32), 64, true}});  // over its end
  refused({{mine, 64}, {Gpa(kStart - 4096), 2 << 20, true}});  // all of it, and more
  std::vector<std::byte> now(kBytes);
  ASSERT_TRUE(memory_->Read(Gpa(kStart), now));
  EXPECT_EQ(now, secret);
  // What is on either side is the device's, as before.
  Start();
  EXPECT_EQ(Ask("mine"), "enim");
}

TEST_F(LoopbackReservedTest, RingsInReservedMemoryAreNotStarted) {
  for (int ring = 0; ring < 3; ++ring) {
    VirtioQueueSetup queue = Queue();
    (ring == 0 ? queue.descriptors : ring == 1 ? queue.driver : queue.device) = Gpa(kStart + 4096);
    EXPECT_FALSE(frontend_->Start(virtio::kFeatureVersion1, std::span(&queue, 1))) << ring;
  }
  EXPECT_EQ(events_.losses, 0);
}

TEST_F(LoopbackTest, AGuestThatBreaksItsQueueLosesThatQueueUntilItResets) {
  Start();
  driver_->Make(99);
  frontend_->Kick(1);
  events_.Await(events_.resets, 1);
  EXPECT_EQ(backend_->fault_seen, BackendQueue::Fault::kHead);
  EXPECT_EQ(frontend_->queue_faults(), 1u);
  frontend_->Stop();
  std::memset(guest_->At(driver_->available()), 0, 0x2000);
  driver_.emplace(*guest_, 16);
  Start();
  EXPECT_EQ(Ask("again"), "niaga");
}

}  // namespace
}  // namespace vmm
