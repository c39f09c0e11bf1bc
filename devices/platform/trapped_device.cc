#include "devices/platform/trapped_device.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/errno_status.h"
#include "base/status_macros.h"
#include "sandbox/jail_options.h"

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

absl::StatusOr<OwnedFd> MakePage(const std::string& name) {
  OwnedFd fd(::memfd_create(absl::StrCat("vmm-", name).c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) return ErrnoStatus(errno, "create the published page");
  if (::ftruncate(fd.get(), kPublishedPageBytes) != 0) return ErrnoStatus(errno, "size the published page");
  // A device that could shrink it would have us killed by SIGBUS.
  if (::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return ErrnoStatus(errno, "seal the published page");
  }
  return fd;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TrappedDevice>> TrappedDevice::Launch(EventLoop& loop, TrappedDeviceOptions options,
                                                                     TrappedDeviceCallbacks callbacks) {
  std::unique_ptr<TrappedDevice> device(
      new TrappedDevice(loop, options.request.name, options.deadline_ms, std::move(callbacks)));
  RETURN_IF_ERROR(device->Start(options));
  return device;
}

absl::Status TrappedDevice::Start(TrappedDeviceOptions& options) {
  ASSIGN_OR_RETURN(SocketPair access, MakeSocketPair());
  ASSIGN_OR_RETURN(SocketPair event, MakeSocketPair());
  SpawnRequest& request = options.request;
  std::vector<std::string> arguments = {"vmm", "device", name_};
  for (std::string& argument : request.arguments) arguments.push_back(std::move(argument));
  for (std::string& argument : JailOptionArguments(request.jail)) arguments.push_back(std::move(argument));
  request.arguments = std::move(arguments);
  request.fds.push_back({access.device.get(), kTrappedAccessFd});
  request.fds.push_back({event.device.get(), kTrappedEventFd});
  OwnedFd page;
  if (options.publishes) {
    ASSIGN_OR_RETURN(page, MakePage(name_));
    void* mapped = ::mmap(nullptr, kPublishedPageBytes, PROT_READ, MAP_SHARED, page.get(), 0);
    if (mapped == MAP_FAILED) return ErrnoStatus(errno, "map the published page");
    page_ = {static_cast<const PublishedPage*>(mapped), &UnmapPage};
    request.fds.push_back({page.get(), kTrappedPageFd});
  }
#ifdef VMM_DYNAMIC_LINK
  // Sanitizers reserve terabytes, start a thread and keep their shadow in files.
  request.limits.address_space_bytes = request.limits.processes = request.limits.file_bytes = kNoLimit;
#endif
  log_only_ = request.jail.log_only;
  ASSIGN_OR_RETURN(child_, SpawnDevice(request));
  event_ = std::move(event.monitor);
  proxy_ = std::make_unique<TrappedDeviceProxy>(
      std::move(access.monitor), page_.get(),
      [&loop = loop_, alive = std::weak_ptr<TrappedDevice*>(alive_)](const std::string& reason) {
        loop.Post([alive, reason] {
          if (const auto device = alive.lock()) (*device)->OnProxyFailure(reason);
        });
      },
      deadline_ms_);
  return absl::OkStatus();
}

absl::Status TrappedDevice::AwaitReady() {
  if (absl::Status status = Hear(); !status.ok()) {
    return absl::Status(status.code(), absl::StrCat("start device '", name_, "': ", status.message()));
  }
  return Watch();
}

absl::Status TrappedDevice::Watch() {
  RETURN_IF_ERROR(loop_.Watch(event_.get(), EPOLLIN, [this](uint32_t) { OnEvent(); }));
  watching_event_ = true;
  RETURN_IF_ERROR(loop_.Watch(child_.pidfd(), EPOLLIN, [this](uint32_t) { OnProcessEnd(); }));
  watching_process_ = true;
  if (log_only_) {
    ASSIGN_OR_RETURN(words_, WordsWatch::Create(loop_, child_, absl::StrCat("device '", name_, "'")));
  }
  return WatchProgress();
}

absl::Status TrappedDevice::Hear() {
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

absl::Status TrappedDevice::WatchProgress() {
  const int period_ms = std::max(1, deadline_ms_ / 2);
  timer_.Reset(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!timer_.valid()) return ErrnoStatus(errno, absl::StrCat("create timer of device '", name_, "'"));
  // One shot, set anew after each look: two looks are never closer than a period, however late this thread runs.
  itimerspec time{};
  time.it_value = {.tv_sec = period_ms / 1000, .tv_nsec = period_ms % 1000 * 1'000'000L};
  if (::timerfd_settime(timer_.get(), 0, &time, nullptr) != 0) return ErrnoStatus(errno, absl::StrCat("set timer of device '", name_, "'"));
  RETURN_IF_ERROR(loop_.Watch(timer_.get(), EPOLLIN, [this, time](uint32_t) {
    proxy_->CheckProgress();
    ::timerfd_settime(timer_.get(), 0, &time, nullptr);  // also takes back the readiness
  }));
  watching_timer_ = true;
  return absl::OkStatus();
}

TrappedDevice::~TrappedDevice() { Unwatch(); }

void TrappedDevice::Unwatch() {
  words_.reset();
  if (std::exchange(watching_timer_, false)) loop_.Unwatch(timer_.get());
  if (std::exchange(watching_event_, false)) loop_.Unwatch(event_.get());
  if (std::exchange(watching_process_, false)) loop_.Unwatch(child_.pidfd());
}

void TrappedDevice::Report(const std::string& what) {
  if (std::exchange(reported_, true)) return;
  if (callbacks_.on_failed) callbacks_.on_failed(absl::StrCat("device '", name_, "' (pid ", child_.pid(), ")", what));
}

void TrappedDevice::OnEvent() {
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

void TrappedDevice::OnProcessEnd() {
  const auto status = child_.Wait(0);
  loop_.Unwatch(child_.pidfd());
  watching_process_ = false;
  Report(status.ok() ? absl::StrCat(" ", status->Describe()) : absl::StrCat(": ", std::string(status.status().message())));
}

void TrappedDevice::OnProxyFailure(const std::string& reason) {
  if (reported_) return;
  // A closed connection is most often a dead process, and how it died is the better news.
  pollfd closed{event_.get(), 0, 0};
  const bool hung_up = ::poll(&closed, 1, 0) > 0 && (closed.revents & POLLHUP) != 0;
  const auto status = child_.Wait(hung_up ? kPostMortemMs : 0);
  if (!status.ok()) child_.Kill();
  Report(status.ok() ? absl::StrCat(" ", status->Describe()) : absl::StrCat(": ", reason));
}

absl::StatusOr<ExitStatus> TrappedDevice::Shutdown(int grace_ms) {
  Unwatch();
  reported_ = true;
  proxy_->Close();
  if (auto ended = child_.Wait(grace_ms); ended.ok()) return ended;
  child_.Kill();
  return child_.Wait(grace_ms);
}

}  // namespace vmm
