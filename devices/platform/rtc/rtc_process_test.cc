// The clock's process in its jail, asked through the protocol as a processor does.
#include <fcntl.h>
#include <signal.h>
#include <time.h>

#include <memory>
#include <span>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "base/event_loop.h"
#include "base/owned_fd.h"
#include "base/status_matchers.h"
#include "devices/platform/rtc/cmos_layout.h"
#include "devices/platform/trapped_device.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "sandbox/probe.h"

namespace vmm {
namespace {

constexpr char kProgram[] = "devices/platform/rtc/rtc_process_for_test";

class RtcProcessTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const SandboxProbe probe = ProbeSandbox();
    if (!probe.namespaces) GTEST_SKIP() << "user namespaces: " << probe.namespaces_reason;
    ASSERT_OK_AND_ASSIGN(loop_, EventLoop::Create());
    const OwnedFd program(::open(kProgram, O_RDONLY | O_CLOEXEC));
    ASSERT_TRUE(program.valid());
    TrappedDeviceOptions options;
    options.request.name = "rtc";
    options.request.executable_fd = program.get();
    options.deadline_ms = 5000;
#ifdef VMM_DYNAMIC_LINK
    // Sanitizers: a dynamic executable needs its libraries, and their runtimes make calls of their own.
    options.request.jail.waive_empty_root = options.request.jail.waive_seccomp = true;
#endif
    ASSERT_OK_AND_ASSIGN(device_, TrappedDevice::Launch(*loop_, std::move(options), {.on_failed = [this](const std::string& message) {
                                                                                       failure_ = message;
                                                                                       failed_.Notify();
                                                                                     }}));
    ASSERT_OK(device_->AwaitReady());
    thread_ = std::thread([this] { loop_->Run(); });
  }
  void TearDown() override {
    StopLoop();
    device_.reset();
  }
  void StopLoop() {
    if (!thread_.joinable()) return;
    loop_->Stop();
    thread_.join();
  }

  uint8_t Register(uint8_t index) {
    const std::byte selected{index};
    device_->device().Write(0, std::span(&selected, 1));
    std::byte value{0xff};
    device_->device().Read(1, std::span(&value, 1));
    return std::to_integer<uint8_t>(value);
  }
  int Bcd(uint8_t index) {
    const uint8_t value = Register(index);
    return (value >> 4) * 10 + (value & 0xf);
  }

  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<TrappedDevice> device_;
  absl::Notification failed_;
  std::string failure_;
  std::thread thread_;
};

TEST_F(RtcProcessTest, ShowsTheHostsDay) {
  tm before, after;
  time_t now = ::time(nullptr);
  ::gmtime_r(&now, &before);
  const int century = Bcd(kCmosCentury), year = Bcd(kCmosYear);
  now = ::time(nullptr);
  ::gmtime_r(&now, &after);
  EXPECT_GE(century * 100 + year, before.tm_year + 1900);
  EXPECT_LE(century * 100 + year, after.tm_year + 1900);
}

TEST_F(RtcProcessTest, EndsInOrderWhenTheMonitorCloses) {
  (void)Register(kCmosYear);
  StopLoop();
  ASSERT_OK_AND_ASSIGN(const ExitStatus ended, device_->Shutdown());
  EXPECT_TRUE(ended.how == ExitStatus::How::kUnknown || (ended.how == ExitStatus::How::kExited && ended.value == 0)) << ended.Describe();
}

TEST_F(RtcProcessTest, ItsDeathIsToldAndReadsAreOnes) {
  ASSERT_EQ(::kill(device_->pid(), SIGKILL), 0);
  ASSERT_TRUE(failed_.WaitForNotificationWithTimeout(absl::Seconds(30)));
  EXPECT_EQ(failure_, absl::StrCat("device 'rtc' (pid ", device_->pid(), ") ended by signal 9 (Killed)"));
  EXPECT_EQ(Register(kCmosYear), 0xff);
}

}  // namespace
}  // namespace vmm
