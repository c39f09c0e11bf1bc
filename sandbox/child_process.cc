#include "sandbox/child_process.h"

#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/errno_status.h"

namespace vmm {
namespace {
constexpr auto kPidFd = static_cast<idtype_t>(3);  // P_PIDFD

std::string Printable(absl::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c >= ' ' && c < 0x7f) {
      out.push_back(c);
    } else {
      absl::StrAppend(&out, c == '\n' ? " | " : "?");
    }
  }
  return out;
}

}

std::string ExitStatus::Describe() const {
  std::string out = "ended, nobody knows how (SIGCHLD is ignored)";
  switch (how) {
    case How::kExited:
      out = absl::StrCat("exited with code ", value);
      break;
    case How::kSignalled: {
      const char* text = ::sigdescr_np(value);
      out = absl::StrCat("ended by signal ", value, " (", text == nullptr ? "unknown" : text, ")");
      break;
    }
    case How::kUnknown:
      break;
  }
  const absl::string_view words = absl::StripAsciiWhitespace(last_words);
  if (!words.empty()) absl::StrAppend(&out, "; its last words: ", Printable(words));
  return out;
}

std::string ChildProcess::TakeWords() {
  std::string words(kMostWords, '\0');
  size_t filled = 0;
  while (words_.valid() && filled < words.size()) {
    const ssize_t got = ::read(words_.get(), words.data() + filled, words.size() - filled);
    if (got <= 0) break;
    filled += static_cast<size_t>(got);
  }
  words.resize(filled);
  return words;
}

ChildProcess& ChildProcess::operator=(ChildProcess&& other) noexcept {
  if (this == &other) return *this;
  ChildProcess old(std::move(*this));  // ends it
  pid_ = std::exchange(other.pid_, -1);
  pidfd_ = std::move(other.pidfd_);
  words_ = std::move(other.words_);
  status_ = std::exchange(other.status_, std::nullopt);
  return *this;
}

ChildProcess::~ChildProcess() {
  if (!pidfd_.valid() || status_.has_value()) return;
  Kill();
  // A killed process ends at once unless the kernel has it in an uninterruptible wait: then the zombie is left to init.
  (void)Wait(/*timeout_ms=*/2000);
}

void ChildProcess::Signal(int signal) noexcept {
  if (pidfd_.valid()) ::syscall(SYS_pidfd_send_signal, pidfd_.get(), signal, nullptr, 0);
}

void ChildProcess::Kill() noexcept { Signal(SIGKILL); }

absl::StatusOr<ExitStatus> ChildProcess::Wait(int timeout_ms) {
  if (status_.has_value()) return *status_;
  if (!pidfd_.valid()) return absl::FailedPreconditionError("wait for process: none was started");
  const absl::Time deadline = absl::Now() + absl::Milliseconds(timeout_ms);
  while (true) {
    pollfd poll_fd{pidfd_.get(), POLLIN, 0};
    const int64_t left = std::max<int64_t>(0, absl::ToInt64Milliseconds(deadline - absl::Now()));
    const int ready = ::poll(&poll_fd, 1, static_cast<int>(left));
    if (ready > 0) break;
    if (ready < 0 && errno != EINTR) return ErrnoStatus(errno, absl::StrCat("wait for process ", pid_));
    if (left == 0) {
      return absl::DeadlineExceededError(
          absl::StrCat("wait for process ", pid_, ": still running after ", timeout_ms, " ms"));
    }
  }
  siginfo_t info{};
  int result;
  do {
    result = ::waitid(kPidFd, static_cast<id_t>(pidfd_.get()), &info, WEXITED);
  } while (result != 0 && errno == EINTR);
  if (result != 0 && errno != ECHILD) return ErrnoStatus(errno, absl::StrCat("reap process ", pid_));
  ExitStatus status;
  if (result == 0) {
    status.how = info.si_code == CLD_EXITED ? ExitStatus::How::kExited : ExitStatus::How::kSignalled;
    status.value = info.si_status;
  }
  status.last_words = TakeWords();
  status_ = status;
  return status;
}

}  // namespace vmm
