// What this host offers to sandbox devices with: for `vmm check`.
//
// Threads  any. Starts, and reaps, one short-lived child.
// Errors   none: what is missing is a value.
#ifndef VMM_SANDBOX_PROBE_H_
#define VMM_SANDBOX_PROBE_H_

#include <string>

namespace vmm {

struct SandboxProbe {
  // All namespaces, created as SpawnDevice would; else why not.
  bool namespaces = false;
  std::string namespaces_reason;
  bool seccomp_filter = false;
  bool seccomp_kill_process = false;
  bool seccomp_trap = false;    // how a violation is reported
  bool cgroup_namespace = false;  // the kernel knows cgroups, and a device has a namespace of them
  bool pidfd = false;
  bool close_range = false;
  int landlock_abi = 0;  // 0: none. Devices do without it.

  // Devices can be started with no layer waived.
  [[nodiscard]] bool Complete() const {
    return namespaces && seccomp_filter && seccomp_kill_process && seccomp_trap && pidfd && close_range;
  }
};

[[nodiscard]] SandboxProbe ProbeSandbox();

}  // namespace vmm

#endif  // VMM_SANDBOX_PROBE_H_
