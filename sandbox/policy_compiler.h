// Compiles a seccomp policy file to a BPF program for x86-64. Build time only: the processes carry the program.
//
// Shapes   one rule a line; `#` starts a comment. What no line allows ends the process by SIGSYS, whose handler reports it first
//          (violation.h); the i386 and x32 ABIs kill without a word.
//            include common.policy                                     another file's rules, here
//            read                                                      allowed whatever its arguments are
//            mmap: prot & PROT_EXEC == 0 && flags & MAP_SHARED == 0    all comparisons hold
//            fcntl: cmd in {F_GETFL, F_GETFD}                          one of
//            sendto: fd == 3                                           a second line for the same call: or
//            clone3 -> errno ENOSYS                                    refused with an error instead
//            first ioctl: cmd == KVM_RUN                               looked at before all others: the hot path's call; ==, allow
//            let KVM_RUN = 0xae80                                      a number's name, from here on
//            tgkill: tgid == SELF                                      the process that installs it
// Units    arguments are compared as 64 bits: what the kernel cuts to 32 must have a zero upper half, or it kills.
// Trust    policies are ours; a mistake stops the build.
// Errors   INVALID_ARGUMENT "<file>:<line>: <what>".
#ifndef VMM_SANDBOX_POLICY_COMPILER_H_
#define VMM_SANDBOX_POLICY_COMPILER_H_

#include <linux/filter.h>

#include <array>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace vmm {

// The text of the policy file of that name.
using PolicyReader = std::function<absl::StatusOr<std::string>(absl::string_view file)>;

struct CompiledPolicy {
  // A call whose arguments are looked at, and which: by name, "" for the others.
  struct CheckedCall {
    int call;
    std::array<std::string, 6> arguments;
  };
  std::vector<sock_filter> program;
  std::vector<CheckedCall> checked;
};

absl::StatusOr<CompiledPolicy> CompilePolicy(absl::string_view file, const PolicyReader& reader);

}  // namespace vmm

#endif  // VMM_SANDBOX_POLICY_COMPILER_H_
