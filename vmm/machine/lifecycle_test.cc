#include "vmm/machine/lifecycle.h"

#include <poll.h>

#include <string>
#include <thread>
#include <vector>

#include "base/status_matchers.h"

namespace vmm {
namespace {

bool Readable(int fd) {
  pollfd poll_fd{fd, POLLIN, 0};
  return ::poll(&poll_fd, 1, 0) == 1;
}

TEST(LifecycleTest, NothingIsReadableBeforeAnEndIsRequested) {
  ASSERT_OK_AND_ASSIGN(const auto lifecycle, Lifecycle::Create());
  EXPECT_FALSE(Readable(lifecycle->end_fd()));
  lifecycle->RequestEnd(MachineEnd::kPoweredOff, "off");
  EXPECT_TRUE(Readable(lifecycle->end_fd()));
}

TEST(LifecycleTest, TheFirstReasonCountsAndTheTextIsACopy) {
  ASSERT_OK_AND_ASSIGN(const auto lifecycle, Lifecycle::Create());
  {
    std::string text = "first";
    lifecycle->RequestEnd(MachineEnd::kPanicked, text);
    text = "gone!";
  }
  lifecycle->RequestEnd(MachineEnd::kPoweredOff, "second");
  EXPECT_EQ(lifecycle->report().end, MachineEnd::kPanicked);
  EXPECT_EQ(lifecycle->report().detail, "first");
}

TEST(LifecycleTest, ADebugExitCarriesItsValueAndAnEndBeforeItWins) {
  ASSERT_OK_AND_ASSIGN(const auto lifecycle, Lifecycle::Create());
  lifecycle->RequestDebugExit(0x1234'5678);
  lifecycle->RequestDebugExit(1);
  EXPECT_EQ(lifecycle->report().end, MachineEnd::kDebugExit);
  EXPECT_EQ(lifecycle->report().value, 0x1234'5678u);
  EXPECT_TRUE(Readable(lifecycle->end_fd()));
  ASSERT_OK_AND_ASSIGN(const auto other, Lifecycle::Create());
  other->RequestEnd(MachineEnd::kStopped, "stopped");
  other->RequestDebugExit(7);
  EXPECT_EQ(other->report().end, MachineEnd::kStopped);
  EXPECT_EQ(other->report().value, 0u);
}

TEST(LifecycleTest, OfManyThreadsOneWinsWithItsOwnText) {
  ASSERT_OK_AND_ASSIGN(const auto lifecycle, Lifecycle::Create());
  constexpr MachineEnd kEnds[] = {MachineEnd::kPoweredOff, MachineEnd::kRebooted, MachineEnd::kTripleFault, MachineEnd::kStopped};
  std::vector<std::thread> threads;
  for (const MachineEnd end : kEnds) {
    threads.emplace_back([&, end] { lifecycle->RequestEnd(end, std::to_string(static_cast<int>(end))); });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(lifecycle->report().detail, std::to_string(static_cast<int>(lifecycle->report().end)));
}

}  // namespace
}  // namespace vmm
