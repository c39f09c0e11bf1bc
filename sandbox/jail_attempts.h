// What a hostile device process does, from inside. Testonly: for programs that enter the sandbox as a device does, jail_test's own and
// tests/device_jail's, which has each device's policy.
//
// Threads  the process's only one.
// Errors   LookAroundInJail tells them as facts. AttemptInJail returns where nothing stopped it: the caller ends with a code of its own.
#ifndef VMM_SANDBOX_JAIL_ATTEMPTS_H_
#define VMM_SANDBOX_JAIL_ATTEMPTS_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/strings/string_view.h"

namespace vmm {

// "root_entries=0" and the like: what the process sees and can do before it has its filter. To be called before it enters.
void LookAroundInJail(const std::function<void(const std::string&)>& report);

// Arguments that no condition of a policy accepts, but that a descriptor is large.
inline constexpr uint64_t kOddJailArgument = 0xdead'beef'dead'beef;
// Followed by a system call's number: makes it, all of its arguments kOddJailArgument.
inline constexpr absl::string_view kAttemptCall = "call:";
// One of kJailAttempts, or another that jail_test knows. `fd`: a descriptor that the process has.
void AttemptInJail(const std::string& what, int fd);

// Those that no policy of a device lets through, and the call that is reported.
struct JailAttempt {
  const char* name;  // of AttemptInJail
  const char* call;  // as it is reported
};
inline constexpr JailAttempt kJailAttempts[] = {
    {"open", "(openat), which its policy '"},
    {"unlink", "(unlink)"},
    {"mkdir", "(mkdir)"},
    {"chdir", "(chdir)"},
    {"memfd", "(memfd_create)"},
    {"socket", "(socket)"},
    {"ptrace", "(ptrace)"},
    {"read_other", "(process_vm_readv)"},
    {"map_executable", "(mmap) with arguments that its policy '"},
    {"make_executable", "(mprotect)"},
    {"map_descriptor", "(mmap) with arguments"},
    {"fork", "(fork)"},
    {"thread", "(clone)"},
    {"execve", "(execve)"},
    {"setuid", "(setuid)"},
    {"capset", "(capset)"},
    {"unshare", "(unshare)"},
    {"mount", "(mount)"},
    {"dumpable", "(prctl) with arguments that its policy '"},
    {"handler", "(rt_sigaction)"},
    {"filter", "(seccomp)"},
    {"io_uring", "(io_uring_setup)"},
    {"bpf", "(bpf)"},
    {"keyctl", "(keyctl)"},
    {"kill_parent", "(tgkill) with arguments"},
    {"ioctl", "(ioctl)"},
    {"write_elsewhere", "(write) with arguments"},
};

}  // namespace vmm

#endif  // VMM_SANDBOX_JAIL_ATTEMPTS_H_
