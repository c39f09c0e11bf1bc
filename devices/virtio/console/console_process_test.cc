// The console device in its jail with a terminal that it shares, behind a front end: bytes both ways, the size, the escape key.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <thread>

#include <gtest/gtest.h>

#include "absl/status/status.h"
#include "base/event_loop.h"
#include "base/owned_fd.h"
#include "base/status_matchers.h"
#include "devices/virtio/backend/backend_spawn.h"
#include "devices/virtio/backend/fake_guest_driver.h"
#include "devices/virtio/console/console_device.h"
#include "devices/virtio/vhost_user/vhost_user_frontend.h"
#include "devices/virtio/virtio_endpoint.h"
#include "devices/virtio/virtio_layout.h"
#include "memory/gpa.h"
#include "memory/guest_memory.h"
#include "memory/guest_ram.h"
#include "memory/layout.h"
#include "sandbox/probe.h"

namespace vmm {
namespace {

constexpr int kWaitMs = 30'000;

class ConsoleProcessTest : public testing::Test {
 protected:
  static constexpr uint64_t kRamBytes = 4 << 20;
  static constexpr uint16_t kQueueSize = 8;

  void SetUp() override {
    if (const SandboxProbe probe = ProbeSandbox(); !probe.Complete()) GTEST_SKIP() << "no sandbox here: " << probe.namespaces_reason;
    const OwnedFd executable(::open("devices/virtio/console/console_process_for_test", O_RDONLY | O_CLOEXEC));
    ASSERT_TRUE(executable.valid());
    person_.Reset(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
    ASSERT_TRUE(person_.valid() && ::grantpt(person_.get()) == 0 && ::unlockpt(person_.get()) == 0);
    std::array<char, 64> name{};
    ASSERT_EQ(::ptsname_r(person_.get(), name.data(), name.size()), 0);
    terminal_.Reset(::open(name.data(), O_RDWR | O_NOCTTY | O_CLOEXEC));
    termios modes{};
    ASSERT_EQ(::tcgetattr(terminal_.get(), &modes), 0);
    ::cfmakeraw(&modes);
    ASSERT_EQ(::tcsetattr(terminal_.get(), TCSANOW, &modes), 0);
    Resize(24, 80);
    quit_.Reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));

    ASSERT_OK_AND_ASSIGN(const MemoryLayout layout, MemoryLayout::Create(kRamBytes));
    ASSERT_OK_AND_ASSIGN(ram_, GuestRam::Create({.bytes = kRamBytes}));
    ASSERT_OK_AND_ASSIGN(memory_, GuestMemory::Create(*ram_, layout));
    guest_.emplace(ram_->fd());
    receive_.emplace(*guest_, kQueueSize);
    transmit_.emplace(*guest_, kQueueSize, FakeGuestRam::kBase + 0x1'0000);
    ASSERT_OK_AND_ASSIGN(loop_, EventLoop::Create());
    const VhostUserFrontendOptions options{.name = "console",
                                           .device_id = virtio::DeviceId::kConsole,
                                           .queues = 2,
                                           .max_queue_size = kQueueSize,
                                           .config_bytes = sizeof(ConsoleDevice::Config),
                                           .memory = {{Gpa(0), kRamBytes, ram_->fd(), 0}}};
    ASSERT_OK_AND_ASSIGN(frontend_, VhostUserFrontend::Create(*loop_, *memory_, options, [](const absl::Status&) {}));
    BackendSpawnOptions spawn;
    spawn.kind = "console";
    spawn.arguments = {"--shared-terminal", "--interactive"};
    spawn.fds = {terminal_.get(), terminal_.get(), quit_.get()};
    spawn.queues = 2;
    spawn.keeps_terminal = true;
    spawn.executable_fd = executable.get();
    spawn.guest_bytes = kRamBytes;
#ifdef VMM_DYNAMIC_LINK
    spawn.jail = {.waive_empty_root = true, .waive_seccomp = true};
#endif
    ASSERT_OK_AND_ASSIGN(backend_, SpawnBackend(spawn));
    ASSERT_OK(frontend_->Connect(std::move(backend_.socket)));
    thread_ = std::thread([this] { loop_->Run(); });
    const VirtioQueueSetup queues[] = {{0, kQueueSize, receive_->descriptors(), receive_->available(), receive_->used()},
                                       {1, kQueueSize, transmit_->descriptors(), transmit_->available(), transmit_->used()}};
    ASSERT_TRUE(frontend_->Start(virtio::kFeatureVersion1 | ConsoleDevice::kFeatureSize, queues));
  }
  void TearDown() override {
    if (!thread_.joinable()) return;
    loop_->Stop();
    thread_.join();
    frontend_->Close();
  }
  void Resize(unsigned short rows, unsigned short columns) {
    const winsize size{rows, columns, 0, 0};
    ASSERT_EQ(::ioctl(person_.get(), TIOCSWINSZ, &size), 0);
  }
  ConsoleDevice::Config Config() {
    ConsoleDevice::Config config{};
    frontend_->ReadConfig(0, std::as_writable_bytes(std::span(&config, 1)));
    return config;
  }
  static bool Readable(int fd) {
    pollfd poll_fd{fd, POLLIN, 0};
    return ::poll(&poll_fd, 1, kWaitMs) > 0;
  }
  std::optional<std::string> Typed() {
    for (int waited = 0; waited < kWaitMs; waited += 5) {
      if (const auto used = receive_->Take()) return guest_->Get(receive_->data(), used->bytes);
      pollfd poll_fd{frontend_->call_fd(0), POLLIN, 0};
      ::poll(&poll_fd, 1, 5);
    }
    return std::nullopt;
  }

  OwnedFd person_, terminal_, quit_;
  std::unique_ptr<GuestRam> ram_;
  std::unique_ptr<GuestMemory> memory_;
  std::optional<FakeGuestRam> guest_;
  std::optional<FakeGuestDriver> receive_, transmit_;
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<VhostUserFrontend> frontend_;
  SpawnedBackend backend_;
  std::thread thread_;
};

TEST_F(ConsoleProcessTest, BytesGoBothWays) {
  guest_->Put(transmit_->data(), "from the guest");
  transmit_->Offer({{transmit_->data(), 14}});
  frontend_->Kick(1);
  ASSERT_TRUE(Readable(person_.get()));
  char text[32];
  EXPECT_EQ(std::string(text, static_cast<size_t>(::read(person_.get(), text, sizeof(text)))), "from the guest");
  receive_->Offer({{receive_->data(), 64, true}});
  frontend_->Kick(0);
  ASSERT_EQ(::write(person_.get(), "typed", 5), 5);
  EXPECT_EQ(Typed(), "typed");
}

TEST_F(ConsoleProcessTest, ASizeIsToldWhenTheTerminalsGroupIsSignalled) {
  EXPECT_EQ(Config().columns, 80);
  EXPECT_EQ(Config().rows, 24);
  Resize(50, 132);
  backend_.process.Signal(SIGWINCH);  // as the terminal does
  for (int waited = 0; waited < kWaitMs && Config().rows != 50; waited += 5) ::poll(nullptr, 0, 5);
  EXPECT_EQ(Config().columns, 132);
  EXPECT_EQ(Config().rows, 50);
}

TEST_F(ConsoleProcessTest, TheEscapeKeyIsNotTheGuestsAndWhatIsBesideItIs) {
  receive_->Offer({{receive_->data(), 64, true}});
  frontend_->Kick(0);
  ASSERT_EQ(::write(person_.get(), "a\x01\x01z\x01x", 6), 6);
  EXPECT_EQ(Typed(), "a\x01z");
  EXPECT_TRUE(Readable(quit_.get()));
}

}  // namespace
}  // namespace vmm
