// Starts device processes again, and connects again to Unix sockets of others', once the monitor itself may do neither (vmm/confine).
//
// A process of its own, forked and executed before the monitor gives up its rights, keeps them and does one thing: it repeats.
// Before Seal it takes requests as SpawnDevice does and remembers each, program, arguments, limits and all, and paths of sockets;
// afterwards it takes only the number of what it remembers, and descriptors. So who takes the monitor over can start our devices
// again, in their jails, and connect again to the sockets of the configuration, and nothing else. A path is looked up each time: a
// backend that was started again has made its socket anew. Devices are children of the thread that made the Spawner (CLONE_PARENT):
// it waits for them and they die with it.
//
// Threads  confined: the thread that lives as long as the devices, the monitor's event loop.
// Trust    the process trusts requests until it is sealed, and numbers and descriptors of any kind afterwards.
// Errors   those of SpawnDevice and ConnectUnixSocket; UNAVAILABLE: the process is gone, or does not answer for kAnswerMs;
//          FAILED_PRECONDITION: sealed, and nothing like it was asked for before. A start that fails half-way leaves a zombie until
//          the monitor ends.
//
// The process keeps its user's rights, no_new_privs alone: it has to give namespaces and id maps. It holds one descriptor.
#ifndef VMM_SANDBOX_SPAWNER_H_
#define VMM_SANDBOX_SPAWNER_H_

#include <cstdint>
#include <memory>
#include <string>
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
  static constexpr size_t kMostRequests = 64;  // devices, and as many paths
  static constexpr size_t kMostFds = 64;  // in one request

  // `executable_fd`, borrowed: the program whose main calls RunSpawner for `... device spawner`; -1: the one that runs now.
  static absl::StatusOr<std::unique_ptr<Spawner>> Create(int executable_fd);
  Spawner(const Spawner&) = delete;
  Spawner& operator=(const Spawner&) = delete;

  // As SpawnDevice.
  absl::StatusOr<ChildProcess> Spawn(const SpawnRequest& request);
  // As ConnectUnixSocket (base/unix_socket.h). The path is remembered whether or not somebody was there.
  absl::StatusOr<OwnedFd> Connect(const std::string& path);
  // From now on only what was asked for before is done again.
  absl::Status Seal();
  [[nodiscard]] pid_t pid() const noexcept { return process_.pid(); }

 private:
  Spawner(ChildProcess process, OwnedFd socket) : process_(std::move(process)), socket_(std::move(socket)) {}

  ChildProcess process_;
  OwnedFd socket_;
  bool sealed_ = false;
  std::vector<SpawnRequest> known_;      // as the process has them, by number
  std::vector<std::string> known_paths_;  // likewise
};

// What `... device spawner` runs; returns its exit code when the other end is gone.
int RunSpawner();

}  // namespace vmm

#endif  // VMM_SANDBOX_SPAWNER_H_
