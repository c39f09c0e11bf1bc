// A listening Unix socket by a path.
//
// Threads  any, one at a time: the umask is the process's.
// Errors   INVALID_ARGUMENT for a path that no socket can have, ALREADY_EXISTS where somebody listens, else errno's.
#ifndef VMM_DEVICES_VIRTIO_BACKEND_LISTEN_UNIX_H_
#define VMM_DEVICES_VIRTIO_BACKEND_LISTEN_UNIX_H_

#include <string>

#include "absl/status/statusor.h"
#include "base/owned_fd.h"

namespace vmm {

// For this user alone; a socket that nobody listens on is replaced, anything else is left alone and an error. `flags`: of socket(2).
absl::StatusOr<OwnedFd> ListenUnix(const std::string& path, int backlog, int flags = 0);

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_BACKEND_LISTEN_UNIX_H_
