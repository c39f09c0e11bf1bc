#include "devices/virtio/vsock/vsock_connector.h"

#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/errno_status.h"
#include "base/status_macros.h"
#include "devices/virtio/backend/backend_process.h"
#include "devices/virtio/backend/listen_unix.h"
#include "devices/virtio/vsock/vsock_connector_policy.h"
#include "sandbox/confine.h"
#include "sandbox/seccomp_filter.h"
#include "sandbox/spawn.h"
#include "sandbox/violation.h"

namespace vmm {
namespace {

constexpr int kSocketFd = 3;

// The connection, or -1 and errno.
int ConnectTo(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -1;
  // Non-blocking: a listener whose queue is full is an error, and nobody's wait.
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) return fd;
  const int error = errno;
  ::close(fd);
  errno = error;
  return -1;
}

void Answer(uint64_t id, int fd, int error) {
  ConnectAnswer answer{id, fd >= 0 ? 0 : error, 0};
  iovec vector{&answer, sizeof(answer)};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  if (fd >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &fd, sizeof(fd));
  }
  // Blocks while the device does not take answers: it asks for no more than it takes.
  (void)!::sendmsg(kSocketFd, &message, MSG_NOSIGNAL);
}

absl::Status Serve(const std::string& path, const JailOptions& jail) {
  if (path.empty() || path.size() > kMaxVsockPathBytes) return absl::InvalidArgumentError("start the vsock connector: its path is too long");
  if (::prctl(PR_SET_NAME, "vmm-vsock-conn", 0, 0, 0) != 0) return ErrnoStatus(errno, "name process");
  RETURN_IF_ERROR(MakeUndumpable());
  RETURN_IF_ERROR(DropThreadPrivileges({}, {}));
  if (!jail.waive_seccomp) {
    const ViolationMode mode = jail.log_only ? ViolationMode::kLetThrough : ViolationMode::kDie;
    RETURN_IF_ERROR(InstallViolationHandler(mode, ViolationOutput::kLastWords));
    RETURN_IF_ERROR(InstallSeccomp(kVsockConnectorPolicy, SeccompScope::kProcess, mode));
  }
  while (true) {
    ConnectRequest request;
    iovec vector{&request, sizeof(request)};
    msghdr message{};
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    // Descriptors that come along are closed by the kernel: there is no room for them.
    const ssize_t got = ::recvmsg(kSocketFd, &message, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) ::_exit(0);
    if (got != static_cast<ssize_t>(sizeof(request))) continue;
    const int fd = ConnectTo(absl::StrCat(path, "_", request.port));
    Answer(request.id, fd, errno);
    if (fd >= 0) ::close(fd);
  }
}

}  // namespace

absl::StatusOr<VsockConnector> StartVsockConnector(const std::string& path, const JailOptions& jail, int executable_fd) {
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return ErrnoStatus(errno, "create the vsock connector's socket pair");
  VsockConnector connector;
  connector.device_end.Reset(pair[0]);
  const OwnedFd its_end(pair[1]);
  connector.before.Reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!connector.before.valid()) return ErrnoStatus(errno, "create eventfd");
  std::vector<std::string> arguments = {"vmm", "device", "vsock", "--connector", path};
  for (std::string& argument : JailOptionArguments(jail)) arguments.push_back(std::move(argument));
  ASSIGN_OR_RETURN(connector.process, StartTrustedProcess("vsock connector", std::move(arguments), executable_fd, {its_end.get(), kSocketFd}));
  return connector;
}

absl::StatusOr<OwnedFd> ListenForVsock(const std::string& path) {
  constexpr int kBacklog = 64;
  return ListenUnix(path, kBacklog);
}

int RunVsockConnector(const std::string& path, const JailOptions& jail) {
  SayFromBackend(Serve(path, jail).message());
  return 1;
}

}  // namespace vmm
