// What the vsock process and its connector may call, asked of the compiled filter for every call number.
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <set>

#include <gtest/gtest.h>

#include "devices/virtio/vsock/vsock_connector_policy.h"
#include "devices/virtio/vsock/vsock_policy.h"
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
  return EvaluateBpf(kVsockPolicy.program, data);
}
bool Allows(int call, std::initializer_list<uint64_t> arguments) { return Ask(call, arguments) == SECCOMP_RET_ALLOW; }
bool Kills(int call, std::initializer_list<uint64_t> arguments) { return Ask(call, arguments) == kSeccompRefused; }

TEST(VsockPolicyTest, AllowsExactlyThisWithoutConditions) {
  const std::set<int> unconditional = {SYS_read,   SYS_close,      SYS_poll,       SYS_brk,           SYS_munmap,
                                       SYS_getpid, SYS_gettid,     SYS_exit_group, SYS_epoll_wait, SYS_epoll_ctl,     SYS_recvmsg,
                                       SYS_sendmsg, SYS_rt_sigprocmask, SYS_restart_syscall,
                                       SYS_timerfd_settime};
  // Arguments that no condition accepts, but that a descriptor is 4 or above.
  constexpr uint64_t kOdd = 0xdead'beef'dead'beef;
  for (int call = 0; call < kSyscallNumbers; ++call) {
    if (call == SYS_write || call == SYS_shutdown) continue;
    EXPECT_EQ(Ask(call, {kOdd, kOdd, kOdd, kOdd, kOdd, kOdd}),
              unconditional.count(call) != 0 ? SECCOMP_RET_ALLOW : kSeccompRefused)
        << "call " << call;
  }
}

TEST(VsockPolicyTest, MemoryIsTheHeapOrTheGuestsAndNeverExecutable) {
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

TEST(VsockPolicyTest, WritesAreNotToTheFrontEnd) {
  for (const uint64_t fd : {2, 4, 9}) EXPECT_TRUE(Allows(SYS_write, {fd})) << fd;
  for (const uint64_t fd : {0, 1, 3}) EXPECT_TRUE(Kills(SYS_write, {fd})) << fd;
}

TEST(VsockPolicyTest, ConnectionsComeAndAreNotMade) {
  EXPECT_TRUE(Allows(SYS_accept4, {4}));
  EXPECT_TRUE(Kills(SYS_accept4, {5}));
  EXPECT_TRUE(Allows(SYS_shutdown, {7, SHUT_WR}));
  for (const uint64_t fd : {3, 4, 5, 6}) EXPECT_TRUE(Kills(SYS_shutdown, {fd, SHUT_WR})) << fd;
  for (const int call : {SYS_socket, SYS_connect, SYS_bind, SYS_listen, SYS_socketpair}) EXPECT_TRUE(Kills(call, {4})) << call;
}

TEST(VsockPolicyTest, TheConnectorMakesUnixConnectionsAndHandsThemOver) {
  const auto asked = [](int call, std::initializer_list<uint64_t> arguments) {
    seccomp_data data{};
    data.nr = call;
    data.arch = AUDIT_ARCH_X86_64;
    std::copy(arguments.begin(), arguments.end(), data.args);
    return EvaluateBpf(kVsockConnectorPolicy.program, data) == SECCOMP_RET_ALLOW;
  };
  constexpr uint64_t kType = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;
  EXPECT_TRUE(asked(SYS_socket, {AF_UNIX, kType}));
  EXPECT_FALSE(asked(SYS_socket, {AF_INET, kType}));
  EXPECT_FALSE(asked(SYS_socket, {AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK}));
  EXPECT_TRUE(asked(SYS_connect, {4}));
  EXPECT_FALSE(asked(SYS_connect, {3}));
  EXPECT_TRUE(asked(SYS_recvmsg, {3}) && asked(SYS_sendmsg, {3}) && asked(SYS_close, {4}));
  EXPECT_FALSE(asked(SYS_recvmsg, {4}) || asked(SYS_sendmsg, {4}) || asked(SYS_close, {3}));
  const std::set<int> others = {SYS_brk,        SYS_munmap, SYS_restart_syscall, SYS_exit_group, SYS_getpid,
                                SYS_gettid, SYS_rt_sigprocmask};
  for (int call = 0; call < kSyscallNumbers; ++call) {
    constexpr uint64_t kOdd = 0xdead'beef'dead'beef;
    if (call == SYS_connect || call == SYS_close) continue;
    EXPECT_EQ(asked(call, {kOdd, kOdd, kOdd, kOdd, kOdd, kOdd}), others.count(call) != 0) << call;
  }
}

TEST(VsockPolicyTest, AFilesSizeIsAskedByDescriptorOnly) {
  EXPECT_TRUE(Allows(SYS_newfstatat, {9, 0x1000, 0x2000, AT_EMPTY_PATH}));
  EXPECT_TRUE(Kills(SYS_newfstatat, {9, 0x1000, 0x2000, 0}));
}

TEST(VsockPolicyTest, OtherAbisKill) {
  for (int call = 0; call < kSyscallNumbers; ++call) {
    ASSERT_EQ(Ask(call, {}, AUDIT_ARCH_I386), SECCOMP_RET_KILL_PROCESS);
    ASSERT_EQ(Ask(call | 0x40000000), SECCOMP_RET_KILL_PROCESS);
  }
}

}  // namespace
}  // namespace vmm
