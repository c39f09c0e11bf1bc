#include "vmm/virtio/virtiofsd.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <cerrno>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/errno_status.h"
#include "base/status_macros.h"
#include "base/unix_socket.h"
#include "devices/virtio/backend/listen_unix.h"
#include "sandbox/spawn.h"

namespace vmm {
namespace {

constexpr int kListenFd = 3;

struct Sockets {
  OwnedFd listening;
  OwnedFd connection;
};

// By a name that only we can reach, and that is gone again when both ends are there.
absl::StatusOr<Sockets> MakeSockets() {
  std::string folder = "/tmp/vmm-virtiofsd-XXXXXX";  // 0700
  if (::mkdtemp(folder.data()) == nullptr) return ErrnoStatus(errno, absl::StrCat("create folder '", folder, "'"));
  const std::string path = folder + "/socket";
  Sockets sockets;
  absl::Status status;
  if (auto listening = ListenUnix(path, 1); listening.ok()) {
    sockets.listening = *std::move(listening);
  } else {
    status = listening.status();
  }
  if (status.ok()) {
    if (auto connection = ConnectUnixSocket(path); connection.ok()) {
      sockets.connection = *std::move(connection);
    } else {
      status = connection.status();
    }
  }
  ::unlink(path.c_str());
  ::rmdir(folder.c_str());
  if (!status.ok()) return status;
  return sockets;
}

}  // namespace

absl::StatusOr<Virtiofsd> StartVirtiofsd(const std::string& program, const std::string& folder) {
  if (::geteuid() != 0) {
    return absl::FailedPreconditionError(
        "start virtiofsd: it must be root; start it yourself, as it suits your host, and name its socket (devices.fs.socket)");
  }
  const OwnedFd executable(::open(program.c_str(), O_RDONLY | O_CLOEXEC));
  if (!executable.valid()) return ErrnoStatus(errno, absl::StrCat("open '", program, "'"));
  ASSIGN_OR_RETURN(Sockets sockets, MakeSockets());
  std::vector<std::string> arguments = {"virtiofsd", absl::StrCat("--fd=", kListenFd), "-o", absl::StrCat("source=", folder)};
  Virtiofsd started;
  ASSIGN_OR_RETURN(started.process,
                   StartTrustedProcess("virtiofsd", std::move(arguments), executable.get(), {sockets.listening.get(), kListenFd}));
  started.connection = std::move(sockets.connection);
  return started;
}

}  // namespace vmm
