// The vsock device's process: connections of the host by a listening socket, connections to the host by the connector, a timer.
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "base/errno_status.h"
#include "base/event_loop.h"
#include "base/owned_fd.h"
#include "base/status_macros.h"
#include "devices/virtio/backend/backend_process.h"
#include "devices/virtio/backend/backend_spawn.h"
#include "devices/virtio/backend/standalone_backend.h"
#include "devices/virtio/vsock/vsock_connector.h"
#include "devices/virtio/vsock/vsock_device.h"
#include "devices/virtio/vsock/vsock_options.h"
#include "devices/virtio/vsock/vsock_policy.h"
#include "sandbox/jail_options.h"

namespace vmm {
namespace {

constexpr int kListenFd = kBackendFirstFd;
constexpr int kConnectorFd = kBackendFirstFd + 1;
// An eventfd that outlives this process: signalled, another has been this device before.
constexpr int kBeforeFd = kBackendFirstFd + 2;

class LoopHost : public VsockHost {
 public:
  LoopHost(EventLoop& loop, int timer) : loop_(loop), timer_(timer) {}
  void Serve(VsockDevice& device) { device_ = &device; }

  // Its ids start where those of a process before this one did not: whose answers may still be on their way.
  absl::Status Begin() {
    RETURN_IF_ERROR(loop_.Watch(timer_, EPOLLIN, [this](uint32_t) {
      uint64_t count;
      (void)!::read(timer_, &count, sizeof(count));
      if (accepts_) (void)loop_.Rearm(kListenFd, EPOLLIN);
      device_->OnTick();
    }));
    RETURN_IF_ERROR(loop_.Watch(kConnectorFd, EPOLLIN, [this](uint32_t) { OnAnswer(); }));
    return loop_.Watch(kListenFd, EPOLLIN, [this](uint32_t) { OnAcceptable(); });
  }

  void Watch(int fd, uint32_t events) noexcept override {
    if (events == kUnwatched) {
      if (watched_.erase(fd) != 0) loop_.Unwatch(fd);
    } else if (watched_.count(fd) != 0) {
      (void)loop_.Rearm(fd, events);
    } else if (loop_.Watch(fd, events, [this, fd](uint32_t came) { device_->OnSocket(fd, came); }).ok()) {
      watched_.insert(fd);
    }
  }
  bool Connect(uint64_t id, uint32_t port) noexcept override {
    ConnectRequest request{id ^ nonce_, port, 0};
    iovec vector{&request, sizeof(request)};
    msghdr message{};
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    return ::sendmsg(kConnectorFd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) == static_cast<ssize_t>(sizeof(request));
  }
  void WantAccept(bool wanted) noexcept override {
    accepts_ = wanted;
    (void)loop_.Rearm(kListenFd, wanted ? uint32_t{EPOLLIN} : 0);
  }
  void WantTicks(bool wanted) noexcept override {
    if (wanted == ticking_) return;
    ticking_ = wanted;
    itimerspec time{};
    if (wanted) time.it_value = time.it_interval = {.tv_sec = 1, .tv_nsec = 0};
    ::timerfd_settime(timer_, 0, &time, nullptr);
  }
  uint64_t NowMs() noexcept override {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1000 + static_cast<uint64_t>(now.tv_nsec) / 1'000'000;
  }
  void set_nonce(uint64_t nonce) { nonce_ = nonce; }

 private:
  void OnAcceptable() {
    OwnedFd socket(::accept4(kListenFd, nullptr, nullptr, SOCK_CLOEXEC));
    if (socket.valid()) return device_->OnAccepted(std::move(socket));
    if (errno != EMFILE && errno != ENFILE) return;
    // No descriptor to be had on this host: they wait for a second.
    (void)loop_.Rearm(kListenFd, 0);
    WantTicks(true);
  }
  void OnAnswer() {
    ConnectAnswer answer;
    iovec vector{&answer, sizeof(answer)};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    const ssize_t got = ::recvmsg(kConnectorFd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
      SayFromBackend("the connector is gone: no more connections to the host");
      return loop_.Unwatch(kConnectorFd);
    }
    OwnedFd socket;
    if (const cmsghdr* const header = CMSG_FIRSTHDR(&message);
        got > 0 && header != nullptr && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(header), sizeof(fd));
      socket.Reset(fd);
    }
    if (got == static_cast<ssize_t>(sizeof(answer))) device_->OnConnected(answer.id ^ nonce_, std::move(socket));
  }

  EventLoop& loop_;
  const int timer_;
  VsockDevice* device_ = nullptr;
  std::set<int> watched_;
  bool ticking_ = false;
  bool accepts_ = true;
  uint64_t nonce_ = 0;
};

// The device, and what it stands on, which is made first and goes last.
class JailedVsock final : private LoopHost, public VsockDevice {
 public:
  JailedVsock(EventLoop& loop, int timer, uint64_t guest_cid, bool again)
      : LoopHost(loop, timer), VsockDevice(static_cast<LoopHost&>(*this), guest_cid, again) {
    Serve(*this);
    set_nonce(NowMs() << 32);
  }
  absl::Status Begin() { return LoopHost::Begin(); }
};

struct Arguments {
  uint32_t guest_cid = 3;
  std::string path;
  std::string connector;
};

absl::StatusOr<Arguments> TakeVsockArguments(std::vector<absl::string_view>& arguments) {
  Arguments taken;
  std::vector<absl::string_view> others;
  for (size_t i = 0; i < arguments.size(); ++i) {
    absl::string_view value = arguments[i];
    bool good = true;
    if (absl::ConsumePrefix(&value, "--guest-cid=")) {
      good = absl::SimpleAtoi(value, &taken.guest_cid) && IsGuestCid(taken.guest_cid);
    } else if (absl::ConsumePrefix(&value, "--path=")) {
      good = !value.empty() && value.size() <= kMaxVsockPathBytes;
      taken.path = std::string(value);
    } else if (arguments[i] == "--connector") {
      good = ++i < arguments.size();
      if (good) taken.connector = std::string(arguments[i]);
    } else {
      others.push_back(arguments[i]);
    }
    if (!good) return absl::InvalidArgumentError(absl::StrCat("argument '", arguments[std::min(i, arguments.size() - 1)], "' is not what it takes"));
  }
  arguments = std::move(others);
  return taken;
}

absl::StatusOr<std::unique_ptr<BackendDevice>> MakeDevice(EventLoop& loop, const Arguments& arguments) {
  // For the process's whole life.
  const int timer = ::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
  if (timer < 0) return ErrnoStatus(errno, "create timer");
  uint64_t before = 0;
  const bool again = ::read(kBeforeFd, &before, sizeof(before)) == static_cast<ssize_t>(sizeof(before));
  before = 1;
  if (::write(kBeforeFd, &before, sizeof(before)) != static_cast<ssize_t>(sizeof(before))) return ErrnoStatus(errno, "signal eventfd");
  auto device = std::make_unique<JailedVsock>(loop, timer, arguments.guest_cid, again);
  RETURN_IF_ERROR(device->Begin());
  return device;
}

absl::Status Outside(std::vector<absl::string_view> arguments) {
  ASSIGN_OR_RETURN(const Arguments taken, TakeVsockArguments(arguments));
  ASSIGN_OR_RETURN(const BackendListen listen, TakeListenArguments(arguments));
  if (!arguments.empty()) return absl::InvalidArgumentError(absl::StrCat("unknown argument '", arguments[0], "'"));
  if (taken.path.empty()) return absl::InvalidArgumentError("needs --path=PATH: the Unix socket by which the host reaches the guest");
  ASSIGN_OR_RETURN(const OwnedFd host, ListenForVsock(taken.path));
  BackendSpawnOptions options;
  ASSIGN_OR_RETURN(const VsockConnector connector, StartVsockConnector(taken.path, options.jail, -1));
  options.kind = "vsock";
  options.arguments = VsockDeviceArguments(taken.guest_cid);
  options.fds = {host.get(), connector.device_end.get(), connector.before.get()};
  options.queues = virtio_vsock::kQueues;
  options.connections = VsockDevice::kMaxConnections;
  return RunStandaloneBackend(listen, options);
}

}  // namespace

int RunVsockDevice(int argc, char** argv) {
  std::vector<absl::string_view> arguments(argv + 3, argv + argc);
  std::vector<absl::string_view> jail_arguments;
  const bool jailed = SplitJailArguments(arguments, jail_arguments);
  std::vector<absl::string_view> rest = arguments;
  const absl::StatusOr<Arguments> taken = TakeVsockArguments(rest);
  if (taken.ok() && !taken->connector.empty() && !jailed) {
    JailOptions jail;
    for (const absl::string_view argument : jail_arguments) (void)ParseJailOptionArgument(argument, jail);
    return RunVsockConnector(taken->connector, jail);
  }
  if (!jailed) {
    const absl::Status status = Outside(arguments);
    if (status.ok()) return 0;
    SayFromBackend(absl::StrCat("vmm device vsock: ", status.message()));
    return absl::IsInvalidArgument(status) ? 2 : 1;
  }
  if (!taken.ok()) {
    SayFromBackend(taken.status().message());
    return 1;
  }
  jail_arguments.insert(jail_arguments.end(), rest.begin(), rest.end());
  const BackendKind kind{"vsock", "vmm-vsock", kVsockPolicy, 3, [&](EventLoop& loop) { return MakeDevice(loop, *taken); }};
  return RunBackendProcess(kind, jail_arguments);
}

}  // namespace vmm
