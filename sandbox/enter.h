// The inner half of a device's sandbox: the first thing that a spawned device process does, before its first guest byte.
//
// Shapes   not dumpable; exactly the expected descriptors; one thread, no capability in any set, no_new_privs, SIGKILL at the
//          parent's death, pid 1, empty read-only root (all checked, not assumed); Landlock denies everything where the kernel has
//          it; then the seccomp filter, last.
// Threads  before the process has others (checked, but in sanitizer builds, whose runtimes have one).
// Trust    the caller is our own code; everything after this call may be under a guest's control.
// Errors   Status "<verb> <object>"; the caller must exit. Nothing here is skipped but by JailOptions.
#ifndef VMM_SANDBOX_ENTER_H_
#define VMM_SANDBOX_ENTER_H_

#include <functional>
#include <span>

#include "absl/status/status.h"
#include "sandbox/jail_options.h"
#include "sandbox/seccomp_policy.h"

namespace vmm {

struct DeviceSandboxPolicy {
  const char* process_name;  // at most 15 characters, seen in ps
  const SeccompPolicy& seccomp;
  // Every descriptor that was handed over, besides 0, 1 and 2.
  std::span<const int> inherited;
};

// `prepare` runs after all but the seccomp filter: it makes what the filter forbids to make (epoll, timers, mappings).
absl::Status EnterDeviceSandbox(const DeviceSandboxPolicy& policy, const JailOptions& options,
                                const std::function<absl::Status()>& prepare = nullptr);

}  // namespace vmm

#endif  // VMM_SANDBOX_ENTER_H_
