// What becomes of a system call that a thread's policy does not allow: it is reported, and the process ends by SIGSYS.
//
// The filter answers SECCOMP_RET_TRAP, so the call is never made; the kernel sends SIGSYS instead. The handler here writes one
// line (which thread, which call, which arguments) and then makes a call that no policy has: SIGSYS is blocked by then, and a
// forced signal that is blocked kills. So nothing has to be allowed for the end itself, and without a handler, or with SIGSYS
// blocked or ignored by whoever has taken the process over, the kernel kills all the same.
//
// Why not SECCOMP_RET_KILL_PROCESS: it leaves a line in the kernel's log, without arguments, that only root reads. What the trap
// gives away: the end, not the refusal, can be spoilt by an attacker who runs code on another thread of the process at that moment.
//
// Threads  InstallViolationHandler: before the first filter; again, with the same arguments, does nothing. SetThreadPolicy: each thread, for itself. The
//          handler runs on the thread that made the call, on its stack.
// Trust    what is written has numbers and this program's own names in it, and the thread's name, made printable.
// Errors   Status "install the handler of SIGSYS".
//
// A policy must allow what the handler does: write(2) to the descriptor, prctl(PR_GET_NAME), gettid, and to a log poll(2) and
// clock_gettime. A call of these that is missing ends the process without the line.
#ifndef VMM_SANDBOX_VIOLATION_H_
#define VMM_SANDBOX_VIOLATION_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "sandbox/seccomp_policy.h"

namespace vmm {

struct Violation {
  const char* thread = "";
  int thread_id = 0;
  const SeccompPolicy* policy = nullptr;  // null: the thread never said
  int call = -1;
  uint64_t arguments[6] = {};
  uint64_t from = 0;  // the address of the call
  bool let_through = false;
};

// One line without its end, cut where `out` ends; the bytes written. Async-signal-safe.
[[nodiscard]] size_t FormatViolation(const Violation& violation, std::span<char> out) noexcept;

enum class ViolationOutput : uint8_t {
  kLastWords,  // the bare line, to standard error: in a device process that is a pipe to the monitor (child_process.h)
  kLog,        // a line of the log (base/log.h), in its format
};
enum class ViolationMode : uint8_t {
  kDie,
  // For development: the call is made after all. Each number is reported once a process.
  kLetThrough,
};

// A handler of SIGSYS that was there before is called after the report: it gives the terminal back.
[[nodiscard]] absl::Status InstallViolationHandler(ViolationMode mode, ViolationOutput output);

// Which policy the handler names for this thread. Threads that never say: that of the process's first.
void SetThreadPolicy(const SeccompPolicy& policy) noexcept;

// How many different calls were let through so far.
[[nodiscard]] int ViolationsLetThrough() noexcept;

// Where the handler makes a call that it lets through: the address that the kernel then sees it come from.
[[nodiscard]] uint64_t LetThroughAddress() noexcept;

}  // namespace vmm

#endif  // VMM_SANDBOX_VIOLATION_H_
