// The console device's process: a stream of the host by descriptors, watched as long as somebody wants it.
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/errno_status.h"
#include "base/event_loop.h"
#include "base/status_macros.h"
#include "devices/platform/serial_escape.h"
#include "devices/virtio/backend/backend_process.h"
#include "devices/virtio/console/console_device.h"
#include "devices/virtio/console/console_policy.h"

namespace vmm {
namespace {

constexpr int kOutputFd = kBackendFirstFd;
constexpr int kInputFd = kBackendFirstFd + 1;
constexpr int kQuitFd = kBackendFirstFd + 2;
constexpr size_t kChunk = 4096;
// A terminal that says "writable" promises little.
constexpr size_t kTerminalChunk = 256;
// A pseudo-terminal's owner is told of no new size by a signal: looked at so often.
constexpr int kSizePeriodMs = 500;

bool ReadyNow(int fd, short events) {
  pollfd poll_fd{fd, events, 0};
  return ::poll(&poll_fd, 1, 0) > 0;
}

struct Arguments {
  bool has_input = true;
  // The person's terminal, or what stands for it: shared with the monitor's process group, whose signals tell of its size; one more
  // descriptor is an eventfd, by which the person's key ends the machine.
  bool shared_terminal = false;
  bool interactive = false;  // that key is looked for
};

class FdStream final : public ConsoleStream {
 public:
  // `retry`: a timer that calls Resume.
  FdStream(EventLoop& loop, const Arguments& arguments, bool terminal, int retry)
      : loop_(loop),
        interactive_(arguments.interactive),
        chunk_(terminal && arguments.shared_terminal ? kTerminalChunk : kChunk),
        retry_(retry),
        input_open_(arguments.has_input) {
    // epoll refuses what is always ready: files.
    output_polls_ = loop.Watch(kOutputFd, 0, [](uint32_t) {}).ok();
    if (output_polls_) loop.Unwatch(kOutputFd);
  }
  void Serve(ConsoleDevice& device) { device_ = &device; }

  ssize_t Write(std::span<const std::byte> data) noexcept override {
    if (output_polls_ && !ReadyNow(kOutputFd, POLLOUT)) return 0;
    const ssize_t done = ::write(kOutputFd, data.data(), std::min(data.size(), chunk_));
    if (done > 0) return done;
    return done < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
  }
  ssize_t Read(std::span<std::byte> out) noexcept override {
    if (held_count_ == 0 && !interactive_) return ReadInput(out.first(std::min(out.size(), kChunk)));
    while (held_count_ == 0) {
      std::array<uint8_t, 256> typed;
      const ssize_t got = ReadInput(std::as_writable_bytes(std::span(typed)));
      if (got <= 0) return got;
      const SerialEscape::Result result = escape_.Filter(std::span(typed).first(static_cast<size_t>(got)), held_);
      held_count_ = result.bytes;
      if (result.quit) {
        const uint64_t one = 1;
        (void)!::write(kQuitFd, &one, sizeof(one));
      }
    }
    const size_t bytes = std::min(held_count_, out.size());
    std::memcpy(out.data(), held_.data(), bytes);
    std::memmove(held_.data(), held_.data() + bytes, held_count_ - bytes);
    held_count_ -= bytes;
    return static_cast<ssize_t>(bytes);
  }
  void WantOutput(bool wanted) noexcept override {
    Want(wanted && output_polls_, output_watched_, kOutputFd, EPOLLOUT, [this] { device_->OnOutput(); });
  }
  void WantInput(bool wanted) noexcept override {
    wants_input_ = wanted;
    Want(wanted && input_open_ && !paused_, input_watched_, kInputFd, EPOLLIN, [this] { device_->OnInput(); });
  }
  // The timer: a read that went wrong may go now.
  void Resume() {
    paused_ = false;
    if (wants_input_) device_->OnInput();
  }

 private:
  ssize_t ReadInput(std::span<std::byte> out) noexcept {
    if (!input_open_) return -1;
    if (paused_ || !ReadyNow(kInputFd, POLLIN)) return 0;
    const ssize_t done = ::read(kInputFd, out.data(), out.size());
    if (done > 0) return done;
    if (done < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    if (done < 0 && errno == EIO && retry_ >= 0) {
      // In the background (`vmm run &`): the terminal is another's for now, and readable all the time.
      paused_ = true;
      itimerspec time{};
      time.it_value.tv_nsec = kSizePeriodMs * 1'000'000L;
      ::timerfd_settime(retry_, 0, &time, nullptr);
      return 0;
    }
    input_open_ = false;
    return -1;
  }
  void Want(bool wanted, bool& watched, int fd, uint32_t events, std::function<void()> ready) {
    if (wanted == watched) return;
    if (wanted) {
      watched = loop_.Watch(fd, events, [ready = std::move(ready)](uint32_t) { ready(); }).ok();
    } else {
      loop_.Unwatch(fd);
      watched = false;
    }
  }

  EventLoop& loop_;
  const bool interactive_;
  const size_t chunk_;
  const int retry_;
  ConsoleDevice* device_ = nullptr;
  SerialEscape escape_;
  std::array<uint8_t, 257> held_;  // room for a Ctrl-A kept back
  size_t held_count_ = 0;
  bool wants_input_ = false;
  bool paused_ = false;
  bool input_open_;
  bool output_polls_ = true;
  bool output_watched_ = false;
  bool input_watched_ = false;
};

// The stream, and the device that it outlives.
class StreamAndDevice final : public BackendDevice {
 public:
  StreamAndDevice(EventLoop& loop, const Arguments& arguments, bool sized, int retry)
      : stream_(loop, arguments, sized, retry), device_(stream_, sized) {
    stream_.Serve(device_);
  }
  FdStream& stream() { return stream_; }
  ConsoleDevice& device() { return device_; }
  uint64_t features() const noexcept override { return device_.features(); }
  uint16_t queue_count() const noexcept override { return device_.queue_count(); }
  std::span<const std::byte> config() const noexcept override { return device_.config(); }
  bool WriteConfig(uint32_t offset, std::span<const std::byte> data) noexcept override { return device_.WriteConfig(offset, data); }
  void OnHost(BackendHost& host) override { device_.OnHost(host); }
  bool Process(uint16_t index, BackendQueue& queue) noexcept override { return device_.Process(index, queue); }
  void OnQueueStopped(uint16_t index) noexcept override { device_.OnQueueStopped(index); }

 private:
  FdStream stream_;
  ConsoleDevice device_;
};

void LookAtSize(ConsoleDevice& device) {
  winsize size{};
  if (::ioctl(kOutputFd, TIOCGWINSZ, &size) == 0) device.SetSize(size.ws_col, size.ws_row);
}

absl::StatusOr<int> MakeTimer() {
  const int timer = ::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
  if (timer < 0) return ErrnoStatus(errno, "create timer");
  return timer;
}

// SIGWINCH goes to the terminal's foreground group, to which a device that shares it belongs.
absl::Status WatchSizeBySignal(EventLoop& loop, ConsoleDevice& device) {
  sigset_t signals;
  ::sigemptyset(&signals);
  ::sigaddset(&signals, SIGWINCH);
  if (::sigprocmask(SIG_BLOCK, &signals, nullptr) != 0) return ErrnoStatus(errno, "block SIGWINCH");
  const int fd = ::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
  if (fd < 0) return ErrnoStatus(errno, "create signalfd");
  return loop.Watch(fd, EPOLLIN, [fd, &device](uint32_t) {
    signalfd_siginfo info;
    while (::read(fd, &info, sizeof(info)) == static_cast<ssize_t>(sizeof(info))) {
    }
    LookAtSize(device);
  });
}

// The owner of a pseudo-terminal gets no signal.
absl::Status WatchSizeByTime(EventLoop& loop, ConsoleDevice& device) {
  ASSIGN_OR_RETURN(const int timer, MakeTimer());
  itimerspec time{};
  time.it_value = time.it_interval = {.tv_sec = 0, .tv_nsec = kSizePeriodMs * 1'000'000L};
  if (::timerfd_settime(timer, 0, &time, nullptr) != 0) return ErrnoStatus(errno, "set timer");
  return loop.Watch(timer, EPOLLIN, [timer, &device](uint32_t) {
    uint64_t count;
    (void)!::read(timer, &count, sizeof(count));
    LookAtSize(device);
  });
}

absl::StatusOr<std::unique_ptr<BackendDevice>> MakeDevice(EventLoop& loop, const Arguments& arguments) {
  winsize size{};
  const bool sized = ::ioctl(kOutputFd, TIOCGWINSZ, &size) == 0;
  int retry = -1;
  if (arguments.shared_terminal) {
    ASSIGN_OR_RETURN(retry, MakeTimer());
  }
  auto both = std::make_unique<StreamAndDevice>(loop, arguments, sized, retry);
  if (retry >= 0) {
    RETURN_IF_ERROR(loop.Watch(retry, EPOLLIN, [retry, raw = &both->stream()](uint32_t) {
      uint64_t count;
      (void)!::read(retry, &count, sizeof(count));
      raw->Resume();
    }));
  }
  if (!sized) return both;
  LookAtSize(both->device());
  RETURN_IF_ERROR(arguments.shared_terminal ? WatchSizeBySignal(loop, both->device()) : WatchSizeByTime(loop, both->device()));
  return both;
}

bool TakeFlag(std::vector<absl::string_view>& arguments, absl::string_view name) {
  const auto found = std::find(arguments.begin(), arguments.end(), name);
  if (found == arguments.end()) return false;
  arguments.erase(found);
  return true;
}

}  // namespace

int RunConsoleDevice(int argc, char** argv) {
  std::vector<absl::string_view> arguments(argv + 3, argv + argc);
  std::vector<absl::string_view> jail_arguments;
  if (!SplitJailArguments(arguments, jail_arguments)) {
    SayFromBackend("vmm device console: only `vmm run` starts it");
    return 2;
  }
  Arguments taken;
  taken.has_input = !TakeFlag(arguments, "--no-input");
  taken.shared_terminal = TakeFlag(arguments, "--shared-terminal");
  taken.interactive = TakeFlag(arguments, "--interactive");
  jail_arguments.insert(jail_arguments.end(), arguments.begin(), arguments.end());
  const BackendKind kind{"console", "vmm-console", kConsolePolicy, 1 + (taken.has_input ? 1 : 0) + (taken.shared_terminal ? 1 : 0),
                         [&](EventLoop& loop) { return MakeDevice(loop, taken); }};
  return RunBackendProcess(kind, jail_arguments);
}

}  // namespace vmm
