// The network device's process, inside and outside of its jail.
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/errno_status.h"
#include "base/event_loop.h"
#include "base/log.h"
#include "base/owned_fd.h"
#include "base/status_macros.h"
#include "devices/virtio/backend/backend_process.h"
#include "devices/virtio/backend/backend_spawn.h"
#include "devices/virtio/backend/standalone_backend.h"
#include "devices/virtio/net/mac_address.h"
#include "devices/virtio/net/net_arguments.h"
#include "devices/virtio/net/net_device.h"
#include "devices/virtio/net/net_policy.h"
#include "devices/virtio/net/passt.h"
#include "devices/virtio/net/stream_wire.h"
#include "devices/virtio/net/tap_wire.h"

namespace vmm {
namespace {

uint64_t MonotonicNs() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

// Without a wire it is of no use: whoever started it decides what then.
void EndWithoutWire(const char* why) {
  SayFromBackend(why);
  ::_exit(1);
}

// The wire, and the device that it outlives.
template <typename Wire>
class WireAndDevice final : public BackendDevice {
 public:
  WireAndDevice(std::unique_ptr<Wire> wire, const NetOptions& options, NetDevice::Sleeper sleeper)
      : wire_(std::move(wire)), device_(*wire_, options, &MonotonicNs, std::move(sleeper)) {
    wire_->Serve(device_);
  }
  NetDevice& device() { return device_; }
  uint64_t features() const noexcept override { return device_.features(); }
  uint16_t queue_count() const noexcept override { return device_.queue_count(); }
  std::span<const std::byte> config() const noexcept override { return device_.config(); }
  void OnHost(BackendHost& host) override { device_.OnHost(host); }
  void OnFeatures(uint64_t features) noexcept override { device_.OnFeatures(features); }
  bool Process(uint16_t index, BackendQueue& queue) noexcept override { return device_.Process(index, queue); }
  void OnQueueStopped(uint16_t index) noexcept override {
    device_.OnQueueStopped(index);
    if (index == 0) TellDropped();
  }

 private:
  // What was dropped since it was last told, where anything was. A guest decides how often its queues stop: bounded.
  void TellDropped() {
    const NetDevice::Stats& now = device_.stats();
    const uint64_t dropped = now.bad_headers + now.refused + now.too_large;
    if (dropped == told_ || !drops_.Admit(static_cast<int64_t>(MonotonicNs() / 1'000'000)).write) return;
    told_ = dropped;
    SayFromBackend(absl::StrCat("packets dropped so far: ", now.bad_headers, " that made no sense, ", now.refused, " that the host refused, ",
                                now.too_large, " without enough room in the guest"));
  }

  std::unique_ptr<Wire> wire_;
  NetDevice device_;
  GuestLog drops_{"net"};
  uint64_t told_ = 0;
};

template <typename Wire>
absl::StatusOr<std::unique_ptr<BackendDevice>> MakeDevice(EventLoop& loop, std::unique_ptr<Wire> wire, const NetOptions& options) {
  // Of the limits; for the process's whole life.
  const int timer = ::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
  if (timer < 0) return ErrnoStatus(errno, "create timer");
  auto both = std::make_unique<WireAndDevice<Wire>>(std::move(wire), options, [timer](uint64_t ns) {
    itimerspec time{};
    time.it_value = {.tv_sec = static_cast<time_t>(ns / 1'000'000'000), .tv_nsec = static_cast<long>(ns % 1'000'000'000)};
    ::timerfd_settime(timer, 0, &time, nullptr);
  });
  RETURN_IF_ERROR(loop.Watch(timer, EPOLLIN, [timer, raw = &both->device()](uint32_t) {
    uint64_t count;
    (void)!::read(timer, &count, sizeof(count));
    raw->Resume();
  }));
  return both;
}

absl::StatusOr<std::unique_ptr<BackendDevice>> MakeInside(EventLoop& loop, const NetArguments& arguments) {
  if (arguments.stream) {
    ASSIGN_OR_RETURN(auto wire, StreamWire::Create(loop, kBackendFirstFd, &EndWithoutWire));
    return MakeDevice(loop, std::move(wire), arguments.options);
  }
  std::vector<int> fds;
  for (int i = 0; i < arguments.options.pairs; ++i) fds.push_back(kBackendFirstFd + i);
  ASSIGN_OR_RETURN(auto wire, TapWire::Create(loop, std::move(fds), [] { EndWithoutWire("its TAP interface has been removed"); }));
  return MakeDevice(loop, std::move(wire), arguments.options);
}

absl::Status Outside(std::vector<absl::string_view> arguments) {
  ASSIGN_OR_RETURN(NetArguments net, TakeNetArguments(arguments, /*jailed=*/false));
  ASSIGN_OR_RETURN(const BackendListen listen, TakeListenArguments(arguments));
  if (!arguments.empty()) return absl::InvalidArgumentError(absl::StrCat("unknown argument '", arguments[0], "'"));
  if (!net.has_mac) {
    ASSIGN_OR_RETURN(net.options.mac, RandomMacAddress());
  }
  BackendSpawnOptions spawn;
  spawn.kind = "net";
  spawn.queues = static_cast<uint16_t>(2 * net.options.pairs + 1);
  const bool stream = net.user || net.stream_fd >= 0;
  spawn.arguments = NetDeviceArguments(net.options, stream);
  std::vector<OwnedFd> opened;
  OwnedFd passt;
  if (net.user) {
    ASSIGN_OR_RETURN(passt, OpenPasst(net.passt_program));
    spawn.companion = PasstCompanion(net.passt, passt);
  } else if (stream) {
    spawn.fds = {net.stream_fd};
  } else if (!net.tap.empty()) {
    ASSIGN_OR_RETURN(opened, OpenTap(net.tap, net.options.pairs));
    for (const OwnedFd& fd : opened) spawn.fds.push_back(fd.get());
  } else {
    RETURN_IF_ERROR(CheckTap(net.tap_fds));
    spawn.fds = net.tap_fds;
  }
  return RunStandaloneBackend(listen, spawn);
}

}  // namespace

int RunNetDevice(int argc, char** argv) {
  std::vector<absl::string_view> arguments(argv + 3, argv + argc);
  std::vector<absl::string_view> jail_arguments;
  if (!SplitJailArguments(arguments, jail_arguments)) {
    const absl::Status status = Outside(arguments);
    if (status.ok()) return 0;
    SayFromBackend(absl::StrCat("vmm device net: ", status.message()));
    return absl::IsInvalidArgument(status) ? 2 : 1;
  }
  const absl::StatusOr<NetArguments> net = TakeNetArguments(arguments, /*jailed=*/true);
  if (!net.ok()) {
    SayFromBackend(net.status().message());
    return 1;
  }
  jail_arguments.insert(jail_arguments.end(), arguments.begin(), arguments.end());
  const BackendKind kind{"net", "vmm-net", kNetPolicy, net->stream ? 1 : net->options.pairs,
                         [&](EventLoop& loop) { return MakeInside(loop, *net); }};
  return RunBackendProcess(kind, jail_arguments);
}

}  // namespace vmm
