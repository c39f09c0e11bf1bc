#include "sandbox/probe.h"

#include <linux/close_range.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "sandbox/landlock.h"
#include "sandbox/namespace_hint.h"

namespace vmm {
namespace {

bool ActionAvailable(uint32_t action) {
  return ::syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
}

}  // namespace

SandboxProbe ProbeSandbox() {
  SandboxProbe probe;
  const long pid = ::syscall(SYS_clone, DeviceNamespaces() | SIGCHLD, nullptr, nullptr, nullptr, nullptr);
  if (pid == 0) ::_exit(0);
  if (pid > 0) {
    probe.namespaces = true;
    while (::waitpid(static_cast<pid_t>(pid), nullptr, 0) < 0 && errno == EINTR) {
    }
  } else {
    const int error = errno;
    const std::string hint = ExplainNamespaceFailure(error);
    probe.namespaces_reason = absl::StrCat(::strerrordesc_np(error), hint.empty() ? "" : ": ", hint);
  }
  // A filter that is not there fails with EFAULT where filters exist, with EINVAL where they do not.
  probe.seccomp_filter = ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, nullptr, 0, 0) != 0 && errno == EFAULT;
  probe.seccomp_kill_process = ActionAvailable(SECCOMP_RET_KILL_PROCESS);
  probe.seccomp_trap = ActionAvailable(SECCOMP_RET_TRAP);
  probe.cgroup_namespace = (DeviceNamespaces() & CLONE_NEWCGROUP) != 0;
  const long self = ::syscall(SYS_pidfd_open, ::getpid(), 0);
  probe.pidfd = self >= 0;
  if (self >= 0) ::close(static_cast<int>(self));
  // An empty range at the far end: nothing is open there. CLOSE_RANGE_CLOEXEC is the younger half.
  probe.close_range = ::syscall(SYS_close_range, ~0U, ~0U, CLOSE_RANGE_CLOEXEC) == 0;
  probe.landlock_abi = LandlockAbi();
  return probe;
}

}  // namespace vmm
