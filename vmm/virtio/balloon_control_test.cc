#include "vmm/virtio/balloon_control.h"

#include <sys/socket.h>

#include <memory>
#include <optional>
#include <thread>

#include <gtest/gtest.h>

#include "absl/status/status.h"
#include "base/event_loop.h"
#include "base/notification.h"
#include "base/owned_fd.h"
#include "base/status_matchers.h"
#include "devices/virtio/balloon/balloon_layout.h"

namespace vmm {
namespace {

namespace vb = virtio_balloon;

class BalloonControlTest : public testing::Test {
 protected:
  void SetUp() override {
    int pair[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    device_.Reset(pair[1]);
    ASSERT_OK_AND_ASSIGN(loop_, EventLoop::Create());
    ASSERT_OK_AND_ASSIGN(control_, BalloonControl::Create(*loop_, OwnedFd(pair[0]), /*target_mib=*/1, /*memory_mib=*/64));
    thread_ = std::thread([this] { loop_->Run(); });
  }
  void TearDown() override {
    loop_->Stop();
    thread_.join();
  }
  void Report(const vb::Report& report, size_t bytes = sizeof(vb::Report)) {
    ASSERT_EQ(::send(device_.get(), &report, bytes, 0), static_cast<ssize_t>(bytes));
    // Twice: what is ready beside the first task is done by the second.
    Notification done;
    loop_->Post([&] { loop_->Post([&] { done.Notify(); }); });
    done.Wait();
  }
  std::optional<vb::Command> Told() {
    vb::Command command;
    if (::recv(device_.get(), &command, sizeof(command), MSG_DONTWAIT) != static_cast<ssize_t>(sizeof(command))) return std::nullopt;
    return command;
  }

  OwnedFd device_;
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<BalloonControl> control_;
  std::thread thread_;
};

TEST_F(BalloonControlTest, ATargetIsToldAndOneBeyondTheMachineRefused) {
  ASSERT_OK(control_->SetTarget(63));
  const auto told = Told();
  ASSERT_TRUE(told.has_value());
  EXPECT_EQ(told->target_pages, 63u * 256);
  EXPECT_EQ(control_->SetTarget(64).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(Told().has_value());
  EXPECT_EQ(control_->stats().target_pages, 63u * 256);
}

TEST_F(BalloonControlTest, AFreshProcessIsToldWhatTheOneBeforeKnew) {
  vb::Report report{};
  report.target_pages = 256;
  report.actual_pages = 200;
  report.poison_known = 1;
  report.poison_val = 0xaa;
  Report(report);
  EXPECT_FALSE(Told().has_value()) << "it has the target already";
  vb::Report fresh{};
  fresh.fresh = 1;
  Report(fresh);
  const auto told = Told();
  ASSERT_TRUE(told.has_value());
  EXPECT_EQ(told->target_pages, 256u);
  EXPECT_EQ(told->actual_pages, 200u);
  EXPECT_EQ(told->poison_known, 1u);
  EXPECT_EQ(told->poison_val, 0xaau);
  EXPECT_EQ(control_->stats().last.actual_pages, 200u);
}

TEST_F(BalloonControlTest, ATargetThatDidNotArriveIsToldAgainAndAReportOfAWrongLengthIsNone) {
  vb::Report report{};
  report.target_pages = 3;
  report.actual_pages = 5;
  Report(report, sizeof(report) - 1);
  EXPECT_EQ(control_->stats().last.actual_pages, 0u);
  EXPECT_FALSE(Told().has_value());
  Report(report);
  ASSERT_TRUE(Told().has_value());
  EXPECT_EQ(control_->stats().last.actual_pages, 5u);
}

}  // namespace
}  // namespace vmm
