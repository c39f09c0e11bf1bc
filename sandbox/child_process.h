// A process that this one started and must end: killed and reaped when its owner goes.
//
// Threads  Kill: any. Wait and the destructor: one thread at a time. pidfd() may be watched by an EventLoop (EPOLLIN: it ended).
// Trust    a pidfd names this process for ever; a recycled pid is never signalled.
// Errors   Wait: DEADLINE_EXCEEDED, or errno. Where SIGCHLD is ignored nothing can be reaped: the status is then kUnknown.
#ifndef VMM_SANDBOX_CHILD_PROCESS_H_
#define VMM_SANDBOX_CHILD_PROCESS_H_

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "base/owned_fd.h"

namespace vmm {

struct ExitStatus {
  enum class How : uint8_t { kExited, kSignalled, kUnknown };
  How how = How::kUnknown;
  int value = 0;  // exit code, or signal number

  // "ended by signal 9 (Killed)", "exited with code 1".
  [[nodiscard]] std::string Describe() const;
};

class ChildProcess final {
 public:
  ChildProcess() = default;
  ChildProcess(pid_t pid, OwnedFd pidfd) noexcept : pid_(pid), pidfd_(std::move(pidfd)) {}
  ChildProcess(ChildProcess&& other) noexcept
      : pid_(std::exchange(other.pid_, -1)),
        pidfd_(std::move(other.pidfd_)),
        status_(std::exchange(other.status_, std::nullopt)) {}
  ChildProcess& operator=(ChildProcess&& other) noexcept;
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;
  ~ChildProcess();

  [[nodiscard]] pid_t pid() const noexcept { return pid_; }
  [[nodiscard]] int pidfd() const noexcept { return pidfd_.get(); }

  void Signal(int signal) noexcept;
  void Kill() noexcept;
  // Waits until it has ended, 0 looks without waiting. Reaps once and remembers.
  absl::StatusOr<ExitStatus> Wait(int timeout_ms);

 private:
  pid_t pid_ = -1;
  OwnedFd pidfd_;
  std::optional<ExitStatus> status_;
};

}  // namespace vmm

#endif  // VMM_SANDBOX_CHILD_PROCESS_H_
