#include "base/event_loop.h"

#include <thread>

#include "base/event_fd.h"
#include "base/status_matchers.h"

namespace vmm {
namespace {

TEST(EventLoopTest, RunsPostedTasksInOrderThenStops) {
  ASSERT_OK_AND_ASSIGN(auto loop, EventLoop::Create());
  std::vector<int> order;
  std::thread poster([&] {
    for (int i = 0; i < 3; ++i) loop->Post([&order, i] { order.push_back(i); });
    loop->Post([&] { loop->Stop(); });
  });
  loop->Run();
  poster.join();
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2}));
}

TEST(EventLoopTest, AnUnwatchedDescriptorGetsNoEventThatWasAlreadyFetched) {
  ASSERT_OK_AND_ASSIGN(auto loop, EventLoop::Create());
  ASSERT_OK_AND_ASSIGN(EventFd a, EventFd::Create());
  ASSERT_OK_AND_ASSIGN(EventFd b, EventFd::Create());
  int calls = 0;
  const auto unwatch_both = [&](uint32_t) {
    ++calls;
    loop->Unwatch(a.fd());
    loop->Unwatch(b.fd());
    loop->Post([&] { loop->Stop(); });
  };
  ASSERT_OK(loop->Watch(a.fd(), EPOLLIN, unwatch_both));
  ASSERT_OK(loop->Watch(b.fd(), EPOLLIN, unwatch_both));
  a.Signal();
  b.Signal();
  loop->Run();
  EXPECT_EQ(calls, 1);
}

TEST(EventLoopTest, WatchRefusesAClosedDescriptor) {
  ASSERT_OK_AND_ASSIGN(auto loop, EventLoop::Create());
  EXPECT_THAT(loop->Watch(1 << 20, EPOLLIN, [](uint32_t) {}), StatusIs(absl::StatusCode::kFailedPrecondition, "watch"));
}

}  // namespace
}  // namespace vmm
