// The path from post to slot allocates nothing: this program's operator new counts.
#include <cstdint>
#include <cstdlib>
#include <new>

#include <gtest/gtest.h>

#include "devices/hyperv/hv_msr_layout.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/synic/connections.h"
#include "devices/hyperv/synic/fake_guest_driver.h"
#include "devices/hyperv/synic/hv_message_layout.h"
#include "devices/hyperv/synic/message_for_test.h"
#include "devices/hyperv/synic/message_lane.h"
#include "devices/hyperv/synic/message_slot.h"
#include "devices/hyperv/synic/post_result.h"
#include "devices/hyperv/synic/queue_for_test.h"
#include "devices/hyperv/synic/synic.h"
#include "devices/hyperv/synic/synic_for_test.h"
#include "devices/hyperv/timers/fake_timer_host.h"
#include "devices/hyperv/timers/synthetic_timers.h"

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

// What a VP's thread and posters do between two entries; Create may allocate.
TEST(NoAllocationTest, SynicConnectionsAndTimers) {
  constexpr Sint kSint = Sint::Of<2>();
  SynicForTest synic;
  synic.Enable(kSint);
  class OneSynic final : public SynicDirectory {
   public:
    explicit OneSynic(Synic& synic) : synic_(synic) {}
    [[nodiscard]] Synic* Find(VpIndex, Vtl) noexcept override { return &synic_; }
    [[nodiscard]] uint32_t vp_count() const noexcept override { return 1; }

   private:
    Synic& synic_;
  } directory(*synic);
  ConnectionTable table(directory);
  const Port port{.id = 1, .type = PortType::kMessage, .vp = VpIndex(0), .vtl = kVtl0, .sint = kSint};
  ASSERT_TRUE(table.Add(1, port).ok());
  Port event = port;
  event.type = PortType::kEvent;
  event.flag_count = 64;
  ASSERT_TRUE(table.Add(2, event).ok());
  FakeDeadlineTimer deadline;
  FakeVectorInterrupts vectors;
  vectors.vectors.reserve(2000);
  SyntheticTimers timers(*synic, synic.clock, deadline, vectors, /*offers_direct=*/true);
  const uint8_t payload[64] = {};
  int delivered = 0;

  const int before = allocations;
  // Periodic by message, periodic and direct.
  ASSERT_TRUE(timers.WriteMsr(kHvMsrStimer0Config + 1, 2000));
  ASSERT_TRUE(timers.WriteMsr(kHvMsrStimer0Config, kHvStimerEnable | kHvStimerPeriodic | uint64_t{2} << kHvStimerSintShift));
  ASSERT_TRUE(timers.WriteMsr(kHvMsrStimer0Config + 3, 1000));
  ASSERT_TRUE(timers.WriteMsr(kHvMsrStimer0Config + 2, kHvStimerEnable | kHvStimerPeriodic | kHvStimerDirect | 0x600));
  for (uint32_t n = 0; n < 1000; ++n) {
    static_cast<void>(table.PostMessage(Poster::OfVp(VpIndex(n % 3)), 1, 1, payload));
    static_cast<void>(synic->PostIntercept(Poster::OfVp(VpIndex(0)), kSint, MakeMessage(0, n, HvMessageType::kGpaIntercept)));
    static_cast<void>(table.SignalEvent(2, n % 65));
    synic.clock.now = HvTicks(synic.clock.now.raw() + 1000);
    timers.RunExpired();
    synic->RunPending();
    if (synic.guest(kSint).TakeMessage()) ++delivered;
    static_cast<void>(synic.Write(kHvMsrEom, 0));
    synic->OnEoi(kSint);
  }
  EXPECT_EQ(allocations, before);
  EXPECT_EQ(delivered, 1000);
  EXPECT_EQ(timers.stats().direct, 1000u);
  EXPECT_GT(timers.stats().messages, 10u);
}

}  // namespace
}  // namespace vmm
