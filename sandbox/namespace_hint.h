// Why creating namespaces failed, in terms of what the administrator can change.
//
// Threads  any. Reads /proc/sys.
#ifndef VMM_SANDBOX_NAMESPACE_HINT_H_
#define VMM_SANDBOX_NAMESPACE_HINT_H_

#include <string>

namespace vmm {

// CLONE_NEW* for a device process: user, mount, pid, net, ipc, uts, and cgroup where the kernel knows cgroups at all. No time
// namespace: it hides nothing, its clocks being the host's until somebody with a capability shifts them.
[[nodiscard]] unsigned long DeviceNamespaces();

// "kernel.unprivileged_userns_clone is 0: ...", or empty where nothing is known. `error` is clone's errno.
[[nodiscard]] std::string ExplainNamespaceFailure(int error);

}  // namespace vmm

#endif  // VMM_SANDBOX_NAMESPACE_HINT_H_
