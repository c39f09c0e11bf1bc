#include "devices/virtio/backend/backend_spawn.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errno_status.h"
#include "base/status_macros.h"
#include "devices/virtio/backend/backend_process.h"
#include "devices/virtio/backend/vhost_user_server.h"

namespace vmm {
namespace {

// Beside guest memory: the program itself, its stack, and a device's buffers.
constexpr uint64_t kOwnBytes = 64ull << 20;

constexpr uint64_t kCompanionBytes = 512ull << 20;
constexpr uint64_t kCompanionFiles = 4096;

absl::StatusOr<ChildProcess> Start(const SpawnRequest& request, Spawner* spawner) {
  return spawner != nullptr ? spawner->Spawn(request) : SpawnDevice(request);
}

// The same each time, and asked once: a spawner repeats, and a confined monitor may not ask.
uint64_t CompanionFiles() {
  static const uint64_t files = [] {
    rlimit limit{};
    return ::getrlimit(RLIMIT_NOFILE, &limit) == 0 ? std::min<uint64_t>(limit.rlim_max, kCompanionFiles) : kCompanionFiles;
  }();
  return files;
}

absl::StatusOr<ChildProcess> SpawnCompanion(const CompanionOptions& options, const OwnedFd& socket, Spawner* spawner) {
  SpawnRequest request;
  request.name = options.name;
  request.arguments = options.arguments;
  request.executable_fd = options.executable_fd;
  request.fds = {{socket.get(), kBackendSocketFd}};
  request.limits.open_files = CompanionFiles();
  request.limits.address_space_bytes = kCompanionBytes;
  request.jail = {.waive_namespaces = true, .waive_empty_root = true, .waive_seccomp = true};
  return Start(request, spawner);
}

}  // namespace

absl::StatusOr<SpawnedBackend> SpawnBackend(const BackendSpawnOptions& options, OwnedFd socket) {
  SpawnedBackend result;
  if (!socket.valid()) {
    int pair[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return ErrnoStatus(errno, "create socket pair");
    result.socket.Reset(pair[0]);
    socket.Reset(pair[1]);
  }
  int pipe_ends[2];
  if (::pipe2(pipe_ends, O_CLOEXEC | O_NONBLOCK) != 0) return ErrnoStatus(errno, "create pipe");
  result.messages.Reset(pipe_ends[0]);
  const OwnedFd says(pipe_ends[1]);

  SpawnRequest request;
  request.name = options.kind;
  request.arguments = {"vmm", "device", options.kind, std::string(kBackendJailed)};
  for (std::string& argument : JailOptionArguments(options.jail)) request.arguments.push_back(std::move(argument));
  request.arguments.insert(request.arguments.end(), options.arguments.begin(), options.arguments.end());
  request.executable_fd = options.executable_fd;
  request.fds = {{says.get(), STDERR_FILENO}, {socket.get(), kBackendSocketFd}};
  for (size_t i = 0; i < options.fds.size(); ++i) request.fds.push_back({options.fds[i], kBackendFirstFd + static_cast<int>(i)});
  OwnedFd stream;
  if (!options.companion.name.empty()) {
    int pair[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return ErrnoStatus(errno, "create socket pair");
    stream.Reset(pair[0]);
    const OwnedFd theirs(pair[1]);
    ASSIGN_OR_RETURN(result.companion, SpawnCompanion(options.companion, theirs, options.spawner));
    request.fds.push_back({stream.get(), kBackendFirstFd + static_cast<int>(options.fds.size())});
  }
  request.keeps_terminal = options.keeps_terminal;
  // Three eventfds a queue, a message's worth of others on their way, its own.
  request.limits.open_files = 32 + 3u * options.queues + options.connections;
  // Its threads are all there before its filter is, and count as processes. Without a namespace of its own it is counted together with
  // whatever else that user runs: then the filter alone keeps it from starting any.
  request.limits.processes = options.threads == 0 ? 0 : options.jail.waive_namespaces ? kNoLimit : 1 + options.threads;
  request.limits.address_space_bytes = options.guest_bytes == kNoLimit ? kNoLimit : options.guest_bytes + kOwnBytes;
  // More at first: backend_process.h.
  request.limits.file_bytes = std::max(options.file_bytes, VhostUserServer::InflightBytes(options.queues));
#ifdef VMM_DYNAMIC_LINK
  // Sanitizers reserve terabytes, start a thread and keep their shadow in files.
  request.limits.address_space_bytes = request.limits.processes = request.limits.file_bytes = kNoLimit;
#endif
#ifndef VMM_DYNAMIC_LINK
  if (request.limits.file_bytes != options.file_bytes) request.arguments.push_back(absl::StrCat(kBackendFileBytes, options.file_bytes));
#endif
  request.jail = options.jail;
  ASSIGN_OR_RETURN(result.process, Start(request, options.spawner));
  return result;
}

}  // namespace vmm
