// The console device's process: a stream of the host by descriptors, watched as long as somebody wants it.
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
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
#include "devices/virtio/backend/backend_process.h"
#include "devices/virtio/console/console_device.h"
#include "devices/virtio/console/console_policy.h"

namespace vmm {
namespace {

constexpr int kOutputFd = kBackendFirstFd;
constexpr int kInputFd = kBackendFirstFd + 1;
constexpr size_t kChunk = 4096;
// A pseudo-terminal's owner is told of no new size by a signal: looked at so often.
constexpr int kSizePeriodMs = 500;

bool ReadyNow(int fd, short events) {
  pollfd poll_fd{fd, events, 0};
  return ::poll(&poll_fd, 1, 0) > 0;
}

class FdStream final : public ConsoleStream {
 public:
  FdStream(EventLoop& loop, bool has_input) : loop_(loop), input_open_(has_input) {
    // epoll refuses what is always ready: files.
    output_polls_ = loop.Watch(kOutputFd, 0, [](uint32_t) {}).ok();
    if (output_polls_) loop.Unwatch(kOutputFd);
  }
  void Serve(ConsoleDevice& device) { device_ = &device; }

  ssize_t Write(std::span<const std::byte> data) noexcept override {
    if (output_polls_ && !ReadyNow(kOutputFd, POLLOUT)) return 0;
    const ssize_t done = ::write(kOutputFd, data.data(), std::min(data.size(), kChunk));
    if (done > 0) return done;
    return done < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
  }
  ssize_t Read(std::span<std::byte> out) noexcept override {
    if (!input_open_) return -1;
    if (!ReadyNow(kInputFd, POLLIN)) return 0;
    const ssize_t done = ::read(kInputFd, out.data(), std::min(out.size(), kChunk));
    if (done > 0) return done;
    if (done < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    input_open_ = false;
    return -1;
  }
  void WantOutput(bool wanted) noexcept override {
    Want(wanted && output_polls_, output_watched_, kOutputFd, EPOLLOUT, [this] { device_->OnOutput(); });
  }
  void WantInput(bool wanted) noexcept override {
    Want(wanted && input_open_, input_watched_, kInputFd, EPOLLIN, [this] { device_->OnInput(); });
  }

 private:
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
  ConsoleDevice* device_ = nullptr;
  bool input_open_;
  bool output_polls_ = true;
  bool output_watched_ = false;
  bool input_watched_ = false;
};

// The stream, and the device that it outlives.
class StreamAndDevice final : public BackendDevice {
 public:
  StreamAndDevice(EventLoop& loop, bool has_input, bool sized) : stream_(loop, has_input), device_(stream_, sized) { stream_.Serve(device_); }
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

absl::StatusOr<std::unique_ptr<BackendDevice>> MakeDevice(EventLoop& loop, bool has_input) {
  winsize size{};
  const bool sized = ::ioctl(kOutputFd, TIOCGWINSZ, &size) == 0;
  auto both = std::make_unique<StreamAndDevice>(loop, has_input, sized);
  if (!sized) return both;
  LookAtSize(both->device());
  const int timer = ::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
  if (timer < 0) return ErrnoStatus(errno, "create timer");
  itimerspec time{};
  time.it_value = time.it_interval = {.tv_sec = 0, .tv_nsec = kSizePeriodMs * 1'000'000L};
  if (::timerfd_settime(timer, 0, &time, nullptr) != 0) return ErrnoStatus(errno, "set timer");
  RETURN_IF_ERROR(loop.Watch(timer, EPOLLIN, [timer, raw = &both->device()](uint32_t) {
    uint64_t count;
    (void)!::read(timer, &count, sizeof(count));
    LookAtSize(*raw);
  }));
  return both;
}

}  // namespace

int RunConsoleDevice(int argc, char** argv) {
  std::vector<absl::string_view> arguments(argv + 3, argv + argc);
  std::vector<absl::string_view> jail_arguments;
  if (!SplitJailArguments(arguments, jail_arguments)) {
    SayFromBackend("vmm device console: only `vmm run` starts it");
    return 2;
  }
  const auto no_input = std::find(arguments.begin(), arguments.end(), "--no-input");
  const bool has_input = no_input == arguments.end();
  if (!has_input) arguments.erase(no_input);
  jail_arguments.insert(jail_arguments.end(), arguments.begin(), arguments.end());
  const BackendKind kind{"console", "vmm-console", kConsolePolicy, has_input ? 2 : 1,
                         [&](EventLoop& loop) { return MakeDevice(loop, has_input); }};
  return RunBackendProcess(kind, jail_arguments);
}

}  // namespace vmm
