#include "devices/platform/serial_device.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/errno_status.h"
#include "base/status_macros.h"
#include "devices/platform/serial_process.h"
#include "sandbox/spawn.h"

namespace vmm {
namespace {

constexpr int kReadyTimeoutMs = 10'000;
// How long the end of a connection waits for the end of its process, which says more.
constexpr int kPostMortemMs = 200;

struct SocketPair {
  OwnedFd monitor, device;
};
absl::StatusOr<SocketPair> MakeSocketPair() {
  int fds[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) != 0) return ErrnoStatus(errno, "create socket pair");
  return SocketPair{OwnedFd(fds[0]), OwnedFd(fds[1])};
}

void UnmapPage(const PublishedPage* page) { ::munmap(const_cast<PublishedPage*>(page), kPublishedPageBytes); }

absl::StatusOr<OwnedFd> MakePage() {
  OwnedFd fd(::memfd_create("vmm-serial", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) return ErrnoStatus(errno, "create the published page");
  if (::ftruncate(fd.get(), kPublishedPageBytes) != 0) return ErrnoStatus(errno, "size the published page");
  // A device that could shrink it would have us killed by SIGBUS.
  if (::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return ErrnoStatus(errno, "seal the published page");
  }
  return fd;
}

bool IsRegularFile(int fd) {
  struct stat info {};
  return ::fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
}

// A description of its own for a pipe or terminal, so that O_NONBLOCK is nobody else's business. Where that cannot be
// had (another user's terminal, a socket), the shared one does: the device polls before each call.
OwnedFd ReopenNonBlocking(int fd, int access) {
  struct stat info {};
  if (::fstat(fd, &info) != 0 || !(S_ISFIFO(info.st_mode) || ::isatty(fd) == 1)) return OwnedFd();
  const std::string path = absl::StrCat("/proc/self/fd/", fd);
  return OwnedFd(::open(path.c_str(), access | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
}

}  // namespace

absl::StatusOr<std::unique_ptr<SerialDevice>> SerialDevice::Start(EventLoop& loop, const SerialDeviceOptions& options,
                                                                  SerialDeviceCallbacks callbacks) {
  // Who is at no terminal cannot have typed the escape: from a process that says so it is a lie.
  if (!options.interactive) callbacks.on_quit = nullptr;
  std::unique_ptr<SerialDevice> device(new SerialDevice(loop, std::move(callbacks)));
  RETURN_IF_ERROR(device->Launch(options));
  if (absl::Status status = device->AwaitReady(); !status.ok()) {
    return absl::Status(status.code(), absl::StrCat("start device 'serial': ", status.message()));
  }
  RETURN_IF_ERROR(loop.Watch(device->event_.get(), EPOLLIN, [raw = device.get()](uint32_t) { raw->OnEvent(); }));
  device->watching_event_ = true;
  RETURN_IF_ERROR(loop.Watch(device->child_.pidfd(), EPOLLIN, [raw = device.get()](uint32_t) { raw->OnProcessEnd(); }));
  device->watching_process_ = true;
  if (options.jail.log_only) {
    ASSIGN_OR_RETURN(device->words_, WordsWatch::Create(loop, device->child_, "device 'serial'"));
  }
  RETURN_IF_ERROR(device->WatchProgress(std::max(1, options.deadline_ms / 2)));
  return device;
}

absl::Status SerialDevice::Launch(const SerialDeviceOptions& options) {
  ASSIGN_OR_RETURN(SocketPair access, MakeSocketPair());
  ASSIGN_OR_RETURN(SocketPair event, MakeSocketPair());
  ASSIGN_OR_RETURN(const OwnedFd page, MakePage());
  void* mapped = ::mmap(nullptr, kPublishedPageBytes, PROT_READ, MAP_SHARED, page.get(), 0);
  if (mapped == MAP_FAILED) return ErrnoStatus(errno, "map the published page");
  page_ = {static_cast<const PublishedPage*>(mapped), &UnmapPage};

  const bool has_input = options.input_fd >= 0;
  const OwnedFd output = ReopenNonBlocking(options.output_fd, O_WRONLY);
  const OwnedFd input = has_input ? ReopenNonBlocking(options.input_fd, O_RDONLY) : OwnedFd();

  SpawnRequest request;
  request.name = "serial";
  request.arguments = {"vmm", "device", "serial"};
  if (!has_input) request.arguments.push_back("--no-input");
  if (options.interactive) request.arguments.push_back("--interactive");
  for (std::string& argument : JailOptionArguments(options.jail)) request.arguments.push_back(std::move(argument));
  request.executable_fd = options.executable_fd;
  request.fds = {{access.device.get(), kSerialAccessFd},
                 {options.interrupt_fd, kSerialInterruptFd},
                 {page.get(), kSerialPageFd},
                 {output.valid() ? output.get() : options.output_fd, kSerialOutputFd},
                 {event.device.get(), kSerialEventFd}};
  if (has_input) request.fds.push_back({input.valid() ? input.get() : options.input_fd, kSerialInputFd});
  request.keeps_terminal = ::isatty(options.output_fd) == 1 || (has_input && ::isatty(options.input_fd) == 1);
  if (IsRegularFile(options.output_fd)) request.limits.file_bytes = kNoLimit;
#ifdef VMM_DYNAMIC_LINK
  // Sanitizers reserve terabytes, start a thread and keep their shadow in files.
  request.limits.address_space_bytes = request.limits.processes = request.limits.file_bytes = kNoLimit;
#endif
  request.jail = options.jail;
  ASSIGN_OR_RETURN(child_, SpawnDevice(request));
  event_ = std::move(event.monitor);

  proxy_ = std::make_unique<TrappedDeviceProxy>(
      std::move(access.monitor), page_.get(),
      [&loop = loop_, alive = std::weak_ptr<SerialDevice*>(alive_)](const std::string& reason) {
        loop.Post([alive, reason] {
          if (const auto device = alive.lock()) (*device)->OnProxyFailure(reason);
        });
      },
      options.deadline_ms);
  return absl::OkStatus();
}

absl::Status SerialDevice::AwaitReady() {
  pollfd poll_fd{event_.get(), POLLIN, 0};
  int ready;
  do {
    ready = ::poll(&poll_fd, 1, kReadyTimeoutMs);
  } while (ready < 0 && errno == EINTR);
  if (ready <= 0) return absl::DeadlineExceededError(absl::StrCat("not ready after ", kReadyTimeoutMs, " ms"));
  TrappedMessage message;
  const ssize_t got = ::recv(event_.get(), &message, sizeof(message), MSG_DONTWAIT | MSG_TRUNC);
  if (got == sizeof(message) && message.version == kTrappedVersion) {
    if (message.kind == TrappedKind::kReady) return absl::OkStatus();
    if (message.kind == TrappedKind::kFailed) {
      const absl::string_view text(message.text.data(), std::min<size_t>(message.bytes, message.text.size()));
      return absl::FailedPreconditionError(absl::CHexEscape(text));
    }
  }
  ASSIGN_OR_RETURN(const ExitStatus status, child_.Wait(kPostMortemMs));
  return absl::FailedPreconditionError(absl::StrCat("its process ", status.Describe()));
}

absl::Status SerialDevice::WatchProgress(int period_ms) {
  timer_.Reset(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!timer_.valid()) return ErrnoStatus(errno, "create timer of device 'serial'");
  // One shot, set anew after each look: two looks are never closer than a period, however late this thread runs.
  itimerspec time{};
  time.it_value = {.tv_sec = period_ms / 1000, .tv_nsec = period_ms % 1000 * 1'000'000L};
  if (::timerfd_settime(timer_.get(), 0, &time, nullptr) != 0) return ErrnoStatus(errno, "set timer of device 'serial'");
  RETURN_IF_ERROR(loop_.Watch(timer_.get(), EPOLLIN, [this, time](uint32_t) {
    proxy_->CheckProgress();
    ::timerfd_settime(timer_.get(), 0, &time, nullptr);  // also takes back the readiness
  }));
  watching_timer_ = true;
  return absl::OkStatus();
}

SerialDevice::~SerialDevice() { Unwatch(); }

void SerialDevice::Unwatch() {
  words_.reset();
  if (std::exchange(watching_timer_, false)) loop_.Unwatch(timer_.get());
  if (std::exchange(watching_event_, false)) loop_.Unwatch(event_.get());
  if (std::exchange(watching_process_, false)) loop_.Unwatch(child_.pidfd());
}

void SerialDevice::Report(const std::string& what) {
  if (std::exchange(reported_, true)) return;
  if (callbacks_.on_failed) callbacks_.on_failed(absl::StrCat("device 'serial' (pid ", child_.pid(), ")", what));
}

void SerialDevice::OnEvent() {
  TrappedMessage message;
  const ssize_t got = ::recv(event_.get(), &message, sizeof(message), MSG_DONTWAIT | MSG_TRUNC);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  // Whatever it is, it was the last: a flood of events has no reader.
  loop_.Unwatch(event_.get());
  watching_event_ = false;
  if (got == 0) return;  // the pidfd tells of its end
  if (got == sizeof(message) && message.version == kTrappedVersion && message.kind == TrappedKind::kQuit &&
      callbacks_.on_quit) {
    callbacks_.on_quit();
    return;
  }
  child_.Kill();
  Report(": sent an event that the protocol does not have");
}

void SerialDevice::OnProcessEnd() {
  const auto status = child_.Wait(0);
  loop_.Unwatch(child_.pidfd());
  watching_process_ = false;
  Report(status.ok() ? absl::StrCat(" ", status->Describe()) : absl::StrCat(": ", std::string(status.status().message())));
}

void SerialDevice::OnProxyFailure(const std::string& reason) {
  if (reported_) return;
  // A closed connection is most often a dead process, and how it died is the better news.
  pollfd closed{event_.get(), 0, 0};
  const bool hung_up = ::poll(&closed, 1, 0) > 0 && (closed.revents & POLLHUP) != 0;
  const auto status = child_.Wait(hung_up ? kPostMortemMs : 0);
  if (!status.ok()) child_.Kill();
  Report(status.ok() ? absl::StrCat(" ", status->Describe()) : absl::StrCat(": ", reason));
}

absl::StatusOr<ExitStatus> SerialDevice::Shutdown(int grace_ms) {
  Unwatch();
  reported_ = true;
  proxy_->Close();
  if (auto ended = child_.Wait(grace_ms); ended.ok()) return ended;
  child_.Kill();
  return child_.Wait(grace_ms);
}

}  // namespace vmm
