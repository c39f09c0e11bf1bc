// The jail from both sides: what the process inside sees and may do, and what /proc says about it from outside.
// Fails closed: a process that was not stopped exits with 99, and 99 is never expected.
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/owned_fd.h"
#include "base/status_matchers.h"
#include "sandbox/child_process.h"
#include "sandbox/jail_attempts.h"
#include "sandbox/jail_options.h"
#include "sandbox/probe.h"
#include "sandbox/spawn.h"

namespace vmm {
namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// Set for WorksForAnOrdinaryUser's run of this test: the sandboxee's descriptor.
constexpr char kInheritedVariable[] = "JAIL_TEST_EXECUTABLE_FD";
constexpr char kSandboxee[] = "sandbox/jail_test_sandboxee";

struct Pipe {
  OwnedFd read, write;
};
Pipe MakePipe() {
  int fds[2] = {-1, -1};
  EXPECT_EQ(::pipe2(fds, O_CLOEXEC), 0);
  return {OwnedFd(fds[0]), OwnedFd(fds[1])};
}

class JailTest : public ::testing::Test {
 protected:
  void SetUp() override {
#ifdef VMM_DYNAMIC_LINK
    GTEST_SKIP() << "static executables (a sanitizer build has none)";
#endif
    const SandboxProbe probe = ProbeSandbox();
    if (!probe.namespaces) GTEST_SKIP() << "user namespaces: " << probe.namespaces_reason;
    if (!probe.seccomp_filter) GTEST_SKIP() << "seccomp filters";
  }

  absl::StatusOr<ChildProcess> Start(const std::string& attempt, const JailOptions& jail = {}) {
    const char* inherited = ::getenv(kInheritedVariable);
    executable_.Reset(inherited != nullptr ? ::atoi(inherited) : ::open(kSandboxee, O_RDONLY | O_CLOEXEC));
    report_ = MakePipe();
    order_ = MakePipe();
    SpawnRequest request;
    request.name = "test";
    request.arguments = {"vmm", attempt};
    for (const std::string& argument : JailOptionArguments(jail)) request.arguments.push_back(argument);
    request.executable_fd = executable_.get();
    // Numbers that collide with the parent's own on purpose.
    request.fds = {{report_.write.get(), 3}, {order_.read.get(), 5}};
    request.jail = jail;
    auto child = SpawnDevice(request);
    report_.write.Reset();
    order_.read.Reset();
    return child;
  }

  // Reads the report up to "entered" or the end of the pipe.
  std::map<std::string, std::string> ReadReport() {
    std::string text;
    char buffer[512];
    while (text.find("entered=") == std::string::npos) {
      pollfd poll_fd{report_.read.get(), POLLIN, 0};
      if (::poll(&poll_fd, 1, 10'000) <= 0) break;
      const ssize_t size = ::read(report_.read.get(), buffer, sizeof(buffer));
      if (size <= 0) break;
      text.append(buffer, static_cast<size_t>(size));
    }
    std::map<std::string, std::string> facts;
    for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
      const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits('=', 1));
      facts[parts[0]] = parts.size() > 1 ? parts[1] : "";
    }
    return facts;
  }

  void Order() { EXPECT_EQ(::write(order_.write.get(), "g", 1), 1); }

  static std::map<std::string, std::string> ProcStatus(pid_t pid) {
    std::map<std::string, std::string> fields;
    std::ifstream stream(absl::StrCat("/proc/", pid, "/status"));
    for (std::string line; std::getline(stream, line);) {
      const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits(":\t", 1));
      if (parts.size() == 2) fields[parts[0]] = parts[1];
    }
    return fields;
  }

  OwnedFd executable_;
  Pipe report_;
  Pipe order_;
};

TEST_F(JailTest, ProcessSeesAnEmptyReadOnlyLonelyWorld) {
  // Where /proc/sys is read-only (a container), the filter alone forbids it.
  const bool nested_forbidden = ::access("/proc/sys/user/max_user_namespaces", W_OK) == 0 || ::geteuid() != 0;
  ASSERT_OK_AND_ASSIGN(ChildProcess child, Start(nested_forbidden ? "exit_after_namespace" : "exit"));
  auto facts = ReadReport();
  EXPECT_EQ(facts["entered"], "1") << facts["refused"];
  EXPECT_EQ(facts["pid"], "1");
  EXPECT_EQ(facts["uid"], "65534");
  EXPECT_EQ(facts["gid"], "65534");
  EXPECT_EQ(facts["root_entries"], "0");
  EXPECT_EQ(facts["create"], std::to_string(EROFS));
  EXPECT_EQ(facts["dotdot"], std::to_string(ENOENT));
  EXPECT_EQ(facts["kill_all"], std::to_string(ESRCH));
  EXPECT_EQ(facts["parent"], "0");
  EXPECT_EQ(facts["hostname"], std::to_string(EPERM));
  EXPECT_EQ(facts["mount"], std::to_string(EPERM));
  EXPECT_EQ(facts["chroot"], std::to_string(EPERM));
  EXPECT_EQ(facts["setuid"], std::to_string(EINVAL));  // 0 is nobody in there
  EXPECT_EQ(facts["ambient"], std::to_string(EPERM));
  EXPECT_EQ(facts["securebits"], std::to_string(EPERM));
  if (nested_forbidden) {
    EXPECT_EQ(facts["user_namespace"], std::to_string(ENOSPC));
  }
  EXPECT_EQ(facts["up"], "");
  EXPECT_EQ(facts["fds"], "0;1;2;3;5;");
  EXPECT_EQ(facts["environment"], "empty");
  EXPECT_EQ(facts["nproc"], "0");
  EXPECT_EQ(facts["core"], "0");
  EXPECT_EQ(facts["fork"], std::to_string(EAGAIN));
  EXPECT_EQ(facts["umask"], std::to_string(077));
  Order();
  ASSERT_OK_AND_ASSIGN(const ExitStatus status, child.Wait(10'000));
  EXPECT_EQ(status.Describe(), "exited with code 7");
}

TEST_F(JailTest, ProcessHasNoPrivilegeSeenFromOutside) {
  ASSERT_OK_AND_ASSIGN(ChildProcess child, Start("wait"));
  ReadReport();
  auto status = ProcStatus(child.pid());
  for (const char* set : {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}) EXPECT_EQ(status[set], "0000000000000000") << set;
  EXPECT_EQ(status["NoNewPrivs"], "1");
  EXPECT_EQ(status["Seccomp"], "2");
  EXPECT_EQ(status["Name"], "vmm-jailtest");
  if (::geteuid() == 0) {
    EXPECT_EQ(status["Groups"], " ");
  }
}

class JailAttemptTest : public JailTest, public ::testing::WithParamInterface<JailAttempt> {};

TEST_P(JailAttemptTest, KillsTheProcessAndIsReported) {
  ASSERT_OK_AND_ASSIGN(ChildProcess child, Start(GetParam().name));
  EXPECT_EQ(ReadReport()["entered"], "1");
  Order();
  ASSERT_OK_AND_ASSIGN(const ExitStatus status, child.Wait(10'000));
  EXPECT_THAT(status.Describe(), AllOf(StartsWith("ended by signal 31 (Bad system call); its last words: thread 'vmm-jailtest' (id 1) "
                                                  "made system call "),
                                       HasSubstr(GetParam().call)));
}
INSTANTIATE_TEST_SUITE_P(All, JailAttemptTest, ::testing::ValuesIn(kJailAttempts),
                         [](const auto& info) { return std::string(info.param.name); });

// What a report says of the arguments.
TEST_F(JailTest, AReportNamesTheArgumentsThatWereRefused) {
  const std::pair<const char*, const char*> cases[] = {
      {"map_executable", "(mmap) with arguments that its policy 'jail_test_policy' does not allow: prot 0x5, flags 0x22"},
      {"dumpable", "(prctl) with arguments that its policy 'jail_test_policy' does not allow: option 0x4"}};
  for (const auto& [attempt, words] : cases) {
    ASSERT_OK_AND_ASSIGN(ChildProcess child, Start(attempt));
    ReadReport();
    Order();
    ASSERT_OK_AND_ASSIGN(const ExitStatus status, child.Wait(10'000));
    EXPECT_THAT(status.Describe(), HasSubstr(words));
  }
}

// The kernel's own answer, without a handler: nothing is reported.
TEST_F(JailTest, X32AbiKillsTheProcess) {
  ASSERT_OK_AND_ASSIGN(ChildProcess child, Start("x32"));
  EXPECT_EQ(ReadReport()["entered"], "1");
  Order();
  ASSERT_OK_AND_ASSIGN(const ExitStatus status, child.Wait(10'000));
  EXPECT_EQ(status.Describe(), "ended by signal 31 (Bad system call)");
}

TEST_F(JailTest, ViolationsAreReportedAndLetThroughWhereTheModeIsLog) {
  JailOptions jail;
  jail.log_only = true;
  ASSERT_OK_AND_ASSIGN(ChildProcess child, Start("socket", jail));
  EXPECT_EQ(ReadReport()["entered"], "1");
  Order();
  ASSERT_OK_AND_ASSIGN(const ExitStatus status, child.Wait(10'000));
  EXPECT_THAT(status.Describe(), AllOf(StartsWith("exited with code 99; its last words: thread 'vmm-jailtest' (id 1) made system call 41 (socket)"),
                                       HasSubstr("LET THROUGH")));
}

TEST_F(JailTest, WordsOfAHostileProcessArePrintableAndBounded) {
  ASSERT_OK_AND_ASSIGN(ChildProcess child, Start("flood"));
  EXPECT_EQ(ReadReport()["entered"], "1");
  Order();
  // It writes until its pipe is full, which does not block it.
  ASSERT_OK_AND_ASSIGN(const ExitStatus status, child.Wait(10'000));
  EXPECT_THAT(status.Describe(), StartsWith("exited with code 7; its last words: ?[2J | forged?[2J | forged"));
  EXPECT_EQ(status.last_words.size(), ChildProcess::kMostWords);
}

TEST_F(JailTest, ThirtyTwoBitAbiKillsTheProcess) {
  ASSERT_OK_AND_ASSIGN(ChildProcess child, Start("i386"));
  EXPECT_EQ(ReadReport()["entered"], "1");
  Order();
  ASSERT_OK_AND_ASSIGN(const ExitStatus status, child.Wait(10'000));
  // A kernel without the 32-bit ABI answers the instruction itself with SIGSEGV.
  EXPECT_THAT(status.Describe(), AnyOf(StartsWith("ended by signal 31"), StartsWith("ended by signal 11")));
}

TEST_F(JailTest, TerminalSignalsDoNotReachTheProcess) {
  ASSERT_OK_AND_ASSIGN(ChildProcess child, Start("exit"));
  ReadReport();
  for (const int signal : {SIGINT, SIGQUIT, SIGTSTP, SIGTTIN, SIGTTOU, SIGHUP, SIGTERM}) child.Signal(signal);
  Order();
  ASSERT_OK_AND_ASSIGN(const ExitStatus status, child.Wait(10'000));
  EXPECT_EQ(status.Describe(), "exited with code 7");
}

TEST_F(JailTest, EndsWithItsParent) {
  Pipe pid_pipe = MakePipe();
  const pid_t middle = ::fork();
  if (middle == 0) {
    auto child = Start("wait");
    if (!child.ok()) ::_exit(1);
    ReadReport();
    const pid_t pid = child->pid();
    (void)!::write(pid_pipe.write.get(), &pid, sizeof(pid));
    ::raise(SIGKILL);
  }
  pid_t pid = 0;
  ASSERT_EQ(::read(pid_pipe.read.get(), &pid, sizeof(pid)), static_cast<ssize_t>(sizeof(pid)));
  ASSERT_EQ(::waitpid(middle, nullptr, 0), middle);
  // Gone, or a zombie that init has yet to reap: SIGKILL needs a moment.
  std::string state;
  for (int i = 0; i < 500; ++i) {
    auto status = ProcStatus(pid);
    state = status.count("State") != 0 ? status["State"] : "gone";
    if (state == "gone" || state[0] == 'Z' || state[0] == 'X') break;
    ::poll(nullptr, 0, 10);
  }
  EXPECT_THAT(state, AnyOf(StartsWith("gone"), StartsWith("Z"), StartsWith("X")));
}

TEST_F(JailTest, WorksForAnOrdinaryUser) {
  if (::geteuid() != 0) GTEST_SKIP() << "being root (the other tests ran as an ordinary user already)";
  const pid_t middle = ::fork();
  if (middle == 0) {
    // That user may not be able to walk to the file, so it is opened now.
    const int executable = ::open(kSandboxee, O_RDONLY);
    const std::string variable = absl::StrCat(kInheritedVariable, "=", executable);
    const char* environment[] = {variable.c_str(), nullptr};
    const gid_t groups[] = {12345};
    if (::setgroups(1, groups) != 0 || ::setresgid(12345, 12345, 12345) != 0 || ::setresuid(12345, 12345, 12345) != 0) {
      ::_exit(1);
    }
    // A change of ids makes a process undumpable, and exec of a readable file dumpable again.
    ::execle("/proc/self/exe", "jail_test", "--gtest_filter=JailTest.ProcessSees*", nullptr, environment);
    ::_exit(2);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(middle, &status, 0), middle);
  ASSERT_TRUE(WIFEXITED(status)) << status;
  if (WEXITSTATUS(status) == 2) GTEST_SKIP() << "a test executable that other users may run";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(JailTest, WaivedNamespacesKeepTheRest) {
  JailOptions jail;
  jail.waive_namespaces = jail.waive_empty_root = true;
  ASSERT_OK_AND_ASSIGN(ChildProcess child, Start("open", jail));
  auto facts = ReadReport();
  EXPECT_EQ(facts["entered"], "1") << facts["refused"];
  EXPECT_NE(facts["pid"], "1");
  auto proc = ProcStatus(child.pid());
  EXPECT_EQ(proc["CapEff"], "0000000000000000");
  EXPECT_EQ(proc["NoNewPrivs"], "1");
  Order();
  ASSERT_OK_AND_ASSIGN(const ExitStatus status, child.Wait(10'000));
  EXPECT_THAT(status.Describe(), StartsWith("ended by signal 31 (Bad system call); its last words: thread 'vmm-jailtest'"));
}

TEST_F(JailTest, WithoutAFilterTheOtherLayersHold) {
  JailOptions jail;
  jail.waive_seccomp = true;
  ASSERT_OK_AND_ASSIGN(ChildProcess child, Start("unfiltered", jail));
  auto facts = ReadReport();
  EXPECT_EQ(facts["entered"], "1") << facts["refused"];
  EXPECT_EQ(ProcStatus(child.pid())["Seccomp"], "0");
  Order();
  ASSERT_OK_AND_ASSIGN(const ExitStatus status, child.Wait(10'000));
  EXPECT_EQ(status.Describe(), "exited with code 7");
}

TEST_F(JailTest, WaivingNamespacesAloneIsRefused) {
  JailOptions jail;
  jail.waive_namespaces = true;
  EXPECT_THAT(Start("open", jail), StatusIs(absl::StatusCode::kInvalidArgument, "start device 'test': sandbox: namespaces are waived"));
}

TEST_F(JailTest, FailingStepIsNamed) {
  SpawnRequest request;
  request.name = "test";
  request.arguments = {"vmm"};
  const OwnedFd not_a_program(::open("/etc/passwd", O_RDONLY | O_CLOEXEC));
  request.executable_fd = not_a_program.get();
  EXPECT_THAT(SpawnDevice(request), StatusIs(absl::StatusCode::kPermissionDenied, "start device 'test': execute the device's program"));
}

TEST_F(JailTest, DescriptorOutsideTheTableIsRefused) {
  SpawnRequest request;
  request.name = "test";
  request.arguments = {"vmm"};
  request.fds = {{0, 16}};
  EXPECT_THAT(SpawnDevice(request), StatusIs(absl::StatusCode::kInvalidArgument, "place descriptor 0 at 16"));
}

}  // namespace
}  // namespace vmm
