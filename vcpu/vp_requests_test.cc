#include "vcpu/vp_requests.h"

#include <atomic>
#include <semaphore>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace vmm {
namespace {

// A processor's thread without a processor: sleeps until it is kicked, then serves, as a guest that halts would.
class FakeVp final : public VpKick {
 public:
  explicit FakeVp(VpRequests& requests, uint32_t index) : requests_(requests), index_(index) { requests.SetKick(index, *this); }
  void Kick() noexcept override {
    if (!kicked_.exchange(true)) bell_.release();
  }
  void ServeUntil(const std::atomic<bool>& end) {
    while (!end.load()) {
      bell_.acquire();
      kicked_.store(false);
      requests_.Serve(index_);
    }
  }

 private:
  VpRequests& requests_;
  const uint32_t index_;
  std::atomic<bool> kicked_{false};
  std::counting_semaphore<> bell_{0};
};

struct CountingKick final : VpKick {
  void Kick() noexcept override { kicks.release(); }
  std::counting_semaphore<> kicks{0};
};

TEST(VpRequestsTest, WorkForOneselfRunsAtOnce) {
  VpRequests requests(1);
  bool ran = false;
  EXPECT_TRUE(requests.RunOn(0, 0, [&] { ran = true; }));
  EXPECT_TRUE(ran);
}

TEST(VpRequestsTest, WorkRunsOnTheTargetsThreadBeforeRunOnReturns) {
  VpRequests requests(2);
  FakeVp target(requests, 1);
  std::atomic<bool> end{false};
  std::thread thread([&] { target.ServeUntil(end); });
  std::thread::id ran_on;  // plain: RunOn orders it
  EXPECT_TRUE(requests.RunOn(0, 1, [&] { ran_on = std::this_thread::get_id(); }));
  EXPECT_EQ(ran_on, thread.get_id());
  end = true;
  target.Kick();
  thread.join();
}

TEST(VpRequestsTest, TheTargetIsKickedAndToldThatThereIsWork) {
  CountingKick kick;
  VpRequests requests(2);
  requests.SetKick(1, kick);
  EXPECT_FALSE(requests.HasWork(1));
  std::thread poster([&] { EXPECT_TRUE(requests.RunOn(0, 1, [] {})); });
  kick.kicks.acquire();
  EXPECT_TRUE(requests.HasWork(1));
  requests.Serve(1);
  poster.join();
  EXPECT_FALSE(requests.HasWork(1));
}

// Every one asks every other all the time, so rings of all lengths come about; each request counts once.
TEST(VpRequestsTest, ProcessorsThatAskEachOtherServeEachOther) {
  constexpr uint32_t kVps = 4;
  constexpr uint64_t kRounds = 500;
  VpRequests requests(kVps);
  std::vector<std::unique_ptr<FakeVp>> vps;
  for (uint32_t vp = 0; vp < kVps; ++vp) vps.push_back(std::make_unique<FakeVp>(requests, vp));
  uint64_t served[kVps] = {};  // plain: each is its thread's own
  std::atomic<uint32_t> asking{kVps};
  std::atomic<bool> end{false};
  std::vector<std::thread> threads;
  for (uint32_t vp = 0; vp < kVps; ++vp) {
    threads.emplace_back([&, vp] {
      for (uint64_t round = 0; round < kRounds; ++round) {
        const uint32_t target = static_cast<uint32_t>((vp + 1 + round % (kVps - 1)) % kVps);
        EXPECT_TRUE(requests.RunOn(vp, target, [&, target] { ++served[target]; }));
      }
      if (--asking == 0) {
        end = true;
        for (const auto& other : vps) other->Kick();
      }
      vps[vp]->ServeUntil(end);
    });
  }
  for (std::thread& thread : threads) thread.join();
  uint64_t all = 0;
  for (const uint64_t count : served) all += count;
  EXPECT_EQ(all, kVps * kRounds);
}

TEST(VpRequestsTest, RequestsOfSeveralPostersRunInTheOrderOfPosting) {
  CountingKick posted;
  VpRequests requests(3);
  requests.SetKick(0, posted);
  std::vector<uint32_t> order;
  std::thread first([&] { EXPECT_TRUE(requests.RunOn(1, 0, [&] { order.push_back(1); })); });
  posted.kicks.acquire();
  std::thread second([&] { EXPECT_TRUE(requests.RunOn(2, 0, [&] { order.push_back(2); })); });
  posted.kicks.acquire();
  requests.Serve(0);
  first.join();
  second.join();
  EXPECT_EQ(order, (std::vector<uint32_t>{1, 2}));
}

TEST(VpRequestsTest, StopLetsGoWhoWaitsAndRunsNothing) {
  VpRequests requests(2);
  bool ran = false, answer = true;
  std::thread poster([&] { answer = requests.RunOn(0, 1, [&] { ran = true; }); });
  while (!requests.HasWork(1)) std::this_thread::yield();
  requests.Stop();
  poster.join();
  EXPECT_FALSE(answer);
  requests.Serve(1);
  EXPECT_FALSE(ran);
}

TEST(VpRequestsTest, AfterStopNothingIsTaken) {
  VpRequests requests(2);
  requests.Stop();
  EXPECT_FALSE(requests.RunOn(0, 1, [] { ADD_FAILURE(); }));
}

TEST(VpRequestsTest, WorkThatHasBegunIsFinishedAndTrueThoughTheMachineStops) {
  VpRequests requests(2);
  std::binary_semaphore begun{0}, go_on{0};
  bool answer = false;
  std::thread poster([&] {
    answer = requests.RunOn(0, 1, [&] {
      begun.release();
      go_on.acquire();
    });
  });
  while (!requests.HasWork(1)) std::this_thread::yield();
  std::thread target([&] { requests.Serve(1); });
  begun.acquire();
  requests.Stop();
  go_on.release();
  target.join();
  poster.join();
  EXPECT_TRUE(answer);
}

TEST(VpRequestsTest, AThreadThatHasEndedServesNobody) {
  VpRequests requests(3);
  bool answer = true;
  std::thread poster([&] { answer = requests.RunOn(0, 1, [] { ADD_FAILURE(); }); });
  while (!requests.HasWork(1)) std::this_thread::yield();
  requests.Leave(1);
  poster.join();
  EXPECT_FALSE(answer);
  EXPECT_FALSE(requests.RunOn(2, 1, [] { ADD_FAILURE(); }));
  // The others go on.
  bool ran = false;
  std::thread other([&] { EXPECT_TRUE(requests.RunOn(2, 0, [&] { ran = true; })); });
  while (!requests.HasWork(0)) std::this_thread::yield();
  requests.Serve(0);
  other.join();
  EXPECT_TRUE(ran);
}

// One waits for an answer that never comes, and must still serve: the wait ends by Stop alone.
TEST(VpRequestsTest, WhoWaitsServesWhatIsPostedMeanwhile) {
  VpRequests requests(3);
  bool answer = true;
  std::thread waiting([&] { answer = requests.RunOn(0, 1, [] { ADD_FAILURE(); }); });
  while (!requests.HasWork(1)) std::this_thread::yield();
  std::thread::id ran_on;
  EXPECT_TRUE(requests.RunOn(2, 0, [&] { ran_on = std::this_thread::get_id(); }));
  EXPECT_EQ(ran_on, waiting.get_id());
  requests.Stop();
  waiting.join();
  EXPECT_FALSE(answer);
}

}  // namespace
}  // namespace vmm
