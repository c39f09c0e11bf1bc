#include "devices/virtio/backend/listen_unix.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/errno_status.h"

namespace vmm {

absl::StatusOr<OwnedFd> ListenUnix(const std::string& path, int backlog, int flags) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(absl::StrCat("listen on '", path, "': a socket's path has 1 to ", sizeof(address.sun_path) - 1, " bytes"));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  OwnedFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0));
  if (!fd.valid()) return ErrnoStatus(errno, "create socket");
  struct stat about {};
  if (::lstat(path.c_str(), &about) == 0 && S_ISSOCK(about.st_mode)) {
    // One that somebody listens on is theirs; a full queue of connections (EAGAIN) is somebody.
    const OwnedFd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 || errno == EAGAIN) {
      return absl::AlreadyExistsError(absl::StrCat("listen on '", path, "': somebody does already"));
    }
    ::unlink(path.c_str());
  }
  // Nobody but this user may drive the device.
  const mode_t before = ::umask(0177);
  const int bound = ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  const int error = errno;
  ::umask(before);
  if (bound != 0) return ErrnoStatus(error, absl::StrCat("listen on '", path, "'"));
  if (::listen(fd.get(), backlog) != 0) return ErrnoStatus(errno, absl::StrCat("listen on '", path, "'"));
  return fd;
}

}  // namespace vmm
