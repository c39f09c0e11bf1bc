// The inside of a device process: what `vmm device KIND --jailed` runs, for every kind of vhost-user device.
//
// Shapes   inherits the front end's socket as kBackendSocketFd, and the device's own descriptors from kBackendFirstFd on.
// Threads  one: the event loop.
// Trust    everything that arrives is the front end's or the guest's. What the process can reach are its descriptors, the memory that
//          the front end gives it, and the system calls of its policy (backend.policy and one beside each device).
// Errors   exit code 0 after the front end closed the connection, 1 otherwise; the reason goes to standard error, one line.
#ifndef VMM_DEVICES_VIRTIO_BACKEND_BACKEND_PROCESS_H_
#define VMM_DEVICES_VIRTIO_BACKEND_BACKEND_PROCESS_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/event_loop.h"
#include "devices/virtio/backend/backend_device.h"
#include "sandbox/seccomp_policy.h"

namespace vmm {

inline constexpr int kBackendSocketFd = 3;
inline constexpr int kBackendFirstFd = 4;
// The argument that tells the inside from the outside (standalone_backend.h).
inline constexpr absl::string_view kBackendJailed = "--jailed";

// "--file-bytes=N": how far a file may grow from the moment on at which the process has made what it needs (RLIMIT_FSIZE). It starts
// with room for the in-flight region, which is a file too.
inline constexpr absl::string_view kBackendFileBytes = "--file-bytes=";

struct BackendKind {
  const char* name;          // "rng"
  const char* process_name;  // "vmm-rng", at most 15 characters
  const SeccompPolicy& policy;
  int inherited;  // how many descriptors of its own it has
  // Makes the device of the kind's own arguments, before the filter: descriptors may still be made and looked at.
  std::function<absl::StatusOr<std::unique_ptr<BackendDevice>>(EventLoop& loop)> make;
};

// `arguments`: after KIND; those of the jail are taken out of them by SplitJailArguments. Does not return where all went well.
int RunBackendProcess(const BackendKind& kind, const std::vector<absl::string_view>& jail_arguments);

// Moves "--jailed" and the sandbox's arguments from `arguments` to the result; whether "--jailed" was there.
bool SplitJailArguments(std::vector<absl::string_view>& arguments, std::vector<absl::string_view>& jail_arguments);

// One line to standard error, at most kMaxSaidBytes of it, control characters made visible as '?'. Standard error is how a device
// speaks: to the monitor, which logs it, or to the person who started it.
inline constexpr size_t kMaxSaidBytes = 400;
void SayFromBackend(absl::string_view message);
// The same without the writing: what came from a device process is the guest's, for all we know.
std::string PrintableFromBackend(absl::string_view text);

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_BACKEND_BACKEND_PROCESS_H_
