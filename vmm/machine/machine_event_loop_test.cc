#include "vmm/machine/machine_event_loop.h"

#include <future>
#include <thread>

#include "base/event_fd.h"
#include "base/status_matchers.h"

namespace vmm {
namespace {

TEST(MachineEventLoopTest, RunThereRunsOnAThreadOfItsOwnAndReturnsWhenItIsDone) {
  ASSERT_OK_AND_ASSIGN(const auto loop, MachineEventLoop::Create());
  std::thread::id first, second;
  loop->RunThere([&] { first = std::this_thread::get_id(); });
  loop->RunThere([&] { second = std::this_thread::get_id(); });
  EXPECT_NE(first, std::this_thread::get_id());
  EXPECT_NE(first, std::thread::id());
  EXPECT_EQ(first, second);
}

TEST(MachineEventLoopTest, AWatchedDescriptorIsServedWithoutTheOwner) {
  ASSERT_OK_AND_ASSIGN(const auto loop, MachineEventLoop::Create());
  ASSERT_OK_AND_ASSIGN(EventFd event, EventFd::Create());
  std::promise<void> served;
  absl::Status watched;
  loop->RunThere([&] {
    watched = loop->loop().Watch(event.fd(), EPOLLIN, [&](uint32_t) {
      event.Drain();
      loop->loop().Unwatch(event.fd());
      served.set_value();
    });
  });
  ASSERT_OK(watched);
  event.Signal();
  served.get_future().wait();
}

TEST(MachineEventLoopTest, TasksPostedBeforeTheEndDoNotHangTheDestructor) {
  for (int round = 0; round < 20; ++round) {
    ASSERT_OK_AND_ASSIGN(auto loop, MachineEventLoop::Create());
    for (int i = 0; i < 10; ++i) loop->loop().Post([] {});
    loop.reset();
  }
}

}  // namespace
}  // namespace vmm
