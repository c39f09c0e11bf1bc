#include "devices/virtio/backend/standalone_backend.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/errno_status.h"
#include "base/status_macros.h"
#include "devices/virtio/backend/backend_process.h"
#include "devices/virtio/backend/listen_unix.h"

namespace vmm {
namespace {

// Until it has ended; what it says is passed on.
absl::Status Serve(const BackendSpawnOptions& options, OwnedFd connection) {
  ASSIGN_OR_RETURN(SpawnedBackend backend, SpawnBackend(options, std::move(connection)));
  bool talking = true;
  while (true) {
    pollfd fds[] = {{backend.process.pidfd(), POLLIN, 0}, {talking ? backend.messages.get() : -1, POLLIN, 0}};
    if (::poll(fds, 2, -1) < 0) continue;
    if (fds[1].revents != 0) {
      char text[512];
      const ssize_t got = ::read(backend.messages.get(), text, sizeof(text));
      const absl::string_view said(text, got > 0 ? static_cast<size_t>(got) : 0);
      for (const absl::string_view line : absl::StrSplit(said, '\n', absl::SkipEmpty())) SayFromBackend(line);
      if (got == 0) talking = false;
      continue;
    }
    if (fds[0].revents == 0) continue;
    ASSIGN_OR_RETURN(const ExitStatus status, backend.process.Wait(0));
    if (status.how == ExitStatus::How::kExited && status.value == 0) return absl::OkStatus();
    return absl::InternalError(absl::StrCat("device '", options.kind, "' ", status.Describe()));
  }
}

}  // namespace

absl::StatusOr<BackendListen> TakeListenArguments(std::vector<absl::string_view>& arguments) {
  BackendListen listen;
  std::vector<absl::string_view> others;
  bool given = false;
  for (size_t i = 0; i < arguments.size(); ++i) {
    absl::string_view value = arguments[i];
    const bool socket = absl::ConsumePrefix(&value, "--socket");
    if (!socket && !absl::ConsumePrefix(&value, "--fd")) {
      others.push_back(arguments[i]);
      continue;
    }
    if (!absl::ConsumePrefix(&value, "=")) {
      if (!value.empty() || i + 1 == arguments.size()) {
        return absl::InvalidArgumentError(absl::StrCat("argument '", arguments[i], "' needs a value"));
      }
      value = arguments[++i];
    }
    if (std::exchange(given, true)) return absl::InvalidArgumentError("--socket or --fd: once, one of them");
    if (socket) {
      listen.socket = std::string(value);
    } else if (!absl::SimpleAtoi(value, &listen.fd) || listen.fd < 0) {
      return absl::InvalidArgumentError(absl::StrCat("--fd: '", value, "' is no descriptor"));
    }
  }
  if (!given) return absl::InvalidArgumentError("needs --socket PATH or --fd N: where the front end is");
  arguments = std::move(others);
  return listen;
}

absl::Status RunStandaloneBackend(const BackendListen& listen, const BackendSpawnOptions& options) {
  if (listen.fd >= 0) return Serve(options, OwnedFd(listen.fd));
  ASSIGN_OR_RETURN(const OwnedFd listening, ListenUnix(listen.socket, 1));
  while (true) {
    OwnedFd connection(::accept4(listening.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!connection.valid()) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      return ErrnoStatus(errno, absl::StrCat("accept on '", listen.socket, "'"));
    }
    if (const absl::Status status = Serve(options, std::move(connection)); !status.ok()) {
      SayFromBackend(status.message());
    }
  }
}

}  // namespace vmm
