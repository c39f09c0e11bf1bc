#include "vmm/virtio/virtio_device.h"

#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/errno_status.h"
#include "base/status_macros.h"
#include "base/unix_socket.h"
#include "devices/virtio/backend/backend_process.h"
#include "devices/virtio/vhost_user/vhost_user_channel.h"

namespace vmm {
namespace {

constexpr int kPostMortemMs = 200;

}  // namespace

absl::StatusOr<std::unique_ptr<VirtioDevice>> VirtioDevice::Create(const Environment& environment, Options options) {
  std::unique_ptr<VirtioDevice> device(new VirtioDevice(environment, std::move(options)));
  for (const OwnedFd& fd : device->options_.fds) device->options_.spawn.fds.push_back(fd.get());
  device->options_.spawn.spawner = device->spawner();
  ASSIGN_OR_RETURN(device->frontend_,
                   VhostUserFrontend::Create(environment.loop, environment.memory, device->options_.frontend,
                                             [raw = device.get()](const absl::Status& why) { raw->OnLost(why); }));
  device->timer_.Reset(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!device->timer_.valid()) return ErrnoStatus(errno, absl::StrCat("create timer of device '", device->name(), "'"));
  RETURN_IF_ERROR(device->ConnectBackend());
  ASSIGN_OR_RETURN(device->function_, VirtioPci::Create(*device->frontend_, environment.router, environment.doorbells));
  if (const int quit = device->options_.quit.get(); quit >= 0) {
    RETURN_IF_ERROR(environment.loop.Watch(quit, EPOLLIN, [&environment_loop = environment.loop, &control = environment.control, quit](uint32_t) {
      environment_loop.Unwatch(quit);
      control.RequestEnd(MachineEnd::kStopped, "stopped from the terminal (Ctrl-A x)");
    }));
  }
  RETURN_IF_ERROR(environment.loop.Watch(device->timer_.get(), EPOLLIN, [raw = device.get()](uint32_t) { raw->Retry(); }));
  return device;
}

VirtioDevice::~VirtioDevice() {
  if (options_.quit.valid()) environment_.loop.Unwatch(options_.quit.get());
  if (timer_.valid()) environment_.loop.Unwatch(timer_.get());
  if (frontend_ != nullptr) frontend_->Close();
  DropBackend();
}

absl::StatusOr<OwnedFd> VirtioDevice::StartBackend() {
  if (options_.connection.valid()) return std::move(options_.connection);
  if (!options_.socket.empty()) return spawner() != nullptr ? spawner()->Connect(options_.socket) : ConnectUnixSocket(options_.socket);
  ASSIGN_OR_RETURN(SpawnedBackend backend, SpawnBackend(options_.spawn));
  process_ = std::move(backend.process);
  companion_ = std::move(backend.companion);
  messages_ = std::move(backend.messages);
  RETURN_IF_ERROR(environment_.loop.Watch(messages_.get(), EPOLLIN, [this](uint32_t) { OnMessages(); }));
  return std::move(backend.socket);
}

absl::Status VirtioDevice::ConnectBackend() {
  auto socket = StartBackend();
  if (!socket.ok()) {
    DropBackend();
    return absl::Status(socket.status().code(), absl::StrCat("device '", name(), "': ", socket.status().message()));
  }
  const absl::Status status = frontend_->Connect(*std::move(socket));
  if (status.ok()) {
    connected_ms_ = VhostUserChannel::NowMs();
    return status;
  }
  // A process that could not start says why, and is the better news.
  std::string detail(status.message());
  if (process_.pid() > 0) {
    const auto ended = process_.Wait(kPostMortemMs);
    std::array<char, 512> text;
    const ssize_t got = ::read(messages_.get(), text.data(), text.size());
    if (got > 0) absl::StrAppend(&detail, ": ", PrintableFromBackend(absl::string_view(text.data(), static_cast<size_t>(got) - 1)));
    if (ended.ok()) absl::StrAppend(&detail, " (its process ", ended->Describe(), ")", CompanionsEnd());
  } else if (options_.helper.pid() > 0) {
    if (const auto ended = options_.helper.Wait(kPostMortemMs); ended.ok()) absl::StrAppend(&detail, " (its process ", ended->Describe(), ")");
  }
  DropBackend();
  return absl::Status(status.code(), detail);
}

// The one that ended first has the better news.
std::string VirtioDevice::CompanionsEnd() {
  if (companion_.pid() <= 0) return "";
  const auto ended = companion_.Wait(kPostMortemMs);
  return ended.ok() ? absl::StrCat("; its '", options_.spawn.companion.name, "' ", ended->Describe()) : "";
}

void VirtioDevice::DropBackend() {
  if (messages_.valid()) {
    environment_.loop.Unwatch(messages_.get());
    messages_.Reset();
  }
  if (process_.pid() > 0) process_ = ChildProcess();  // killed and reaped
  if (companion_.pid() > 0) companion_ = ChildProcess();
}

void VirtioDevice::OnMessages() {
  std::array<char, 512> text;
  const ssize_t got = ::read(messages_.get(), text.data(), text.size());
  if (got < 0) return;
  if (got == 0) {
    environment_.loop.Unwatch(messages_.get());
    return messages_.Reset();
  }
  for (const absl::string_view line : absl::StrSplit(absl::string_view(text.data(), static_cast<size_t>(got)), '\n', absl::SkipEmpty())) {
    messages_log_.Write(LogLevel::kWarning, absl::StrCat(name(), " says: ", PrintableFromBackend(line)));
  }
}

void VirtioDevice::OnLost(const absl::Status& why) {
  std::string message(why.message());
  if (process_.pid() > 0) {
    if (messages_.valid()) OnMessages();
    if (const auto ended = process_.Wait(kPostMortemMs); ended.ok()) {
      message = absl::StrCat("device '", name(), "' (pid ", process_.pid(), ") ", ended->Describe(), CompanionsEnd());
    }
  } else if (options_.helper.pid() > 0) {
    if (const auto ended = options_.helper.Wait(kPostMortemMs); ended.ok()) absl::StrAppend(&message, " (its process ", ended->Describe(), ")");
  }
  DropBackend();
  switch (options_.on_failure) {
    case OnFailure::kStop: return environment_.control.RequestEnd(MachineEnd::kDeviceFailed, message);
    case OnFailure::kDetach:
      frontend_->Detach();
      return Log(LogLevel::kWarning, "vmm", absl::StrCat(message, "; the machine goes on without it"));
    case OnFailure::kRestart: break;
  }
  if (VhostUserChannel::NowMs() - connected_ms_ >= kHealthyMs) back_off_ms_ = kFirstBackOffMs;
  Log(LogLevel::kWarning, "vmm", absl::StrCat(message, "; another one is started in ", back_off_ms_, " ms"));
  itimerspec time{};
  time.it_value = {.tv_sec = back_off_ms_ / 1000, .tv_nsec = back_off_ms_ % 1000 * 1'000'000L};
  ::timerfd_settime(timer_.get(), 0, &time, nullptr);
  back_off_ms_ = std::min(2 * back_off_ms_, kLongestBackOffMs);
}

void VirtioDevice::Retry() {
  uint64_t count;
  (void)!::read(timer_.get(), &count, sizeof(count));
  if (const absl::Status status = ConnectBackend(); !status.ok()) return OnLost(status);
  const uint64_t restarts = restarts_.fetch_add(1, std::memory_order_relaxed) + 1;
  Log(LogLevel::kInfo, "vmm", absl::StrCat("device '", name(), "' works again (restart ", restarts, ")"));
}

void VirtioDevice::Shutdown() {
  environment_.loop.Unwatch(timer_.get());
  timer_.Reset();
  frontend_->Close();
  const VirtioPci::Stats stats = function_->stats();
  Log(LogLevel::kDebug, "vmm", absl::StrCat("device '", name(), "': ", stats.register_accesses, " register accesses, ",
                                            stats.trapped_notifications, " notifications that left KVM, ", restarts_.load(), " restarts"));
  if (process_.pid() <= 0) return;
  const auto ended = process_.Wait(kShutdownGraceMs);
  const bool orderly = ended.ok() && (ended->how == ExitStatus::How::kUnknown ||
                                      (ended->how == ExitStatus::How::kExited && ended->value == 0));
  if (!orderly) {
    Log(LogLevel::kWarning, "vmm", absl::StrCat("device '", name(), "' ", ended.ok() ? ended->Describe() : "did not end", " when it was to end"));
  }
  DropBackend();
}

}  // namespace vmm
