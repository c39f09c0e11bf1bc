// Starts a vhost-user device in its jail, for a monitor or for whoever serves another VMM.
//
// Threads  the one that lives as long as the device (sandbox/spawn.h).
// Trust    the program is our own until it reads its first message. What it says on standard error is the device's: escape and bound it.
// Errors   Status of SpawnDevice, or the spawner's; nothing is left running.
#ifndef VMM_DEVICES_VIRTIO_BACKEND_BACKEND_SPAWN_H_
#define VMM_DEVICES_VIRTIO_BACKEND_BACKEND_SPAWN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/owned_fd.h"
#include "sandbox/child_process.h"
#include "sandbox/jail_options.h"
#include "sandbox/spawn.h"
#include "sandbox/spawner.h"

namespace vmm {

// Another project's program beside a device, at the other end of a stream socket: the device has that as its last descriptor, the program
// as kBackendSocketFd, and each ends when the other does. It gets no descriptor else, no capability, no new privileges and limits; it is
// dynamic and reads files, and may need the host's network, so that namespaces and an empty root are its own business.
struct CompanionOptions {
  std::string name;                    // empty: there is none
  std::vector<std::string> arguments;  // argv
  int executable_fd = -1;              // borrowed
};

struct BackendSpawnOptions {
  std::string kind;                    // of `vmm device KIND`
  std::vector<std::string> arguments;  // the kind's own
  std::vector<int> fds;                // borrowed; kBackendFirstFd and on
  int executable_fd = -1;              // -1: the running program
  uint16_t queues = 1;                 // how many eventfds it will be sent
  uint64_t guest_bytes = kNoLimit;     // of memory that it will map
  uint32_t connections = 0;            // descriptors that it makes while it serves
  uint64_t file_bytes = 0;             // the largest file that it may write
  uint16_t threads = 0;                // beside its first
  bool keeps_terminal = false;
  JailOptions jail;
  CompanionOptions companion;
  Spawner* spawner = nullptr;          // borrowed: who starts it; null: this process, which has to have kept the right
};

struct SpawnedBackend {
  ChildProcess process;
  ChildProcess companion;
  OwnedFd socket;    // the front end's; none where the caller gave one
  OwnedFd messages;  // a pipe, non-blocking: what it says
};

// `socket`: its connection to a front end; invalid: a new one, whose other end is in the answer.
absl::StatusOr<SpawnedBackend> SpawnBackend(const BackendSpawnOptions& options, OwnedFd socket = OwnedFd());

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_BACKEND_BACKEND_SPAWN_H_
