#include "devices/platform/serial_process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/errno_status.h"
#include "base/event_fd.h"
#include "base/event_loop.h"
#include "base/owned_fd.h"
#include "base/status_macros.h"
#include "devices/interrupt_line.h"
#include "devices/platform/serial16550.h"
#include "devices/platform/serial_escape.h"
#include "devices/platform/serial_policy.h"
#include "devices/platform/trapped_device_server.h"
#include "devices/platform/trapped_protocol.h"
#include "sandbox/enter.h"
#include "sandbox/jail_options.h"

namespace vmm {
namespace {

constexpr int kRetryMs = 500;
constexpr size_t kTypeAheadBytes = 4096;

struct Arguments {
  bool input = true;
  bool interactive = false;
  JailOptions jail;
};

int64_t MonotonicMs() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * int64_t{1000} + now.tv_nsec / 1'000'000;
}

bool ReadyNow(int fd, short events) {
  pollfd poll_fd{fd, events, 0};
  return ::poll(&poll_fd, 1, 0) > 0;
}

class EventFdLine final : public InterruptLine {
 public:
  explicit EventFdLine(OwnedFd fd) : event_(std::move(fd)) {}
  void Pulse() noexcept override { event_.Signal(); }

 private:
  EventFd event_;
};

class LineStatusPublisher final : public LineStatusListener {
 public:
  explicit LineStatusPublisher(RegisterPublisher& publisher) : publisher_(publisher) {}
  void LineStatus(uint8_t lsr, bool pure, uint16_t credit) noexcept override {
    if (pure) {
      publisher_.Publish(uart::kLsr, lsr, credit);
    } else {
      publisher_.Withdraw(uart::kLsr);
    }
  }

 private:
  RegisterPublisher& publisher_;
};

// One of the two shared descriptors: whether it takes poll, and whether the loop watches it now.
class Stream {
 public:
  Stream(EventLoop& loop, int fd, uint32_t events) : loop_(loop), fd_(fd), events_(events) {}

  // Finds out what it is; before the filter.
  absl::Status Probe() {
    struct stat info {};
    if (::fstat(fd_, &info) != 0) return ErrnoStatus(errno, absl::StrCat("examine descriptor ", fd_));
    terminal_ = S_ISCHR(info.st_mode) && ::isatty(fd_) == 1;
    // epoll refuses what is always ready: files, and some character devices.
    if (absl::Status status = loop_.Watch(fd_, events_, [](uint32_t) {}); status.ok()) {
      loop_.Unwatch(fd_);
    } else {
      polls_ = false;
    }
    return absl::OkStatus();
  }

  // Muting would leave EPOLLHUP and EPOLLERR, which then spin: what is not wanted is not watched.
  void Want(bool wanted, const std::function<void()>& ready) {
    if (!polls_ || wanted == watched_) return;
    if (wanted) {
      watched_ = loop_.Watch(fd_, events_, [&ready](uint32_t) { ready(); }).ok();
    } else {
      loop_.Unwatch(fd_);
      watched_ = false;
    }
  }
  [[nodiscard]] bool polls() const { return polls_; }
  [[nodiscard]] bool terminal() const { return terminal_; }
  [[nodiscard]] int fd() const { return fd_; }
  // Does the next call not block, as far as poll can know?
  [[nodiscard]] bool Ready() const {
    return !polls_ || ReadyNow(fd_, static_cast<short>(events_ == EPOLLIN ? POLLIN : POLLOUT));
  }

 private:
  EventLoop& loop_;
  const int fd_;
  const uint32_t events_;
  bool polls_ = true;
  bool terminal_ = false;
  bool watched_ = false;
};

class SerialProcess {
 public:
  SerialProcess(const Arguments& arguments, EventLoop& loop, PublishedPage* page, OwnedFd timer)
      : arguments_(arguments),
        loop_(loop),
        publisher_(page),
        line_status_(publisher_),
        line_(OwnedFd(kSerialInterruptFd)),
        serial_(line_, &line_status_),
        output_(loop, kSerialOutputFd, EPOLLOUT),
        input_(loop, kSerialInputFd, EPOLLIN),
        timer_(std::move(timer)),
        input_open_(arguments.input),
        pump_([this] { Pump(); }) {}

  absl::Status Prepare() {
    RETURN_IF_ERROR(output_.Probe());
    if (input_open_) RETURN_IF_ERROR(input_.Probe());
    RETURN_IF_ERROR(loop_.Watch(timer_.get(), EPOLLIN, [this](uint32_t) {
      uint64_t count;
      (void)!::read(timer_.get(), &count, sizeof(count));
      input_paused_ = false;
      Pump();
    }));
    ASSIGN_OR_RETURN(server_, TrappedDeviceServer::Create(loop_, kTrappedAccessFd, serial_, publisher_, pump_));
    return absl::OkStatus();
  }

  void Run() {
    Pump();
    loop_.Run();
    DrainOutput();
  }

 private:
  void Pump() {
    WriteOutput();
    output_.Want(!serial_.Output().empty(), pump_);
    MoveInput();
    input_.Want(WantsInput(), pump_);
  }

  // As much as goes without waiting.
  void WriteOutput() {
    // A terminal that says "writable" promises little; a pipe, a page.
    const size_t chunk = output_.terminal() ? 256 : 4096;
    while (!serial_.Output().empty() && output_.Ready()) {
      const auto bytes = serial_.Output();
      const ssize_t written = ::write(output_.fd(), bytes.data(), std::min(bytes.size(), chunk));
      const int error = errno;
      if (written >= 0) {
        serial_.ConsumeOutput(static_cast<size_t>(written));
      } else if (error == EAGAIN) {
        return;
      } else if (error != EINTR) {
        // Nobody at the other end (EPIPE), or a full disk: the line goes on without a listener.
        serial_.ConsumeOutput(bytes.size());
      }
    }
  }

  void DrainOutput() {
    const int64_t deadline = MonotonicMs() + kSerialDrainMs;
    while (true) {
      WriteOutput();
      const int64_t left = deadline - MonotonicMs();
      if (serial_.Output().empty() || left <= 0) return;
      pollfd poll_fd{output_.fd(), POLLOUT, 0};
      ::poll(&poll_fd, 1, static_cast<int>(left));
    }
  }

  [[nodiscard]] bool WantsInput() const {
    if (!input_open_ || input_paused_) return false;
    // One spare byte for a held-back Ctrl-A. Without escapes nothing is taken before the guest can have it.
    if (arguments_.interactive) return held_count_ + 2 <= held_.size();
    return held_count_ == 0 && serial_.InputRoom() > 0;
  }

  void MoveInput() {
    do {
      const size_t bytes = std::min(held_count_, serial_.InputRoom());
      if (bytes != 0) {
        serial_.GiveInput(std::span(held_).first(bytes));
        std::memmove(held_.data(), held_.data() + bytes, held_count_ - bytes);
        held_count_ -= bytes;
      }
    } while (WantsInput() && input_.Ready() && ReadInput());
  }

  // False: nothing came, for now or for ever.
  bool ReadInput() {
    std::array<uint8_t, 256> bytes;
    const size_t room = arguments_.interactive ? held_.size() - held_count_ - 1 : serial_.InputRoom();
    const ssize_t got = ::read(input_.fd(), bytes.data(), std::min(bytes.size(), room));
    const int error = errno;
    if (got > 0) {
      Take(std::span(bytes).first(static_cast<size_t>(got)));
      return true;
    }
    if (got < 0 && (error == EINTR || error == EAGAIN)) return false;
    if (got < 0 && error == EIO && input_.terminal()) {
      input_paused_ = true;
      itimerspec time{};
      time.it_value.tv_nsec = kRetryMs * 1'000'000L;
      ::timerfd_settime(timer_.get(), 0, &time, nullptr);
      return false;
    }
    input_open_ = false;
    return false;
  }

  void Take(std::span<const uint8_t> bytes) {
    const auto to = std::span(held_).subspan(held_count_);
    if (!arguments_.interactive) {
      std::copy(bytes.begin(), bytes.end(), to.begin());
      held_count_ += bytes.size();
      return;
    }
    const SerialEscape::Result result = escape_.Filter(bytes, to);
    held_count_ += result.bytes;
    if (result.quit) SendTrappedEvent(TrappedKind::kQuit);
  }

  const Arguments arguments_;
  EventLoop& loop_;
  RegisterPublisher publisher_;
  LineStatusPublisher line_status_;
  EventFdLine line_;
  Serial16550 serial_;
  Stream output_;
  Stream input_;
  OwnedFd timer_;
  bool input_open_;
  bool input_paused_ = false;
  SerialEscape escape_;
  std::array<uint8_t, kTypeAheadBytes> held_;
  size_t held_count_ = 0;
  const std::function<void()> pump_;
  std::unique_ptr<TrappedDeviceServer> server_;
};

absl::StatusOr<Arguments> ParseArguments(int argc, char** argv) {
  Arguments arguments;
  for (int i = 3; i < argc; ++i) {
    const absl::string_view argument = argv[i];
    if (argument == "--no-input") {
      arguments.input = false;
    } else if (argument == "--interactive") {
      arguments.interactive = true;
    } else if (!ParseJailOptionArgument(argument, arguments.jail)) {
      return absl::InvalidArgumentError(absl::StrCat("unknown argument '", argument, "'"));
    }
  }
  return arguments;
}

absl::Status Serve(int argc, char** argv) {
  ASSIGN_OR_RETURN(const Arguments arguments, ParseArguments(argc, argv));
  std::vector<int> inherited = {kTrappedAccessFd, kSerialInterruptFd, kTrappedPageFd, kSerialOutputFd, kTrappedEventFd};
  if (arguments.input) inherited.push_back(kSerialInputFd);

  std::unique_ptr<EventLoop> loop;
  std::unique_ptr<SerialProcess> process;
  const auto prepare = [&]() -> absl::Status {
    void* page = ::mmap(nullptr, kPublishedPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, kTrappedPageFd, 0);
    if (page == MAP_FAILED) return ErrnoStatus(errno, "map the published page");
    ::close(kTrappedPageFd);
    ASSIGN_OR_RETURN(loop, EventLoop::Create());
    OwnedFd timer(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
    if (!timer.valid()) return ErrnoStatus(errno, "create timer");
    process = std::make_unique<SerialProcess>(arguments, *loop, static_cast<PublishedPage*>(page), std::move(timer));
    return process->Prepare();
  };
  const DeviceSandboxPolicy policy{"vmm-serial", kSerialPolicy, inherited};
  RETURN_IF_ERROR(EnterDeviceSandbox(policy, arguments.jail, prepare));
  SendTrappedEvent(TrappedKind::kReady);
  process->Run();
  // Not through the destructors: closing descriptors is not among the system calls that are left.
  ::_exit(0);
}

}  // namespace

int RunSerialDevice(int argc, char** argv) {
  const absl::Status status = Serve(argc, argv);
  if (status.ok()) return 0;
  SendTrappedEvent(TrappedKind::kFailed, status.message());
  return 1;
}

}  // namespace vmm
