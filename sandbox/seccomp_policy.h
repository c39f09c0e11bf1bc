// A compiled seccomp filter: what seccomp_policy() of seccomp_policy.bzl makes of a policy file at build time.
//
// Threads  immutable, static.
#ifndef VMM_SANDBOX_SECCOMP_POLICY_H_
#define VMM_SANDBOX_SECCOMP_POLICY_H_

#include <linux/filter.h>

#include <span>

namespace vmm {

struct SeccompPolicy {
  const char* name;
  std::span<const sock_filter> program;
};

}  // namespace vmm

#endif  // VMM_SANDBOX_SECCOMP_POLICY_H_
