// The network device in its jail, behind a front end: over a TAP interface in a network namespace of the test's own, over a stream, and
// over passt; killed under load.
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <net/route.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/event_loop.h"
#include "base/owned_fd.h"
#include "base/status_matchers.h"
#include "devices/virtio/backend/backend_spawn.h"
#include "devices/virtio/backend/fake_guest_driver.h"
#include "devices/virtio/net/mac_address.h"
#include "devices/virtio/net/net_arguments.h"
#include "devices/virtio/net/net_layout.h"
#include "devices/virtio/net/passt.h"
#include "devices/virtio/net/tap_wire.h"
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

namespace vn = virtio_net;

// For local experiments (IEEE 802): nobody else on the link speaks it.
constexpr uint16_t kEtherType = 0x88b5;
const MacAddress kGuestMac = {2, 0, 0, 0, 0, 1};
const MacAddress kHostMac = {2, 0, 0, 0, 0, 2};

std::string Frame(const MacAddress& to, const MacAddress& from, uint16_t type, const std::string& payload) {
  std::string frame(to.begin(), to.end());
  frame.append(from.begin(), from.end());
  const uint16_t wire_type = htons(type);
  frame.append(reinterpret_cast<const char*>(&wire_type), sizeof(wire_type));
  return frame + payload;
}

// The rest of the process is in a network of its own; true where that is to be had.
bool EnterOwnNetwork() {
  static const bool entered = [] {
    if (::unshare(CLONE_NEWNET) == 0) return true;
    const uid_t user = ::geteuid();
    const gid_t group = ::getegid();
    if (::unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) return false;
    const auto write = [](const char* path, const std::string& text) {
      const OwnedFd fd(::open(path, O_WRONLY | O_CLOEXEC));
      return ::write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
    };
    return write("/proc/self/setgroups", "deny") && write("/proc/self/gid_map", absl::StrCat("0 ", group, " 1")) &&
           write("/proc/self/uid_map", absl::StrCat("0 ", user, " 1"));
  }();
  return entered;
}

sockaddr Address(const char* text) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  ::inet_pton(AF_INET, text, &address.sin_addr);
  sockaddr result;
  std::memcpy(&result, &address, sizeof(result));
  return result;
}

// With 192.0.2.2/24, and 192.0.2.1 as the way to everywhere.
bool SetUpInterface(const char* name) {
  const OwnedFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strncpy(request.ifr_name, name, sizeof(request.ifr_name) - 1);
  request.ifr_addr = Address("192.0.2.2");
  if (::ioctl(socket.get(), SIOCSIFADDR, &request) != 0) return false;
  request.ifr_addr = Address("255.255.255.0");
  if (::ioctl(socket.get(), SIOCSIFNETMASK, &request) != 0) return false;
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  if (::ioctl(socket.get(), SIOCSIFFLAGS, &request) != 0) return false;
  rtentry route{};
  route.rt_dst = Address("0.0.0.0");
  route.rt_genmask = Address("0.0.0.0");
  route.rt_gateway = Address("192.0.2.1");
  route.rt_flags = RTF_UP | RTF_GATEWAY;
  return ::ioctl(socket.get(), SIOCADDRT, &route) == 0 || errno == EEXIST;
}

class NetProcessTest : public testing::Test {
 protected:
  static constexpr uint64_t kRamBytes = 4 << 20;
  static constexpr uint16_t kQueueSize = 32;
  static constexpr uint16_t kPairs = 2;
  static constexpr uint16_t kQueues = 2 * kPairs + 1;

  void SetUp() override {
    if (const SandboxProbe probe = ProbeSandbox(); !probe.Complete()) GTEST_SKIP() << "no sandbox here: " << probe.namespaces_reason;
    executable_.Reset(::open("devices/virtio/net/net_process_for_test", O_RDONLY | O_CLOEXEC));
    ASSERT_TRUE(executable_.valid());
    if (!EnterOwnNetwork()) GTEST_SKIP() << "no network namespace here: " << std::strerror(errno);
    ASSERT_OK_AND_ASSIGN(const MemoryLayout layout, MemoryLayout::Create(kRamBytes));
    ASSERT_OK_AND_ASSIGN(ram_, GuestRam::Create({.bytes = kRamBytes}));
    ASSERT_OK_AND_ASSIGN(memory_, GuestMemory::Create(*ram_, layout));
    guest_.emplace(ram_->fd());
    for (uint16_t i = 0; i < kQueues; ++i) drivers_.emplace_back(*guest_, kQueueSize, FakeGuestRam::kBase + 0x2'0000 * uint64_t{i});
    ASSERT_OK_AND_ASSIGN(loop_, EventLoop::Create());
  }
  void MakeFrontend(uint16_t pairs) {
    const VhostUserFrontendOptions options{.name = "net",
                                           .device_id = virtio::DeviceId::kNet,
                                           .queues = static_cast<uint16_t>(2 * pairs + 1),
                                           .max_queue_size = kQueueSize,
                                           .config_bytes = sizeof(vn::Config),
                                           .memory = {{Gpa(0), kRamBytes, ram_->fd(), 0}}};
    ASSERT_OK_AND_ASSIGN(frontend_, VhostUserFrontend::Create(*loop_, *memory_, options, [](const absl::Status&) {}));
    pairs_ = pairs;
  }
  void OpenTapInterface() {
    auto fds = OpenTap("vmmtest0", kPairs);
    if (!fds.ok()) GTEST_SKIP() << fds.status();
    tap_ = *std::move(fds);
    if (!SetUpInterface("vmmtest0")) GTEST_SKIP() << "cannot set up the interface: " << std::strerror(errno);
    host_.Reset(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, htons(kEtherType)));
    if (!host_.valid()) GTEST_SKIP() << "no packet sockets: " << std::strerror(errno);
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(kEtherType);
    address.sll_ifindex = static_cast<int>(::if_nametoindex("vmmtest0"));
    ASSERT_EQ(::bind(host_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  }
  absl::Status Spawn(bool stream, CompanionOptions companion = {}) {
    BackendSpawnOptions options;
    options.kind = "net";
    options.arguments = NetDeviceArguments({.mac = kGuestMac, .mtu = 1400, .pairs = pairs_}, stream);
    options.companion = std::move(companion);
    if (stream_.valid()) options.fds = {stream_.get()};
    for (const OwnedFd& fd : tap_) options.fds.push_back(fd.get());
    options.executable_fd = executable_.get();
    options.guest_bytes = kRamBytes;
    options.queues = static_cast<uint16_t>(2 * pairs_ + 1);
#ifdef VMM_DYNAMIC_LINK
    options.jail = {.waive_empty_root = true, .waive_seccomp = true};
#endif
    auto backend = SpawnBackend(options);
    if (!backend.ok()) return backend.status();
    backend_ = *std::move(backend);
    return frontend_->Connect(std::move(backend_.socket));
  }
  void Start(uint64_t features) {
    std::vector<VirtioQueueSetup> queues;
    for (uint16_t i = 0; i < 2 * pairs_ + 1; ++i) {
      queues.push_back({i, kQueueSize, drivers_[i].descriptors(), drivers_[i].available(), drivers_[i].used()});
    }
    ASSERT_TRUE(frontend_->Start((virtio::kFeatureVersion1 | features) & frontend_->features(), queues));
    for (uint32_t i = 0; i < kQueueSize; ++i) GiveBuffer(i);
    frontend_->Kick(0);
  }
  Gpa Buffer(uint32_t slot) const { return drivers_[0].data() + 0x800 * uint64_t{slot}; }
  void GiveBuffer(uint32_t slot) { buffers_[drivers_[0].Offer({{Buffer(slot), 0x800, true}})] = slot; }
  uint16_t Send(uint32_t slot, const std::string& frame) {
    const Gpa at = drivers_[1].data() + 0x800 * uint64_t{slot % kQueueSize};
    guest_->Word<vn::Header>(at) = {};
    guest_->Put(at + sizeof(vn::Header), frame);
    const uint16_t head = drivers_[1].Offer({{at, static_cast<uint32_t>(sizeof(vn::Header) + frame.size())}});
    frontend_->Kick(1);
    return head;
  }
  std::string ReadPipe() {
    std::string text(400, 0);
    pollfd poll_fd{backend_.messages.get(), POLLIN, 0};
    ::poll(&poll_fd, 1, 10'000);
    const ssize_t got = ::read(backend_.messages.get(), text.data(), text.size());
    return text.substr(0, got > 0 ? static_cast<size_t>(got) : 0);
  }
  // The next frame of `type` that the guest receives, as long as it takes; others are dropped.
  std::string AwaitFrame(uint16_t type) {
    while (true) {
      if (const auto used = drivers_[0].Take()) {
        const uint32_t slot = buffers_[used->id];
        const std::string frame = guest_->Get(Buffer(slot) + sizeof(vn::Header), used->bytes - sizeof(vn::Header));
        GiveBuffer(slot);
        frontend_->Kick(0);
        const uint16_t wire_type = htons(type);
        if (std::memcmp(frame.data() + 12, &wire_type, sizeof(wire_type)) == 0) return frame;
        continue;
      }
      AwaitCall(0);
    }
  }
  void AwaitCall(uint16_t queue) {
    pollfd poll_fd{frontend_->call_fd(queue), POLLIN, 0};
    ::poll(&poll_fd, 1, 5);
    uint64_t count;
    (void)!::read(poll_fd.fd, &count, sizeof(count));
  }
  virtio::UsedElement AwaitSent() {
    while (true) {
      if (const auto used = drivers_[1].Take()) return *used;
      AwaitCall(1);
    }
  }
  // What the host's side of the link has; empty: nothing comes within the time.
  std::string HostReceives(int timeout_ms) {
    pollfd poll_fd{host_.get(), POLLIN, 0};
    if (::poll(&poll_fd, 1, timeout_ms) <= 0) return "";
    std::string frame(2000, 0);
    const ssize_t got = ::recv(host_.get(), frame.data(), frame.size(), 0);
    return frame.substr(0, got > 0 ? static_cast<size_t>(got) : 0);
  }

  OwnedFd executable_, host_, stream_;
  std::vector<OwnedFd> tap_;
  std::unique_ptr<GuestRam> ram_;
  std::unique_ptr<GuestMemory> memory_;
  std::optional<FakeGuestRam> guest_;
  std::vector<FakeGuestDriver> drivers_;
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<VhostUserFrontend> frontend_;
  SpawnedBackend backend_;
  uint16_t pairs_ = 1;
  uint32_t buffers_[kQueueSize] = {};
};

TEST_F(NetProcessTest, FramesPassBothWaysOverATapInterface) {
  OpenTapInterface();
  if (IsSkipped() || HasFatalFailure()) return;
  MakeFrontend(kPairs);
  ASSERT_OK(Spawn(/*stream=*/false));
  vn::Config config{};
  frontend_->ReadConfig(0, std::as_writable_bytes(std::span(&config, 1)));
  EXPECT_EQ(std::memcmp(config.mac, kGuestMac.data(), 6), 0);
  EXPECT_EQ(config.mtu, 1400);
  EXPECT_EQ(config.max_virtqueue_pairs, kPairs);
  constexpr uint64_t kOffloads = vn::kFeatureCsum | vn::kFeatureGuestCsum | vn::kFeatureHostTso4 | vn::kFeatureGuestTso4 | vn::kFeatureMq;
  EXPECT_EQ(frontend_->features() & kOffloads, kOffloads);
  Start(kOffloads | vn::kFeatureMrgRxbuf | vn::kFeatureCtrlVq);
  const std::string up = Frame(kHostMac, kGuestMac, kEtherType, std::string(300, 'u'));
  Send(0, up);
  EXPECT_EQ(HostReceives(30'000), up);
  AwaitSent();
  for (int i = 0; i < 100; ++i) {
    const std::string down = Frame(kGuestMac, kHostMac, kEtherType, absl::StrCat("frame ", i, std::string(static_cast<size_t>(i) * 10, '.')));
    ASSERT_EQ(::send(host_.get(), down.data(), down.size(), 0), static_cast<ssize_t>(down.size()));
    ASSERT_EQ(AwaitFrame(kEtherType), down);
  }
  Send(1, "too short");
  AwaitSent();
  frontend_->Close();
  ASSERT_OK_AND_ASSIGN(const ExitStatus status, backend_.process.Wait(10'000));
  EXPECT_EQ(status.Describe(), "exited with code 0");
  EXPECT_EQ(ReadPipe(), "packets dropped so far: 1 that made no sense, 0 that the host refused, 0 without enough room in the guest\n");
}

TEST_F(NetProcessTest, KilledUnderLoadItGoesOnAndRepeatsNoCompletion) {
  OpenTapInterface();
  if (IsSkipped() || HasFatalFailure()) return;
  MakeFrontend(1);
  tap_.resize(1);
  ASSERT_OK(Spawn(/*stream=*/false));
  Start(vn::kFeatureMrgRxbuf);
  std::vector<uint16_t> in_flight;
  uint32_t next = 0;
  uint32_t received = 0;
  // VMM_KILLS=1000: the long run.
  const char* const asked = ::getenv("VMM_KILLS");
  const int most = asked == nullptr ? 40 : ::atoi(asked);
  constexpr int kPackets = 50;  // a process sends
  for (int kills = 0; kills < most; ++kills) {
    for (int i = 0; i < kPackets; ++i) {
      while (in_flight.size() < kQueueSize - 1) {
        in_flight.push_back(Send(next, Frame(kHostMac, kGuestMac, kEtherType, absl::StrCat("up ", next, std::string(100, '.')))));
        ++next;
      }
      const std::string down = Frame(kGuestMac, kHostMac, kEtherType, absl::StrCat("down ", next));
      (void)!::send(host_.get(), down.data(), down.size(), 0);
      if (i == kills % kPackets) {
        ::kill(backend_.process.pid(), SIGKILL);
        backend_.process = ChildProcess();
        ASSERT_OK(Spawn(/*stream=*/false));
      }
      // In order, each once: frames may be lost or doubled on the wire, completions may not.
      const virtio::UsedElement used = AwaitSent();
      ASSERT_EQ(used.id, in_flight.front());
      in_flight.erase(in_flight.begin());
      while (const auto taken = drivers_[0].Take()) {
        ++received;
        GiveBuffer(buffers_[taken->id]);
        frontend_->Kick(0);
      }
      while (!HostReceives(0).empty()) {
      }
    }
  }
  EXPECT_GT(received, 0u);
  // And afterwards nothing is lost any more.
  while (!in_flight.empty()) {
    ASSERT_EQ(AwaitSent().id, in_flight.front());
    in_flight.erase(in_flight.begin());
  }
  const std::string last = Frame(kGuestMac, kHostMac, kEtherType, "the last one");
  ASSERT_EQ(::send(host_.get(), last.data(), last.size(), 0), static_cast<ssize_t>(last.size()));
  while (AwaitFrame(kEtherType) != last) {
  }
}

TEST_F(NetProcessTest, WhoseInterfaceIsRemovedEndsAndSaysSo) {
  OpenTapInterface();
  if (IsSkipped() || HasFatalFailure()) return;
  MakeFrontend(kPairs);
  ASSERT_OK(Spawn(/*stream=*/false));
  Start(vn::kFeatureMrgRxbuf);
  AwaitCall(0);
  if (::system("ip link delete vmmtest0 2>/dev/null") != 0) GTEST_SKIP() << "no ip(8) here";
  EXPECT_EQ(ReadPipe(), "its TAP interface has been removed\n");
  ASSERT_OK_AND_ASSIGN(const ExitStatus status, backend_.process.Wait(10'000));
  EXPECT_EQ(status.value, 1);
}

TEST_F(NetProcessTest, FramesPassBothWaysOverAStream) {
  int pair[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
  stream_.Reset(pair[0]);
  OwnedFd other(pair[1]);
  MakeFrontend(1);
  ASSERT_OK(Spawn(/*stream=*/true));
  stream_.Reset();
  // Nobody here computes checksums.
  EXPECT_EQ(frontend_->features() & (vn::kFeatureCsum | vn::kFeatureGuestCsum | vn::kFeatureMq), 0u);
  Start(vn::kFeatureMrgRxbuf);
  const std::string up = Frame(kHostMac, kGuestMac, kEtherType, "over a stream");
  Send(0, up);
  std::string got(4 + up.size(), 0);
  ASSERT_EQ(::recv(other.get(), got.data(), got.size(), MSG_WAITALL), static_cast<ssize_t>(got.size()));
  EXPECT_EQ(got, std::string("\0\0\0", 3) + static_cast<char>(up.size()) + up);
  ASSERT_EQ(::send(other.get(), got.data(), got.size(), 0), static_cast<ssize_t>(got.size()));
  EXPECT_EQ(AwaitFrame(kEtherType), up);
  other.Reset();
  EXPECT_EQ(ReadPipe(), "the other end of its stream has gone\n");
  ASSERT_OK_AND_ASSIGN(const ExitStatus status, backend_.process.Wait(10'000));
  EXPECT_EQ(status.value, 1);
}

TEST_F(NetProcessTest, PasstAnswersForTheGatewayAndEndsWithTheDevice) {
  OpenTapInterface();  // only to have a network that passt can look at
  if (IsSkipped() || HasFatalFailure()) return;
  auto passt = OpenPasst(std::string(kPasstProgram));
  if (!passt.ok()) GTEST_SKIP() << passt.status();
  const std::vector<OwnedFd> kept = std::exchange(tap_, {});
  MakeFrontend(1);
  ASSERT_OK(Spawn(/*stream=*/true, PasstCompanion({}, *passt)));
  Start(vn::kFeatureMrgRxbuf);
  // Who has 192.0.2.1? Tell 192.0.2.2.
  std::string question("\0\1\x8\0\6\4\0\1", 8);
  question.append(kGuestMac.begin(), kGuestMac.end());
  question += "\xc0" + std::string("\0\2\2", 3) + std::string(6, 0) + "\xc0" + std::string("\0\2\1", 3);
  Send(0, Frame({0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, kGuestMac, ETHERTYPE_ARP, question));
  // Its own words, if it cannot: better than a time-out.
  pollfd poll_fd{backend_.companion.pidfd(), POLLIN, 0};
  if (::poll(&poll_fd, 1, 300) > 0) {
    ASSERT_OK_AND_ASSIGN(const ExitStatus status, backend_.companion.Wait(0));
    FAIL() << "passt " << status.Describe();
  }
  const std::string answer = AwaitFrame(ETHERTYPE_ARP);
  EXPECT_EQ(answer.substr(14 + 7, 1), "\2");
  EXPECT_EQ(answer.substr(14 + 14, 4), "\xc0" + std::string("\0\2\1", 3));
  frontend_->Close();
  ASSERT_OK_AND_ASSIGN(const ExitStatus device, backend_.process.Wait(10'000));
  EXPECT_EQ(device.Describe(), "exited with code 0");
  ASSERT_OK_AND_ASSIGN(const ExitStatus status, backend_.companion.Wait(10'000));
  EXPECT_EQ(status.how, ExitStatus::How::kExited);
}

}  // namespace
}  // namespace vmm
