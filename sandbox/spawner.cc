#include "sandbox/spawner.h"

#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/errno_status.h"
#include "base/status_macros.h"
#include "base/unix_socket.h"
#include "sandbox/spawner_wire.h"

namespace vmm {
namespace {

using internal::ReceivedMessage;
using internal::SpawnerAnswer;
using internal::SpawnerHeader;
using internal::SpawnerKind;

static_assert(Spawner::kMostFds <= internal::kSpawnerFds);

std::string Message(SpawnerKind kind, uint32_t index, absl::string_view rest = "") {
  const SpawnerHeader header{kind, index};
  std::string bytes(reinterpret_cast<const char*>(&header), sizeof(header));
  bytes.append(rest.data(), rest.size());
  return bytes;
}

// The other side: one per spawner process.
class Repeater {
 public:
  // False: the monitor is gone, or talks nonsense.
  bool Serve() {
    auto message = internal::ReceiveMessage(kSpawnerSocketFd);
    SpawnerHeader header;
    if (!message || message->bytes.size() < sizeof(header)) return false;
    std::memcpy(&header, message->bytes.data(), sizeof(header));
    const absl::string_view rest = absl::string_view(message->bytes).substr(sizeof(header));
    switch (header.kind) {
      case SpawnerKind::kRegister: return Answer(Register(rest, *message));
      case SpawnerKind::kSpawn: return Answer(Spawn(header.index, *message));
      case SpawnerKind::kRegisterPath: return Answer(RegisterPath(rest, *message));
      case SpawnerKind::kConnect: return Answer(Connect(header.index, *message));
      case SpawnerKind::kSeal: sealed_ = true; return Answer(absl::OkStatus());
    }
    return false;
  }

 private:
  struct Known {
    SpawnRequest request;
    OwnedFd executable;
  };

  absl::Status Register(absl::string_view text, ReceivedMessage& message) {
    if (sealed_) return absl::FailedPreconditionError("no new device can be started any more");
    if (known_.size() >= Spawner::kMostRequests) return absl::ResourceExhaustedError("too many different devices");
    auto request = internal::DecodeRequest(text);
    if (!request || message.fds.size() > 1) return absl::InvalidArgumentError("not a request");
    Known known{*std::move(request), OwnedFd()};
    if (!message.fds.empty()) known.executable = std::move(message.fds[0]);
    known_.push_back(std::move(known));
    return absl::OkStatus();
  }

  absl::Status RegisterPath(absl::string_view path, const ReceivedMessage& message) {
    if (sealed_) return absl::FailedPreconditionError("no other socket can be connected to any more");
    if (paths_.size() >= Spawner::kMostRequests) return absl::ResourceExhaustedError("too many different sockets");
    if (path.empty() || path.find('\0') != absl::string_view::npos || !message.fds.empty()) return absl::InvalidArgumentError("not a path");
    paths_.emplace_back(path);
    return absl::OkStatus();
  }

  absl::StatusOr<OwnedFd> Connect(uint32_t index, const ReceivedMessage& message) {
    if (index >= paths_.size() || !message.fds.empty()) return absl::InvalidArgumentError("no such path");
    return ConnectUnixSocket(paths_[index]);
  }

  absl::StatusOr<ChildProcess> Spawn(uint32_t index, const ReceivedMessage& message) {
    if (index >= known_.size()) return absl::InvalidArgumentError("no such request");
    SpawnRequest request = known_[index].request;
    if (message.fds.size() != request.fds.size()) return absl::InvalidArgumentError("not the descriptors of that request");
    for (size_t i = 0; i < request.fds.size(); ++i) request.fds[i].parent_fd = message.fds[i].get();
    request.executable_fd = known_[index].executable.get();
    return SpawnSibling(request);
  }

  static bool Send(const absl::Status& status, pid_t pid, const std::vector<int>& fds) {
    SpawnerAnswer answer{};
    answer.code = static_cast<int32_t>(status.code());
    answer.pid = pid;
    const absl::string_view text = status.message();
    text.copy(answer.text, std::min(text.size(), sizeof(answer.text) - 1));
    return internal::SendMessage(kSpawnerSocketFd, absl::string_view(reinterpret_cast<const char*>(&answer), sizeof(answer)), fds);
  }
  static bool Answer(const absl::Status& status) { return Send(status, 0, {}); }
  static bool Answer(absl::StatusOr<ChildProcess> child) {
    if (!child.ok()) return Send(child.status(), 0, {});
    const ChildProcess::Parts parts = std::move(*child).Release();
    std::vector<int> fds = {parts.pidfd.get()};
    if (parts.words.valid()) fds.push_back(parts.words.get());
    return Send(absl::OkStatus(), parts.pid, fds);
  }
  static bool Answer(const absl::StatusOr<OwnedFd>& connection) {
    return connection.ok() ? Send(absl::OkStatus(), 0, {connection->get()}) : Send(connection.status(), 0, {});
  }

  std::vector<Known> known_;
  std::vector<std::string> paths_;
  bool sealed_ = false;
};

bool SameButForDescriptors(const SpawnRequest& a, const SpawnRequest& b) {
  return a.executable_fd == b.executable_fd && internal::EncodeRequest(a) == internal::EncodeRequest(b);
}

struct Answered {
  pid_t pid;
  std::vector<OwnedFd> fds;
};

absl::StatusOr<Answered> Ask(int socket, const std::string& bytes, const std::vector<int>& fds) {
  if (bytes.size() > internal::kSpawnerMessageBytes) return absl::InvalidArgumentError("the request is too long");
  if (!internal::SendMessage(socket, bytes, fds)) return absl::UnavailableError("the spawner is gone");
  pollfd poll_fd{socket, POLLIN, 0};
  int ready;
  do {
    ready = ::poll(&poll_fd, 1, Spawner::kAnswerMs);
  } while (ready < 0 && errno == EINTR);
  if (ready <= 0) return absl::UnavailableError("the spawner does not answer");
  auto message = internal::ReceiveMessage(socket);
  SpawnerAnswer answer;
  if (!message || message->bytes.size() != sizeof(answer)) return absl::UnavailableError("the spawner is gone");
  std::memcpy(&answer, message->bytes.data(), sizeof(answer));
  answer.text[sizeof(answer.text) - 1] = '\0';
  if (answer.code != 0) return absl::Status(static_cast<absl::StatusCode>(answer.code), answer.text);
  return Answered{answer.pid, std::move(message->fds)};
}

}  // namespace

absl::StatusOr<std::unique_ptr<Spawner>> Spawner::Create(int executable_fd) {
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return ErrnoStatus(errno, "create the spawner's socket");
  OwnedFd ours(pair[0]);
  const OwnedFd theirs(pair[1]);
  ASSIGN_OR_RETURN(ChildProcess process, StartSpawnerProcess(executable_fd, {theirs.get(), kSpawnerSocketFd}));
  return std::unique_ptr<Spawner>(new Spawner(std::move(process), std::move(ours)));
}

absl::StatusOr<ChildProcess> Spawner::Spawn(const SpawnRequest& request) {
  const auto failed = [&](const absl::Status& status) {
    const std::string prefix = absl::StrCat("start device '", request.name, "'");
    return absl::Status(status.code(), status.message().substr(0, prefix.size()) == prefix
                                           ? std::string(status.message())
                                           : absl::StrCat(prefix, ": ", status.message()));
  };
  const auto known = std::find_if(known_.begin(), known_.end(), [&](const SpawnRequest& k) { return SameButForDescriptors(k, request); });
  const auto index = static_cast<uint32_t>(known - known_.begin());
  if (known == known_.end()) {
    if (sealed_) return failed(absl::FailedPreconditionError("nothing like it was started before the monitor was confined"));
    std::vector<int> executable;
    if (request.executable_fd >= 0) executable.push_back(request.executable_fd);
    const auto registered = Ask(socket_.get(), Message(SpawnerKind::kRegister, 0, internal::EncodeRequest(request)), executable);
    if (!registered.ok()) return failed(registered.status());
    known_.push_back(request);
  }
  std::vector<int> fds;
  for (const FdMapping& fd : request.fds) fds.push_back(fd.parent_fd);
  auto started = Ask(socket_.get(), Message(SpawnerKind::kSpawn, index), fds);
  if (!started.ok()) return failed(started.status());
  if (started->fds.empty()) return failed(absl::UnavailableError("the spawner gave no process"));
  return ChildProcess(started->pid, std::move(started->fds[0]), started->fds.size() > 1 ? std::move(started->fds[1]) : OwnedFd());
}

absl::StatusOr<OwnedFd> Spawner::Connect(const std::string& path) {
  const auto known = std::find(known_paths_.begin(), known_paths_.end(), path);
  const auto index = static_cast<uint32_t>(known - known_paths_.begin());
  if (known == known_paths_.end()) {
    if (sealed_) {
      return absl::FailedPreconditionError(absl::StrCat("connect to '", path, "': not asked for before the monitor was confined"));
    }
    RETURN_IF_ERROR(Ask(socket_.get(), Message(SpawnerKind::kRegisterPath, 0, path), {}).status());
    known_paths_.push_back(path);
  }
  ASSIGN_OR_RETURN(Answered connected, Ask(socket_.get(), Message(SpawnerKind::kConnect, index), {}));
  if (connected.fds.size() != 1) return absl::UnavailableError("the spawner gave no connection");
  return std::move(connected.fds[0]);
}

absl::Status Spawner::Seal() {
  sealed_ = true;
  return Ask(socket_.get(), Message(SpawnerKind::kSeal, 0), {}).status();
}

int RunSpawner() {
  ::prctl(PR_SET_NAME, "vmm-spawner", 0, 0, 0);
  Repeater repeater;
  while (repeater.Serve()) {
  }
  return 0;
}

}  // namespace vmm
