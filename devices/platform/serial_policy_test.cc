// What the serial process may call, asked of the compiled filter for every call number.
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <set>

#include <gtest/gtest.h>

#include "devices/platform/serial_policy.h"
#include "sandbox/bpf_evaluator.h"
#include "sandbox/seccomp_policy.h"
#include "sandbox/syscall_names.h"

namespace vmm {
namespace {

std::optional<uint32_t> Ask(int call, std::initializer_list<uint64_t> arguments = {}, uint32_t arch = AUDIT_ARCH_X86_64) {
  seccomp_data data{};
  data.nr = call;
  data.arch = arch;
  std::copy(arguments.begin(), arguments.end(), data.args);
  return EvaluateBpf(kSerialPolicy.program, data);
}

TEST(SerialPolicyTest, AllowsExactlyThisWithoutConditions) {
  const std::set<int> unconditional = {SYS_read,   SYS_poll,       SYS_brk,        SYS_munmap,    SYS_getpid,          SYS_gettid,
                                       SYS_exit_group, SYS_epoll_wait, SYS_epoll_ctl, SYS_timerfd_settime, SYS_rt_sigprocmask,
                                       SYS_restart_syscall};
  // Arguments that no condition accepts, but that a descriptor is 6 or above.
  constexpr uint64_t kOdd = 0xdead'beef'dead'beef;
  for (int call = 0; call < kSyscallNumbers; ++call) {
    if (call == SYS_write) continue;
    EXPECT_EQ(Ask(call, {kOdd, kOdd, kOdd, kOdd, kOdd, kOdd}),
              unconditional.count(call) != 0 ? SECCOMP_RET_ALLOW : kSeccompRefused)
        << "call " << call;
  }
}

TEST(SerialPolicyTest, MemoryIsAnonymousPrivateAndNeverExecutable) {
  constexpr uint64_t kPlain = MAP_PRIVATE | MAP_ANONYMOUS;
  EXPECT_EQ(Ask(SYS_mmap, {0, 4096, PROT_READ | PROT_WRITE, kPlain}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(Ask(SYS_mmap, {0, 4096, PROT_READ | PROT_EXEC, kPlain}), kSeccompRefused);
  EXPECT_EQ(Ask(SYS_mmap, {0, 4096, PROT_READ, MAP_PRIVATE}), kSeccompRefused);
  EXPECT_EQ(Ask(SYS_mmap, {0, 4096, PROT_READ, MAP_SHARED | MAP_ANONYMOUS}), kSeccompRefused);
  EXPECT_EQ(Ask(SYS_mmap, {0, 4096, PROT_READ, kPlain | MAP_FIXED}), kSeccompRefused);
  EXPECT_EQ(Ask(SYS_mprotect, {0, 4096, PROT_READ}), kSeccompRefused);
}

TEST(SerialPolicyTest, SocketsAreItsOwnAndAddressNobody) {
  EXPECT_EQ(Ask(SYS_recvfrom, {3, 1, 2, 3, 0, 0}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(Ask(SYS_recvfrom, {8, 1, 2, 3, 0, 0}), kSeccompRefused);
  EXPECT_EQ(Ask(SYS_sendto, {3, 1, 2, 3, 0, 0}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(Ask(SYS_sendto, {8, 1, 2, 3, 0, 0}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(Ask(SYS_sendto, {6, 1, 2, 3, 0, 0}), kSeccompRefused);
  EXPECT_EQ(Ask(SYS_sendto, {3, 1, 2, 3, 0x1000, 16}), kSeccompRefused);
}

TEST(SerialPolicyTest, WritesToItsOwnAndNotToWhatItReads) {
  for (const uint64_t fd : {2, 4, 6, 9}) EXPECT_EQ(Ask(SYS_write, {fd}), SECCOMP_RET_ALLOW) << fd;
  for (const uint64_t fd : {0, 1, 3, 5}) EXPECT_EQ(Ask(SYS_write, {fd}), kSeccompRefused) << fd;
}

TEST(SerialPolicyTest, SignalsOnlyItsOwnAbort) {
  EXPECT_EQ(Ask(SYS_tgkill, {kSeccompSelfPid, 1, SIGABRT}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(Ask(SYS_tgkill, {1, 1, SIGABRT}), kSeccompRefused);
  EXPECT_EQ(Ask(SYS_tgkill, {kSeccompSelfPid, 1, SIGKILL}), kSeccompRefused);
  EXPECT_EQ(Ask(SYS_clock_gettime, {CLOCK_MONOTONIC}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(Ask(SYS_clock_gettime, {CLOCK_PROCESS_CPUTIME_ID}), kSeccompRefused);
}

TEST(SerialPolicyTest, OtherAbisKill) {
  for (int call = 0; call < kSyscallNumbers; ++call) {
    ASSERT_EQ(Ask(call, {}, AUDIT_ARCH_I386), SECCOMP_RET_KILL_PROCESS);
    ASSERT_EQ(Ask(call | 0x40000000), SECCOMP_RET_KILL_PROCESS);
  }
}

}  // namespace
}  // namespace vmm
