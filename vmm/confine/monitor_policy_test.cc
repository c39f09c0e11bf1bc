// What the monitor's threads may call, asked of the compiled filters for every call number, and for KVM's requests by its header.
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <termios.h>
#include <time.h>

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <set>
#include <string>

#include <gtest/gtest.h>

#include "kvm/uapi.h"
#include "sandbox/bpf_evaluator.h"
#include "sandbox/seccomp_policy.h"
#include "sandbox/syscall_names.h"
#include "vmm/confine/monitor_policy.h"
#include "vmm/confine/vp_policy.h"

namespace vmm {
namespace {

std::optional<uint32_t> Ask(const SeccompPolicy& policy, int call, std::initializer_list<uint64_t> arguments = {},
                            uint32_t arch = AUDIT_ARCH_X86_64) {
  seccomp_data data{};
  data.nr = call;
  data.arch = arch;
  std::copy(arguments.begin(), arguments.end(), data.args);
  return EvaluateBpf(policy.program, data);
}

// Without conditions: what both have, and what each has besides.
const std::set<int> kCommon = {SYS_read,   SYS_write,   SYS_poll,        SYS_brk,    SYS_munmap,         SYS_madvise,      SYS_mlock,
                               SYS_futex,  SYS_getpid,  SYS_gettid,      SYS_exit,   SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_sched_yield,
                               SYS_sendmsg, SYS_recvmsg, SYS_exit_group, SYS_close,  SYS_getpgrp,        SYS_timerfd_settime,
                               SYS_restart_syscall, SYS_clock_gettime, SYS_eventfd2, SYS_epoll_ctl};
const std::set<int> kMonitorOnly = {SYS_epoll_wait, SYS_waitid,        SYS_pidfd_send_signal,
                                    SYS_fstat,     SYS_timerfd_create,    SYS_pipe2};

void ExpectExactly(const SeccompPolicy& policy, std::set<int> allowed) {
  // Arguments that no condition accepts.
  constexpr uint64_t kOdd = 0xdead'beef'dead'beef;
  for (int call = 0; call < kSyscallNumbers; ++call) {
    EXPECT_EQ(Ask(policy, call, {kOdd, kOdd, kOdd, kOdd, kOdd, kOdd}), allowed.count(call) != 0 ? SECCOMP_RET_ALLOW : kSeccompRefused)
        << "call " << call << " of " << policy.name;
  }
}

TEST(VpPolicyTest, AllowsExactlyThisWithoutConditions) { ExpectExactly(kVpPolicy, kCommon); }

TEST(MonitorPolicyTest, AllowsExactlyThisWithoutConditions) {
  std::set<int> allowed = kCommon;
  allowed.insert(kMonitorOnly.begin(), kMonitorOnly.end());
  ExpectExactly(kMonitorPolicy, allowed);
}

class BothPoliciesTest : public ::testing::TestWithParam<const SeccompPolicy*> {
 protected:
  std::optional<uint32_t> Ask(int call, std::initializer_list<uint64_t> arguments = {}, uint32_t arch = AUDIT_ARCH_X86_64) {
    return vmm::Ask(*GetParam(), call, arguments, arch);
  }
};
INSTANTIATE_TEST_SUITE_P(All, BothPoliciesTest, ::testing::Values(&kVpPolicy, &kMonitorPolicy),
                         [](const auto& info) { return std::string(info.param->name); });

TEST_P(BothPoliciesTest, MemoryIsNeverExecutable) {
  for (const uint64_t flags : {MAP_PRIVATE | MAP_ANONYMOUS, MAP_SHARED, MAP_SHARED | MAP_FIXED | MAP_NORESERVE}) {
    for (int prot = 0; prot < 8; ++prot) {
      const auto expected = (prot & PROT_EXEC) == 0 ? SECCOMP_RET_ALLOW : kSeccompRefused;
      EXPECT_EQ(Ask(SYS_mmap, {0, 4096, static_cast<uint64_t>(prot), flags}), expected) << prot;
      EXPECT_EQ(Ask(SYS_mprotect, {0, 4096, static_cast<uint64_t>(prot)}), expected) << prot;
    }
  }
  EXPECT_EQ(Ask(SYS_mmap, {0, 4096, 0x1'0000'0000 | PROT_EXEC, MAP_PRIVATE}), kSeccompRefused);
  EXPECT_EQ(Ask(SYS_mremap, {0, 4096, 8192, MREMAP_MAYMOVE}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(Ask(SYS_mremap, {0, 4096, 8192, MREMAP_MAYMOVE | MREMAP_FIXED}), kSeccompRefused);
}

TEST_P(BothPoliciesTest, SignalsReachThisProcessOnly) {
  EXPECT_EQ(Ask(SYS_tgkill, {kSeccompSelfPid, 9, 34}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(Ask(SYS_tgkill, {1, 9, 34}), kSeccompRefused);
  for (const int call : {SYS_kill, SYS_tkill, SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo, SYS_pidfd_open, SYS_rt_sigaction}) {
    EXPECT_EQ(Ask(call, {kSeccompSelfPid, SIGTERM}), kSeccompRefused) << call;
  }
}

// Named one by one, though the tests above have them all: what each of these refuses is a promise.
TEST_P(BothPoliciesTest, OpensStartsAndConnectsNothing) {
  for (const int call : {SYS_open, SYS_openat, SYS_openat2, SYS_creat, SYS_open_by_handle_at, SYS_execve, SYS_execveat, SYS_fork, SYS_vfork,
                         SYS_clone, SYS_clone3, SYS_socket, SYS_connect, SYS_bind, SYS_accept, SYS_accept4, SYS_ptrace,
                         SYS_process_vm_readv, SYS_process_vm_writev, SYS_pidfd_getfd, SYS_memfd_create, SYS_mount, SYS_unshare, SYS_setns,
                         SYS_bpf, SYS_perf_event_open, SYS_userfaultfd, SYS_io_uring_setup, SYS_io_uring_enter, SYS_seccomp, SYS_keyctl,
                         SYS_init_module, SYS_setuid, SYS_capset, SYS_prlimit64, SYS_unlink, SYS_rename, SYS_chmod}) {
    EXPECT_EQ(Ask(call), kSeccompRefused) << call;
  }
  EXPECT_EQ(Ask(SYS_prctl, {PR_GET_NAME}), SECCOMP_RET_ALLOW);
  for (const uint64_t option : {PR_SET_NAME, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_MM}) EXPECT_EQ(Ask(SYS_prctl, {option}), kSeccompRefused);
}

TEST_P(BothPoliciesTest, SendsToWhomItIsConnected) {
  EXPECT_EQ(Ask(SYS_sendto, {5, 1, 2, 3, 0, 0}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(Ask(SYS_sendto, {5, 1, 2, 3, 0x1000, 16}), kSeccompRefused);
  EXPECT_EQ(Ask(SYS_recvfrom, {5, 1, 2, 3, 0, 0}), SECCOMP_RET_ALLOW);
}

TEST_P(BothPoliciesTest, EndsTheConnectionOfADevice) {
  EXPECT_EQ(Ask(SYS_shutdown, {5, SHUT_WR}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(Ask(SYS_shutdown, {5, SHUT_RDWR}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(Ask(SYS_shutdown, {5, SHUT_RD}), kSeccompRefused);
}

TEST_P(BothPoliciesTest, TheTerminalIsGivenBackAndNothingElse) {
  EXPECT_EQ(Ask(SYS_ioctl, {0, TCSETS}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(Ask(SYS_ioctl, {0, TIOCGPGRP}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(Ask(SYS_ioctl, {1, TCSETS}), kSeccompRefused);
  EXPECT_EQ(Ask(SYS_ioctl, {0, TIOCSTI}), kSeccompRefused);
}

TEST_P(BothPoliciesTest, OtherAbisKill) {
  for (int call = 0; call < kSyscallNumbers; ++call) {
    ASSERT_EQ(Ask(call, {}, AUDIT_ARCH_I386), SECCOMP_RET_KILL_PROCESS);
    ASSERT_EQ(Ask(call | 0x40000000), SECCOMP_RET_KILL_PROCESS);
  }
}

TEST_P(BothPoliciesTest, MakesNoMachinesProcessorsOrSlots) {
  for (const uint64_t request : {uint64_t{KVM_CREATE_VM}, uint64_t{KVM_CREATE_VCPU}, uint64_t{KVM_SET_USER_MEMORY_REGION},
                                 uint64_t{KVM_CREATE_DEVICE}, uint64_t{KVM_SET_CPUID2}, uint64_t{KVM_CREATE_GUEST_MEMFD}, uint64_t{KVM_ENABLE_CAP}}) {
    EXPECT_EQ(Ask(SYS_ioctl, {5, request}), kSeccompRefused) << std::hex << request;
  }
}

TEST(VpPolicyTest, MakesTheRequestsOfTheRunLoop) {
  for (const uint64_t request :
       {uint64_t{KVM_RUN}, uint64_t{KVM_GET_REGS}, uint64_t{KVM_SET_REGS}, uint64_t{KVM_GET_SREGS}, uint64_t{KVM_SET_SREGS},
        uint64_t{KVM_GET_FPU}, uint64_t{KVM_SET_FPU}, uint64_t{KVM_GET_XSAVE}, uint64_t{KVM_SET_XSAVE}, uint64_t{KVM_GET_XCRS},
        uint64_t{KVM_SET_XCRS}, uint64_t{KVM_GET_DEBUGREGS}, uint64_t{KVM_SET_DEBUGREGS}, uint64_t{KVM_GET_MSRS}, uint64_t{KVM_SET_MSRS},
        uint64_t{KVM_GET_MP_STATE}, uint64_t{KVM_SET_MP_STATE}, uint64_t{KVM_INTERRUPT}, uint64_t{KVM_NMI}, uint64_t{KVM_GET_VCPU_EVENTS},
        uint64_t{KVM_SET_VCPU_EVENTS}, uint64_t{KVM_GET_LAPIC}, uint64_t{KVM_SET_LAPIC}, uint64_t{KVM_GET_TSC_KHZ},
        uint64_t{KVM_GET_DEVICE_ATTR}, uint64_t{KVM_SET_DEVICE_ATTR}, uint64_t{KVM_PRE_FAULT_MEMORY}, uint64_t{KVM_SET_MEMORY_ATTRIBUTES},
        uint64_t{KVM_SIGNAL_MSI}, uint64_t{KVM_IRQ_LINE}, uint64_t{KVM_IRQFD}, uint64_t{KVM_IOEVENTFD}, uint64_t{KVM_SET_GSI_ROUTING},
        uint64_t{KVM_GET_CLOCK}, uint64_t{KVM_SET_CLOCK}, uint64_t{KVM_X86_SET_MSR_FILTER}}) {
    EXPECT_EQ(Ask(kVpPolicy, SYS_ioctl, {5, request}), SECCOMP_RET_ALLOW) << std::hex << request;
  }
}

TEST(MonitorPolicyTest, MakesPairsOfItsOwnOnly) {
  EXPECT_EQ(Ask(kMonitorPolicy, SYS_socketpair, {AF_UNIX, SOCK_STREAM}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(Ask(kMonitorPolicy, SYS_socketpair, {AF_INET, SOCK_STREAM}), kSeccompRefused);
  EXPECT_EQ(Ask(kVpPolicy, SYS_socketpair, {AF_UNIX, SOCK_STREAM}), kSeccompRefused);
}

TEST(MonitorPolicyTest, RunsNoProcessor) {
  EXPECT_EQ(Ask(kMonitorPolicy, SYS_ioctl, {5, KVM_RUN}), kSeccompRefused);
  EXPECT_EQ(Ask(kMonitorPolicy, SYS_ioctl, {5, KVM_X86_SET_MSR_FILTER}), kSeccompRefused);
  EXPECT_EQ(Ask(kMonitorPolicy, SYS_ioctl, {5, KVM_IRQFD}), SECCOMP_RET_ALLOW);
}

}  // namespace
}  // namespace vmm
