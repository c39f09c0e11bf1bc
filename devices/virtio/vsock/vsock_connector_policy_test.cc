// What the vsock device's connector may call, asked of the compiled filter for every call number. The device's own: tests/device_jail.
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <algorithm>
#include <initializer_list>
#include <set>

#include <gtest/gtest.h>

#include "devices/virtio/vsock/vsock_connector_policy.h"
#include "sandbox/bpf_evaluator.h"
#include "sandbox/seccomp_policy.h"
#include "sandbox/syscall_names.h"

namespace vmm {
namespace {

TEST(VsockConnectorPolicyTest, TheConnectorMakesUnixConnectionsAndHandsThemOver) {
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

}  // namespace
}  // namespace vmm
