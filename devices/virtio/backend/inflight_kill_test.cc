// A process that is killed between any two of its instructions, and the next one: a child takes chains and gives some back, single-stepped;
// after each step that changed memory, another queue starts over a copy of it. What it finds in Pop must be what the driver offered and
// cannot see as used, each once, oldest first (inflight_record.h has the invariants).
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include <gtest/gtest.h>

#include "base/event_fd.h"
#include "base/owned_fd.h"
#include "base/status_matchers.h"
#include "devices/virtio/backend/backend_memory.h"
#include "devices/virtio/backend/backend_queue.h"
#include "devices/virtio/backend/fake_guest_driver.h"
#include "devices/virtio/backend/fake_packed_driver.h"
#include "devices/virtio/backend/inflight_layout.h"
#include "devices/virtio/virtio_layout.h"
#include "memory/gpa.h"

namespace vmm {
namespace {

using Pop = BackendQueue::PopResult;
constexpr uint16_t kSize = 8;
constexpr size_t kRegionBytes = vhost_user::InflightStride(kSize);
constexpr size_t kRingBytes = 0x3000;
// Completed before, so that the ring's end comes at different moments. Sanitizers make many more steps of the same.
#ifdef VMM_DYNAMIC_LINK
constexpr int kTurned[] = {6};
#else
constexpr int kTurned[] = {0, 3, 6, 13};
#endif

// Both forms by one interface.
struct Split {
  using Driver = FakeGuestDriver;
  static constexpr uint64_t kFeatures = virtio::kFeatureVersion1;
  static constexpr uint32_t kBase = 0;
};
struct Packed {
  using Driver = FakePackedDriver;
  static constexpr uint64_t kFeatures = virtio::kFeatureVersion1 | virtio::kFeatureRingPacked;
  static constexpr uint32_t kBase = FakePackedDriver::kFirstBase;
};

struct Region {
  Region() : bytes(static_cast<std::byte*>(::mmap(nullptr, kRegionBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)), kRegionBytes) {}
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;
  ~Region() { ::munmap(bytes.data(), bytes.size()); }
  std::span<std::byte> bytes;
};

template <typename Form>
class InflightKillTest : public testing::Test {
 protected:
  using Driver = typename Form::Driver;

  void SetUp() override {
    ASSERT_OK(memory_.Add(FakeGuestRam::region(), ram_.fd()));
    ASSERT_OK(copy_memory_.Add(FakeGuestRam::region(), copy_ram_.fd()));
    driver_ = std::make_unique<Driver>(ram_, kSize);
    Start(queue_, *driver_, memory_, region_);
  }
  static void Start(BackendQueue& queue, const Driver& driver, const BackendMemory& memory, Region& region, uint32_t base = Form::kBase) {
    queue.Start(driver.Rings(memory), base, Form::kFeatures, memory, nullptr, region.bytes);
  }
  uint16_t Offer(int segments) {
    const std::vector<FakeGuestDriver::Segment> chain(static_cast<size_t>(segments), {driver_->data(), 1});
    const uint16_t id = driver_->Offer(chain);
    offered_.push_back(id);
    return id;
  }
  // So many completed, so that whatever comes next is somewhere else in the ring, and the record is not new.
  void Turn(int chains) {
    QueueChain chain;
    for (int i = 0; i < chains; ++i) {
      Offer(1);
      ASSERT_EQ(queue_.Pop(chain), Pop::kChain);
      queue_.Push(chain, 0);
      ASSERT_TRUE(driver_->Take().has_value());
      offered_.clear();
    }
  }
  // What a process finds that starts now: `ids` are what it takes.
  void Successor(std::vector<uint16_t>& ids) {
    BackendQueue queue;
    // A base that says nothing: the record knows.
    Start(queue, *copy_driver_, copy_memory_, copy_region_, Form::kBase);
    QueueChain chain;
    Pop result;
    while ((result = queue.Pop(chain)) == Pop::kChain) {
      ids.push_back(chain.head);
      ASSERT_EQ(chain.readable.size(), chain.readable_bytes);
      ASSERT_LE(ids.size(), kSize);
    }
    ASSERT_EQ(result, Pop::kEmpty) << QueueFaultText(queue.fault());
    // And one that follows upon that one, which was killed too: the same.
    BackendQueue third;
    Start(third, *copy_driver_, copy_memory_, copy_region_, Form::kBase);
    std::vector<uint16_t> again;
    while (third.Pop(chain) == Pop::kChain) {
      again.push_back(chain.head);
      third.Push(chain, 1);
    }
    ASSERT_EQ(again, ids);
    for (const uint16_t id : ids) {
      const auto used = copy_driver_->Take();
      ASSERT_TRUE(used.has_value());
      ASSERT_EQ(used->id, id);
    }
    ASSERT_EQ(copy_driver_->Take(), std::nullopt);
  }
  // Of the memory as it is now.
  void ExpectNoneLostAndNoneRepeated() {
    std::memcpy(copy_ram_.At(driver_->descriptors()), ram_.At(driver_->descriptors()), kRingBytes);
    std::memcpy(copy_region_.bytes.data(), region_.bytes.data(), kRegionBytes);
    copy_driver_ = std::make_unique<Driver>(*driver_, copy_ram_);
    std::vector<uint16_t> expected = offered_;
    while (const auto used = copy_driver_->Take()) {
      ASSERT_EQ(std::erase(expected, used->id), 1u) << "used twice, or never offered: " << used->id;
    }
    std::vector<uint16_t> found;
    Successor(found);
    ASSERT_EQ(found, expected);
  }
  // Steps `work` in a child; how often memory changed.
  void KillAnywhere(const std::function<void()>& work, int& changes) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) ::_exit(77);
      ::raise(SIGSTOP);
      work();
      ::_exit(0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) GTEST_SKIP() << "no ptrace here";
    std::vector<std::byte> before(kRingBytes + kRegionBytes), now(before.size());
    while (WIFSTOPPED(status)) {
      std::memcpy(now.data(), ram_.At(driver_->descriptors()), kRingBytes);
      std::memcpy(now.data() + kRingBytes, region_.bytes.data(), kRegionBytes);
      if (now != before) {
        before = now;
        ++changes;
        ASSERT_NO_FATAL_FAILURE(ExpectNoneLostAndNoneRepeated()) << "after change " << changes;
      }
      if (::ptrace(PTRACE_SINGLESTEP, child, nullptr, nullptr) != 0) break;
      ASSERT_EQ(::waitpid(child, &status, 0), child);
    }
    ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    ExpectNoneLostAndNoneRepeated();
  }

  FakeGuestRam ram_, copy_ram_;
  BackendMemory memory_, copy_memory_;
  Region region_, copy_region_;
  std::unique_ptr<Driver> driver_, copy_driver_;
  BackendQueue queue_;
  std::vector<uint16_t> offered_;
};

using Forms = testing::Types<Split, Packed>;
TYPED_TEST_SUITE(InflightKillTest, Forms);

TYPED_TEST(InflightKillTest, BetweenAnyTwoInstructions) {
  for (const int turned : kTurned) {
    this->Turn(turned);
    for (const int segments : {1, 2, 1, 3}) this->Offer(segments);
    int changes = 0;
    this->KillAnywhere(
        [this] {
          QueueChain a, b, c, d;
          (void)this->queue_.Pop(a);
          (void)this->queue_.Pop(b);
          this->queue_.Push(b, 1);
          (void)this->queue_.Pop(c);
          this->queue_.Unpop(c);
          (void)this->queue_.Pop(c);
          (void)this->queue_.Pop(d);
          this->queue_.Push(d, 2);
          const std::array<BackendQueue::Used, 2> both = {{{&a, 3}, {&c, 4}}};
          this->queue_.PushTogether(both);
        },
        changes);
    if (this->IsSkipped()) return;
    if (this->HasFatalFailure()) return;
    EXPECT_GT(changes, 30);
    // The child's steps are this process's past now: a successor goes on here.
    while (const auto used = this->driver_->Take()) std::erase(this->offered_, used->id);
    ASSERT_TRUE(this->offered_.empty());
    TestFixture::Start(this->queue_, *this->driver_, this->memory_, this->region_);
    ASSERT_EQ(this->queue_.fault(), QueueFault::kNone);
  }
}

// Also the start over what another has left.
TYPED_TEST(InflightKillTest, WhileItStartsOverAnothersRecord) {
  this->Turn(5);
  for (const int segments : {2, 1, 3}) this->Offer(segments);
  QueueChain a, b;
  ASSERT_EQ(this->queue_.Pop(a), Pop::kChain);
  ASSERT_EQ(this->queue_.Pop(b), Pop::kChain);
  this->queue_.Push(b, 0);
  int changes = 0;
  this->KillAnywhere(
      [this] {
        BackendQueue next;
        TestFixture::Start(next, *this->driver_, this->memory_, this->region_);
        QueueChain chain;
        while (next.Pop(chain) == Pop::kChain) next.Push(chain, 0);
      },
      changes);
}

TYPED_TEST(InflightKillTest, AnOrderlyStopLeavesARecordAsGoodAsNew) {
  QueueChain chain;
  this->Offer(2);
  ASSERT_EQ(this->queue_.Pop(chain), Pop::kChain);
  this->queue_.Push(chain, 0);
  (void)this->queue_.Stop();
  // The driver resets its ring; whoever starts then finds nothing of the old one.
  std::memset(this->ram_.At(this->driver_->descriptors()), 0, kRingBytes);
  this->driver_ = std::make_unique<typename TypeParam::Driver>(this->ram_, kSize);
  TestFixture::Start(this->queue_, *this->driver_, this->memory_, this->region_);
  EXPECT_EQ(this->queue_.Pop(chain), Pop::kEmpty);
  const uint16_t id = this->Offer(1);
  ASSERT_EQ(this->queue_.Pop(chain), Pop::kChain);
  EXPECT_EQ(chain.head, id);
}

TYPED_TEST(InflightKillTest, ARecordOfNonsenseIsAFaultOrHarmless) {
  uint32_t random = 1;
  int faults = 0;
  for (int round = 0; round < 4000; ++round) {
    for (std::byte& byte : this->region_.bytes) {
      random = random * 1664525 + 1013904223;
      byte = std::byte(random >> 24 & (round % 2 == 0 ? 0xff : 7));
    }
    const std::array<uint16_t, 2> version = {1, kSize};
    std::memcpy(this->region_.bytes.data() + 8, version.data(), sizeof(version));
    BackendQueue queue;
    TestFixture::Start(queue, *this->driver_, this->memory_, this->region_);
    QueueChain chain;
    int popped = 0;
    while (queue.Pop(chain) == Pop::kChain) {
      ASSERT_LE(++popped, kSize);
      queue.Push(chain, 0);
    }
    faults += queue.fault() != QueueFault::kNone;
  }
  EXPECT_GT(faults, 1000);
}

}  // namespace
}  // namespace vmm
