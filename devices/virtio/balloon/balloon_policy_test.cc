// What the balloon process may call, asked of the compiled filter for every call number.
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <set>

#include <gtest/gtest.h>

#include "devices/virtio/balloon/balloon_policy.h"
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
  return EvaluateBpf(kBalloonPolicy.program, data);
}
bool Allows(int call, std::initializer_list<uint64_t> arguments) { return Ask(call, arguments) == SECCOMP_RET_ALLOW; }
bool Kills(int call, std::initializer_list<uint64_t> arguments) { return Ask(call, arguments) == kSeccompRefused; }

TEST(BalloonPolicyTest, AllowsExactlyThisWithoutConditions) {
  const std::set<int> unconditional = {SYS_read,   SYS_close,      SYS_poll,       SYS_brk,           SYS_munmap,
                                       SYS_getpid, SYS_gettid,     SYS_exit_group, SYS_epoll_wait, SYS_epoll_ctl,     SYS_recvmsg,
                                       SYS_sendmsg, SYS_rt_sigprocmask, SYS_restart_syscall,
                                       SYS_timerfd_settime};
  // Arguments that no condition accepts, but that a descriptor is 4 or above.
  constexpr uint64_t kOdd = 0xdead'beef'dead'beef;
  for (int call = 0; call < kSyscallNumbers; ++call) {
    if (call == SYS_write) continue;
    EXPECT_EQ(Ask(call, {kOdd, kOdd, kOdd, kOdd, kOdd, kOdd}),
              unconditional.count(call) != 0 ? SECCOMP_RET_ALLOW : kSeccompRefused)
        << "call " << call;
  }
}

TEST(BalloonPolicyTest, MemoryIsTheHeapOrTheGuestsAndNeverExecutable) {
  constexpr uint64_t kReadWrite = PROT_READ | PROT_WRITE;
  EXPECT_TRUE(Allows(SYS_mmap, {0, 4096, kReadWrite, MAP_PRIVATE | MAP_ANONYMOUS}));
  EXPECT_TRUE(Allows(SYS_mmap, {0, 4096, kReadWrite, MAP_SHARED | MAP_NORESERVE, 9}));
  EXPECT_TRUE(Kills(SYS_mmap, {0, 4096, kReadWrite | PROT_EXEC, MAP_SHARED | MAP_NORESERVE, 9}));
  EXPECT_TRUE(Kills(SYS_mmap, {0, 4096, PROT_EXEC, MAP_SHARED | MAP_NORESERVE, 9}));
  EXPECT_TRUE(Kills(SYS_mmap, {0, 4096, kReadWrite, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, 9}));
  EXPECT_TRUE(Kills(SYS_mmap, {0, 4096, kReadWrite | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS}));
  EXPECT_TRUE(Kills(SYS_mmap, {0, 4096, kReadWrite, MAP_PRIVATE, 9}));
  EXPECT_TRUE(Kills(SYS_mprotect, {0, 4096, PROT_READ}));
}

TEST(BalloonPolicyTest, WritesAreNotToTheFrontEnd) {
  for (const uint64_t fd : {2, 4, 9}) EXPECT_TRUE(Allows(SYS_write, {fd})) << fd;
  for (const uint64_t fd : {0, 1, 3}) EXPECT_TRUE(Kills(SYS_write, {fd})) << fd;
}

TEST(BalloonPolicyTest, MemoryIsGivenBackAndNothingElseAdvised) {
  EXPECT_TRUE(Allows(SYS_madvise, {0x1000, 4096, MADV_REMOVE}));
  for (const uint64_t advice : {MADV_DONTNEED, MADV_HWPOISON, MADV_MERGEABLE, MADV_DOFORK, MADV_POPULATE_WRITE}) {
    EXPECT_TRUE(Kills(SYS_madvise, {0x1000, 4096, advice})) << advice;
  }
  EXPECT_TRUE(Kills(SYS_fallocate, {4, 3, 0, 4096}));
}

TEST(BalloonPolicyTest, AFilesSizeIsAskedByDescriptorOnly) {
  EXPECT_TRUE(Allows(SYS_newfstatat, {9, 0x1000, 0x2000, AT_EMPTY_PATH}));
  EXPECT_TRUE(Kills(SYS_newfstatat, {9, 0x1000, 0x2000, 0}));
}

TEST(BalloonPolicyTest, OtherAbisKill) {
  for (int call = 0; call < kSyscallNumbers; ++call) {
    ASSERT_EQ(Ask(call, {}, AUDIT_ARCH_I386), SECCOMP_RET_KILL_PROCESS);
    ASSERT_EQ(Ask(call | 0x40000000), SECCOMP_RET_KILL_PROCESS);
  }
}

}  // namespace
}  // namespace vmm
