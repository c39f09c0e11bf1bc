#include "vmm/hyperv/timerfd_deadline.h"

#include <atomic>
#include <future>
#include <memory>
#include <thread>

#include <gtest/gtest.h>

#include "base/event_loop.h"
#include "devices/hyperv/fake_reference_clock.h"
#include "devices/hyperv/hv_types.h"

namespace vmm {
namespace {

// Waits for what comes; that nothing comes is shown by something later that does.
class TimerfdDeadlineTest : public testing::Test {
 protected:
  TimerfdDeadlineTest() {
    clock_.now = HvTicks(1'000'000);
    first_ = TimerfdDeadline::Create(*loop_, clock_, [this] { ++passed_; NotifyOnce(); }).value();
    second_ = TimerfdDeadline::Create(*loop_, clock_, [this] { later_.set_value(); }).value();
    thread_ = std::thread([this] { loop_->Run(); });
  }
  ~TimerfdDeadlineTest() override {
    loop_->Stop();
    thread_.join();
  }
  void NotifyOnce() {
    if (!told_.exchange(true)) first_passed_.set_value();
  }

  FakeReferenceClock clock_;
  std::atomic<int> passed_{0};
  std::atomic<bool> told_{false};
  std::promise<void> first_passed_;
  std::promise<void> later_;
  std::unique_ptr<EventLoop> loop_ = EventLoop::Create().value();
  std::unique_ptr<TimerfdDeadline> first_;
  std::unique_ptr<TimerfdDeadline> second_;
  std::thread thread_;
};

TEST_F(TimerfdDeadlineTest, ADeadlineInThePastPassesAtOnceAndOnce) {
  first_->Set(HvTicks(0));
  first_passed_.get_future().wait();
  second_->Set(HvTicks(clock_.now.raw() + 10'000));
  later_.get_future().wait();
  EXPECT_EQ(passed_, 1);
}

TEST_F(TimerfdDeadlineTest, ADeadlineInTheFuturePasses) {
  first_->Set(HvTicks(clock_.now.raw() + 10'000));
  first_passed_.get_future().wait();
}

TEST_F(TimerfdDeadlineTest, TheLastOneSetCounts) {
  first_->Set(HvTicks(~uint64_t{0}));  // longer than a timer can hold
  first_->Set(HvTicks(clock_.now.raw() + 1));
  first_passed_.get_future().wait();
}

TEST_F(TimerfdDeadlineTest, ACancelledOneDoesNotPass) {
  first_->Set(HvTicks(clock_.now.raw() + 50'000));
  first_->Cancel();
  second_->Set(HvTicks(clock_.now.raw() + 100'000));
  later_.get_future().wait();
  EXPECT_EQ(passed_, 0);
}

}  // namespace
}  // namespace vmm
