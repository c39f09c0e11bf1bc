// The serial port end to end: its real process in its real sandbox, a pipe or a file as terminal.
#include "devices/platform/serial_device.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <condition_variable>
#include <cstdio>
#include <fstream>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/event_fd.h"
#include "base/status_matchers.h"
#include "devices/platform/serial16550.h"
#include "sandbox/probe.h"

namespace vmm {
namespace {

using ::testing::HasSubstr;

constexpr char kProgram[] = "devices/platform/serial_process_for_test";
constexpr char kRogue[] = "devices/platform/serial_rogue_for_test";
constexpr absl::Duration kGenerous = absl::Seconds(20);

struct Pipe {
  OwnedFd read, write;
};
Pipe MakePipe() {
  int fds[2] = {-1, -1};
  EXPECT_EQ(::pipe2(fds, O_CLOEXEC), 0);
  return {OwnedFd(fds[0]), OwnedFd(fds[1])};
}

// absl::Notification, but TSan sees through it.
class Happening final {
 public:
  void Notify() {
    const std::lock_guard lock(mutex_);
    happened_ = true;
    changed_.notify_all();
  }
  bool WaitForNotificationWithTimeout(absl::Duration timeout) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, absl::ToChronoNanoseconds(timeout), [this] { return happened_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool happened_ = false;
};

class SerialDeviceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const SandboxProbe probe = ProbeSandbox();
    if (!probe.namespaces) GTEST_SKIP() << "user namespaces: " << probe.namespaces_reason;
    ASSERT_OK_AND_ASSIGN(loop_, EventLoop::Create());
    ASSERT_OK_AND_ASSIGN(EventFd interrupt, EventFd::Create());
    interrupt_ = std::make_unique<EventFd>(std::move(interrupt));
    program_.Reset(::open(kProgram, O_RDONLY | O_CLOEXEC));
    ASSERT_TRUE(program_.valid());
    output_ = MakePipe();
    input_ = MakePipe();
  }
  void TearDown() override {
    StopLoop();
    device_.reset();
  }

  SerialDeviceOptions Options() {
    SerialDeviceOptions options;
    options.executable_fd = program_.get();
    options.interrupt_fd = interrupt_->fd();
    options.output_fd = output_.write.get();
    options.input_fd = input_.read.get();
    options.deadline_ms = 5000;
#ifdef VMM_DYNAMIC_LINK
    // Sanitizers: a dynamic executable needs its libraries, and their runtimes make calls of their own.
    options.jail.waive_empty_root = options.jail.waive_seccomp = true;
#endif
    return options;
  }
  void Start(const SerialDeviceOptions& options) {
    TrappedDeviceCallbacks callbacks;
    callbacks.on_failed = [this](const std::string& message) {
      ++failures_;
      failure_ = message;
      failed_.Notify();
    };
    callbacks.on_quit = [this] { quit_.Notify(); };
    ASSERT_OK_AND_ASSIGN(device_, LaunchSerialDevice(*loop_, options, callbacks));
    ASSERT_OK(device_->AwaitReady());
    output_.write.Reset();
    input_.read.Reset();
    // The process dies with the thread that started it: this one, which outlives the loop's.
    thread_ = std::thread([this] { loop_->Run(); });
  }
  void StopLoop() {
    if (!thread_.joinable()) return;
    loop_->Stop();
    thread_.join();
  }

  uint8_t In(uint64_t offset) {
    std::byte byte{0xff};
    device_->device().Read(offset, std::span(&byte, 1));
    return std::to_integer<uint8_t>(byte);
  }
  void Out(uint64_t offset, uint8_t value) {
    const std::byte byte{value};
    device_->device().Write(offset, std::span(&byte, 1));
  }
  // As an early console does: wait for THRE, write.
  void Print(const std::string& text) {
    for (const char c : text) {
      while ((In(uart::kLsr) & uart::kLsrThre) == 0) ::poll(nullptr, 0, 1);
      Out(uart::kThr, static_cast<uint8_t>(c));
    }
  }
  static std::string ReadAtLeast(int fd, size_t bytes) {
    std::string text;
    char buffer[4096];
    while (text.size() < bytes) {
      pollfd poll_fd{fd, POLLIN, 0};
      if (::poll(&poll_fd, 1, 10'000) <= 0) break;
      const ssize_t got = ::read(fd, buffer, sizeof(buffer));
      if (got <= 0) break;
      text.append(buffer, static_cast<size_t>(got));
    }
    return text;
  }
  void OpenPort() {
    Out(uart::kFcr, 0x07);
    Out(uart::kMcr, uart::kMcrDtr | uart::kMcrRts | uart::kMcrOut2);
    Out(uart::kIer, uart::kErbfi);
  }
  std::string ReadInput(size_t bytes) {
    std::string text;
    const absl::Time end = absl::Now() + kGenerous;
    while (text.size() < bytes && absl::Now() < end) {
      if ((In(uart::kLsr) & uart::kLsrDr) != 0) {
        text += static_cast<char>(In(uart::kRbr));
      } else {
        ::poll(nullptr, 0, 1);
      }
    }
    return text;
  }
  void WaitForInterrupt() {
    pollfd poll_fd{interrupt_->fd(), POLLIN, 0};
    ASSERT_EQ(::poll(&poll_fd, 1, 10'000), 1);
    interrupt_->Drain();
  }

  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<EventFd> interrupt_;
  OwnedFd program_;
  Pipe output_;
  Pipe input_;
  std::unique_ptr<TrappedDevice> device_;
  std::thread thread_;
  int failures_ = 0;
  std::string failure_;
  Happening failed_;
  Happening quit_;
};

TEST_F(SerialDeviceTest, WhatTheGuestWritesComesOut) {
  ASSERT_NO_FATAL_FAILURE(Start(Options()));
  Print("hello, world\n");
  EXPECT_EQ(ReadAtLeast(output_.read.get(), 13), "hello, world\n");
}

TEST_F(SerialDeviceTest, ReadsAndInterruptsCrossTheBoundary) {
  ASSERT_NO_FATAL_FAILURE(Start(Options()));
  Out(uart::kScr, 0x5a);
  EXPECT_EQ(In(uart::kScr), 0x5a);
  OpenPort();
  ASSERT_EQ(::write(input_.write.get(), "abc", 3), 3);
  WaitForInterrupt();
  EXPECT_NE(In(uart::kIir) & 0x0f, uart::kIirNone);
  EXPECT_EQ(ReadInput(3), "abc");
}

TEST_F(SerialDeviceTest, InputBeforeThePortIsOpenWaitsAndNothingIsLost) {
  std::string text;
  for (int i = 0; i < 500; ++i) absl::StrAppend(&text, i, ",");
  ASSERT_EQ(::write(input_.write.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  input_.write.Reset();  // the end of the input is not the end of the device
  ASSERT_NO_FATAL_FAILURE(Start(Options()));
  OpenPort();
  EXPECT_EQ(ReadInput(text.size()), text);
  Print("still here");
  EXPECT_EQ(ReadAtLeast(output_.read.get(), 10), "still here");
}

TEST_F(SerialDeviceTest, FullPipeHoldsTheGuestBackAndLosesNothing) {
  ASSERT_NO_FATAL_FAILURE(Start(Options()));
  std::string text;
  while (text.size() < 200'000) absl::StrAppend(&text, text.size(), "\n");
  std::string got;
  std::thread reader([&] {
    ::poll(nullptr, 0, 50);
    got = ReadAtLeast(output_.read.get(), text.size());
  });
  // Interrupt-driven, sixteen at a time.
  OpenPort();
  Out(uart::kIer, uart::kEtbei);
  for (size_t sent = 0; sent < text.size();) {
    if ((In(uart::kLsr) & uart::kLsrThre) == 0) {
      In(uart::kIir);
      WaitForInterrupt();
      continue;
    }
    for (int i = 0; i < 16 && sent < text.size(); ++i) Out(uart::kThr, static_cast<uint8_t>(text[sent++]));
  }
  reader.join();
  EXPECT_EQ(got.size(), text.size());
  EXPECT_TRUE(got == text);
}

TEST_F(SerialDeviceTest, ShutdownWritesOutWhatIsQueued) {
  ASSERT_NO_FATAL_FAILURE(Start(Options()));
  std::vector<TrappedByteWrite> writes(3000, {0, 'z'});
  device_->device().WriteBytes(writes);
  StopLoop();
  const absl::Time start = absl::Now();
  const auto ended = device_->Shutdown();
  EXPECT_LT(absl::Now() - start, kGenerous);
  // Orderly to the last system call: the filter has killed nobody.
  ASSERT_OK(ended);
  EXPECT_EQ(ended->how, ExitStatus::How::kExited);
  EXPECT_EQ(ended->value, 0);
  EXPECT_EQ(ReadAtLeast(output_.read.get(), 3001).size(), 3000u);
  EXPECT_EQ(failures_, 0);
}

TEST_F(SerialDeviceTest, FileTakesOutputAndGivesInput) {
  const std::string path = absl::StrCat(::testing::TempDir(), "/serial.txt");
  { std::ofstream(path) << "from a file"; }
  const OwnedFd in(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  const OwnedFd out(::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
  SerialDeviceOptions options = Options();
  options.input_fd = in.get();
  options.output_fd = out.get();
  ASSERT_NO_FATAL_FAILURE(Start(options));
  OpenPort();
  EXPECT_EQ(ReadInput(11), "from a file");
  Print(" to a file");
  StopLoop();
  ASSERT_OK(device_->Shutdown());
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  EXPECT_EQ(text.str(), "from a file to a file");
}

TEST_F(SerialDeviceTest, WorksWithoutInputAndWithNullOutput) {
  const OwnedFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  SerialDeviceOptions options = Options();
  options.input_fd = -1;
  options.output_fd = null.get();
  ASSERT_NO_FATAL_FAILURE(Start(options));
  Print(std::string(10'000, 'x'));
  EXPECT_EQ(In(uart::kLsr), uart::kLsrThre | uart::kLsrTemt);
  EXPECT_FALSE(device_->device().failed());
}

TEST_F(SerialDeviceTest, ReaderThatGoesAwayDoesNotEndTheDevice) {
  ASSERT_NO_FATAL_FAILURE(Start(Options()));
  output_.read.Reset();
  Print(std::string(10'000, 'x'));
  EXPECT_FALSE(device_->device().failed());
}

TEST_F(SerialDeviceTest, TerminalWorksBothWaysAndKeepsItsFlags) {
  const OwnedFd master(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!master.valid() || ::grantpt(master.get()) != 0 || ::unlockpt(master.get()) != 0) GTEST_SKIP() << "pseudo-terminals";
  const OwnedFd terminal(::open(::ptsname(master.get()), O_RDWR | O_NOCTTY | O_CLOEXEC));
  ASSERT_TRUE(terminal.valid());
  termios raw{};
  ::tcgetattr(terminal.get(), &raw);
  ::cfmakeraw(&raw);
  ::tcsetattr(terminal.get(), TCSANOW, &raw);
  const int flags = ::fcntl(terminal.get(), F_GETFL);
  SerialDeviceOptions options = Options();
  options.input_fd = options.output_fd = terminal.get();
  options.interactive = true;
  ASSERT_NO_FATAL_FAILURE(Start(options));
  EXPECT_EQ(::fcntl(terminal.get(), F_GETFL), flags);
  OpenPort();
  Print("login: ");
  EXPECT_EQ(ReadAtLeast(master.get(), 7), "login: ");
  ASSERT_EQ(::write(master.get(), "root\x01\x01\r", 7), 7);
  EXPECT_EQ(ReadInput(6), "root\x01\r");
  // The guest reads no more; the way out is still seen.
  ASSERT_EQ(::write(master.get(), std::string(100, 'k').data(), 100), 100);
  ASSERT_EQ(::write(master.get(), "\x01x", 2), 2);
  EXPECT_TRUE(quit_.WaitForNotificationWithTimeout(kGenerous));
}

TEST_F(SerialDeviceTest, AProcessThatPretendsThatSomebodyQuitHasFailed) {
  program_.Reset(::open(kRogue, O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(program_.valid());
  ASSERT_NO_FATAL_FAILURE(Start(Options()));
  ASSERT_TRUE(failed_.WaitForNotificationWithTimeout(kGenerous));
  StopLoop();
  EXPECT_FALSE(quit_.WaitForNotificationWithTimeout(absl::ZeroDuration()));
  EXPECT_THAT(failure_, HasSubstr("sent an event that the protocol does not have"));
}

TEST_F(SerialDeviceTest, KilledProcessIsReportedOnceByItsSignal) {
  ASSERT_NO_FATAL_FAILURE(Start(Options()));
  Print("some");
  const pid_t pid = device_->pid();
  ::kill(pid, SIGKILL);
  for (int i = 0; i < 100; ++i) {
    Out(uart::kThr, 'x');
    In(uart::kScr);
  }
  ASSERT_TRUE(failed_.WaitForNotificationWithTimeout(kGenerous));
  for (int i = 0; i < 100; ++i) EXPECT_EQ(In(uart::kScr), 0xff);
  ::poll(nullptr, 0, 50);
  StopLoop();
  EXPECT_EQ(failures_, 1);
  EXPECT_EQ(failure_, absl::StrCat("device 'serial' (pid ", pid, ") ended by signal 9 (Killed)"));
}

TEST_F(SerialDeviceTest, IdleProcessThatIsKilledIsReportedToo) {
  ASSERT_NO_FATAL_FAILURE(Start(Options()));
  ::kill(device_->pid(), SIGKILL);
  ASSERT_TRUE(failed_.WaitForNotificationWithTimeout(absl::Seconds(5)));
  EXPECT_THAT(failure_, HasSubstr("ended by signal 9 (Killed)"));
}

TEST_F(SerialDeviceTest, StoppedProcessCostsOneDeadlineAndIsReportedOnce) {
  SerialDeviceOptions options = Options();
  options.deadline_ms = 200;
  ASSERT_NO_FATAL_FAILURE(Start(options));
  ::kill(device_->pid(), SIGSTOP);
  const absl::Time start = absl::Now();
  for (int i = 0; i < 1000; ++i) {
    Out(uart::kThr, 'x');
    In(uart::kScr);
  }
  EXPECT_LT(absl::Now() - start, kGenerous);
  ASSERT_TRUE(failed_.WaitForNotificationWithTimeout(kGenerous));
  StopLoop();
  EXPECT_EQ(failures_, 1);
  EXPECT_THAT(failure_, HasSubstr("no reply to a read within 200 ms"));
}

// As a guest does that has filled the port's FIFO and waits for the interrupt.
TEST_F(SerialDeviceTest, StoppedProcessIsReportedThoughNobodyReads) {
  SerialDeviceOptions options = Options();
  options.deadline_ms = 200;
  ASSERT_NO_FATAL_FAILURE(Start(options));
  ::kill(device_->pid(), SIGSTOP);
  for (int i = 0; i < 16; ++i) Out(uart::kThr, 'x');
  ASSERT_TRUE(failed_.WaitForNotificationWithTimeout(kGenerous));
  StopLoop();
  EXPECT_EQ(failures_, 1);
  EXPECT_THAT(failure_, HasSubstr("it took no message for 200 ms"));
}

TEST_F(SerialDeviceTest, AnIdleProcessIsNotTakenForAStuckOne) {
  SerialDeviceOptions options = Options();
  options.deadline_ms = 50;
  ASSERT_NO_FATAL_FAILURE(Start(options));
  Print("a");
  EXPECT_FALSE(failed_.WaitForNotificationWithTimeout(absl::Milliseconds(500)));
  EXPECT_FALSE(device_->device().failed());
}

TEST_F(SerialDeviceTest, ProgramThatCannotEnterItsSandboxSaysWhy) {
#ifdef VMM_DYNAMIC_LINK
  GTEST_SKIP() << "static executables (a sanitizer build has none)";
#endif
  SerialDeviceOptions options = Options();
  options.jail.waive_namespaces = true;
  EXPECT_THAT(LaunchSerialDevice(*loop_, options, {}),
              StatusIs(absl::StatusCode::kInvalidArgument, "start device 'serial': sandbox: namespaces are waived"));
}

TEST_F(SerialDeviceTest, PrivateMemoryIsSmall) {
#ifdef VMM_DYNAMIC_LINK
  GTEST_SKIP() << "static executables (a sanitizer build has none)";
#endif
  ASSERT_NO_FATAL_FAILURE(Start(Options()));
  Print(std::string(5000, 'x'));
  std::ifstream stream(absl::StrCat("/proc/", device_->pid(), "/smaps_rollup"));
  // File pages do not count: the product shares them with the monitor, which runs the same file.
  int anonymous_kb = 0;
  for (std::string line; std::getline(stream, line);) std::sscanf(line.c_str(), "Anonymous: %d", &anonymous_kb);
  if (anonymous_kb == 0) GTEST_SKIP() << "reading another user's smaps_rollup";
  std::printf("private memory: %d KiB\n", anonymous_kb);
  EXPECT_LT(anonymous_kb, 512);
}

}  // namespace
}  // namespace vmm
