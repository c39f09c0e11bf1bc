// The block device in its jail, behind a front end: what it does for a driver, and that being killed at any moment loses nothing.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "absl/status/status.h"
#include "base/event_loop.h"
#include "base/owned_fd.h"
#include "base/status_matchers.h"
#include "devices/virtio/backend/backend_spawn.h"
#include "devices/virtio/backend/fake_guest_driver.h"
#include "devices/virtio/block/block_device.h"
#include "devices/virtio/block/block_layout.h"
#include "devices/virtio/vhost_user/vhost_user_frontend.h"
#include "devices/virtio/virtio_endpoint.h"
#include "devices/virtio/virtio_layout.h"
#include "memory/gpa.h"
#include "memory/guest_memory.h"
#include "memory/guest_ram.h"
#include "memory/layout.h"
#include "sandbox/child_process.h"
#include "sandbox/probe.h"

namespace vmm {
namespace {

namespace vb = virtio_blk;

class BlockProcessTest : public testing::Test {
 protected:
  static constexpr uint64_t kRamBytes = 4 << 20;
  static constexpr uint64_t kBlockBytes = 4096;
  static constexpr uint64_t kBlocks = 64;

  void SetUp() override {
    if (const SandboxProbe probe = ProbeSandbox(); !probe.Complete()) GTEST_SKIP() << "no sandbox here: " << probe.namespaces_reason;
    executable_.Reset(::open("devices/virtio/block/block_process_for_test", O_RDONLY | O_CLOEXEC));
    ASSERT_TRUE(executable_.valid());
    std::string path = std::string(::getenv("TEST_TMPDIR") != nullptr ? ::getenv("TEST_TMPDIR") : "/tmp") + "/disk.XXXXXX";
    disk_.Reset(::mkostemp(path.data(), O_CLOEXEC));
    ASSERT_TRUE(disk_.valid());
    ::unlink(path.c_str());
    ASSERT_EQ(::ftruncate(disk_.get(), kBlocks * kBlockBytes), 0);

    ASSERT_OK_AND_ASSIGN(const MemoryLayout layout, MemoryLayout::Create(kRamBytes));
    ASSERT_OK_AND_ASSIGN(ram_, GuestRam::Create({.bytes = kRamBytes}));
    ASSERT_OK_AND_ASSIGN(memory_, GuestMemory::Create(*ram_, layout));
    guest_.emplace(ram_->fd());
    driver_.emplace(*guest_, kQueueSize);
    ASSERT_OK_AND_ASSIGN(loop_, EventLoop::Create());
    const VhostUserFrontendOptions options{.name = "block",
                                           .device_id = virtio::DeviceId::kBlock,
                                           .max_queue_size = kQueueSize,
                                           .config_bytes = vb::kConfigBytes,
                                           .memory = {{Gpa(0), kRamBytes, ram_->fd(), 0}}};
    ASSERT_OK_AND_ASSIGN(frontend_, VhostUserFrontend::Create(*loop_, *memory_, options, [](const absl::Status&) {}));
  }
  absl::Status Spawn(const BlockOptions& block = {}) {
    BackendSpawnOptions options;
    options.kind = "block";
    options.arguments = BlockDeviceArguments(block);
    options.fds = {disk_.get()};
    options.executable_fd = executable_.get();
    options.guest_bytes = kRamBytes;
    options.file_bytes = kBlocks * kBlockBytes;
#ifdef VMM_DYNAMIC_LINK
    options.jail = {.waive_empty_root = true, .waive_seccomp = true};
#endif
    auto backend = SpawnBackend(options);
    if (!backend.ok()) return backend.status();
    backend_ = *std::move(backend);
    return frontend_->Connect(std::move(backend_.socket));
  }
  void Start() {
    const VirtioQueueSetup queue{0, kQueueSize, driver_->descriptors(), driver_->available(), driver_->used()};
    ASSERT_TRUE(frontend_->Start(virtio::kFeatureVersion1 | vb::kFeatureFlush, std::span(&queue, 1)));
  }
  // One slot for each request in flight: header, status, data.
  Gpa Slot(uint32_t slot) const { return FakeGuestRam::kBase + 0x2'0000 + 0x2000 * uint64_t{slot}; }
  uint16_t Write(uint32_t slot, uint64_t block, char content) {
    guest_->Word<vb::RequestHeader>(Slot(slot)) = {vb::kOut, 0, block * kBlockBytes / vb::kSectorBytes};
    guest_->Word<uint8_t>(Slot(slot) + 16) = 0xee;
    std::memset(guest_->At(Slot(slot) + 0x1000), content, kBlockBytes);
    return driver_->Offer({{Slot(slot), 16}, {Slot(slot) + 0x1000, kBlockBytes}, {Slot(slot) + 16, 1, true}});
  }
  // Waits for completions, as long as it takes.
  virtio::UsedElement AwaitUsed() {
    while (true) {
      if (const auto used = driver_->Take()) return *used;
      pollfd poll_fd{frontend_->call_fd(0), POLLIN, 0};
      ::poll(&poll_fd, 1, 5);
      uint64_t count;
      (void)!::read(poll_fd.fd, &count, sizeof(count));
    }
  }

  static constexpr uint16_t kQueueSize = 32;
  OwnedFd executable_, disk_;
  std::unique_ptr<GuestRam> ram_;
  std::unique_ptr<GuestMemory> memory_;
  std::optional<FakeGuestRam> guest_;
  std::optional<FakeGuestDriver> driver_;
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<VhostUserFrontend> frontend_;
  SpawnedBackend backend_;
};

TEST_F(BlockProcessTest, ItServesItsImageAndEndsWithItsFrontEnd) {
  ASSERT_OK(Spawn({.serial = "in a jail"}));
  uint64_t capacity = 0;
  frontend_->ReadConfig(0, std::as_writable_bytes(std::span(&capacity, 1)));
  EXPECT_EQ(capacity, kBlocks * kBlockBytes / vb::kSectorBytes);
  Start();
  Write(0, 3, 'x');
  frontend_->Kick(0);
  AwaitUsed();
  EXPECT_EQ(guest_->Word<uint8_t>(Slot(0) + 16), vb::kStatusOk);
  char byte = 0;
  ASSERT_EQ(::pread(disk_.get(), &byte, 1, 3 * kBlockBytes), 1);
  EXPECT_EQ(byte, 'x');
  frontend_->Close();
  ASSERT_OK_AND_ASSIGN(const ExitStatus status, backend_.process.Wait(10'000));
  EXPECT_EQ(status.how, ExitStatus::How::kExited);
  EXPECT_EQ(status.value, 0);
}

TEST_F(BlockProcessTest, AnUnknownArgumentIsSaidOnStandardError) {
  BackendSpawnOptions options;
  options.kind = "block";
  options.arguments = {"--what"};
  options.fds = {disk_.get()};
  options.executable_fd = executable_.get();
#ifdef VMM_DYNAMIC_LINK
  options.jail = {.waive_empty_root = true, .waive_seccomp = true};
#endif
  ASSERT_OK_AND_ASSIGN(SpawnedBackend backend, SpawnBackend(options));
  ASSERT_OK_AND_ASSIGN(const ExitStatus status, backend.process.Wait(10'000));
  EXPECT_EQ(status.value, 1);
  std::string text(200, 0);
  const ssize_t got = ::read(backend.messages.get(), text.data(), text.size());
  ASSERT_GT(got, 0);
  EXPECT_EQ(text.substr(0, static_cast<size_t>(got)), "unknown argument '--what'\n");
}

// Writes of a driver that keeps many in flight; the process is killed again and again in the middle of them. Each is completed once, in
// order, and what was completed is on the disk: in this disk's case, until something else was written there.
TEST_F(BlockProcessTest, KilledAtAnyMomentItLosesAndRepeatsNoCompletion) {
  constexpr int kKills = 60;
  ASSERT_OK(Spawn());
  Start();
  std::mt19937 random(1);
  std::vector<char> acknowledged(kBlocks, 0);
  struct Request {
    uint64_t block;
    char content;
    uint16_t head;
  };
  std::vector<Request> in_flight;
  uint32_t next = 0;
  uint64_t completed = 0;
  int kills = 0;
  uint64_t kill_at = 5;
  while (kills < kKills || !in_flight.empty()) {
    // Three descriptors each: ten fit. No block twice in flight.
    while (kills < kKills && in_flight.size() < 10) {
      const uint64_t block = next % kBlocks;
      const char content = static_cast<char>('a' + random() % 26);
      const uint16_t head = Write(next % 16, block, content);
      in_flight.push_back({block, content, head});
      ++next;
    }
    frontend_->Kick(0);
    if (kills < kKills && completed >= kill_at) {
      ::kill(backend_.process.pid(), SIGKILL);
      backend_.process = ChildProcess();
      ASSERT_OK(Spawn());
      ++kills;
      kill_at = completed + random() % 40;
    }
    const virtio::UsedElement used = AwaitUsed();
    const Request done = in_flight.front();
    in_flight.erase(in_flight.begin());
    ASSERT_EQ(used.id, done.head) << "completion " << completed;
    ASSERT_EQ(used.bytes, 1u);
    ASSERT_EQ(guest_->Word<uint8_t>(Slot(static_cast<uint32_t>(completed % 16)) + 16), vb::kStatusOk);
    acknowledged[done.block] = done.content;
    ++completed;
  }
  EXPECT_EQ(driver_->Take(), std::nullopt);
  for (uint64_t block = 0; block < kBlocks; ++block) {
    std::string content(kBlockBytes, 0);
    ASSERT_EQ(::pread(disk_.get(), content.data(), content.size(), static_cast<off_t>(block * kBlockBytes)), static_cast<ssize_t>(kBlockBytes));
    EXPECT_EQ(content, std::string(kBlockBytes, acknowledged[block])) << "block " << block;
  }
}

}  // namespace
}  // namespace vmm
