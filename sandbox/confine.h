// Gives up what a thread of the monitor does not need any more: capabilities, files, the right to gain any of it back.
//
// Shapes   kernel objects are the thread's own, so each step is the calling thread's, and that of the threads it starts afterwards.
//          The seccomp filter comes last and is its own call (seccomp_filter.h).
// Threads  any, for itself. RaiseLockLimit and MakeUndumpable: the process.
// Trust    threads share memory: who takes one over can make the others act. What the process can still do is what the widest
//          of its filters allows, so no thread that handles a guest's bytes may be left without.
// Errors   Status "<verb> <object>: <errno>". What was given up before stays so.
#ifndef VMM_SANDBOX_CONFINE_H_
#define VMM_SANDBOX_CONFINE_H_

#include "absl/status/status.h"
#include "sandbox/jail_options.h"

namespace vmm {

struct ThreadPrivileges {
  // CAP_KILL stays: device processes that have another user's id and no namespace that we own could not be ended otherwise.
  bool keep_kill = false;
};

// no_new_privs in any case; capabilities (effective, permitted, inheritable, ambient, and the bounding set where we may) and Landlock
// unless waived. Signals stay possible: there are device processes to end.
[[nodiscard]] absl::Status DropThreadPrivileges(const MonitorJailOptions& options, const ThreadPrivileges& keep);

// For memory that is locked page by page later, without CAP_IPC_LOCK.
[[nodiscard]] absl::Status RaiseLockLimit();

// No core, no ptrace by the same user, /proc/self belongs to root. Id maps of device processes cannot be written afterwards
// (spawn.h): the last of them has been started.
[[nodiscard]] absl::Status MakeUndumpable();

}  // namespace vmm

#endif  // VMM_SANDBOX_CONFINE_H_
