// A vhost-user device for another VMM: `vmm device KIND --socket PATH` or `--fd N`. Listens (or takes the connection that it was given),
// and starts the device in its jail for each front end that connects, one at a time.
//
// Threads  the calling one; SIGTERM and SIGINT end it, as they do by default, and the device with it.
// Trust    the person's arguments; a front end is served by the jailed process alone.
// Errors   Status; a device that failed is told on standard error and the next front end waited for.
#ifndef VMM_DEVICES_VIRTIO_BACKEND_STANDALONE_BACKEND_H_
#define VMM_DEVICES_VIRTIO_BACKEND_STANDALONE_BACKEND_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "devices/virtio/backend/backend_spawn.h"

namespace vmm {

// Where the front end is.
struct BackendListen {
  std::string socket;  // created by us; removed first where it is a socket that nobody listens on
  int fd = -1;         // connected already
};

// Takes --socket=, --socket PATH, --fd= and --fd N out of `arguments`.
absl::StatusOr<BackendListen> TakeListenArguments(std::vector<absl::string_view>& arguments);

// Returns when the one connection of `--fd` has ended; for a socket only by an error.
absl::Status RunStandaloneBackend(const BackendListen& listen, const BackendSpawnOptions& options);

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_BACKEND_STANDALONE_BACKEND_H_
