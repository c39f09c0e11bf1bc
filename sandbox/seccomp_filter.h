// Puts a compiled policy on: for the calling thread, or for all threads of the process. Never off again.
//
// Threads  kThisThread: any, for itself (its later threads get it too). kProcess: all threads, or none does.
// Trust    requires no_new_privs or CAP_SYS_ADMIN, as the kernel does.
// Errors   Status "install seccomp filter '<name>': <errno>".
#ifndef VMM_SANDBOX_SECCOMP_FILTER_H_
#define VMM_SANDBOX_SECCOMP_FILTER_H_

#include <linux/filter.h>

#include <cstdint>
#include <sys/types.h>
#include <vector>

#include "absl/status/status.h"
#include "sandbox/seccomp_policy.h"
#include "sandbox/violation.h"

namespace vmm {

enum class SeccompScope : uint8_t { kThisThread, kProcess };

// The program as a process with that id installs it. kLetThrough: with room for the handler to make refused calls itself.
[[nodiscard]] std::vector<sock_filter> SeccompProgram(const SeccompPolicy& policy, pid_t self, ViolationMode mode);

// InstallViolationHandler comes first, with the same mode.
[[nodiscard]] absl::Status InstallSeccomp(const SeccompPolicy& policy, SeccompScope scope, ViolationMode mode);

}  // namespace vmm

#endif  // VMM_SANDBOX_SECCOMP_FILTER_H_
