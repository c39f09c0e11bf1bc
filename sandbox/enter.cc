#include "sandbox/enter.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/errno_status.h"
#include "base/status_macros.h"
#include "sandbox/landlock.h"
#include "sandbox/seccomp_filter.h"
#include "sandbox/violation.h"

namespace vmm {
namespace {

absl::Status CheckDescriptors(std::span<const int> expected) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return ErrnoStatus(errno, "read descriptor limit");
  // The jail's limit is small; where it was not started by SpawnDevice it is not, and then that is the error.
  if (limit.rlim_cur > 1024) {
    return absl::FailedPreconditionError(
        absl::StrCat("check sandbox: the descriptor limit is ", limit.rlim_cur, ": not started by the monitor"));
  }
  for (int fd = 0; fd < static_cast<int>(limit.rlim_cur); ++fd) {
    const bool open = ::fcntl(fd, F_GETFD) >= 0;
    const bool wanted = fd <= 2 || std::find(expected.begin(), expected.end(), fd) != expected.end();
    if (open == wanted) continue;
    return absl::FailedPreconditionError(
        absl::StrCat("check sandbox: descriptor ", fd, open ? " is open and should not be" : " is missing"));
  }
  return absl::OkStatus();
}

// A filter, Landlock and the ids are a thread's own: one that exists already would go without.
absl::Status CheckOneThread() {
#ifndef VMM_DYNAMIC_LINK
  // Changes nothing, and is refused where there are others.
  if (::unshare(CLONE_THREAD) != 0) return absl::FailedPreconditionError("check sandbox: the process has more than one thread");
#endif
  return absl::OkStatus();
}

absl::Status CheckPrivileges(bool empty_bounding_set) {
  int death_signal = 0;
  if (::prctl(PR_GET_PDEATHSIG, &death_signal, 0, 0, 0) != 0 || death_signal != SIGKILL) {
    return absl::FailedPreconditionError("check sandbox: the process would outlive its parent");
  }
  for (unsigned long capability = 0; capability < 64; ++capability) {
    if (::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, capability, 0, 0) == 1) {
      return absl::FailedPreconditionError(absl::StrCat("check sandbox: capability ", capability, " is ambient"));
    }
    if (empty_bounding_set && ::prctl(PR_CAPBSET_READ, capability, 0, 0, 0) == 1) {
      return absl::FailedPreconditionError(absl::StrCat("check sandbox: capability ", capability, " is in the bounding set"));
    }
  }
  if (::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1) {
    return absl::FailedPreconditionError("check sandbox: no_new_privs is not set");
  }
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {};
  if (::syscall(SYS_capget, &header, data) != 0) return ErrnoStatus(errno, "read capabilities");
  for (const auto& word : data) {
    if ((word.effective | word.permitted | word.inheritable) != 0) {
      return absl::FailedPreconditionError("check sandbox: capabilities are left");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckEmptyRoot() {
  DIR* root = ::opendir("/");
  if (root == nullptr) return ErrnoStatus(errno, "open /");
  bool empty = true;
  while (const dirent* entry = ::readdir(root)) {
    const absl::string_view name = entry->d_name;
    if (name != "." && name != "..") empty = false;
  }
  ::closedir(root);
  if (!empty) return absl::FailedPreconditionError("check sandbox: the root directory is not empty");
  struct statvfs mount{};
  if (::statvfs("/", &mount) != 0) return ErrnoStatus(errno, "examine /");
  if ((mount.f_flag & ST_RDONLY) == 0) return absl::FailedPreconditionError("check sandbox: the root directory is writable");
  return absl::OkStatus();
}

}  // namespace

absl::Status EnterDeviceSandbox(const DeviceSandboxPolicy& policy, const JailOptions& options,
                                const std::function<absl::Status()>& prepare) {
  RETURN_IF_ERROR(ValidateJailOptions(options));
  if (::prctl(PR_SET_NAME, policy.process_name, 0, 0, 0) != 0) return ErrnoStatus(errno, "name process");
  if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return ErrnoStatus(errno, "make process not dumpable");
  RETURN_IF_ERROR(CheckOneThread());
  // An ordinary user without a namespace of his own cannot empty it; no_new_privs keeps him from using it.
  RETURN_IF_ERROR(CheckPrivileges(/*empty_bounding_set=*/!options.waive_namespaces));
  if (!options.waive_namespaces && ::getpid() != 1) {
    return absl::FailedPreconditionError("check sandbox: not alone in a pid namespace");
  }
  if (!options.waive_empty_root) RETURN_IF_ERROR(CheckEmptyRoot());
  RETURN_IF_ERROR(CheckDescriptors(policy.inherited));
  RETURN_IF_ERROR(LandlockDenyAll(LandlockSignals::kDeny));
  if (prepare) RETURN_IF_ERROR(prepare());
  if (options.waive_seccomp) return absl::OkStatus();
  const ViolationMode mode = options.log_only ? ViolationMode::kLetThrough : ViolationMode::kDie;
  RETURN_IF_ERROR(InstallViolationHandler(mode, ViolationOutput::kLastWords));
  return InstallSeccomp(policy.seccomp, SeccompScope::kProcess, mode);
}

}  // namespace vmm
