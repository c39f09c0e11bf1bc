// Starts device processes again once the monitor itself may not start anything any more (vmm/confine).
//
// A process of its own, forked and executed before the monitor gives up its rights, keeps them and does one thing: it repeats a start.
// Before Seal it takes requests as SpawnDevice does and remembers each, program, arguments, limits and all; afterwards it takes only the
// number of one that it remembers, and descriptors. So who takes the monitor over can start our devices again, in their jails, and
// nothing else. Devices are children of the thread that made the Spawner (CLONE_PARENT): it waits for them and they die with it.
//
// Threads  confined: the thread that lives as long as the devices, the monitor's event loop.
// Trust    the process trusts requests until it is sealed, and numbers and descriptors of any kind afterwards.
// Errors   those of SpawnDevice; UNAVAILABLE: the process is gone, or does not answer for kAnswerMs; FAILED_PRECONDITION: sealed, and
//          nothing like it was started before. A start that fails half-way leaves a zombie until the monitor ends.
//
// The process keeps its user's rights, no_new_privs alone: it has to give namespaces and id maps. It holds one descriptor.
#ifndef VMM_SANDBOX_SPAWNER_H_
#define VMM_SANDBOX_SPAWNER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/owned_fd.h"
#include "sandbox/child_process.h"
#include "sandbox/spawn.h"

namespace vmm {

inline constexpr int kSpawnerSocketFd = 3;

class Spawner final {
 public:
  static constexpr int kAnswerMs = 15'000;  // SpawnDevice's own limit is less
  static constexpr size_t kMostRequests = 64;
  static constexpr size_t kMostFds = 64;  // in one request

  // `executable_fd`, borrowed: the program whose main calls RunSpawner for `... device spawner`; -1: the one that runs now.
  static absl::StatusOr<std::unique_ptr<Spawner>> Create(int executable_fd);
  Spawner(const Spawner&) = delete;
  Spawner& operator=(const Spawner&) = delete;

  // As SpawnDevice.
  absl::StatusOr<ChildProcess> Spawn(const SpawnRequest& request);
  // From now on only what was started before is started again.
  absl::Status Seal();
  [[nodiscard]] pid_t pid() const noexcept { return process_.pid(); }

 private:
  Spawner(ChildProcess process, OwnedFd socket) : process_(std::move(process)), socket_(std::move(socket)) {}

  ChildProcess process_;
  OwnedFd socket_;
  bool sealed_ = false;
  std::vector<SpawnRequest> known_;  // as the process has them, by number
};

// What `... device spawner` runs; returns its exit code when the other end is gone.
int RunSpawner();

}  // namespace vmm

#endif  // VMM_SANDBOX_SPAWNER_H_
