#include "devices/platform/serial_device.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "base/owned_fd.h"
#include "devices/platform/serial_process.h"
#include "sandbox/spawn.h"

namespace vmm {
namespace {

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

absl::StatusOr<std::unique_ptr<TrappedDevice>> LaunchSerialDevice(EventLoop& loop, const SerialDeviceOptions& options,
                                                                  TrappedDeviceCallbacks callbacks) {
  const bool has_input = options.input_fd >= 0;
  const OwnedFd output = ReopenNonBlocking(options.output_fd, O_WRONLY);
  const OwnedFd input = has_input ? ReopenNonBlocking(options.input_fd, O_RDONLY) : OwnedFd();

  TrappedDeviceOptions device{.publishes = true, .deadline_ms = options.deadline_ms};
  SpawnRequest& request = device.request;
  request.name = "serial";
  if (!has_input) request.arguments.push_back("--no-input");
  if (options.interactive) request.arguments.push_back("--interactive");
  request.executable_fd = options.executable_fd;
  request.fds = {{options.interrupt_fd, kSerialInterruptFd},
                 {output.valid() ? output.get() : options.output_fd, kSerialOutputFd}};
  if (has_input) request.fds.push_back({input.valid() ? input.get() : options.input_fd, kSerialInputFd});
  request.keeps_terminal = ::isatty(options.output_fd) == 1 || (has_input && ::isatty(options.input_fd) == 1);
  if (IsRegularFile(options.output_fd)) request.limits.file_bytes = kNoLimit;
  request.jail = options.jail;
  // Who is at no terminal cannot have typed the escape.
  if (!options.interactive) callbacks.on_quit = nullptr;
  return TrappedDevice::Launch(loop, std::move(device), std::move(callbacks));
}

}  // namespace vmm
