#include "vmm/hyperv/eoi_watch.h"

#include <future>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/event_fd.h"
#include "base/event_loop.h"
#include "devices/hyperv/hv_types.h"

namespace vmm {
namespace {

constexpr VpIndex kVp{3};

class EoiWatchTest : public testing::Test {
 protected:
  EoiWatchTest() {
    EXPECT_TRUE(watch_->Add(eoi_.fd(), kVp, sint_).ok());
    EXPECT_TRUE(watch_->Add(other_.fd(), kVp, *Sint::From(6)).ok());
    thread_ = std::thread([this] { loop_->Run(); });
  }
  ~EoiWatchTest() override {
    loop_->Stop();
    thread_.join();
  }
  void Arm(bool armed) { watch_->Arm(eoi_.fd(), kVp, sint_, armed); }
  // What was told of since the last time.
  std::vector<std::pair<uint32_t, uint64_t>> Told() {
    std::promise<std::vector<std::pair<uint32_t, uint64_t>>> told;
    // The second task comes after all that was ready when the first did.
    loop_->Post([&] { loop_->Post([&] { told.set_value(std::exchange(told_, {})); }); });
    return told.get_future().get();
  }

  const Sint sint_ = *Sint::From(5);
  const std::vector<std::pair<uint32_t, uint64_t>> once_{{3, 5}};
  EventFd eoi_ = EventFd::Create().value();
  EventFd other_ = EventFd::Create().value();
  std::vector<std::pair<uint32_t, uint64_t>> told_;  // the loop's thread's
  std::unique_ptr<EventLoop> loop_ = EventLoop::Create().value();
  std::unique_ptr<EoiWatch> watch_ =
      EoiWatch::Create(*loop_, [this](VpIndex vp, Sint sint) { told_.emplace_back(vp.raw(), sint.raw()); }).value();
  std::thread thread_;
};

TEST_F(EoiWatchTest, TellsNobodyUnlessArmed) {
  eoi_.Signal();
  EXPECT_TRUE(Told().empty());
}

// With nothing signalled before: that would be told of while it is armed.
TEST_F(EoiWatchTest, TellsNobodyOnceDisarmed) {
  Arm(true);
  Arm(false);
  eoi_.Signal();
  EXPECT_TRUE(Told().empty());
}

TEST_F(EoiWatchTest, TellsOfEverySignalWhileArmed) {
  Arm(true);
  EXPECT_TRUE(Told().empty());
  for (int signal = 0; signal < 3; ++signal) {
    eoi_.Signal();
    other_.Signal();  // not armed
    EXPECT_EQ(Told(), once_);
    EXPECT_TRUE(Told().empty());
  }
  Arm(false);
  eoi_.Signal();
  EXPECT_TRUE(Told().empty());
}

TEST_F(EoiWatchTest, TellsOfASignalThatCameJustBefore) {
  eoi_.Signal();
  Arm(true);
  EXPECT_EQ(Told(), once_);
}

TEST_F(EoiWatchTest, ForgetsWhatIsRemoved) {
  Arm(true);
  watch_->Remove(eoi_.fd());
  eoi_.Signal();
  EXPECT_TRUE(Told().empty());
}

}  // namespace
}  // namespace vmm
