// The monitor's confinement for real, in forked children: what is given up, and that the filters are on.
// Fails closed: a child that was not stopped exits with 99.
#include "vmm/confine/confine_monitor.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/status/status.h"
#include "base/log.h"
#include "base/owned_fd.h"
#include "sandbox/jail_options.h"

namespace vmm {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int kNotStopped = 99;

struct Outcome {
  std::string said;
  int exit_code = -1;
  int signal = -1;
};

Outcome InChild(const std::function<void()>& body) {
  int fds[2];
  EXPECT_EQ(::pipe2(fds, O_CLOEXEC), 0);
  const OwnedFd read(fds[0]);
  OwnedFd write(fds[1]);
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(write.get(), STDERR_FILENO);
    ::pthread_setname_np(::pthread_self(), "vp-7");
    ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);  // no core
    body();
    ::_exit(kNotStopped);
  }
  write.Reset();
  Outcome outcome;
  char buffer[4096];
  for (ssize_t got; (got = ::read(read.get(), buffer, sizeof(buffer))) > 0;) outcome.said.append(buffer, static_cast<size_t>(got));
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  if (WIFEXITED(status)) outcome.exit_code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) outcome.signal = WTERMSIG(status);
  return outcome;
}

// All of it, as the machine does it.
void Enter(absl::Status (*filter)(const MonitorJailOptions&), const MonitorJailOptions& options = {}) {
  if (!PrepareConfinement(options, {}).ok() || !DropPrivileges(options, {}).ok() || !filter(options).ok()) ::_exit(98);
}

bool AnyCapability() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {};
  ::syscall(SYS_capget, &header, data);
  for (const auto& word : data) {
    if ((word.effective | word.permitted | word.inheritable) != 0) return true;
  }
  return false;
}

using Filter = absl::Status (*)(const MonitorJailOptions&);
class ConfinedThreadTest : public ::testing::TestWithParam<std::pair<const char*, Filter>> {};
INSTANTIATE_TEST_SUITE_P(All, ConfinedThreadTest, ::testing::Values(std::pair("vp", &FilterVpThread), std::pair("monitor", &FilterMonitorThread)),
                         [](const auto& info) { return std::string(info.param.first); });

TEST_P(ConfinedThreadTest, OpeningAFileEndsItAndIsReported) {
  const Outcome outcome = InChild([] {
    Enter(GetParam().second);
    ::open("/etc/passwd", O_RDONLY);
  });
  EXPECT_EQ(outcome.signal, SIGSYS);
  EXPECT_THAT(outcome.said, AllOf(HasSubstr(" error sandbox: thread 'vp-7' (id "), HasSubstr("made system call 257 (openat), which its policy '"),
                                  HasSubstr(std::string(GetParam().first) + "_policy' does not have")));
}

TEST_P(ConfinedThreadTest, NewExecutableMemoryEndsItAndTheArgumentIsNamed) {
  const Outcome outcome = InChild([] {
    Enter(GetParam().second);
    ::mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  });
  EXPECT_EQ(outcome.signal, SIGSYS);
  EXPECT_THAT(outcome.said, HasSubstr("made system call 9 (mmap) with arguments that its policy"));
  EXPECT_THAT(outcome.said, HasSubstr("does not allow: prot 0x5"));
}

TEST_P(ConfinedThreadTest, AnAbortIsStillAnAbort) {
  const Outcome outcome = InChild([] {
    Enter(GetParam().second);
    ::abort();
  });
  EXPECT_EQ(outcome.signal, SIGABRT) << outcome.said;
}

TEST_P(ConfinedThreadTest, DoesTheOrdinary) {
  const Outcome outcome = InChild([] {
    Enter(GetParam().second);
    std::string large(8 << 20, 'x');  // memory of its own mapping, and given back
    large.append(16 << 20, 'y');
    Log(LogLevel::kInfo, "test", "the log still works");
    ::exit(0);  // static destructors and all
  });
  EXPECT_EQ(outcome.exit_code, 0) << outcome.said;
  EXPECT_THAT(outcome.said, HasSubstr("the log still works"));
}

// More threads than malloc has arenas for without asking, each giving back more than it keeps, and a mutex that all want.
TEST_P(ConfinedThreadTest, ManyThreadsAllocateFreeAndContend) {
  const Outcome outcome = InChild([] {
    if (!PrepareConfinement({}, {}).ok() || !DropPrivileges({}, {}).ok()) ::_exit(98);
    std::mutex mutex;
    uint64_t sum = 0;
    std::vector<std::thread> threads;
    for (int i = 0; i < 16; ++i) {
      threads.emplace_back([&] {
        if (!GetParam().second({}).ok()) ::_exit(98);
        for (int round = 0; round < 3; ++round) {
          std::vector<std::unique_ptr<char[]>> blocks;
          for (int block = 0; block < 2000; ++block) blocks.push_back(std::make_unique<char[]>(1000));
        }
        for (int round = 0; round < 2000; ++round) {
          const std::lock_guard<std::mutex> lock(mutex);
          ++sum;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    ::_exit(sum == 16 * 2000 ? 0 : 1);
  });
  EXPECT_EQ(outcome.exit_code, 0) << outcome.said;
}

TEST_P(ConfinedThreadTest, LetsThroughAndReportsWhereTheModeIsLog) {
  const Outcome outcome = InChild([] {
    MonitorJailOptions options;
    options.log_only = options.waive_landlock = true;
    Enter(GetParam().second, options);
    ::_exit(::open("/dev/null", O_RDONLY) >= 0 ? 5 : 6);
  });
  EXPECT_EQ(outcome.exit_code, 5);
  EXPECT_THAT(outcome.said, AllOf(HasSubstr(" warning sandbox: thread 'vp-7'"), HasSubstr("(openat)"), HasSubstr("LET THROUGH")));
}

TEST(DropPrivilegesTest, LeavesNoCapabilityAndNoWayBack) {
  const Outcome outcome = InChild([] {
    if (!DropPrivileges({}, {}).ok()) ::_exit(98);
    if (::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1) ::_exit(1);
    if (AnyCapability()) ::_exit(2);
    for (unsigned long capability = 0; capability <= CAP_LAST_CAP; ++capability) {
      if (::geteuid() == 0 && ::prctl(PR_CAPBSET_READ, capability, 0, 0, 0) == 1) ::_exit(3);
    }
    ::_exit(0);
  });
  EXPECT_EQ(outcome.exit_code, 0);
}

TEST(DropPrivilegesTest, LandlockDeniesEveryFileWhereTheKernelHasIt) {
  MonitorJailOptions options;
  const Outcome without = InChild([] {
    // The version, or an error where there is none.
    ::_exit(::syscall(SYS_landlock_create_ruleset, nullptr, 0, 1) > 0 ? 1 : 0);
  });
  if (without.exit_code == 0) GTEST_SKIP() << "Landlock";
  const Outcome outcome = InChild([&] {
    if (!DropPrivileges(options, {}).ok()) ::_exit(98);
    ::_exit(::open("/dev/null", O_RDONLY) < 0 && errno == EACCES ? 0 : 1);
  });
  EXPECT_EQ(outcome.exit_code, 0);
}

TEST(DropPrivilegesTest, ChildrenCanStillBeEnded) {
  const Outcome outcome = InChild([] {
    const pid_t device = ::fork();
    if (device == 0) {
      ::pause();
      ::_exit(0);
    }
    const int pidfd = static_cast<int>(::syscall(SYS_pidfd_open, device, 0));
    Enter(&FilterMonitorThread);
    if (::syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, nullptr, 0) != 0) ::_exit(1);
    siginfo_t info{};
    ::_exit(::waitid(static_cast<idtype_t>(3), static_cast<id_t>(pidfd), &info, WEXITED) == 0 && info.si_status == SIGKILL ? 0 : 2);
  });
  EXPECT_EQ(outcome.exit_code, 0) << outcome.said;
}

// Each waiver leaves out its layer and no other.
struct Waiver {
  const char* name;
  bool MonitorJailOptions::*field;
};
class WaiverTest : public ::testing::TestWithParam<Waiver> {};
TEST_P(WaiverTest, LeavesOutThatLayerAlone) {
  const bool landlock = ::syscall(SYS_landlock_create_ruleset, nullptr, 0, 1) > 0;
  const bool capable = ::geteuid() == 0;
  MonitorJailOptions options;
  if (GetParam().field != nullptr) options.*GetParam().field = true;
  const Outcome outcome = InChild([&] {
    if (!PrepareConfinement(options, {}).ok() || !DropPrivileges(options, {}).ok()) ::_exit(98);
    const std::string seen = std::string(AnyCapability() ? "capable " : "") + (::open("/dev/null", O_RDONLY) >= 0 ? "opens " : "");
    (void)!::write(STDERR_FILENO, seen.data(), seen.size());
    if (!FilterVpThread(options).ok()) ::_exit(98);
    ::syscall(SYS_getuid);
    ::_exit(7);
  });
  EXPECT_EQ(outcome.said.find("capable ") != std::string::npos, capable && options.waive_capabilities);
  EXPECT_EQ(outcome.said.find("opens ") != std::string::npos, !landlock || options.waive_landlock);
  EXPECT_EQ(outcome.signal, options.waive_seccomp ? -1 : SIGSYS);
  EXPECT_EQ(outcome.exit_code, options.waive_seccomp ? 7 : -1);
}
INSTANTIATE_TEST_SUITE_P(All, WaiverTest,
                         ::testing::Values(Waiver{"none", nullptr}, Waiver{"seccomp", &MonitorJailOptions::waive_seccomp},
                                           Waiver{"landlock", &MonitorJailOptions::waive_landlock},
                                           Waiver{"capabilities", &MonitorJailOptions::waive_capabilities}),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(TellWaivedConfinementTest, NamesEachLayerAndTheLogMode) {
  const Outcome outcome = InChild([] {
    MonitorJailOptions monitor;
    JailOptions devices;
    TellWaivedConfinement(monitor, devices);
    monitor.waive_landlock = monitor.waive_undumpable = devices.waive_seccomp = monitor.log_only = true;
    TellWaivedConfinement(monitor, devices);
    ::_exit(0);
  });
  EXPECT_EQ(std::count(outcome.said.begin(), outcome.said.end(), '\n'), 3) << outcome.said;
  EXPECT_THAT(outcome.said, AllOf(HasSubstr("waives SECCOMP for device processes"), HasSubstr("waives LANDLOCK, UNDUMPABLE for the monitor"),
                                  HasSubstr("LET THROUGH")));
}

}  // namespace
}  // namespace vmm
