// A compiled seccomp filter: what seccomp_policy() of seccomp_policy.bzl makes of a policy file at build time.
//
// Threads  immutable, static.
#ifndef VMM_SANDBOX_SECCOMP_POLICY_H_
#define VMM_SANDBOX_SECCOMP_POLICY_H_

#include <linux/filter.h>
#include <linux/seccomp.h>

#include <cstdint>
#include <span>

namespace vmm {

// The answer to what a policy does not allow: SIGSYS (violation.h). The call is never made.
inline constexpr uint32_t kSeccompRefused = SECCOMP_RET_TRAP;

// Stands, in a compiled program, for the id of the process that installs it. No process has it: pids end at 2^22.
inline constexpr uint32_t kSeccompSelfPid = 0x7e1f'71d0;

// A call that is allowed with some arguments only: the names of those that decide, empty or null for the others.
struct SeccompCheckedCall {
  int call;
  const char* arguments[6];
};

struct SeccompPolicy {
  const char* name;
  std::span<const sock_filter> program;
  std::span<const SeccompCheckedCall> checked;  // ends with a call of -1
};

}  // namespace vmm

#endif  // VMM_SANDBOX_SECCOMP_POLICY_H_
