// The path from post to slot allocates nothing: this program's operator new counts.
#include <cstdlib>
#include <new>

#include <gtest/gtest.h>

#include "devices/hyperv/synic/fake_guest_driver.h"
#include "devices/hyperv/synic/hv_message_layout.h"
#include "devices/hyperv/synic/message_for_test.h"
#include "devices/hyperv/synic/message_lane.h"
#include "devices/hyperv/synic/message_slot.h"
#include "devices/hyperv/synic/post_result.h"
#include "devices/hyperv/synic/queue_for_test.h"

namespace {
thread_local int allocations = 0;
}  // namespace

void* operator new(size_t bytes) {
  ++allocations;
  if (void* const memory = std::malloc(bytes != 0 ? bytes : 1)) return memory;
  std::abort();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace vmm {
namespace {

TEST(NoAllocationTest, FromPostToSlot) {
  QueueForTest q({1, 4});
  LaneProducer lane = q.AddLane(1);
  FakeGuestDriver guest;
  GuestSlot memory(guest.slot);
  MessageSlot slot(q.queue());
  int delivered = 0;
  const int before = allocations;
  static_cast<void>(slot.TryConfigure({.memory = &memory}));
  for (uint32_t n = 0; n < 1000; ++n) {
    static_cast<void>(q.Post(0, n));
    static_cast<void>(q.producer(0).TryPostIntercept(MakeMessage(0, n, HvMessageType::kGpaIntercept)));
    if (lane.TryPost(MakeMessage(1, n)) == PostResult::kPostedKick) static_cast<void>(q.queue().Notify(0));
    static_cast<void>(q.doorbell().Take());
    static_cast<void>(slot.TryDeliver());
    static_cast<void>(q.doorbell().Arm());
    if (guest.TakeMessage()) ++delivered;
  }
  EXPECT_EQ(allocations, before);
  EXPECT_EQ(delivered, 1000);
}

}  // namespace
}  // namespace vmm
