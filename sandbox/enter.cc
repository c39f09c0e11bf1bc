#include "sandbox/enter.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/errno_status.h"
#include "base/status_macros.h"
#include "sandbox/landlock.h"

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

absl::Status CheckPrivileges() {
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
  return absl::OkStatus();
}

}  // namespace

absl::Status InstallSeccomp(const SeccompPolicy& policy, bool log_only) {
  std::vector<sock_filter> program(policy.program.begin(), policy.program.end());
  if (log_only) {
    for (sock_filter& instruction : program) {
      if (instruction.code == (BPF_RET | BPF_K) && instruction.k == SECCOMP_RET_KILL_PROCESS) {
        instruction.k = SECCOMP_RET_LOG;
      }
    }
  }
  const sock_fprog loaded{static_cast<unsigned short>(program.size()), program.data()};
  const long result = ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &loaded);
  if (result < 0) return ErrnoStatus(errno, absl::StrCat("install seccomp filter '", policy.name, "'"));
  if (result > 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("install seccomp filter '", policy.name, "': thread ", result, " has one of its own"));
  }
  return absl::OkStatus();
}

absl::Status EnterDeviceSandbox(const DeviceSandboxPolicy& policy, const JailOptions& options,
                                const std::function<absl::Status()>& prepare) {
  RETURN_IF_ERROR(ValidateJailOptions(options));
  if (::prctl(PR_SET_NAME, policy.process_name, 0, 0, 0) != 0) return ErrnoStatus(errno, "name process");
  if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return ErrnoStatus(errno, "make process not dumpable");
  RETURN_IF_ERROR(CheckPrivileges());
  if (!options.waive_namespaces && ::getpid() != 1) {
    return absl::FailedPreconditionError("check sandbox: not alone in a pid namespace");
  }
  if (!options.waive_empty_root) RETURN_IF_ERROR(CheckEmptyRoot());
  RETURN_IF_ERROR(CheckDescriptors(policy.inherited));
  RETURN_IF_ERROR(LandlockDenyAll());
  if (prepare) RETURN_IF_ERROR(prepare());
  if (options.waive_seccomp) return absl::OkStatus();
  return InstallSeccomp(policy.seccomp, options.log_only);
}

}  // namespace vmm
