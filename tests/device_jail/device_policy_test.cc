// What each device process may call, asked of its compiled filter for every call number, as pure functions. A device is a row.
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "sandbox/bpf_evaluator.h"
#include "sandbox/seccomp_policy.h"
#include "sandbox/syscall_names.h"
#include "tests/device_jail/devices.h"

namespace vmm {
namespace {

// Arguments that no condition accepts, but that a descriptor is large.
constexpr uint64_t kOdd = 0xdead'beef'dead'beef;
constexpr uint64_t kReadWrite = PROT_READ | PROT_WRITE;
constexpr uint64_t kGuestMemory = MAP_SHARED | MAP_NORESERVE;

using Arguments = std::array<uint64_t, 6>;
struct Rule {
  int call;
  std::vector<Arguments> allowed;
  std::vector<Arguments> refused;
};

// What all of them have (common.policy).
const std::set<int> kCommon = {SYS_brk,        SYS_munmap,         SYS_getpid,         SYS_gettid,
                               SYS_exit_group, SYS_rt_sigprocmask, SYS_restart_syscall, SYS_read,
                               SYS_epoll_wait, SYS_epoll_ctl};
const std::vector<Rule> kCommonRules = {
    {SYS_mmap,
     {{0, 4096, kReadWrite, MAP_PRIVATE | MAP_ANONYMOUS}},
     {{0, 4096, kReadWrite | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS},
      {0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS},
      {0, 4096, kReadWrite, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED},
      {0, 4096, kReadWrite, MAP_SHARED | MAP_ANONYMOUS},
      {0, 4096, PROT_EXEC, kGuestMemory, 9},
      {0, 4096, kReadWrite | PROT_EXEC, kGuestMemory, 9},
      {0, 4096, kReadWrite, kGuestMemory | MAP_FIXED, 9},
      {0, 4096, kReadWrite, MAP_PRIVATE, 9},
      {0, 4096, PROT_READ, MAP_PRIVATE, 9},
      {0, 4096, PROT_READ, MAP_SHARED, 9}}},
    {SYS_mprotect, {}, {{0, 4096, PROT_READ}, {0, 4096, PROT_EXEC}}},
    {SYS_write, {{2}}, {{0}, {1}, {3}}},
    {SYS_tgkill, {{kSeccompSelfPid, 1, SIGABRT}}, {{1, 1, SIGABRT}, {kSeccompSelfPid, 1, SIGKILL}}},
    {SYS_clock_gettime, {{CLOCK_MONOTONIC}, {CLOCK_REALTIME}}, {{CLOCK_PROCESS_CPUTIME_ID}}},
};

// What vhost-user devices have besides (backend.policy).
const std::set<int> kBackend = {SYS_poll, SYS_recvmsg, SYS_sendmsg, SYS_close};
const std::vector<Rule> kBackendRules = {
    {SYS_mmap, {{0, 4096, kReadWrite, kGuestMemory, 9}}, {}},
    {SYS_write, {{4}, {9}}, {}},
    {SYS_newfstatat, {{9, 0x1000, 0x2000, AT_EMPTY_PATH}}, {{9, 0x1000, 0x2000, 0}, {static_cast<uint64_t>(AT_FDCWD), 0x1000, 0x2000, 0}}},
};

struct Own {
  std::set<int> unconditional;
  std::vector<Rule> rules;
};

// An image's calls: of its descriptor alone.
Rule OfImage(int call) { return {call, {{4, 1, 2, 3}}, {{3, 1, 2, 3}, {5, 1, 2, 3}}}; }
// A wire's.
Rule OfWire(int call) {
  Rule rule{call, {}, {{3, 1, 2, 3}, {12, 1, 2, 3}}};
  for (uint64_t fd = 4; fd <= 11; ++fd) rule.allowed.push_back({fd, 1, 2, 3});
  return rule;
}

Own OwnOf(const std::string& kind) {
  if (kind == "serial") {
    return {{SYS_poll, SYS_timerfd_settime},
            {{SYS_recvfrom, {{3, 1, 2, 3, 0, 0}}, {{8, 1, 2, 3, 0, 0}, {3, 1, 2, 3, 0x1000, 16}}},
             {SYS_sendto, {{3, 1, 2, 3, 0, 0}, {8, 1, 2, 3, 0, 0}}, {{6, 1, 2, 3, 0, 0}, {3, 1, 2, 3, 0x1000, 16}}},
             {SYS_write, {{4}, {6}, {9}}, {{5}}},
             {SYS_mmap, {}, {{0, 4096, kReadWrite, kGuestMemory, 9}}}}};
  }
  if (kind == "rtc") {
    return {{},
            {{SYS_recvfrom, {{3, 1, 2, 3, 0, 0}}, {{8, 1, 2, 3, 0, 0}, {3, 1, 2, 3, 0x1000, 16}}},
             {SYS_sendto, {{3, 1, 2, 3, 0, 0}, {8, 1, 2, 3, 0, 0}}, {{6, 1, 2, 3, 0, 0}, {3, 1, 2, 3, 0x1000, 16}}},
             {SYS_read, {{4}, {9}}, {{0}, {3}}},
             {SYS_write, {{4}, {9}}, {}},
             {SYS_mmap, {}, {{0, 4096, kReadWrite, kGuestMemory, 9}}}}};
  }
  if (kind == "block") {
    return {{SYS_timerfd_settime, SYS_futex},
            {OfImage(SYS_preadv), OfImage(SYS_preadv2), OfImage(SYS_pwritev), OfImage(SYS_pwrite64), OfImage(SYS_fdatasync), OfImage(SYS_fallocate),
             {SYS_ioctl, {{4, BLKDISCARD, 1}, {4, BLKZEROOUT, 1}}, {{4, BLKFLSBUF, 1}, {5, BLKDISCARD, 1}}}}};
  }
  if (kind == "console") return {{SYS_timerfd_settime}, {{SYS_ioctl, {{4, TIOCGWINSZ, 1}}, {{5, TIOCGWINSZ, 1}, {4, TIOCSTI, 1}, {4, TIOCSWINSZ, 1}}}}};
  if (kind == "rng") return {{SYS_getrandom}, {}};
  if (kind == "net") {
    Rule ioctl{SYS_ioctl, {{4, TUNSETOFFLOAD, 1}, {11, TUNSETQUEUE, 1}}, {{12, TUNSETQUEUE, 1}}};
    for (const uint64_t request : {TUNSETIFF, TUNGETIFF, TUNSETOWNER, TUNSETPERSIST, TUNSETVNETHDRSZ, TUNATTACHFILTER, TUNSETSTEERINGEBPF}) {
      ioctl.refused.push_back({4, request, 1});
    }
    return {{SYS_timerfd_settime}, {OfWire(SYS_readv), OfWire(SYS_writev), ioctl}};
  }
  if (kind == "balloon") {
    Rule madvise{SYS_madvise, {{0x1000, 4096, MADV_REMOVE}}, {}};
    for (const uint64_t advice : {MADV_DONTNEED, MADV_HWPOISON, MADV_MERGEABLE, MADV_DOFORK, MADV_POPULATE_WRITE}) {
      madvise.refused.push_back({0x1000, 4096, advice});
    }
    return {{SYS_timerfd_settime}, {madvise, {SYS_fallocate, {}, {{4, 3, 0, 4096}}}}};
  }
  if (kind == "vsock") {
    Rule shutdown{SYS_shutdown, {{7, SHUT_WR}, {kOdd, kOdd}}, {}};
    for (uint64_t fd = 3; fd <= 6; ++fd) shutdown.refused.push_back({fd, SHUT_WR});
    return {{SYS_timerfd_settime}, {{SYS_accept4, {{4}}, {{3}, {5}}}, shutdown}};
  }
  ADD_FAILURE() << "no row for device " << kind;
  return {};
}

class DevicePolicyTest : public ::testing::TestWithParam<JailedDevice> {
 protected:
  std::optional<uint32_t> Ask(int call, const Arguments& arguments = {}, uint32_t arch = AUDIT_ARCH_X86_64) {
    seccomp_data data{};
    data.nr = call;
    data.arch = arch;
    std::copy(arguments.begin(), arguments.end(), data.args);
    return EvaluateBpf(GetParam().policy.program, data);
  }
  std::vector<Rule> Rules() {
    std::vector<Rule> rules = kCommonRules;
    if (GetParam().backend) rules.insert(rules.end(), kBackendRules.begin(), kBackendRules.end());
    const Own own = OwnOf(GetParam().kind);
    rules.insert(rules.end(), own.rules.begin(), own.rules.end());
    return rules;
  }
};
INSTANTIATE_TEST_SUITE_P(All, DevicePolicyTest, ::testing::ValuesIn(JailedDevices()),
                         [](const auto& info) { return std::string(info.param.kind); });

TEST_P(DevicePolicyTest, AllowsExactlyThisWithoutConditions) {
  std::set<int> unconditional = kCommon;
  if (GetParam().backend) unconditional.insert(kBackend.begin(), kBackend.end());
  const Own own = OwnOf(GetParam().kind);
  unconditional.insert(own.unconditional.begin(), own.unconditional.end());
  // To a descriptor that is large enough.
  unconditional.insert(SYS_write);
  if (GetParam().kind == std::string("vsock")) unconditional.insert(SYS_shutdown);
  for (int call = 0; call < kSyscallNumbers; ++call) {
    EXPECT_EQ(Ask(call, {kOdd, kOdd, kOdd, kOdd, kOdd, kOdd}), unconditional.count(call) != 0 ? SECCOMP_RET_ALLOW : kSeccompRefused)
        << "call " << call;
  }
}

TEST_P(DevicePolicyTest, AllowsTheRestByItsArguments) {
  for (const Rule& rule : Rules()) {
    for (const Arguments& arguments : rule.allowed) {
      EXPECT_EQ(Ask(rule.call, arguments), SECCOMP_RET_ALLOW) << "call " << rule.call << " of " << arguments[0] << ", " << arguments[1];
    }
    for (const Arguments& arguments : rule.refused) {
      EXPECT_EQ(Ask(rule.call, arguments), kSeccompRefused) << "call " << rule.call << " of " << arguments[0] << ", " << arguments[1];
    }
  }
}

// What a condition may let slip that odd arguments do not show: descriptor 0, no flags.
TEST_P(DevicePolicyTest, CallsWithoutARuleAreRefusedForZeroesToo) {
  std::set<int> known = kCommon;
  known.insert(kBackend.begin(), kBackend.end());
  const Own own = OwnOf(GetParam().kind);
  known.insert(own.unconditional.begin(), own.unconditional.end());
  for (const Rule& rule : Rules()) known.insert(rule.call);
  for (int call = 0; call < kSyscallNumbers; ++call) {
    if (known.count(call) != 0) continue;
    EXPECT_EQ(Ask(call), kSeccompRefused) << "call " << call;
  }
}

TEST_P(DevicePolicyTest, OtherAbisKill) {
  for (int call = 0; call < kSyscallNumbers; ++call) {
    ASSERT_EQ(Ask(call, {}, AUDIT_ARCH_I386), SECCOMP_RET_KILL_PROCESS);
    ASSERT_EQ(Ask(call | 0x40000000), SECCOMP_RET_KILL_PROCESS);
  }
}

}  // namespace
}  // namespace vmm
