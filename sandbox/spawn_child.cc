// ASYNC-SIGNAL-SAFE ONLY. This runs in a copy of a process that may have had threads: any lock, malloc's too, may be
// held for ever. System calls, the stack and what the plan points to; nothing else.
#include "sandbox/spawn_child.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/securebits.h>
#include <poll.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace vmm::internal {
namespace {

// The kernel's own struct: glibc's sigaction() refuses two signals that exec must find reset too.
struct KernelSigaction {
  void (*handler)(int);
  unsigned long flags;
  void (*restorer)();
  uint64_t mask;
};
constexpr int kSignalCount = 64;
// The terminal sends these to its whole foreground group, to which a device with a terminal belongs (spawn.h).
// SIGPIPE: errors are taken from write(2). Ignored dispositions survive exec.
constexpr int kIgnoredSignals[] = {SIGINT, SIGQUIT, SIGHUP, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU, SIGPIPE};
constexpr unsigned long kSecureBits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
                                      SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED |
                                      SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;
// Exists wherever we run: the parent has just written the id maps through it.
constexpr const char* kMountPoint = "/proc";

[[noreturn]] void Fail(int status_fd, SpawnStep step, int error) noexcept {
  const SpawnReport report{step, error};
  (void)!::write(status_fd, &report, sizeof(report));
  ::_exit(127);
}

// Who may make a user namespace has every capability in it, and with them more of the kernel to attack. The seccomp filter
// forbids it as well; this holds if that is waived. Best effort: a container may have mounted /proc/sys read-only.
void ForbidNestedNamespaces() noexcept {
  // The file is that of the user namespace that opens it.
  const int fd = ::open("/proc/sys/user/max_user_namespaces", O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;
  (void)!::write(fd, "0", 1);
  ::close(fd);
}

void EnterEmptyRoot(int status_fd) noexcept {
  // Nothing that happens here may reach the host's mount table.
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    Fail(status_fd, SpawnStep::kPrivateMounts, errno);
  }
  // One inode, the root directory: nothing could be created even if it were writable.
  if (::mount("none", kMountPoint, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
              "size=4096,nr_inodes=1,mode=0555") != 0) {
    Fail(status_fd, SpawnStep::kMountRoot, errno);
  }
  if (::chdir(kMountPoint) != 0) Fail(status_fd, SpawnStep::kEnterRoot, errno);
  if (::syscall(SYS_pivot_root, ".", ".") == 0) {
    // The old root is now mounted over the new one, at the same place.
    if (::umount2(".", MNT_DETACH) != 0) Fail(status_fd, SpawnStep::kDetachOldRoot, errno);
  } else {
    if (errno != EINVAL) Fail(status_fd, SpawnStep::kPivotRoot, errno);
    // The root is an initramfs, which cannot be pivoted away: cover it. Without capabilities nobody uncovers it.
    if (::mount(".", "/", nullptr, MS_MOVE, nullptr) != 0 || ::chroot(".") != 0) {
      Fail(status_fd, SpawnStep::kPivotRoot, errno);
    }
  }
  if (::chdir("/") != 0) Fail(status_fd, SpawnStep::kEnterRoot, errno);
}

void ResetSignals(int status_fd) noexcept {
  KernelSigaction action{};
  for (int number = 1; number <= kSignalCount; ++number) {
    if (number == SIGKILL || number == SIGSTOP) continue;
    action.handler = SIG_DFL;
    for (const int ignored : kIgnoredSignals) {
      if (number == ignored) action.handler = SIG_IGN;
    }
    if (::syscall(SYS_rt_sigaction, number, &action, nullptr, sizeof(action.mask)) != 0) {
      Fail(status_fd, SpawnStep::kSignals, errno);
    }
  }
  const uint64_t none = 0;
  if (::syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, nullptr, sizeof(none)) != 0) {
    Fail(status_fd, SpawnStep::kSignals, errno);
  }
}

int Park(int status_fd, int fd, int minimum) noexcept {
  const int parked = ::fcntl(fd, F_DUPFD_CLOEXEC, minimum);
  if (parked < 0) Fail(status_fd, SpawnStep::kMoveFds, errno);
  return parked;
}

void DropCapabilities(const SpawnPlan& plan, int status_fd) noexcept {
  // Dropping from the bounding set needs CAP_SETPCAP; who has no capability gains none either (no_new_privs below).
  if (plan.lock_secure_bits) {
    for (unsigned long capability = 0; capability < 64; ++capability) {
      if (::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0 && errno != EINVAL) {
        Fail(status_fd, SpawnStep::kBoundingSet, errno);
      }
    }
  }
  if (::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0) Fail(status_fd, SpawnStep::kAmbientSet, errno);
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {};
  if (::syscall(SYS_capset, &header, none) != 0) Fail(status_fd, SpawnStep::kDropCapabilities, errno);
}

}  // namespace

void RunSpawnedChild(const SpawnPlan& plan) noexcept {
  int status_fd = plan.status_fd;
  char go = 0;
  ssize_t got;
  do {
    got = ::read(status_fd, &go, sizeof(go));
  } while (got < 0 && errno == EINTR);
  if (got != 1) ::_exit(127);  // the parent gave up, or is gone

  if (plan.new_session && ::setsid() < 0) Fail(status_fd, SpawnStep::kSession, errno);
  if (plan.lock_secure_bits && ::prctl(PR_SET_SECUREBITS, kSecureBits, 0, 0, 0) != 0) {
    Fail(status_fd, SpawnStep::kSecureBits, errno);
  }
  // Raw calls: glibc's wrappers talk to the process's other threads, of which this copy has only the memory.
  if (go == kGoDropGroups && ::syscall(SYS_setgroups, 0, nullptr) != 0) Fail(status_fd, SpawnStep::kDropGroups, errno);
  if (plan.set_ids && (::syscall(SYS_setresgid, plan.id, plan.id, plan.id) != 0 ||
                       ::syscall(SYS_setresuid, plan.id, plan.id, plan.id) != 0)) {
    Fail(status_fd, SpawnStep::kSetIds, errno);
  }
  if (plan.new_user_namespace) ForbidNestedNamespaces();
  if (plan.empty_root) EnterEmptyRoot(status_fd);
  ::umask(077);
  ResetSignals(status_fd);

  // Park everything above the table, then place it: sources and targets may overlap.
  const int above = plan.fds[plan.fd_count - 1].target + 1;
  const int executable_fd = Park(status_fd, plan.executable_fd, above);
  status_fd = Park(status_fd, status_fd, above);
  for (size_t i = 0; i < plan.fd_count; ++i) plan.fds[i].parked = Park(status_fd, plan.fds[i].source, above);
  int next = 0;
  for (size_t i = 0; i < plan.fd_count; ++i) {
    const SpawnFd& fd = plan.fds[i];
    if (::dup2(fd.parked, fd.target) < 0) Fail(status_fd, SpawnStep::kPlaceFds, errno);
    if (next < fd.target && ::syscall(SYS_close_range, next, fd.target - 1, 0) != 0) {
      Fail(status_fd, SpawnStep::kCloseFds, errno);
    }
    next = fd.target + 1;
  }
  // The rest closes at exec: the executable and the status socket are needed until then.
  if (::syscall(SYS_close_range, next, ~0U, CLOSE_RANGE_CLOEXEC) != 0) Fail(status_fd, SpawnStep::kCloseFds, errno);

  for (size_t i = 0; i < plan.limit_count; ++i) {
    const rlimit limit{plan.limits[i].value, plan.limits[i].value};
    if (::setrlimit(static_cast<__rlimit_resource_t>(plan.limits[i].resource), &limit) != 0) {
      Fail(status_fd, SpawnStep::kLimits, errno);
    }
  }
  if (!plan.keep_capabilities) DropCapabilities(plan, status_fd);
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) Fail(status_fd, SpawnStep::kNoNewPrivileges, errno);
  // After the last change of ids, which clears it. A parent that died before this line has closed its end.
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) Fail(status_fd, SpawnStep::kParentDeathSignal, errno);
  pollfd parent{status_fd, POLLIN, 0};
  if (::poll(&parent, 1, 0) != 0) Fail(status_fd, SpawnStep::kParentGone, ECHILD);

  ::syscall(SYS_execveat, executable_fd, "", plan.arguments, plan.environment, AT_EMPTY_PATH);
  Fail(status_fd, SpawnStep::kExec, errno);
}

const char* SpawnStepText(SpawnStep step) {
  switch (step) {
    case SpawnStep::kWaitForParent: return "wait for the id maps";
    case SpawnStep::kSession: return "start a session";
    case SpawnStep::kSecureBits: return "lock the securebits";
    case SpawnStep::kDropGroups: return "drop the supplementary groups";
    case SpawnStep::kSetIds: return "change to the unprivileged user";
    case SpawnStep::kPrivateMounts: return "make the mount namespace private";
    case SpawnStep::kMountRoot: return "mount the empty root";
    case SpawnStep::kEnterRoot: return "enter the empty root";
    case SpawnStep::kPivotRoot: return "pivot to the empty root";
    case SpawnStep::kDetachOldRoot: return "detach the old root";
    case SpawnStep::kSignals: return "reset the signals";
    case SpawnStep::kMoveFds: return "duplicate the descriptors";
    case SpawnStep::kPlaceFds: return "place the descriptors";
    case SpawnStep::kCloseFds: return "close all other descriptors (close_range)";
    case SpawnStep::kLimits: return "set the resource limits";
    case SpawnStep::kBoundingSet: return "empty the capability bounding set";
    case SpawnStep::kAmbientSet: return "empty the ambient capability set";
    case SpawnStep::kDropCapabilities: return "drop the capabilities";
    case SpawnStep::kNoNewPrivileges: return "set no_new_privs";
    case SpawnStep::kParentDeathSignal: return "set the parent death signal";
    case SpawnStep::kParentGone: return "find the parent alive";
    case SpawnStep::kExec: return "execute the device's program";
  }
  return "set up";
}

}  // namespace vmm::internal
