// The names of x86-64's system calls, as libseccomp had them when this was built.
//
// Threads  immutable; async-signal-safe.
// Errors   null: no such number, or one that is younger than the table.
#ifndef VMM_SANDBOX_SYSCALL_NAMES_H_
#define VMM_SANDBOX_SYSCALL_NAMES_H_

namespace vmm {

// Above all numbers of the table, with room for what newer kernels have.
inline constexpr int kSyscallNumbers = 512;

[[nodiscard]] const char* SyscallName(int number) noexcept;

}  // namespace vmm

#endif  // VMM_SANDBOX_SYSCALL_NAMES_H_
