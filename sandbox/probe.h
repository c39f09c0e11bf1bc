// What this host offers to sandbox devices with: for `vmm check`.
//
// Threads  any. Starts, and reaps, one short-lived child.
// Errors   none: what is missing is a value.
#ifndef VMM_SANDBOX_PROBE_H_
#define VMM_SANDBOX_PROBE_H_

#include <string>

namespace vmm {

struct SandboxProbe {
  // All six namespaces, created as SpawnDevice would; else why not.
  bool namespaces = false;
  std::string namespaces_reason;
  bool seccomp_filter = false;
  bool seccomp_kill_process = false;
  bool seccomp_log = false;
  bool pidfd = false;
  bool close_range = false;
  int landlock_abi = 0;  // 0: none. Devices do without it.

  // Devices can be started with no layer waived.
  [[nodiscard]] bool Complete() const {
    return namespaces && seccomp_filter && seccomp_kill_process && pidfd && close_range;
  }
};

[[nodiscard]] SandboxProbe ProbeSandbox();

}  // namespace vmm

#endif  // VMM_SANDBOX_PROBE_H_
