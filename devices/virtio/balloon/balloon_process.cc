// The balloon's process: a timer, the monitor's commands, and the host's memory.
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "base/errno_status.h"
#include "base/event_loop.h"
#include "base/status_macros.h"
#include "devices/virtio/backend/backend_process.h"
#include "devices/virtio/backend/backend_spawn.h"
#include "devices/virtio/backend/standalone_backend.h"
#include "devices/virtio/balloon/balloon_device.h"
#include "devices/virtio/balloon/balloon_policy.h"

namespace vmm {
namespace {

constexpr int kCommandFd = kBackendFirstFd;
constexpr uint64_t kPagesPerMib = (1 << 20) / virtio_balloon::kPageBytes;

class LoopHost : public BalloonHost {
 public:
  LoopHost(int timer, bool commanded) : timer_(timer), commanded_(commanded) {}
  bool Discard(std::byte* start, uint64_t bytes) noexcept override { return ::madvise(start, bytes, MADV_REMOVE) == 0; }
  bool Send(const virtio_balloon::Report& report) noexcept override {
    if (!commanded_) return true;
    iovec vector{const_cast<virtio_balloon::Report*>(&report), sizeof(report)};
    msghdr message{};
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    return ::sendmsg(kCommandFd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) == static_cast<ssize_t>(sizeof(report));
  }
  uint64_t NowMs() noexcept override {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1000 + static_cast<uint64_t>(now.tv_nsec) / 1'000'000;
  }
  void WakeAt(uint64_t ms) noexcept override {
    itimerspec time{};
    time.it_value = {.tv_sec = static_cast<time_t>(ms / 1000), .tv_nsec = static_cast<long>(ms % 1000 * 1'000'000 + 1)};
    ::timerfd_settime(timer_, TFD_TIMER_ABSTIME, &time, nullptr);
  }

 private:
  const int timer_;
  const bool commanded_;
};

// The device, and what it stands on, which is made first and goes last.
class JailedBalloon final : private LoopHost, public BalloonDevice {
 public:
  JailedBalloon(int timer, bool commanded, const BalloonOptions& options)
      : LoopHost(timer, commanded), BalloonDevice(static_cast<LoopHost&>(*this), options) {}
};

void OnCommands(EventLoop& loop, BalloonDevice& device) {
  virtio_balloon::Command command;
  iovec vector{&command, sizeof(command)};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  const ssize_t got = ::recvmsg(kCommandFd, &message, MSG_DONTWAIT | MSG_TRUNC);
  if (got == static_cast<ssize_t>(sizeof(command))) return device.OnCommand(command);
  // The monitor's end is gone, and with it whoever would change the target.
  if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) loop.Unwatch(kCommandFd);
}

struct Arguments {
  BalloonOptions balloon;
  bool commanded = false;
};

// Takes the balloon's own arguments out of `arguments`.
absl::StatusOr<Arguments> TakeBalloonArguments(std::vector<absl::string_view>& arguments) {
  Arguments taken;
  std::vector<absl::string_view> others;
  for (const absl::string_view argument : arguments) {
    absl::string_view value = argument;
    bool good = true;
    if (argument == "--no-deflate-on-oom") {
      taken.balloon.deflate_on_oom = false;
    } else if (argument == "--no-reporting") {
      taken.balloon.reporting = false;
    } else if (argument == "--commanded") {
      taken.commanded = true;
    } else if (absl::ConsumePrefix(&value, "--target-mib=")) {
      uint32_t mib = 0;
      good = absl::SimpleAtoi(value, &mib) && mib <= (1 << 20);
      taken.balloon.target_pages = static_cast<uint32_t>(mib * kPagesPerMib);
    } else if (absl::ConsumePrefix(&value, "--target-pages=")) {
      good = absl::SimpleAtoi(value, &taken.balloon.target_pages);
    } else if (absl::ConsumePrefix(&value, "--stats-seconds=")) {
      good = absl::SimpleAtoi(value, &taken.balloon.stats_seconds);
    } else {
      others.push_back(argument);
    }
    if (!good) return absl::InvalidArgumentError(absl::StrCat("argument '", argument, "' is not what it takes"));
  }
  arguments = std::move(others);
  return taken;
}

absl::StatusOr<std::unique_ptr<BackendDevice>> MakeDevice(EventLoop& loop, const Arguments& arguments) {
  // For the process's whole life.
  const int timer = ::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
  if (timer < 0) return ErrnoStatus(errno, "create timer");
  auto device = std::make_unique<JailedBalloon>(timer, arguments.commanded, arguments.balloon);
  RETURN_IF_ERROR(loop.Watch(timer, EPOLLIN, [timer, raw = device.get()](uint32_t) {
    uint64_t count;
    (void)!::read(timer, &count, sizeof(count));
    raw->OnTimer();
  }));
  if (arguments.commanded) {
    RETURN_IF_ERROR(loop.Watch(kCommandFd, EPOLLIN, [&loop, raw = device.get()](uint32_t) { OnCommands(loop, *raw); }));
  }
  return device;
}

absl::Status Outside(std::vector<absl::string_view> arguments) {
  ASSIGN_OR_RETURN(const Arguments taken, TakeBalloonArguments(arguments));
  ASSIGN_OR_RETURN(const BackendListen listen, TakeListenArguments(arguments));
  if (taken.commanded) arguments.insert(arguments.begin(), "--commanded");  // the monitor's alone
  if (!arguments.empty()) return absl::InvalidArgumentError(absl::StrCat("unknown argument '", arguments[0], "'"));
  BackendSpawnOptions options;
  options.kind = "balloon";
  options.queues = virtio_balloon::kQueues;
  options.arguments = BalloonDeviceArguments(taken.balloon);
  return RunStandaloneBackend(listen, options);
}

}  // namespace

int RunBalloonDevice(int argc, char** argv) {
  std::vector<absl::string_view> arguments(argv + 3, argv + argc);
  std::vector<absl::string_view> jail_arguments;
  if (!SplitJailArguments(arguments, jail_arguments)) {
    const absl::Status status = Outside(arguments);
    if (status.ok()) return 0;
    SayFromBackend(absl::StrCat("vmm device balloon: ", status.message()));
    return absl::IsInvalidArgument(status) ? 2 : 1;
  }
  const absl::StatusOr<Arguments> taken = TakeBalloonArguments(arguments);
  if (!taken.ok()) {
    SayFromBackend(taken.status().message());
    return 1;
  }
  jail_arguments.insert(jail_arguments.end(), arguments.begin(), arguments.end());
  const BackendKind kind{"balloon", "vmm-balloon", kBalloonPolicy, taken->commanded ? 1 : 0,
                         [&](EventLoop& loop) { return MakeDevice(loop, *taken); }};
  return RunBackendProcess(kind, jail_arguments);
}

}  // namespace vmm
