// Each device's jail from inside: a process that is started as the device is, has its policy and its descriptors, and misbehaves.
// Fails closed: a process that was not stopped exits with 99, and 99 is never expected.
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/owned_fd.h"
#include "base/status_matchers.h"
#include "devices/virtio/backend/backend_spawn.h"
#include "sandbox/bpf_evaluator.h"
#include "sandbox/child_process.h"
#include "sandbox/jail_attempts.h"
#include "sandbox/probe.h"
#include "sandbox/spawn.h"
#include "sandbox/syscall_names.h"
#include "tests/device_jail/devices.h"

namespace vmm {
namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;

constexpr char kSandboxee[] = "tests/device_jail/sandboxee";

class DeviceJailTest : public ::testing::TestWithParam<JailedDevice> {
 protected:
  void SetUp() override {
#ifdef VMM_DYNAMIC_LINK
    GTEST_SKIP() << "static executables (a sanitizer build has none)";
#endif
    const SandboxProbe probe = ProbeSandbox();
    if (!probe.Complete()) GTEST_SKIP() << "all layers of the sandbox: " << probe.namespaces_reason;
    executable_.Reset(::open(kSandboxee, O_RDONLY | O_CLOEXEC));
    ASSERT_TRUE(executable_.valid());
    null_.Reset(::open("/dev/null", O_RDWR | O_CLOEXEC));
  }

  struct Ended {
    std::string how;    // "exited with code 7", or by which signal
    std::string words;  // all that it said
  };
  // Started by what starts the device, and waited for.
  Ended Misbehave(const std::string& attempt) {
    const JailedDevice& device = GetParam();
    ChildProcess process;
    OwnedFd socket;
    OwnedFd messages;
    if (device.backend) {
      BackendSpawnOptions options;
      options.kind = device.kind;
      options.arguments = {absl::StrCat("--attempt=", attempt)};
      options.fds.assign(device.descriptors.size() - 1, null_.get());
      options.executable_fd = executable_.get();
      auto backend = SpawnBackend(options);
      if (!backend.ok()) return {std::string(backend.status().message()), ""};
      process = std::move(backend->process);
      socket = std::move(backend->socket);
      messages = std::move(backend->messages);
    } else {
      SpawnRequest request;
      request.name = device.kind;
      request.arguments = {"vmm", "device", device.kind, absl::StrCat("--attempt=", attempt)};
      request.executable_fd = executable_.get();
      for (const int fd : device.descriptors) request.fds.push_back({null_.get(), fd});
      auto child = SpawnDevice(request);
      if (!child.ok()) return {std::string(child.status().message()), ""};
      process = *std::move(child);
    }
    const auto status = process.Wait(20'000);
    if (!status.ok()) return {std::string(status.status().message()), ""};
    Ended ended{status->Describe(), status->last_words};
    if (messages.valid()) {
      std::string said(64 << 10, '\0');
      const ssize_t got = ::read(messages.get(), said.data(), said.size());
      ended.words.assign(said, 0, got > 0 ? static_cast<size_t>(got) : 0);
    }
    // Without the words, which are compared by themselves.
    ended.how = ended.how.substr(0, ended.how.find("; its last words"));
    return ended;
  }
  static std::map<std::string, std::string> Facts(const std::string& words) {
    std::map<std::string, std::string> facts;
    for (const absl::string_view line : absl::StrSplit(words, '\n', absl::SkipEmpty())) {
      const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits('=', 1));
      facts[parts[0]] = parts.size() > 1 ? parts[1] : "";
    }
    return facts;
  }
  [[nodiscard]] std::string Reported() const {
    return absl::StrCat("thread '", GetParam().process_name, "' (id 1) made system call ");
  }

  OwnedFd executable_;
  OwnedFd null_;
};
INSTANTIATE_TEST_SUITE_P(All, DeviceJailTest, ::testing::ValuesIn(JailedDevices()),
                         [](const auto& info) { return std::string(info.param.kind); });

TEST_P(DeviceJailTest, WhatItMayDoDoesNotKillIt) {
  const Ended ended = Misbehave("exit");
  EXPECT_EQ(ended.how, "exited with code 7") << ended.words;
  EXPECT_EQ(Facts(ended.words)["entered"], "1");
}

TEST_P(DeviceJailTest, SeesAnEmptyLonelyWorld) {
  auto facts = Facts(Misbehave("exit").words);
  const std::map<std::string, std::string> expected = {
      {"pid", "1"}, {"uid", "65534"}, {"gid", "65534"}, {"parent", "0"}, {"root_entries", "0"}, {"environment", "empty"},
      {"create", std::to_string(EROFS)}, {"dotdot", std::to_string(ENOENT)}, {"kill_all", std::to_string(ESRCH)},
      {"up", ""},  // of the network
      {"mount", std::to_string(EPERM)}, {"chroot", std::to_string(EPERM)}, {"setuid", std::to_string(EINVAL)},
      {"ambient", std::to_string(EPERM)}, {"securebits", std::to_string(EPERM)}, {"hostname", std::to_string(EPERM)},
      {"fork", std::to_string(EAGAIN)}, {"core", "0"},
      {"fds", absl::StrCat("0;1;2;", absl::StrJoin(GetParam().descriptors, ";"), ";")}};
  for (const auto& [name, value] : expected) EXPECT_EQ(facts[name], value) << name;
}

TEST_P(DeviceJailTest, EachAttemptKillsItAndIsReported) {
  for (const JailAttempt& attempt : kJailAttempts) {
    const Ended ended = Misbehave(attempt.name);
    EXPECT_EQ(ended.how, "ended by signal 31 (Bad system call)") << attempt.name;
    EXPECT_THAT(ended.words, AllOf(HasSubstr(Reported()), HasSubstr(attempt.call))) << attempt.name;
  }
}

// For real, each in a process of its own; what the filter says of all of them is device_policy_test's.
TEST_P(DeviceJailTest, EachCallOutsideOfItsPolicyKillsItAndIsNamed) {
  // Linux passes these two by every filter, and they do nothing where no probe is (sandbox/README.md).
  const std::set<int> passed = {335, 336};
  int refused = 0;
  for (int call = 0; call < kSyscallNumbers; ++call) {
    seccomp_data data{};
    data.nr = call;
    data.arch = AUDIT_ARCH_X86_64;
    for (auto& argument : data.args) argument = kOddJailArgument;
    if (passed.count(call) != 0 || EvaluateBpf(GetParam().policy.program, data) != kSeccompRefused) continue;
    ++refused;
    const Ended ended = Misbehave(absl::StrCat(kAttemptCall, call));
    ASSERT_EQ(ended.how, "ended by signal 31 (Bad system call)") << "call " << call << ": " << ended.words;
    // Some numbers below the last are no call and have no name.
    ASSERT_THAT(ended.words, AnyOf(HasSubstr(absl::StrCat(Reported(), call, " (")), HasSubstr(absl::StrCat(Reported(), call, ", which")))) << call;
  }
  EXPECT_GT(refused, kSyscallNumbers / 2);
}

TEST_P(DeviceJailTest, OtherAbisKillIt) {
  EXPECT_EQ(Misbehave("x32").how, "ended by signal 31 (Bad system call)");
  // A kernel without the 32-bit ABI answers the instruction itself with SIGSEGV.
  EXPECT_THAT(Misbehave("i386").how, AnyOf(HasSubstr("ended by signal 31"), HasSubstr("ended by signal 11")));
}

}  // namespace
}  // namespace vmm
