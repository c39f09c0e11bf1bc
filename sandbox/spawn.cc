#include "sandbox/spawn.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/errno_status.h"
#include "base/owned_fd.h"
#include "base/status_macros.h"
#include "sandbox/namespace_hint.h"
#include "sandbox/spawn_child.h"

namespace vmm {
namespace {

constexpr uint32_t kUnprivilegedId = 65534;
constexpr int kSetupTimeoutMs = 10'000;

absl::Status WriteProcFile(pid_t pid, absl::string_view file, absl::string_view text) {
  const std::string path = absl::StrCat("/proc/", pid, "/", file);
  const OwnedFd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd.valid()) return ErrnoStatus(errno, absl::StrCat("open ", path));
  if (::write(fd.get(), text.data(), text.size()) < 0) return ErrnoStatus(errno, absl::StrCat("write ", path));
  return absl::OkStatus();
}

// One id inside the namespace; outside it is nobody's, or ours.
absl::Status MapIds(pid_t pid, bool to_nobody) {
  const uint32_t user = to_nobody ? kUnprivilegedId : ::geteuid();
  const uint32_t group = to_nobody ? kUnprivilegedId : ::getegid();
  // An ordinary user may map his group only after giving up setgroups; root keeps it so that the child can drop its groups.
  if (!to_nobody) RETURN_IF_ERROR(WriteProcFile(pid, "setgroups", "deny"));
  RETURN_IF_ERROR(WriteProcFile(pid, "gid_map", absl::StrCat(kUnprivilegedId, " ", group, " 1\n")));
  return WriteProcFile(pid, "uid_map", absl::StrCat(kUnprivilegedId, " ", user, " 1\n"));
}

absl::Status CheckFdTable(const std::vector<internal::SpawnFd>& fds, uint64_t limit) {
  for (size_t i = 0; i < fds.size(); ++i) {
    if (fds[i].source < 0 || fds[i].target < 0 || static_cast<uint64_t>(fds[i].target) >= limit) {
      return absl::InvalidArgumentError(absl::StrCat("place descriptor ", fds[i].source, " at ", fds[i].target,
                                                     ": outside 0..", limit - 1, " (ProcessLimits::open_files)"));
    }
    if (i > 0 && fds[i].target == fds[i - 1].target) {
      return absl::InvalidArgumentError(absl::StrCat("place descriptor at ", fds[i].target, ": given twice"));
    }
  }
  return absl::OkStatus();
}

std::vector<char*> PointersTo(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (std::string& string : strings) pointers.push_back(string.data());
  pointers.push_back(nullptr);
  return pointers;
}

// Waits for the exec. OK: the device's program runs.
absl::Status AwaitExec(int status_fd) {
  while (true) {
    pollfd poll_fd{status_fd, POLLIN, 0};
    const int ready = ::poll(&poll_fd, 1, kSetupTimeoutMs);
    if (ready < 0 && errno == EINTR) continue;
    if (ready < 0) return ErrnoStatus(errno, "wait for the start");
    if (ready == 0) return absl::DeadlineExceededError(absl::StrCat("start: not done after ", kSetupTimeoutMs, " ms"));
    internal::SpawnReport report{};
    const ssize_t size = ::recv(status_fd, &report, sizeof(report), MSG_DONTWAIT);
    if (size == 0) return absl::OkStatus();
    if (size < 0 && errno == ECONNRESET) return absl::OkStatus();
    if (size < 0) return ErrnoStatus(errno, "read the report of the start");
    if (size != sizeof(report)) return absl::InternalError("start: a report of the wrong size");
    // EINVAL: this kernel does not do such a step; our own arguments have been checked before.
    const absl::Status status = ErrnoStatus(report.error, internal::SpawnStepText(report.step));
    return report.error == EINVAL ? absl::FailedPreconditionError(status.message()) : status;
  }
}

enum class Kin : uint8_t { kChild, kSibling, kSpawner };

absl::StatusOr<ChildProcess> Spawn(const SpawnRequest& request, Kin kin) {
  RETURN_IF_ERROR(ValidateJailOptions(request.jail));
  if (request.arguments.empty()) return absl::InvalidArgumentError("start: no arguments, not even the program's name");

  OwnedFd self;
  int executable_fd = request.executable_fd;
  if (executable_fd < 0) {
    self.Reset(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
    if (!self.valid()) return ErrnoStatus(errno, "open /proc/self/exe");
    executable_fd = self.get();
  }
  const OwnedFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null.valid()) return ErrnoStatus(errno, "open /dev/null");

  std::vector<internal::SpawnFd> fds;
  for (const FdMapping& fd : request.fds) fds.push_back({fd.parent_fd, fd.child_fd, -1});
  int words[2];
  if (::pipe2(words, O_CLOEXEC | O_NONBLOCK) != 0) return ErrnoStatus(errno, "create the pipe for last words");
  OwnedFd words_read(words[0]);
  OwnedFd words_write(words[1]);
  for (int standard = 0; standard <= 2; ++standard) {
    const bool given = std::any_of(fds.begin(), fds.end(), [&](const auto& fd) { return fd.target == standard; });
    if (!given) fds.push_back({standard == STDERR_FILENO ? words_write.get() : null.get(), standard, -1});
  }
  std::sort(fds.begin(), fds.end(), [](const auto& a, const auto& b) { return a.target < b.target; });
  RETURN_IF_ERROR(CheckFdTable(fds, request.limits.open_files));

  // In this order: RLIMIT_NOFILE is checked when a descriptor is made, and exec makes none.
  std::vector<internal::SpawnLimit> limits = {
      {RLIMIT_NOFILE, request.limits.open_files},
      {RLIMIT_CORE, 0},
      {RLIMIT_NPROC, request.limits.processes},
      {RLIMIT_FSIZE, request.limits.file_bytes},
      {RLIMIT_AS, request.limits.address_space_bytes},
      {RLIMIT_MEMLOCK, 0},
      {RLIMIT_MSGQUEUE, 0},
  };
  std::erase_if(limits, [](const internal::SpawnLimit& limit) { return limit.value == kNoLimit; });
  std::vector<std::string> arguments = request.arguments;
  std::vector<char*> argv = PointersTo(arguments);
  char* no_environment[] = {nullptr};

  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
    return ErrnoStatus(errno, "create the start-up socket");
  }
  const OwnedFd parent_end(pair[0]);
  OwnedFd child_end(pair[1]);

  const bool spawner = kin == Kin::kSpawner;
  const bool namespaces = !request.jail.waive_namespaces;
  const bool root = ::geteuid() == 0 && !spawner;
  internal::SpawnPlan plan{
      .status_fd = child_end.get(),
      .executable_fd = executable_fd,
      .arguments = argv.data(),
      .environment = no_environment,
      .fds = fds.data(),
      .fd_count = fds.size(),
      .limits = limits.data(),
      .limit_count = limits.size(),
      .new_session = !request.keeps_terminal,
      .new_user_namespace = namespaces,
      .empty_root = !request.jail.waive_empty_root,
      .lock_secure_bits = namespaces || root,
      .keep_capabilities = spawner,
      .set_ids = namespaces || root,
      .id = kUnprivilegedId,
  };
  // No handler of ours may run in the child, which shares none of our state.
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  int pidfd = -1;
  const unsigned long flags = CLONE_PIDFD | SIGCHLD | (kin == Kin::kSibling ? CLONE_PARENT : 0) | (namespaces ? DeviceNamespaces() : 0);
  const long pid = ::syscall(SYS_clone, flags, nullptr, &pidfd, nullptr, nullptr);
  if (pid == 0) internal::RunSpawnedChild(plan);
  const int clone_error = errno;
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (pid < 0) {
    if (!namespaces) return ErrnoStatus(clone_error, "create the process");
    const absl::Status status = ErrnoStatus(clone_error, "create the namespaces");
    const std::string hint = ExplainNamespaceFailure(clone_error);
    // ENOSPC: the limit of user.max_*_namespaces. EINVAL: the kernel has no such namespace. Neither is a matter of memory or
    // of our arguments: this host does not give them.
    const bool lacking = clone_error == ENOSPC || clone_error == EINVAL || clone_error == EUSERS;
    return absl::Status(lacking ? absl::StatusCode::kFailedPrecondition : status.code(),
                        hint.empty() ? std::string(status.message()) : absl::StrCat(status.message(), " (", hint, ")"));
  }
  ChildProcess child(static_cast<pid_t>(pid), OwnedFd(pidfd), std::move(words_read));  // an early return ends it
  child_end.Reset();
  words_write.Reset();

  bool own_id = !root;
  if (namespaces) {
    if (root) own_id = !MapIds(child.pid(), /*to_nobody=*/true).ok();
    if (own_id) RETURN_IF_ERROR(MapIds(child.pid(), /*to_nobody=*/false));
  }
  const char go = own_id ? internal::kGoKeepGroups : internal::kGoDropGroups;
  if (::send(parent_end.get(), &go, sizeof(go), MSG_NOSIGNAL) != sizeof(go)) return ErrnoStatus(errno, "release the child");
  RETURN_IF_ERROR(AwaitExec(parent_end.get()));
  return child;
}

absl::StatusOr<ChildProcess> Named(const SpawnRequest& request, Kin kin) {
  absl::StatusOr<ChildProcess> child = Spawn(request, kin);
  if (child.ok()) return child;
  return absl::Status(child.status().code(),
                      absl::StrCat("start device '", request.name, "': ", child.status().message()));
}

}  // namespace

absl::StatusOr<ChildProcess> SpawnDevice(const SpawnRequest& request) { return Named(request, Kin::kChild); }
absl::StatusOr<ChildProcess> SpawnSibling(const SpawnRequest& request) { return Named(request, Kin::kSibling); }

namespace {

absl::StatusOr<ChildProcess> StartUnjailed(std::string name, std::vector<std::string> arguments, int executable_fd, const FdMapping& socket,
                                           bool keeps_terminal) {
  SpawnRequest request;
  request.name = std::move(name);
  request.arguments = std::move(arguments);
  request.executable_fd = executable_fd;
  request.fds = {socket};
  request.keeps_terminal = keeps_terminal;
  // The spawner opens pipes and sockets for as many devices as there are, and its limits are the hard ones of all of them.
  request.limits = {.open_files = kNoLimit, .processes = kNoLimit, .address_space_bytes = kNoLimit, .file_bytes = kNoLimit};
  request.jail.waive_namespaces = request.jail.waive_empty_root = true;
  return Named(request, Kin::kSpawner);
}

}  // namespace

absl::StatusOr<ChildProcess> StartSpawnerProcess(int executable_fd, const FdMapping& socket) {
  // Devices inherit its session and group, and the terminal's signals are ignored by both.
  return StartUnjailed("spawner", {"vmm", "device", "spawner"}, executable_fd, socket, /*keeps_terminal=*/true);
}

absl::StatusOr<ChildProcess> StartTrustedProcess(std::string name, std::vector<std::string> arguments, int executable_fd,
                                                 const FdMapping& socket) {
  return StartUnjailed(std::move(name), std::move(arguments), executable_fd, socket, /*keeps_terminal=*/false);
}

}  // namespace vmm
