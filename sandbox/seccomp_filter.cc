#include "sandbox/seccomp_filter.h"

#include <linux/seccomp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>

#include "absl/strings/str_cat.h"
#include "base/errno_status.h"

namespace vmm {

std::vector<sock_filter> SeccompProgram(const SeccompPolicy& policy, pid_t self, ViolationMode mode) {
  std::vector<sock_filter> program;
  if (mode == ViolationMode::kLetThrough) {
    const uint64_t address = LetThroughAddress();
    constexpr uint32_t kLow = offsetof(seccomp_data, instruction_pointer);
    program = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kLow),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(address), 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kLow + 4),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(address >> 32), 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        // The way back from the handler.
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigreturn, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
  }
  for (sock_filter instruction : policy.program) {
    const bool compares = BPF_CLASS(instruction.code) == BPF_JMP && BPF_OP(instruction.code) == BPF_JEQ;
    if (compares && instruction.k == kSeccompSelfPid) instruction.k = static_cast<uint32_t>(self);
    program.push_back(instruction);
  }
  return program;
}

absl::Status InstallSeccomp(const SeccompPolicy& policy, SeccompScope scope, ViolationMode mode) {
  std::vector<sock_filter> program = SeccompProgram(policy, ::getpid(), mode);
  const sock_fprog loaded{static_cast<unsigned short>(program.size()), program.data()};
  const unsigned flags = scope == SeccompScope::kProcess ? SECCOMP_FILTER_FLAG_TSYNC : 0;
  SetThreadPolicy(policy);
  const long result = ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &loaded);
  if (result < 0) return ErrnoStatus(errno, absl::StrCat("install seccomp filter '", policy.name, "'"));
  if (result > 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("install seccomp filter '", policy.name, "': thread ", result, " has one of its own"));
  }
  return absl::OkStatus();
}

}  // namespace vmm
