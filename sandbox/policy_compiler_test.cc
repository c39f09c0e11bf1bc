#include "sandbox/policy_compiler.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <map>
#include <string>

#include <gtest/gtest.h>

#include "absl/status/status.h"
#include "base/status_matchers.h"
#include "sandbox/bpf_evaluator.h"
#include "sandbox/seccomp_policy.h"

namespace vmm {
namespace {

using Files = std::map<std::string, std::string>;

absl::StatusOr<CompiledPolicy> Compile(const Files& files) {
  return CompilePolicy("a.policy", [&](absl::string_view file) -> absl::StatusOr<std::string> {
    const auto found = files.find(std::string(file));
    if (found == files.end()) return absl::NotFoundError("no such file");
    return found->second;
  });
}

uint32_t Ask(const CompiledPolicy& policy, int call, std::initializer_list<uint64_t> arguments = {},
             uint32_t arch = AUDIT_ARCH_X86_64) {
  seccomp_data data{};
  data.nr = call;
  data.arch = arch;
  std::copy(arguments.begin(), arguments.end(), data.args);
  return EvaluateBpf(policy.program, data).value();
}

TEST(CompilePolicyTest, WhatNoRuleAllowsIsRefused) {
  ASSERT_OK_AND_ASSIGN(const auto program, Compile({{"a.policy", "read\n"}}));
  EXPECT_EQ(Ask(program, SYS_read), SECCOMP_RET_ALLOW);
  EXPECT_EQ(Ask(program, SYS_write), kSeccompRefused);
  EXPECT_EQ(Ask(program, 100'000), kSeccompRefused);
}

TEST(CompilePolicyTest, OtherArchitecturesAndX32Kill) {
  ASSERT_OK_AND_ASSIGN(const auto program, Compile({{"a.policy", "read\nrestart_syscall\n"}}));
  EXPECT_EQ(Ask(program, 3, {}, AUDIT_ARCH_I386), SECCOMP_RET_KILL_PROCESS);
  EXPECT_EQ(Ask(program, 0, {}, AUDIT_ARCH_I386), SECCOMP_RET_KILL_PROCESS);
  EXPECT_EQ(Ask(program, 0x40000000 | SYS_read), SECCOMP_RET_KILL_PROCESS);
  EXPECT_EQ(Ask(program, -1), kSeccompRefused);
}

TEST(CompilePolicyTest, ComparesMaskedArguments) {
  ASSERT_OK_AND_ASSIGN(const auto program, Compile({{"a.policy",
      "mmap: prot & PROT_EXEC == 0 && flags & MAP_SHARED|MAP_ANONYMOUS == MAP_ANONYMOUS  # a comment\n"}}));
  EXPECT_EQ(Ask(program, SYS_mmap, {0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(Ask(program, SYS_mmap, {0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS}), kSeccompRefused);
  EXPECT_EQ(Ask(program, SYS_mmap, {0, 4096, PROT_READ, MAP_PRIVATE}), kSeccompRefused);
  EXPECT_EQ(Ask(program, SYS_mmap, {0, 4096, PROT_READ, MAP_SHARED | MAP_ANONYMOUS}), kSeccompRefused);
}

TEST(CompilePolicyTest, SetIsAnyOfItsMembersAndLinesAreAlternatives) {
  ASSERT_OK_AND_ASSIGN(const auto program, Compile({{"a.policy", "fcntl: fd == 3 && cmd in {F_GETFL, F_GETFD}\nfcntl: fd == 4\n"}}));
  EXPECT_EQ(Ask(program, SYS_fcntl, {3, F_GETFL}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(Ask(program, SYS_fcntl, {3, F_GETFD}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(Ask(program, SYS_fcntl, {3, F_SETFL}), kSeccompRefused);
  EXPECT_EQ(Ask(program, SYS_fcntl, {4, F_SETFL}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(Ask(program, SYS_fcntl, {0x1'0000'0003, F_GETFL}), kSeccompRefused);
}

TEST(CompilePolicyTest, ErrnoRefusesInsteadOfKilling) {
  ASSERT_OK_AND_ASSIGN(const auto program, Compile({{"a.policy", "clone3 -> errno ENOSYS\n"}}));
  EXPECT_EQ(Ask(program, SYS_clone3), SECCOMP_RET_ERRNO | ENOSYS);
}

TEST(CompilePolicyTest, IncludeAddsTheOtherFilesRules) {
  ASSERT_OK_AND_ASSIGN(const auto program, Compile({{"a.policy", "include b.policy\nread\n"}, {"b.policy", "write: fd == 0x2\n"}}));
  EXPECT_EQ(Ask(program, SYS_write, {2}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(Ask(program, SYS_read), SECCOMP_RET_ALLOW);
}

TEST(CompilePolicyTest, LetNamesANumberForIncludedFilesToo) {
  ASSERT_OK_AND_ASSIGN(const auto program, Compile({{"a.policy", "let RUN = 0xae80\nlet BOTH=RUN|1\ninclude b.policy\nioctl: cmd == BOTH\n"},
                                                    {"b.policy", "ioctl: cmd == RUN\n"}}));
  EXPECT_EQ(Ask(program, SYS_ioctl, {9, 0xae80}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(Ask(program, SYS_ioctl, {9, 0xae81}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(Ask(program, SYS_ioctl, {9, 0xae82}), kSeccompRefused);
}

TEST(CompilePolicyTest, SelfIsOnePlaceholder) {
  ASSERT_OK_AND_ASSIGN(const auto program, Compile({{"a.policy", "tgkill: tgid == SELF\n"}}));
  EXPECT_EQ(Ask(program, SYS_tgkill, {kSeccompSelfPid}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(Ask(program, SYS_tgkill, {1}), kSeccompRefused);
}

TEST(CompilePolicyTest, FirstIsLookedAtBeforeAllOthersAndChangesNothingElse) {
  const std::string others = "ioctl: cmd in {1, 2, 3, 4, 5}\nread\nioctl: fd == 0 && cmd == 9\n";
  ASSERT_OK_AND_ASSIGN(const auto plain, Compile({{"a.policy", others + "ioctl: cmd == 0x10000ae80\n"}}));
  ASSERT_OK_AND_ASSIGN(const auto first, Compile({{"a.policy", others + "first ioctl: cmd == 0x10000ae80\n"}}));
  ASSERT_EQ(first.program.size(), plain.program.size() + 9);
  EXPECT_EQ(first.program[8].k, SECCOMP_RET_ALLOW);
  for (const uint64_t cmd : {0ul, 1ul, 5ul, 9ul, 0xae80ul, 0x1'0000'ae80ul, 0x2'0000'ae80ul}) {
    for (const int call : {SYS_ioctl, SYS_read, SYS_write}) {
      for (const uint32_t arch : {uint32_t{AUDIT_ARCH_X86_64}, uint32_t{AUDIT_ARCH_I386}}) {
        EXPECT_EQ(Ask(first, call, {0, cmd}, arch), Ask(plain, call, {0, cmd}, arch)) << call << " " << cmd;
      }
    }
  }
  EXPECT_EQ(Ask(first, SYS_ioctl, {7, 0x1'0000'ae80}), SECCOMP_RET_ALLOW);
}

TEST(CompilePolicyTest, ListsTheArgumentsThatDecide) {
  ASSERT_OK_AND_ASSIGN(const auto program, Compile({{"a.policy", "read\nmmap: prot == 0 && flags == 2\nmmap: prot == 1\nsetpriority: arg1 == 3\n"}}));
  ASSERT_EQ(program.checked.size(), 2u);
  EXPECT_EQ(program.checked[0].call, SYS_mmap);
  EXPECT_EQ(program.checked[0].arguments, (std::array<std::string, 6>{"", "", "prot", "flags", "", ""}));
  EXPECT_EQ(program.checked[1].arguments[1], "arg1");
}

struct Mistake {
  const char* name;
  const char* text;
  const char* message;
};
class CompilePolicyMistakeTest : public ::testing::TestWithParam<Mistake> {};
TEST_P(CompilePolicyMistakeTest, IsNamedWithFileAndLine) {
  const Files files = {{"a.policy", GetParam().text}, {"b.policy", "read\n\nbogus\n"}, {"c.policy", "include c.policy\n"}};
  EXPECT_THAT(Compile(files), StatusIs(absl::StatusCode::kInvalidArgument, GetParam().message));
}
INSTANTIATE_TEST_SUITE_P(
    All, CompilePolicyMistakeTest,
    ::testing::Values(
        Mistake{"UnknownCall", "read\nraed\n", "a.policy:2: x86-64 has no system call 'raed'"},
        Mistake{"UnknownArgument", "mmap: port == 0", "a.policy:1: 'mmap' has no argument named 'port'"},
        Mistake{"UnknownConstant", "mmap: prot == PROT_EXEK", "a.policy:1: 'PROT_EXEK' is neither a number nor a known constant"},
        Mistake{"NoComparison", "mmap: prot", "a.policy:1: 'prot' has no comparison"},
        Mistake{"ImpossibleMask", "mmap: prot & PROT_EXEC == PROT_READ", "a.policy:1: can never hold"},
        Mistake{"SameArgumentTwice", "mmap: prot & PROT_EXEC == 0 && prot != 7", "a.policy:1: one comparison an argument"},
        Mistake{"Shadowed", "read\nread: fd == 3\n", "a.policy:2: 'read' has a rule already (line 1 of a.policy)"},
        Mistake{"Shadowing", "read: fd == 3\nread\n", "a.policy:2: 'read' has a rule already (line 1 of a.policy)"},
        Mistake{"BadAction", "read -> trap", "a.policy:1: the only other action"},
        Mistake{"BadErrno", "read -> errno EBANANA", "a.policy:1: unknown error name 'EBANANA'"},
        Mistake{"MissingFile", "include none.policy", "a.policy:1: no such file"},
        Mistake{"InIncluded", "include b.policy", "b.policy:3: x86-64 has no system call 'bogus'"},
        Mistake{"NameOfAConstant", "let PROT_READ = 1", "a.policy:1: 'PROT_READ' has a value already"},
        Mistake{"NameTwice", "let A = 1\nlet A = 1", "a.policy:2: 'A' has a value already"},
        Mistake{"NameWithoutValue", "let A", "a.policy:1: a value is missing"},
        Mistake{"FirstOfASet", "first ioctl: cmd in {1, 2}", "a.policy:1: 'first' is for a rule that allows"},
        Mistake{"FirstThatRefuses", "first read -> errno EPERM", "a.policy:1: 'first' is for a rule that allows"},
        Mistake{"Loop", "include c.policy", "c.policy:1: files include each other"}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace vmm
