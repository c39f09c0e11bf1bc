// A process that this one started and must end: killed and reaped when its owner goes.
//
// Threads  Kill: any. Wait and the destructor: one thread at a time. pidfd() may be watched by an EventLoop (EPOLLIN: it ended).
// Trust    a pidfd names this process for ever; a recycled pid is never signalled.
//          What it says on its standard error is kept (a pipe, kMostWords of it) and is the process's own: escaped where it is shown.
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
  std::string last_words;

  // "ended by signal 9 (Killed)", "exited with code 1"; then "; its last words: ..." if it had some, in printable characters.
  [[nodiscard]] std::string Describe() const;
};

class ChildProcess final {
 public:
  static constexpr size_t kMostWords = 4096;

  ChildProcess() = default;
  // `words`: the reading end of its standard error, non-blocking; may be none.
  ChildProcess(pid_t pid, OwnedFd pidfd, OwnedFd words) noexcept : pid_(pid), pidfd_(std::move(pidfd)), words_(std::move(words)) {}
  ChildProcess(ChildProcess&& other) noexcept
      : pid_(std::exchange(other.pid_, -1)),
        pidfd_(std::move(other.pidfd_)),
        words_(std::move(other.words_)),
        status_(std::exchange(other.status_, std::nullopt)) {}
  ChildProcess& operator=(ChildProcess&& other) noexcept;
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;
  ~ChildProcess();

  [[nodiscard]] pid_t pid() const noexcept { return pid_; }
  [[nodiscard]] int pidfd() const noexcept { return pidfd_.get(); }
  // For who wants to hear them while it runs; -1: none.
  [[nodiscard]] int words_fd() const noexcept { return words_.get(); }
  // What it has said since the last call. Taken words are not among the last ones.
  [[nodiscard]] std::string TakeWords();

  // For who hands the process over: it is not ended, and not waited for, by this one.
  struct Parts {
    pid_t pid;
    OwnedFd pidfd;
    OwnedFd words;
  };
  [[nodiscard]] Parts Release() && noexcept { return {std::exchange(pid_, -1), std::move(pidfd_), std::move(words_)}; }

  void Signal(int signal) noexcept;
  void Kill() noexcept;
  // Waits until it has ended, 0 looks without waiting. Reaps once and remembers.
  absl::StatusOr<ExitStatus> Wait(int timeout_ms);

 private:
  pid_t pid_ = -1;
  OwnedFd pidfd_;
  OwnedFd words_;
  std::optional<ExitStatus> status_;
};

}  // namespace vmm

#endif  // VMM_SANDBOX_CHILD_PROCESS_H_
