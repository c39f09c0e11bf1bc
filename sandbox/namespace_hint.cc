#include "sandbox/namespace_hint.h"

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/owned_fd.h"

namespace vmm {
namespace {

std::optional<int64_t> ReadNumber(const char* path) {
  const OwnedFd fd(::open(path, O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return std::nullopt;
  char text[32];
  const ssize_t size = ::read(fd.get(), text, sizeof(text));
  int64_t value = 0;
  if (size <= 0 || !absl::SimpleAtoi(absl::string_view(text, size), &value)) return std::nullopt;
  return value;
}

}  // namespace

unsigned long DeviceNamespaces() {
  unsigned long flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS;
  if (::access("/proc/self/ns/cgroup", F_OK) == 0) flags |= CLONE_NEWCGROUP;
  return flags;
}

std::string ExplainNamespaceFailure(int error) {
  const bool root = ::geteuid() == 0;
  if (!root && ReadNumber("/proc/sys/kernel/unprivileged_userns_clone") == 0) {
    return "kernel.unprivileged_userns_clone is 0: only root may create user namespaces";
  }
  for (const absl::string_view kind : {"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"}) {
    const std::string path = absl::StrCat("/proc/sys/user/max_", kind, "_namespaces");
    if (ReadNumber(path.c_str()) == 0) return absl::StrCat("user.max_", kind, "_namespaces is 0");
  }
  if (!root && ReadNumber("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == 1) {
    return "kernel.apparmor_restrict_unprivileged_userns is 1: AppArmor needs a profile that allows userns";
  }
  switch (error) {
    case ENOSPC:
      return "a limit of user.max_*_namespaces is reached, or namespaces are nested too deeply";
    case EPERM:
      return "refused by the kernel: a chroot, a container's seccomp filter or a security module forbids user namespaces";
    case EINVAL:
      return "this kernel was built without one of the user, pid, net, ipc, uts and cgroup namespaces";
    default:
      return "";
  }
}

}  // namespace vmm
