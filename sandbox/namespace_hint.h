// Why creating namespaces failed, in terms of what the administrator can change.
//
// Threads  any. Reads /proc/sys.
#ifndef VMM_SANDBOX_NAMESPACE_HINT_H_
#define VMM_SANDBOX_NAMESPACE_HINT_H_

#include <string>

namespace vmm {

// "kernel.unprivileged_userns_clone is 0: ...", or empty where nothing is known. `error` is clone's errno.
[[nodiscard]] std::string ExplainNamespaceFailure(int error);

}  // namespace vmm

#endif  // VMM_SANDBOX_NAMESPACE_HINT_H_
