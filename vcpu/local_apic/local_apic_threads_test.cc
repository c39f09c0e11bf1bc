// Processors that send each other interrupts, each on a thread of its own, and sleep on kicks alone. A lost interrupt or wake-up
// hangs the test.
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "devices/guest_interface.h"
#include "vcpu/local_apic/apic_bus.h"
#include "vcpu/local_apic/apic_directory.h"
#include "vcpu/local_apic/apic_layout.h"
#include "vcpu/local_apic/fake_apic_host.h"
#include "vcpu/local_apic/local_apic.h"

namespace vmm {
namespace {

constexpr uint32_t kProcessors = 3;
constexpr uint32_t kRounds = 3000;

class WaitingKick final : public VpKick {
 public:
  void Kick() noexcept override {
    kicks_.fetch_add(1);
    kicks_.notify_one();
  }
  // Until a kick since the last call.
  void Wait() {
    kicks_.wait(seen_);
    seen_ = kicks_.load();
  }

 private:
  std::atomic<uint32_t> kicks_{0};
  uint32_t seen_ = 0;
};

struct Processor {
  Processor(uint32_t id, ApicBus& bus) : apic({.id = id}, bus, clock, deadline, kick) {
    EXPECT_TRUE(apic.WriteMsr(kMsrApicBase, apic.apic_base() | kApicBaseX2apic));
    EXPECT_TRUE(apic.WriteMsr(kMsrX2apicFirst + 0x0f, 0x1ff));
  }
  void Send(uint32_t to, uint8_t vector, ApicDeliveryMode mode = ApicDeliveryMode::kFixed) {
    const uint64_t low = vector | static_cast<uint32_t>(mode) << kIcrModeShift | kIcrAssert;
    EXPECT_TRUE(apic.WriteMsr(kMsrX2apicFirst + 0x30, uint64_t{to} << 32 | low));
  }
  FakeApicClock clock;
  FakeApicDeadline deadline;
  WaitingKick kick;
  LocalApic apic;
  // What others have published for this one, each before its interrupt.
  std::array<std::atomic<uint32_t>, kProcessors> mail{};
  std::array<uint32_t, kProcessors> read{};
  uint32_t nmis = 0;
};

TEST(LocalApicThreadsTest, EachInterruptIsSeenAndWakesItsProcessor) {
  ApicDirectory directory;
  std::vector<std::unique_ptr<Processor>> processors;
  for (uint32_t id = 0; id < kProcessors; ++id) {
    processors.push_back(std::make_unique<Processor>(id, directory));
    ASSERT_TRUE(directory.Add(processors.back()->apic).ok());
  }
  // A ring: each waits for its left neighbour's number before it sends its own next one to the right. So one that is lost stops
  // them all. The other neighbour's posts only disturb.
  const auto run = [&](uint32_t id) {
    Processor& self = *processors[id];
    const uint32_t left = (id + kProcessors - 1) % kProcessors;
    const uint32_t right = (id + 1) % kProcessors;
    uint32_t sent = 0;
    const auto send_next = [&] {
      ++sent;
      processors[right]->mail[id].store(sent, std::memory_order_relaxed);
      self.Send(right, static_cast<uint8_t>(0x40 + 0x10 * id));
      if (sent % 16 == 0) self.Send(left, 0, ApicDeliveryMode::kNmi);
      if (sent % 5 == 0) self.Send(left, 0x30);
    };
    if (id == 0) send_next();
    while (self.read[left] < kRounds) {
      self.apic.Disarm();
      self.apic.RunPending();
      if (self.apic.TakeNmi()) ++self.nmis;
      const std::optional<uint8_t> vector = self.apic.NextInterrupt();
      if (vector) {
        self.apic.Accept(*vector);
        if (*vector == 0x40 + 0x10 * left) {
          const uint32_t number = self.mail[left].load(std::memory_order_relaxed);
          ASSERT_GE(number, self.read[left]);
          const bool is_new = number != self.read[left];
          self.read[left] = number;
          if (is_new && sent < kRounds) send_next();
        }
        ASSERT_TRUE(self.apic.WriteMsr(kMsrX2apicFirst + 0x0b, 0));
        continue;
      }
      if (self.apic.Arm()) self.kick.Wait();
    }
    self.apic.Disarm();
  };
  std::vector<std::thread> threads;
  for (uint32_t id = 0; id < kProcessors; ++id) threads.emplace_back(run, id);
  for (std::thread& thread : threads) thread.join();
  for (uint32_t id = 0; id < kProcessors; ++id) {
    EXPECT_EQ(processors[id]->read[(id + kProcessors - 1) % kProcessors], kRounds);
  }
}

// Others look and send while the processor changes its modes and registers.
TEST(LocalApicThreadsTest, ChangesOfModeMeetPostsAndLooks) {
  ApicDirectory directory;
  auto processor = std::make_unique<Processor>(0, directory);
  ASSERT_TRUE(directory.Add(processor->apic).ok());
  std::atomic<bool> stop{false};
  std::vector<std::thread> others;
  for (unsigned n = 0; n < 2; ++n) {
    others.emplace_back([&, n] {
      uint32_t looks = 0;
      for (uint32_t round = 0; !stop.load(std::memory_order_relaxed); ++round) {
        directory.Send({.mode = static_cast<ApicDeliveryMode>(round % 8),
                        .vector = static_cast<uint8_t>(round * 7 + n),
                        .destination = ApicDestination::From(round % 3 == 0 ? 0xff : 0, round % 2 == 0, round % 5 == 0),
                        .sender = 1});
        looks += processor->apic.HasDeliverable() + processor->apic.HasEvent() + processor->apic.priority_class();
      }
      EXPECT_GE(looks, 0u);
    });
  }
  LocalApic& apic = processor->apic;
  uint64_t accepted = 0;
  for (uint32_t round = 0; round < 3000; ++round) {
    apic.RunPending();
    static_cast<void>(apic.TakeInit());
    static_cast<void>(apic.TakeStartup());
    static_cast<void>(apic.TakeNmi());
    static_cast<void>(apic.TakeSmi());
    static_cast<void>(apic.TakeExtInt());
    while (const std::optional<uint8_t> vector = apic.NextInterrupt()) {
      ASSERT_GE(*vector, kApicFirstVector);
      apic.Accept(*vector);
      ++accepted;
    }
    static_cast<void>(apic.Arm());
    if (round % 4 == 0) {
      ASSERT_TRUE(apic.WriteMsr(kMsrApicBase, kApicDefaultPage));
      ASSERT_TRUE(apic.WriteMsr(kMsrApicBase, kApicDefaultPage | kApicBaseEnabled));
    }
    if (round % 4 == 1) {
      ASSERT_TRUE(apic.WriteMsr(kMsrApicBase, kApicDefaultPage | kApicBaseEnabled | kApicBaseX2apic));
    }
    static_cast<void>(apic.WriteMsr(kMsrX2apicFirst + 0x0f, 0x1ff));
    static_cast<void>(apic.WriteMsr(kMsrX2apicFirst + 0x0b, 0));
    static_cast<void>(apic.WriteMsr(kMsrX2apicFirst + 0x28, 0));
  }
  stop.store(true);
  for (std::thread& other : others) other.join();
  EXPECT_EQ(apic.stats().accepted, accepted);
}

}  // namespace
}  // namespace vmm
