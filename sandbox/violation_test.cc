// What a violation says, as a pure function, and what becomes of the process, for real: in forked children that install a filter.
// Fails closed: a child that was not stopped exits with 99.
#include "sandbox/violation.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <string>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "base/owned_fd.h"
#include "sandbox/bpf_evaluator.h"
#include "sandbox/jail_test_policy.h"
#include "sandbox/seccomp_filter.h"
#include "sandbox/seccomp_policy.h"
#include "sandbox/syscall_names.h"

namespace vmm {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;

std::string Format(const Violation& violation, size_t room = 1000) {
  std::string text(room, '\0');
  text.resize(FormatViolation(violation, text));
  return text;
}

TEST(FormatViolationTest, NamesThreadCallAndPolicy) {
  const Violation violation{.thread = "vp-0", .thread_id = 71, .policy = &kJailTestPolicy, .call = SYS_openat,
                            .arguments = {0xffff'ffff'ffff'ff9c, 0x10, 0, 0, 0, 0}, .from = 0xabc};
  EXPECT_EQ(Format(violation),
            "thread 'vp-0' (id 71) made system call 257 (openat), which its policy 'jail_test_policy' does not have; refused; "
            "all arguments 0xffffffffffffff9c 0x10 0x0 0x0 0x0 0x0, called from 0xabc");
}

TEST(FormatViolationTest, NamesTheArgumentsThatDecide) {
  const Violation violation{.thread = "x", .thread_id = 1, .policy = &kJailTestPolicy, .call = SYS_mmap, .arguments = {0, 4096, 5, 0x22, 0, 0}};
  EXPECT_THAT(Format(violation),
              HasSubstr("made system call 9 (mmap) with arguments that its policy 'jail_test_policy' does not allow: prot 0x5, flags 0x22; refused"));
}

TEST(FormatViolationTest, AThreadsNameCannotForge) {
  EXPECT_THAT(Format({.thread = "a'\n\"\\\x1b", .policy = &kJailTestPolicy, .call = -7}), HasSubstr("thread 'a'....' (id 0) made system call -7, which"));
}

TEST(FormatViolationTest, IsCutWhereTheRoomEnds) { EXPECT_EQ(Format({.thread = "vp-0"}, 10), "thread 'vp"); }

TEST(FormatViolationTest, SaysWhatWasLetThrough) {
  EXPECT_THAT(Format({.policy = &kJailTestPolicy, .call = SYS_getuid, .let_through = true}), HasSubstr("LET THROUGH"));
}

struct Outcome {
  std::string said;
  int status = 0;
};

// `body` runs in a child whose standard error is the pipe.
Outcome InChild(const std::function<void()>& body) {
  int fds[2];
  EXPECT_EQ(::pipe2(fds, O_CLOEXEC), 0);
  const OwnedFd read(fds[0]);
  OwnedFd write(fds[1]);
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(write.get(), STDERR_FILENO);
    ::prctl(PR_SET_NAME, "the-child", 0, 0, 0);
    ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);  // no core for each of hundreds
    body();
    ::_exit(99);
  }
  write.Reset();
  Outcome outcome;
  char buffer[4096];
  for (ssize_t got; (got = ::read(read.get(), buffer, sizeof(buffer))) > 0;) outcome.said.append(buffer, static_cast<size_t>(got));
  EXPECT_EQ(::waitpid(child, &outcome.status, 0), child);
  return outcome;
}

void Enter(ViolationMode mode = ViolationMode::kDie, ViolationOutput output = ViolationOutput::kLastWords) {
  if (!InstallViolationHandler(mode, output).ok()) ::_exit(98);
  if (!InstallSeccomp(kJailTestPolicy, SeccompScope::kProcess, mode).ok()) ::_exit(97);
}

testing::Matcher<int> EndedBy(int signal) { return testing::ResultOf([](int status) { return WIFSIGNALED(status) ? WTERMSIG(status) : -1; }, signal); }

TEST(ViolationTest, IsReportedAndEndsTheProcessBySigsys) {
  const Outcome outcome = InChild([] {
    Enter();
    ::syscall(SYS_openat, AT_FDCWD, "/", O_RDONLY, 0);
  });
  EXPECT_THAT(outcome.status, EndedBy(SIGSYS));
  EXPECT_THAT(outcome.said, MatchesRegex("thread 'the-child' \\(id [0-9]+\\) made system call 257 \\(openat\\), which its policy 'jail_test_policy' "
                                         "does not have; refused; all arguments 0xffffff.*\n"));
}

TEST(ViolationTest, ABlockedOrIgnoredSignalEndsItToo) {
  for (const bool ignore : {false, true}) {
    const Outcome outcome = InChild([ignore] {
      Enter();
      const sigset_t all = [] {
        sigset_t set;
        ::sigfillset(&set);
        return set;
      }();
      if (!ignore) ::sigprocmask(SIG_BLOCK, &all, nullptr);
      ::syscall(ignore ? SYS_rt_sigaction : SYS_getuid, SIGSYS, 0, 0, 8);
    });
    EXPECT_THAT(outcome.status, EndedBy(SIGSYS)) << ignore;
  }
}

TEST(ViolationTest, OfOneThreadEndsThemAll) {
  const Outcome outcome = InChild([] {
    int pipes[2], up[2];
    if (::pipe(up) != 0 || ::pipe(pipes) != 0 || ::dup2(pipes[1], 3) != 3) ::_exit(96);  // 3: what the policy may write to
    const int from = pipes[0];
    std::thread thread([from, &up] {
      ::prctl(PR_SET_NAME, "the-thread", 0, 0, 0);
      char byte = 'u';
      (void)!::write(up[1], &byte, 1);
      (void)!::read(from, &byte, 1);
      ::syscall(SYS_getuid);
    });
    char started;
    (void)!::read(up[0], &started, 1);  // what a thread does while it starts is not in the policy
    Enter();                            // both
    (void)!::write(3, "g", 1);
    for (char byte; ::read(up[0], &byte, 1) >= 0;) {
    }
  });
  EXPECT_THAT(outcome.status, EndedBy(SIGSYS));
  EXPECT_THAT(outcome.said, HasSubstr("thread 'the-thread'"));
}

// Without what its handler needs a process ends all the same, without the line.
TEST(ViolationTest, AReportThatThePolicyForbidsIsLeftOut) {
  const Outcome outcome = InChild([] {
    Enter(ViolationMode::kDie, ViolationOutput::kLog);  // a log asks poll first, and this policy has none
    ::syscall(SYS_getuid);
  });
  EXPECT_THAT(outcome.status, EndedBy(SIGSYS));
  EXPECT_EQ(outcome.said, "");
}

TEST(ViolationTest, ReturnsWhatTheCallReturnsWhereItIsLetThrough) {
  const Outcome outcome = InChild([] {
    Enter(ViolationMode::kLetThrough);
    for (int i = 0; i < 3; ++i) {
      if (::syscall(SYS_getppid) <= 0) ::_exit(1);
      errno = 0;
      if (::syscall(SYS_openat, AT_FDCWD, "/no such file", O_RDONLY, 0) != -1 || errno != ENOENT) ::_exit(2);
    }
    void* const map = ::mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) ::_exit(3);
    if (::syscall(SYS_vfork) != -1 || errno != ENOSYS) ::_exit(4);
    ::_exit(ViolationsLetThrough());
  });
  EXPECT_TRUE(WIFEXITED(outcome.status));
  EXPECT_EQ(WEXITSTATUS(outcome.status), 4);  // each number once
  EXPECT_EQ(std::count(outcome.said.begin(), outcome.said.end(), '\n'), 4) << outcome.said;
  EXPECT_THAT(outcome.said, AllOf(HasSubstr("(getppid), which"), HasSubstr("(openat), which"), HasSubstr("(mmap) with"), HasSubstr("LET THROUGH")));
  EXPECT_THAT(outcome.said, HasSubstr("(vfork), which its policy 'jail_test_policy' does not have; refused"));
}

TEST(ViolationTest, TheHandlerBeforeIsCalled) {
  const Outcome outcome = InChild([] {
    ::signal(SIGSYS, [](int) { (void)!::write(STDERR_FILENO, "terminal given back\n", 20); });
    Enter();
    ::syscall(SYS_getuid);
  });
  EXPECT_THAT(outcome.status, EndedBy(SIGSYS));
  EXPECT_THAT(outcome.said, AllOf(HasSubstr("(getuid)"), HasSubstr("terminal given back")));
}

TEST(ViolationTest, AnAbortIsStillAnAbort) {
  const Outcome outcome = InChild([] {
    Enter();
    ::abort();
  });
  EXPECT_THAT(outcome.status, EndedBy(SIGABRT)) << outcome.said;
}

TEST(ViolationTest, SignalsToOthersAreRefused) {
  const pid_t parent = ::getpid();
  const Outcome outcome = InChild([parent] {
    Enter();
    ::syscall(SYS_tgkill, parent, parent, SIGABRT);
  });
  EXPECT_THAT(outcome.status, EndedBy(SIGSYS));
  EXPECT_THAT(outcome.said, HasSubstr(absl::StrCat("(tgkill) with arguments that its policy 'jail_test_policy' does not allow: tgid 0x")));
}

// Every number that there is, and those that there are not, for real: what the pure function says is what the kernel does.
TEST(ViolationTest, EveryCallOutsideThePolicyEndsTheProcess) {
  const auto program = SeccompProgram(kJailTestPolicy, ::getpid(), ViolationMode::kDie);
  // The kernel lets these two pass every filter (since 6.13 and 6.18): they are what its own probes put into a program, and do
  // nothing, or end the process, where no probe is.
  constexpr int kUretprobe = 335, kUprobe = 336;
  int refused = 0;
  for (int call = 0; call < kSyscallNumbers; ++call) {
    if (call == kUretprobe || call == kUprobe) continue;
    seccomp_data data{};
    data.nr = call;
    data.arch = AUDIT_ARCH_X86_64;
    if (EvaluateBpf(program, data) != kSeccompRefused) continue;
    ++refused;
    const Outcome outcome = InChild([call] {
      Enter();
      ::syscall(call, 0, 0, 0, 0, 0, 0);
    });
    EXPECT_THAT(outcome.status, EndedBy(SIGSYS)) << call;
    EXPECT_THAT(outcome.said, HasSubstr(absl::StrCat("made system call ", call, SyscallName(call) != nullptr ? absl::StrCat(" (", SyscallName(call), ")") : "")));
  }
  EXPECT_GT(refused, 480);
}

TEST(SyscallNamesTest, KnowsWhatLinuxHas) {
  EXPECT_STREQ(SyscallName(SYS_read), "read");
  EXPECT_STREQ(SyscallName(SYS_landlock_create_ruleset), "landlock_create_ruleset");
  EXPECT_EQ(SyscallName(-1), nullptr);
  EXPECT_EQ(SyscallName(kSyscallNumbers), nullptr);
}

}  // namespace
}  // namespace vmm
