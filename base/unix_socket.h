// Connections to Unix sockets by path.
//
// Threads  any.
// Errors   Status with errno: at once, nobody is waited for.
#ifndef VMM_BASE_UNIX_SOCKET_H_
#define VMM_BASE_UNIX_SOCKET_H_

#include <string>

#include "absl/status/statusor.h"
#include "base/owned_fd.h"

namespace vmm {

// A stream, non-blocking and close-on-exec.
absl::StatusOr<OwnedFd> ConnectUnixSocket(const std::string& path);

}  // namespace vmm

#endif  // VMM_BASE_UNIX_SOCKET_H_
