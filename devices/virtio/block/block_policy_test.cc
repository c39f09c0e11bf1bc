// What the block process may call, asked of the compiled filter for every call number.
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/fs.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <set>

#include <gtest/gtest.h>

#include "devices/virtio/block/block_policy.h"
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
  return EvaluateBpf(kBlockPolicy.program, data);
}
bool Allows(int call, std::initializer_list<uint64_t> arguments) { return Ask(call, arguments) == SECCOMP_RET_ALLOW; }
bool Kills(int call, std::initializer_list<uint64_t> arguments) { return Ask(call, arguments) == kSeccompRefused; }

TEST(BlockPolicyTest, AllowsExactlyThisWithoutConditions) {
  const std::set<int> unconditional = {SYS_read,   SYS_close,      SYS_poll,       SYS_brk,           SYS_munmap,
                                       SYS_getpid, SYS_gettid,     SYS_exit_group, SYS_epoll_wait, SYS_epoll_ctl,     SYS_recvmsg,
                                       SYS_sendmsg, SYS_rt_sigprocmask, SYS_restart_syscall,
                                       SYS_timerfd_settime, SYS_futex};
  // Arguments that no condition accepts, but that a descriptor is 4 or above.
  constexpr uint64_t kOdd = 0xdead'beef'dead'beef;
  for (int call = 0; call < kSyscallNumbers; ++call) {
    if (call == SYS_write) continue;
    EXPECT_EQ(Ask(call, {kOdd, kOdd, kOdd, kOdd, kOdd, kOdd}),
              unconditional.count(call) != 0 ? SECCOMP_RET_ALLOW : kSeccompRefused)
        << "call " << call;
  }
}

TEST(BlockPolicyTest, MemoryIsTheHeapOrTheGuestsAndNeverExecutable) {
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

TEST(BlockPolicyTest, WritesAreNotToTheFrontEnd) {
  for (const uint64_t fd : {2, 4, 9}) EXPECT_TRUE(Allows(SYS_write, {fd})) << fd;
  for (const uint64_t fd : {0, 1, 3}) EXPECT_TRUE(Kills(SYS_write, {fd})) << fd;
}

TEST(BlockPolicyTest, AFilesSizeIsAskedByDescriptorOnly) {
  EXPECT_TRUE(Allows(SYS_newfstatat, {9, 0x1000, 0x2000, AT_EMPTY_PATH}));
  EXPECT_TRUE(Kills(SYS_newfstatat, {9, 0x1000, 0x2000, 0}));
}

TEST(BlockPolicyTest, TheImageIsReachedByItsDescriptorAlone) {
  for (const int call : {SYS_preadv, SYS_preadv2, SYS_pwritev, SYS_pwrite64, SYS_fdatasync, SYS_fallocate}) {
    EXPECT_TRUE(Allows(call, {4, 1, 2, 3})) << call;
    EXPECT_TRUE(Kills(call, {3, 1, 2, 3})) << call;
    EXPECT_TRUE(Kills(call, {5, 1, 2, 3})) << call;
  }
  EXPECT_TRUE(Allows(SYS_ioctl, {4, BLKDISCARD, 1}));
  EXPECT_TRUE(Allows(SYS_ioctl, {4, BLKZEROOUT, 1}));
  EXPECT_TRUE(Kills(SYS_ioctl, {4, BLKFLSBUF, 1}));
  EXPECT_TRUE(Kills(SYS_ioctl, {5, BLKDISCARD, 1}));
}

TEST(BlockPolicyTest, OtherAbisKill) {
  for (int call = 0; call < kSyscallNumbers; ++call) {
    ASSERT_EQ(Ask(call, {}, AUDIT_ARCH_I386), SECCOMP_RET_KILL_PROCESS);
    ASSERT_EQ(Ask(call | 0x40000000), SECCOMP_RET_KILL_PROCESS);
  }
}

}  // namespace
}  // namespace vmm
