// Starts a device process inside its jail: new user, mount, pid, net, ipc, uts and cgroup namespaces, an empty read-only
// root, no capabilities, no_new_privs, resource limits, and exactly the descriptors that it is given. What can only be done
// from inside (seccomp, Landlock) is sandbox/enter.h, called by the new process first.
//
// Threads  any, but the device dies with the *thread* that spawned it (PR_SET_PDEATHSIG counts threads): call from one
//          that lives as long as the device is needed, in the monitor the event-loop thread. The process may have other
//          threads: the child runs only async-signal-safe code (spawn_child.cc) before it execs.
// Trust    the program is our own until it reads its first guest byte. Nothing of the parent's memory survives exec, the
//          environment is empty. Unless the table says otherwise 0 and 1 are /dev/null, and 2 is a pipe to us for its last
//          words (child_process.h), which never blocks it.
// Errors   fails closed: Status "<step> for device '<name>': <errno>" and no process is left. Waived layers: JailOptions only.
//          As an ordinary user the caller must still be dumpable: the kernel gives the id maps of others to root.
//
// Users: inside it is id 65534 of a namespace with that one id. Started by root it is 65534 (nobody) outside as well,
// or root without any capability where that id cannot be mapped; started by anybody else it is that user.
//
// Terminal: a device that reads or writes the terminal (keeps_terminal) must stay in the monitor's process group: from a
// group in the background, reading gives EIO and writing may stop it. So it gets the terminal's ^C, ^\ and ^Z as well:
// these signals are ignored, and SIGTTIN and SIGTTOU too. With the monitor in the background (`vmm run &`) its reads
// therefore give EIO, and the device tries again later. All others get a session of their own.
#ifndef VMM_SANDBOX_SPAWN_H_
#define VMM_SANDBOX_SPAWN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "sandbox/child_process.h"
#include "sandbox/jail_options.h"

namespace vmm {

struct FdMapping {
  int parent_fd;  // borrowed
  int child_fd;
};

// As the caller's own: raising a limit is a privilege.
inline constexpr uint64_t kNoLimit = ~uint64_t{0};

struct ProcessLimits {
  uint64_t open_files = 16;  // the highest descriptor number plus one
  uint64_t processes = 0;
  uint64_t address_space_bytes = 64ull << 20;
  uint64_t file_bytes = 0;  // 0: no file can grow; pipes, terminals and shared pages are not counted
};

struct SpawnRequest {
  std::string name;  // for errors
  // argv; [0] by convention the program's name.
  std::vector<std::string> arguments;
  // A static executable, borrowed; -1: the one that runs now.
  int executable_fd = -1;
  std::vector<FdMapping> fds;
  bool keeps_terminal = false;
  ProcessLimits limits;
  JailOptions jail;
};

absl::StatusOr<ChildProcess> SpawnDevice(const SpawnRequest& request);

// For the spawner (spawner.h) alone. The device is the child of our parent, which waits for it and with whose thread it dies.
absl::StatusOr<ChildProcess> SpawnSibling(const SpawnRequest& request);
// The spawner's own process: `... device spawner`, not jailed, with no_new_privs and the one descriptor; dies with this thread.
absl::StatusOr<ChildProcess> StartSpawnerProcess(int executable_fd, const FdMapping& socket);

// Another trusted process of ours, in a session of its own: not jailed, with no_new_privs and the one descriptor; dies with this thread.
// It keeps the caller's rights and gives up itself what it does not need (confine.h).
absl::StatusOr<ChildProcess> StartTrustedProcess(std::string name, std::vector<std::string> arguments, int executable_fd,
                                                 const FdMapping& socket);

}  // namespace vmm

#endif  // VMM_SANDBOX_SPAWN_H_
