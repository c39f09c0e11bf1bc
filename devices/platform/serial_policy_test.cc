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
  const std::set<int> unconditional = {SYS_read,  SYS_write,       SYS_poll,           SYS_brk,    SYS_munmap,         SYS_getpid,
                                       SYS_gettid, SYS_exit_group, SYS_epoll_wait,     SYS_epoll_ctl, SYS_timerfd_settime,
                                       SYS_rt_sigprocmask, SYS_restart_syscall};
  // Arguments that no condition accepts.
  constexpr uint64_t kOdd = 0xdead'beef'dead'beef;
  for (int call = 0; call <= 460; ++call) {
    EXPECT_EQ(Ask(call, {kOdd, kOdd, kOdd, kOdd, kOdd, kOdd}),
              unconditional.count(call) != 0 ? SECCOMP_RET_ALLOW : SECCOMP_RET_KILL_PROCESS)
        << "call " << call;
  }
}

TEST(SerialPolicyTest, MemoryIsAnonymousPrivateAndNeverExecutable) {
  constexpr uint64_t kPlain = MAP_PRIVATE | MAP_ANONYMOUS;
  EXPECT_EQ(Ask(SYS_mmap, {0, 4096, PROT_READ | PROT_WRITE, kPlain}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(Ask(SYS_mmap, {0, 4096, PROT_READ | PROT_EXEC, kPlain}), SECCOMP_RET_KILL_PROCESS);
  EXPECT_EQ(Ask(SYS_mmap, {0, 4096, PROT_READ, MAP_PRIVATE}), SECCOMP_RET_KILL_PROCESS);
  EXPECT_EQ(Ask(SYS_mmap, {0, 4096, PROT_READ, MAP_SHARED | MAP_ANONYMOUS}), SECCOMP_RET_KILL_PROCESS);
  EXPECT_EQ(Ask(SYS_mmap, {0, 4096, PROT_READ, kPlain | MAP_FIXED}), SECCOMP_RET_KILL_PROCESS);
  EXPECT_EQ(Ask(SYS_mprotect, {0, 4096, PROT_READ}), SECCOMP_RET_KILL_PROCESS);
}

TEST(SerialPolicyTest, SocketsAreItsOwnAndAddressNobody) {
  EXPECT_EQ(Ask(SYS_recvfrom, {3, 1, 2, 3, 0, 0}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(Ask(SYS_recvfrom, {8, 1, 2, 3, 0, 0}), SECCOMP_RET_KILL_PROCESS);
  EXPECT_EQ(Ask(SYS_sendto, {3, 1, 2, 3, 0, 0}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(Ask(SYS_sendto, {8, 1, 2, 3, 0, 0}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(Ask(SYS_sendto, {6, 1, 2, 3, 0, 0}), SECCOMP_RET_KILL_PROCESS);
  EXPECT_EQ(Ask(SYS_sendto, {3, 1, 2, 3, 0x1000, 16}), SECCOMP_RET_KILL_PROCESS);
}

TEST(SerialPolicyTest, SignalsOnlyItsOwnAbort) {
  EXPECT_EQ(Ask(SYS_tgkill, {1, 1, SIGABRT}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(Ask(SYS_tgkill, {1, 1, SIGKILL}), SECCOMP_RET_KILL_PROCESS);
  EXPECT_EQ(Ask(SYS_clock_gettime, {CLOCK_MONOTONIC}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(Ask(SYS_clock_gettime, {CLOCK_PROCESS_CPUTIME_ID}), SECCOMP_RET_KILL_PROCESS);
}

TEST(SerialPolicyTest, OtherAbisKill) {
  for (int call = 0; call <= 460; ++call) {
    ASSERT_EQ(Ask(call, {}, AUDIT_ARCH_I386), SECCOMP_RET_KILL_PROCESS);
    ASSERT_EQ(Ask(call | 0x40000000), SECCOMP_RET_KILL_PROCESS);
  }
}

}  // namespace
}  // namespace vmm
