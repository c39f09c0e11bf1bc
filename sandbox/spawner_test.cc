// A real spawner process, and devices of jail_test's that it starts. Fails closed, as jail_test does.
#include "sandbox/spawner.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/owned_fd.h"
#include "base/status_matchers.h"
#include "sandbox/child_process.h"
#include "sandbox/probe.h"
#include "sandbox/spawn.h"
#include "sandbox/spawner_wire.h"

namespace vmm {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kSandboxee[] = "sandbox/jail_test_sandboxee";

struct Pipe {
  OwnedFd read, write;
};
Pipe MakePipe() {
  int fds[2] = {-1, -1};
  EXPECT_EQ(::pipe2(fds, O_CLOEXEC), 0);
  return {OwnedFd(fds[0]), OwnedFd(fds[1])};
}

bool Runs(pid_t pid) {
  std::ifstream stream(absl::StrCat("/proc/", pid, "/stat"));
  std::string text;
  std::getline(stream, text);
  const size_t end = text.rfind(") ");
  return end != std::string::npos && text[end + 2] != 'Z' && text[end + 2] != 'X';
}

class SpawnerTest : public ::testing::Test {
 protected:
  void SetUp() override {
#ifdef VMM_DYNAMIC_LINK
    GTEST_SKIP() << "static executables (a sanitizer build has none)";
#endif
    const SandboxProbe probe = ProbeSandbox();
    if (!probe.Complete()) GTEST_SKIP() << "all layers of the sandbox: " << probe.namespaces_reason;
    executable_.Reset(::open(kSandboxee, O_RDONLY | O_CLOEXEC));
    ASSERT_OK_AND_ASSIGN(spawner_, Spawner::Create(executable_.get()));
  }

  SpawnRequest Request(const std::string& attempt) {
    report_ = MakePipe();
    order_ = MakePipe();
    SpawnRequest request;
    request.name = "test";
    request.arguments = {"vmm", attempt};
    request.executable_fd = executable_.get();
    request.fds = {{report_.write.get(), 3}, {order_.read.get(), 5}};
    return request;
  }
  absl::StatusOr<ChildProcess> Start(const std::string& attempt) {
    auto child = spawner_->Spawn(Request(attempt));
    report_.write.Reset();
    order_.read.Reset();
    return child;
  }
  std::string Report() {
    std::string text;
    char buffer[512];
    while (text.find("entered=") == std::string::npos) {
      pollfd poll_fd{report_.read.get(), POLLIN, 0};
      if (::poll(&poll_fd, 1, 10'000) <= 0) break;
      const ssize_t size = ::read(report_.read.get(), buffer, sizeof(buffer));
      if (size <= 0) break;
      text.append(buffer, static_cast<size_t>(size));
    }
    return text;
  }
  void Order() { EXPECT_EQ(::write(order_.write.get(), "g", 1), 1); }

  OwnedFd executable_;
  std::unique_ptr<Spawner> spawner_;
  Pipe report_, order_;
};

TEST_F(SpawnerTest, DeviceIsJailedAndOurChild) {
  ASSERT_OK_AND_ASSIGN(ChildProcess child, Start("exit"));
  EXPECT_THAT(Report(), AllOf(HasSubstr("entered=1"), HasSubstr("pid=1\n"), HasSubstr("uid=65534"), HasSubstr("fds=0;1;2;3;5;")));
  Order();
  ASSERT_OK_AND_ASSIGN(const ExitStatus status, child.Wait(10'000));
  EXPECT_EQ(status.Describe(), "exited with code 7");  // not "nobody knows how": it is ours to wait for
}

TEST_F(SpawnerTest, LastWordsComeThrough) {
  ASSERT_OK_AND_ASSIGN(ChildProcess child, Start("socket"));
  Report();
  Order();
  ASSERT_OK_AND_ASSIGN(const ExitStatus status, child.Wait(10'000));
  EXPECT_THAT(status.Describe(), HasSubstr("made system call 41 (socket)"));
}

TEST_F(SpawnerTest, SealedItRepeatsWhatItStartedAndNothingElse) {
  for (int round = 0; round < 3; ++round) {
    ASSERT_OK_AND_ASSIGN(ChildProcess child, Start("exit"));
    EXPECT_THAT(Report(), HasSubstr("entered=1"));
    Order();
    ASSERT_OK_AND_ASSIGN(const ExitStatus status, child.Wait(10'000));
    EXPECT_EQ(status.value, 7);
    ASSERT_OK(spawner_->Seal());
  }
  EXPECT_THAT(Start("wait"), StatusIs(absl::StatusCode::kFailedPrecondition, "start device 'test': nothing like it was started before"));
  SpawnRequest looser = Request("exit");
  looser.jail.waive_seccomp = true;
  EXPECT_THAT(spawner_->Spawn(looser), StatusIs(absl::StatusCode::kFailedPrecondition, "start device 'test': nothing like it"));
  looser = Request("exit");
  looser.limits.processes = 5;
  EXPECT_THAT(spawner_->Spawn(looser), StatusIs(absl::StatusCode::kFailedPrecondition, "start device 'test': nothing like it"));
}

// A socket that listens, and is gone again with this.
class Listener {
 public:
  explicit Listener(const std::string& path) : path_(path), fd_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof(address.sun_path) - 1);
    EXPECT_EQ(::bind(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    EXPECT_EQ(::listen(fd_.get(), 4), 0);
  }
  ~Listener() { ::unlink(path_.c_str()); }
  // Whether who is accepted now is the other end of `connection`.
  bool Hears(int connection) {
    const OwnedFd accepted(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    char letter = 0;
    return ::write(connection, "x", 1) == 1 && ::read(accepted.get(), &letter, 1) == 1 && letter == 'x';
  }

 private:
  const std::string path_;
  const OwnedFd fd_;
};

TEST_F(SpawnerTest, SealedItConnectsAgainToWhereItDidAndNowhereElse) {
  char folder[] = "/tmp/spawner_test.XXXXXX";  // a socket's path is short
  ASSERT_NE(::mkdtemp(folder), nullptr);
  const std::string path = absl::StrCat(folder, "/one"), later = absl::StrCat(folder, "/two"), other = absl::StrCat(folder, "/three");
  {
    Listener listener(path);
    ASSERT_OK_AND_ASSIGN(const OwnedFd connection, spawner_->Connect(path));
    EXPECT_TRUE(listener.Hears(connection.get()));
    EXPECT_NE(::fcntl(connection.get(), F_GETFL) & O_NONBLOCK, 0);
    EXPECT_NE(::fcntl(connection.get(), F_GETFD) & FD_CLOEXEC, 0);
  }
  EXPECT_THAT(spawner_->Connect(later), StatusIs(absl::StatusCode::kNotFound, "connect to '" + later));
  ASSERT_OK(spawner_->Seal());
  EXPECT_THAT(spawner_->Connect(path), StatusIs(absl::StatusCode::kNotFound, "connect to '" + path));
  for (const std::string& known : {path, later}) {
    Listener listener(known);  // another socket, where that was looked for before
    ASSERT_OK_AND_ASSIGN(const OwnedFd connection, spawner_->Connect(known));
    EXPECT_TRUE(listener.Hears(connection.get()));
  }
  {
    Listener listener(other);
    EXPECT_THAT(spawner_->Connect(other), StatusIs(absl::StatusCode::kFailedPrecondition, "connect to '" + other));
  }
  ::rmdir(folder);
}

TEST_F(SpawnerTest, ARefusedStartSaysWhy) {
  SpawnRequest request = Request("exit");
  request.fds[0].child_fd = 99;
  EXPECT_THAT(spawner_->Spawn(request), StatusIs(absl::StatusCode::kInvalidArgument, "start device 'test': place descriptor"));
}

TEST_F(SpawnerTest, WithoutItsProcessItSaysSo) {
  ASSERT_EQ(::kill(spawner_->pid(), SIGKILL), 0);
  EXPECT_THAT(Start("exit"), StatusIs(absl::StatusCode::kUnavailable, "start device 'test': the spawner is gone"));
}

TEST_F(SpawnerTest, SpawnerAndDevicesEndWithTheirMonitor) {
  spawner_.reset();
  Pipe pids = MakePipe();
  const pid_t middle = ::fork();
  if (middle == 0) {
    auto spawner = Spawner::Create(executable_.get());
    if (!spawner.ok()) ::_exit(1);
    spawner_ = *std::move(spawner);
    auto child = Start("wait");
    if (!child.ok() || Report().find("entered=1") == std::string::npos) ::_exit(2);
    const pid_t both[] = {spawner_->pid(), child->pid()};
    (void)!::write(pids.write.get(), both, sizeof(both));
    ::raise(SIGKILL);
  }
  pid_t both[2] = {0, 0};
  ASSERT_EQ(::read(pids.read.get(), both, sizeof(both)), static_cast<ssize_t>(sizeof(both)));
  ASSERT_EQ(::waitpid(middle, nullptr, 0), middle);
  for (int i = 0; i < 500 && (Runs(both[0]) || Runs(both[1])); ++i) ::poll(nullptr, 0, 10);
  EXPECT_FALSE(Runs(both[0]));
  EXPECT_FALSE(Runs(both[1]));
}

TEST_F(SpawnerTest, KeepsNoDescriptorOfItsMonitor) {
  for (int fd = 0; fd < 64; ++fd) {
    const bool open = ::access(absl::StrCat("/proc/", spawner_->pid(), "/fd/", fd).c_str(), F_OK) == 0;
    EXPECT_EQ(open, fd <= kSpawnerSocketFd) << fd;
  }
}

TEST(SpawnerWireTest, ARequestComesBackAsItWas) {
  SpawnRequest request;
  request.name = "block";
  request.arguments = {"vmm", "device", "block", ""};
  request.keeps_terminal = true;
  request.limits = {.open_files = 9, .processes = kNoLimit, .address_space_bytes = 1, .file_bytes = 0};
  request.fds = {{7, 3}, {8, 2}};
  request.jail.waive_seccomp = request.jail.log_only = true;
  const auto back = internal::DecodeRequest(internal::EncodeRequest(request));
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(internal::EncodeRequest(*back), internal::EncodeRequest(request));
  EXPECT_EQ(back->arguments, request.arguments);
  EXPECT_EQ(back->fds[1].child_fd, 2);
  EXPECT_EQ(back->fds[1].parent_fd, -1);
  EXPECT_EQ(back->limits.processes, kNoLimit);
  EXPECT_TRUE(back->jail.waive_seccomp);
}

TEST(SpawnerWireTest, WhatIsCutOrLongerIsRefused) {
  SpawnRequest request;
  request.name = "x";
  request.arguments = {"vmm", "device"};
  request.fds = {{1, 3}};
  request.jail.log_only = true;
  const std::string text = internal::EncodeRequest(request);
  for (size_t bytes = 0; bytes < text.size(); ++bytes) {
    EXPECT_FALSE(internal::DecodeRequest(absl::string_view(text).substr(0, bytes)).has_value()) << bytes;
  }
  EXPECT_FALSE(internal::DecodeRequest(text + '\0').has_value());
  EXPECT_TRUE(internal::DecodeRequest(text).has_value());
}

}  // namespace
}  // namespace vmm
