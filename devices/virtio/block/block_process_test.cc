// The block device in its jail, behind a front end: what it does for a driver, and that being killed at any moment loses nothing.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "absl/status/status.h"
#include "base/event_loop.h"
#include "base/owned_fd.h"
#include "base/status_macros.h"
#include "base/status_matchers.h"
#include "devices/virtio/backend/backend_spawn.h"
#include "devices/virtio/backend/fake_guest_driver.h"
#include "devices/virtio/backend/fake_packed_driver.h"
#include "devices/virtio/block/block_device.h"
#include "devices/virtio/block/block_layout.h"
#include "devices/virtio/vhost_user/vhost_user_channel.h"
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

template <typename Driver, uint64_t kFormFeatures>
class BlockProcessFixture : public testing::Test {
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
    RETURN_IF_ERROR(SpawnUnconnected(block));
    return frontend_->Connect(std::move(backend_.socket));
  }
  absl::Status SpawnUnconnected(const BlockOptions& block) {
    BackendSpawnOptions options;
    options.kind = "block";
    options.arguments = BlockDeviceArguments(block);
    options.fds = {disk_.get()};
    options.threads = block.workers;
    options.executable_fd = executable_.get();
    options.guest_bytes = kRamBytes;
    options.file_bytes = kBlocks * kBlockBytes;
#ifdef VMM_DYNAMIC_LINK
    options.jail = {.waive_empty_root = true, .waive_seccomp = true};
#endif
    auto backend = SpawnBackend(options);
    if (!backend.ok()) return backend.status();
    backend_ = *std::move(backend);
    return absl::OkStatus();
  }
  // How often a process is killed: `usually`, or as the environment says (VMM_KILLS=1000: the long run).
  static int Kills(int usually) {
    const char* const asked = ::getenv("VMM_KILLS");
    return asked == nullptr ? usually : ::atoi(asked);
  }
  // Writes and waits, with whatever process there is.
  void WriteAndAwait(uint64_t block, char content) {
    Write(0, block, content);
    frontend_->Kick(0);
    AwaitUsed();
    ASSERT_EQ(guest_->template Word<uint8_t>(Slot(0) + 16), vb::kStatusOk);
  }
  char OnDisk(uint64_t block) const {
    char byte = 0;
    EXPECT_EQ(::pread(disk_.get(), &byte, 1, static_cast<off_t>(block * kBlockBytes)), 1);
    return byte;
  }
  void Start(uint64_t features = vb::kFeatureFlush) {
    const VirtioQueueSetup queue{0, kQueueSize, driver_->descriptors(), driver_->available(), driver_->used()};
    ASSERT_TRUE(frontend_->Start(virtio::kFeatureVersion1 | kFormFeatures | features, std::span(&queue, 1)));
  }
  // One slot for each request in flight: header, status, data.
  Gpa Slot(uint32_t slot) const { return FakeGuestRam::kBase + 0x2'0000 + 0x2000 * uint64_t{slot}; }
  uint16_t Write(uint32_t slot, uint64_t block, char content) {
    guest_->template Word<vb::RequestHeader>(Slot(slot)) = {vb::kOut, 0, block * kBlockBytes / vb::kSectorBytes};
    guest_->template Word<uint8_t>(Slot(slot) + 16) = 0xee;
    std::memset(guest_->At(Slot(slot) + 0x1000), content, kBlockBytes);
    return driver_->OfferAt(static_cast<uint16_t>(3 * slot), {{Slot(slot), 16}, {Slot(slot) + 0x1000, kBlockBytes}, {Slot(slot) + 16, 1, true}});
  }
  uint16_t Read(uint32_t slot, uint64_t block) {
    guest_->template Word<vb::RequestHeader>(Slot(slot)) = {vb::kIn, 0, block * kBlockBytes / vb::kSectorBytes};
    guest_->template Word<uint8_t>(Slot(slot) + 16) = 0xee;
    std::memset(guest_->At(Slot(slot) + 0x1000), '-', kBlockBytes);
    return driver_->OfferAt(static_cast<uint16_t>(3 * slot), {{Slot(slot), 16}, {Slot(slot) + 0x1000, kBlockBytes, true}, {Slot(slot) + 16, 1, true}});
  }
  // A driver that keeps ten in flight; the process is killed again and again in the middle of them. Each is completed once, in whatever
  // order; a read finds what was acknowledged last, and in the end the disk holds that.
  void KillAgainAndAgain(uint64_t features, int kills);
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
  std::optional<Driver> driver_;
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<VhostUserFrontend> frontend_;
  SpawnedBackend backend_;
};
using BlockProcessTest = BlockProcessFixture<FakeGuestDriver, 0>;
using PackedBlockProcessTest = BlockProcessFixture<FakePackedDriver, virtio::kFeatureRingPacked>;

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

TEST(BlockArgumentsTest, WhatMakesNoSenseIsRefusedBeforeAnythingStarts) {
  const std::pair<const char*, const char*> bad[] = {
      {"--path x --workers 17", "argument '--workers': '17' is not what it takes"},
      {"--path x --workers=-1", "argument '--workers': '-1' is not what it takes"},
      {"--path x --queues 0", "argument '--queues': '0' is not what it takes"},
      {"--path x --queues 17", "argument '--queues': '17' is not what it takes"},
      {"--path x --serial 123456789012345678901", "argument '--serial': '123456789012345678901' is not what it takes"},
      {"--path x --bytes-per-second 1G", "argument '--bytes-per-second': '1G' is not what it takes"},
      {"--path", "argument '--path' needs a value"},
      {"--path x --direct", "unknown argument '--direct'"},
      {"--workers 1", "needs --path FILE: a raw image or a block device"},
  };
  for (const auto& [arguments, message] : bad) {
    // Last, so that an argument without its value has none.
    const std::string command = "devices/virtio/block/block_process_for_test device block --socket /nowhere/s " + std::string(arguments) + " 2>&1";
    FILE* const pipe = ::popen(command.c_str(), "r");
    ASSERT_NE(pipe, nullptr);
    std::string said(500, 0);
    said.resize(::fread(said.data(), 1, said.size(), pipe));
    const int status = ::pclose(pipe);
    EXPECT_EQ(WEXITSTATUS(status), 2) << arguments;
    EXPECT_EQ(said, "vmm device block: " + std::string(message) + "\n");
  }
}

template <typename Driver, uint64_t kFormFeatures>
void BlockProcessFixture<Driver, kFormFeatures>::KillAgainAndAgain(uint64_t features, int kills) {
  const BlockOptions options{.packed = kFormFeatures != 0};
  ASSERT_OK(Spawn(options));
  Start(features);
  std::mt19937 random(1);
  std::vector<char> acknowledged(kBlocks, 0);
  struct Request {
    uint32_t slot;
    uint64_t block;
    char content;  // of a write; 0: a read
  };
  std::map<uint32_t, Request> in_flight;  // by what the driver knows them by
  std::vector<uint32_t> free_slots;
  for (uint32_t slot = 0; slot < 10; ++slot) free_slots.push_back(slot);
  uint64_t next = 0, completed = 0, kill_at = 5, out_of_order = 0, oldest_done = 0;
  std::map<uint32_t, uint64_t> numbers;
  std::set<uint64_t> busy;  // blocks: two requests for one have no order
  int64_t longest_ms = 0;
  int64_t killed_ms = 0;  // 0: not since the last completion
  while (kills > 0 || !in_flight.empty()) {
    // Three descriptors each: ten fit.
    while (kills > 0 && !free_slots.empty()) {
      const uint32_t slot = free_slots.back();
      free_slots.pop_back();
      Request request{slot, random() % kBlocks, 0};
      while (!busy.insert(request.block).second) request.block = (request.block + 1) % kBlocks;
      if (random() % 4 != 0) request.content = static_cast<char>('a' + random() % 26);
      const uint16_t head = request.content != 0 ? Write(slot, request.block, request.content) : Read(slot, request.block);
      ASSERT_TRUE(in_flight.emplace(head, request).second);
      numbers[head] = next++;
    }
    frontend_->Kick(0);
    if (kills > 0 && completed >= kill_at) {
      killed_ms = VhostUserChannel::NowMs();
      ::kill(backend_.process.pid(), SIGKILL);
      backend_.process = ChildProcess();
      ASSERT_OK(Spawn(options));
      --kills;
      kill_at = completed + random() % 40;
    }
    const int64_t asked_ms = VhostUserChannel::NowMs();
    const virtio::UsedElement used = AwaitUsed();
    longest_ms = std::max(longest_ms, VhostUserChannel::NowMs() - (killed_ms != 0 ? killed_ms : asked_ms));
    killed_ms = 0;
    const auto found = in_flight.find(used.id);
    ASSERT_NE(found, in_flight.end()) << "completion " << completed << " of something that is not in flight: " << used.id;
    const Request done = found->second;
    in_flight.erase(found);
    busy.erase(done.block);
    if (numbers[used.id] < oldest_done) ++out_of_order;
    oldest_done = std::max(oldest_done, numbers[used.id]);
    ASSERT_EQ(guest_->template Word<uint8_t>(Slot(done.slot) + 16), vb::kStatusOk);
    if (done.content != 0) {
      ASSERT_EQ(used.bytes, 1u);
      acknowledged[done.block] = done.content;
    } else {
      ASSERT_EQ(used.bytes, kBlockBytes + 1);
      ASSERT_EQ(guest_->Get(Slot(done.slot) + 0x1000, kBlockBytes), std::string(kBlockBytes, acknowledged[done.block])) << "block " << done.block;
    }
    free_slots.insert(free_slots.begin(), done.slot);
    ++completed;
  }
  EXPECT_EQ(driver_->Take(), std::nullopt);
  for (uint64_t block = 0; block < kBlocks; ++block) {
    std::string content(kBlockBytes, 0);
    ASSERT_EQ(::pread(disk_.get(), content.data(), content.size(), static_cast<off_t>(block * kBlockBytes)), static_cast<ssize_t>(kBlockBytes));
    EXPECT_EQ(content, std::string(kBlockBytes, acknowledged[block])) << "block " << block;
  }
  RecordProperty("completed", std::to_string(completed));
  RecordProperty("out_of_order", std::to_string(out_of_order));
  std::cout << completed << " requests, " << out_of_order << " of them out of order; the longest wait for one, with a new process in it: "
            << longest_ms << " ms" << std::endl;
  // Reads that are in the cache overtake writes that are made durable.
  if ((features & vb::kFeatureFlush) == 0) {
    EXPECT_GT(out_of_order, 0u);
  }
}

TEST_F(BlockProcessTest, KilledAtAnyMomentItLosesAndRepeatsNoCompletion) { KillAgainAndAgain(vb::kFeatureFlush, Kills(60)); }
// A driver that knows no flush: every write is a worker's.
TEST_F(BlockProcessTest, KilledWithRequestsOutOfOrderItLosesAndRepeatsNoCompletion) { KillAgainAndAgain(0, Kills(60)); }
TEST_F(PackedBlockProcessTest, KilledAtAnyMomentItLosesAndRepeatsNoCompletion) { KillAgainAndAgain(vb::kFeatureFlush, Kills(30)); }
TEST_F(PackedBlockProcessTest, KilledWithRequestsOutOfOrderItLosesAndRepeatsNoCompletion) { KillAgainAndAgain(0, Kills(60)); }

// The other stages of its life. Whatever a connection comes to, the next process goes on where the acknowledged writes end.
TEST_F(BlockProcessTest, KilledBeforeTheHandshakeItIsAnErrorAndNoMore) {
  ASSERT_OK(Spawn());
  Start();
  for (int round = 0; round < Kills(20); ++round) {
    const auto content = static_cast<char>('a' + round % 26);
    WriteAndAwait(7, content);
    ::kill(backend_.process.pid(), SIGKILL);
    ASSERT_OK(SpawnUnconnected({}));
    ::kill(backend_.process.pid(), SIGKILL);
    ASSERT_OK(backend_.process.Wait(10'000));
    EXPECT_FALSE(frontend_->Connect(std::move(backend_.socket)).ok());
    ASSERT_OK(Spawn());
    EXPECT_EQ(OnDisk(7), content);
  }
}

TEST_F(BlockProcessTest, KilledDuringTheHandshakeItIsAnErrorOrAConnectionThatEnds) {
  ASSERT_OK(Spawn());
  Start();
  std::mt19937 random(2);
  int refused = 0;
  for (int round = 0; round < Kills(60); ++round) {
    const auto content = static_cast<char>('a' + round % 26);
    WriteAndAwait(7, content);
    Write(0, 8, content);  // waits for whoever comes
    frontend_->Kick(0);
    ::kill(backend_.process.pid(), SIGKILL);
    ASSERT_OK(SpawnUnconnected({}));
    const pid_t pid = backend_.process.pid();
    std::thread killer([pid, delay_us = random() % 2000] {
      ::usleep(static_cast<useconds_t>(delay_us));
      ::kill(pid, SIGKILL);
    });
    if (!frontend_->Connect(std::move(backend_.socket)).ok()) ++refused;
    killer.join();
    ASSERT_OK(backend_.process.Wait(10'000));
    ASSERT_OK(Spawn());
    AwaitUsed();
    EXPECT_EQ(guest_->Word<uint8_t>(Slot(0) + 16), vb::kStatusOk);
    EXPECT_EQ(OnDisk(7), content);
    EXPECT_EQ(OnDisk(8), content);
  }
  std::cout << refused << " handshakes were cut off" << std::endl;
}

TEST_F(BlockProcessTest, KilledAtShutdownItEndsAndKeepsWhatWasAcknowledged) {
  std::mt19937 random(3);
  for (int round = 0; round < Kills(20); ++round) {
    const auto content = static_cast<char>('a' + round % 26);
    ASSERT_OK(Spawn());
    Start();
    WriteAndAwait(7, content);
    const pid_t pid = backend_.process.pid();
    std::thread killer([pid, delay_us = random() % 300] {
      ::usleep(static_cast<useconds_t>(delay_us));
      ::kill(pid, SIGKILL);
    });
    frontend_->Stop();
    killer.join();
    ASSERT_OK(backend_.process.Wait(10'000));
    EXPECT_EQ(OnDisk(7), content);
    std::memset(guest_->At(driver_->available()), 0, 0x2000);
    driver_.emplace(*guest_, kQueueSize);
  }
}

}  // namespace
}  // namespace vmm
