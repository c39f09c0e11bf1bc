#include "base/notification.h"

#include <memory>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace vmm {
namespace {

TEST(NotificationTest, AllWaitersSeeWhatWasDoneBefore) {
  for (int round = 0; round < 200; ++round) {
    auto notification = std::make_unique<Notification>();
    int value = 0;
    std::vector<std::thread> waiters;
    for (int i = 0; i < 4; ++i) {
      waiters.emplace_back([&] {
        notification->Wait();
        EXPECT_EQ(value, 7);
      });
    }
    value = 7;
    notification->Notify();
    notification->Wait();  // a later one does not wait
    for (std::thread& waiter : waiters) waiter.join();
  }
}

}  // namespace
}  // namespace vmm
