// Any sequence of what can happen to the SynIC and the timers of one VP, against a model: registers read back, statuses, each
// accepted message once and in order, event flags, who is watched, what the deadline is. One thread, time in the input.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "devices/hyperv/fake_overlay_space.h"
#include "devices/hyperv/hv_msr_layout.h"
#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/synic/hv_message_layout.h"
#include "devices/hyperv/synic/message_for_test.h"
#include "devices/hyperv/synic/synic.h"
#include "devices/hyperv/synic/synic_for_test.h"
#include "devices/hyperv/timers/fake_timer_host.h"
#include "devices/hyperv/timers/synthetic_timers.h"

namespace vmm {
namespace {

constexpr size_t kMaxSteps = 2000;
constexpr uint32_t kMaxRestores = 3;
constexpr uint32_t kEventLoop = 99;  // as a producer of MakeMessage

#define REQUIRE(condition)                                                             \
  do {                                                                                 \
    if (!(condition)) {                                                                \
      std::fprintf(stderr, "line %d, step %zu: %s\n", __LINE__, steps_, #condition); \
      std::abort();                                                                    \
    }                                                                                  \
  } while (false)

class Input final {
 public:
  explicit Input(std::span<const uint8_t> bytes) : bytes_(bytes) {}
  [[nodiscard]] bool is_empty() const { return at_ >= bytes_.size(); }
  uint8_t Byte() { return is_empty() ? 0 : bytes_[at_++]; }
  // A short form for numbers that matter, a long one for all.
  uint64_t Number() {
    constexpr uint64_t kInteresting[] = {
        0, 1, 0x5001, 0x6001, 0x5000, 0x50, 0x10000, 0x10050, 0x20050, 0x40050, ~uint64_t{0}, ~uint64_t{1},
        0x20001, 0x20008, 0x20003, 0x2000b, 0x20007, 0x1601, 0x1603, 0x1608, 1000, 999, 5000, 0x1000'0001};
    const uint8_t form = Byte();
    if (form < std::size(kInteresting)) return kInteresting[form];
    const unsigned bytes = form % 9;
    uint64_t number = 0;
    for (unsigned n = 0; n < bytes; ++n) number = number << 8 | Byte();
    return number;
  }

 private:
  std::span<const uint8_t> bytes_;
  size_t at_ = 0;
};

struct Machine {
  explicit Machine(HvTicks now) : timers(*synic, synic.clock, deadline, vectors, /*offers_direct=*/true) {
    synic.clock.now = now;
  }
  SynicForTest synic;
  FakeDeadlineTimer deadline;
  FakeVectorInterrupts vectors;
  SyntheticTimers timers;
};

class Run final {
 public:
  explicit Run(std::span<const uint8_t> bytes) : input_(bytes) {}

  void All() {
    for (; !input_.is_empty() && steps_ < kMaxSteps; ++steps_) {
      const uint8_t op = input_.Byte();
      Step(op & 0x7f);
      if ((op & 0x80) == 0) synic()->RunPending();
      CheckWatches();
    }
    Drain();
  }

 private:
  SynicForTest& synic() { return machine_->synic; }

  void Step(uint8_t op) {
    switch (op % 12) {
      case 0:
      case 1:
        return WriteMsr(PickMsr(), input_.Number());
      case 2:
        return Post(/*intercept=*/false);
      case 3:
        return Post(/*intercept=*/true);
      case 4:
        return Read(PickSint());
      case 5:
        return synic()->OnEom();
      case 6:
        return synic()->OnEoi(PickSint());
      case 7:
        return Pass(input_.Number() % (uint64_t{1} << 40));
      case 8:
        return Signal(PickSint(), input_.Byte() * 9u);
      case 9:
        return synic()->SetPaused((input_.Byte() & 1) != 0);
      case 10:
        if ((input_.Byte() & 1) != 0) return Scribble(PickSint(), static_cast<uint32_t>(input_.Number()));
        return synic()->SetKernelTimerSints(static_cast<uint16_t>(input_.Byte() * 0x101));
      default:
        return MoveToAnother();
    }
  }

  Sint PickSint() { return *Sint::From(input_.Byte() & 15); }
  // With some that there are not.
  uint32_t PickMsr() {
    const uint32_t offset = input_.Byte() & 0x3f;
    return kHvMsrScontrol + offset;
  }

  void WriteMsr(uint32_t msr, uint64_t value) {
    uint64_t read = 0;
    const bool is_sint = msr >= kHvMsrSint0 && msr < kHvMsrSint0 + Sint::kCount;
    if (Synic::Has(msr)) {
      const bool is_legal =
          msr != kHvMsrSversion && !(is_sint && (value & kHvSintMasked) == 0 && (value & kHvSintVectorMask) < kHvFirstVector);
      REQUIRE(synic().Write(msr, value) == is_legal);
      REQUIRE(synic()->ReadMsr(msr, read));
      if (is_legal) REQUIRE(read == (msr == kHvMsrEom ? 0 : value));
    } else if (SyntheticTimers::Has(msr)) {
      REQUIRE(machine_->timers.WriteMsr(msr, value));
      REQUIRE(machine_->timers.ReadMsr(msr, read));
      const bool is_config = (msr - kHvMsrStimer0Config) % 2 == 0;
      REQUIRE(is_config ? (read | kHvStimerEnable) == (value | kHvStimerEnable) && read <= value : read == value);
    } else {
      REQUIRE(!synic()->WriteMsr(msr, value) && !machine_->timers.WriteMsr(msr, value));
      REQUIRE(!synic()->ReadMsr(msr, read) && !machine_->timers.ReadMsr(msr, read));
    }
    CheckDeadline();
  }

  uint64_t Register(uint32_t msr) {
    uint64_t value = 0;
    REQUIRE(synic()->ReadMsr(msr, value));
    return value;
  }
  bool IsOn(uint32_t page_msr) {
    const uint64_t page = Register(page_msr);
    return (Register(kHvMsrScontrol) & kHvScontrolEnable) != 0 && (page & kHvOverlayEnable) != 0 &&
           page >> kHvOverlayPageShift < FakeOverlaySpace::kRamPages;
  }

  void Post(bool intercept) {
    const Sint sint = PickSint();
    const uint8_t who = input_.Byte() % (SynicForTest::kVps + 1);
    const uint32_t producer = who < SynicForTest::kVps ? who : kEventLoop;
    const Poster poster = who < SynicForTest::kVps ? Poster::OfVp(VpIndex(who)) : Poster::EventLoop();
    auto& expected = expected_[sint.raw()];
    const auto waiting = static_cast<size_t>(
        std::count_if(expected.begin(), expected.end(), [&](const MessageIdentity& id) { return id.producer == producer; }));
    const HvMessage message = MakeMessage(producer, sequence_, intercept ? HvMessageType::kGpaIntercept : HvMessageType::kVmBus);
    const HvStatus status = intercept ? synic()->PostIntercept(poster, sint, message) : synic()->Post(poster, sint, message);
    switch (status) {
      case HvStatus::kSuccess:
        REQUIRE(intercept || IsOn(kHvMsrSimp));
        // The queue's, the intercept's, the slot's, and what an earlier machine had.
        REQUIRE(waiting < (Synic::kQueueCapacity + 1) * (1 + restores_) + 1);
        expected.push_back({producer, sequence_++});
        return;
      case HvStatus::kInsufficientBuffers:
        REQUIRE(waiting >= (intercept ? 1 : Synic::kQueueCapacity));
        return;
      case HvStatus::kInvalidSynicState:
        REQUIRE(!intercept && !IsOn(kHvMsrSimp));
        return;
      default:
        REQUIRE(false);
    }
  }

  // The guest takes what is in the slot.
  void Read(Sint sint) {
    const bool is_bogus = std::exchange(bogus_[sint.raw()], false);
    const auto read = synic().guest(sint).TakeMessage();
    if (!read || is_bogus) return;
    if (read->message.header.type == HvMessageType::kTimerExpired) {
      HvTimerMessagePayload payload;
      std::memcpy(&payload, read->message.payload, sizeof(payload));
      REQUIRE(payload.timer_index < kHvStimerCount && payload.reserved == 0);
      REQUIRE(payload.expiration_time <= payload.delivery_time);
      REQUIRE(payload.delivery_time <= synic().clock.now.raw());
      return;
    }
    auto& expected = expected_[sint.raw()];
    const auto id = IdentityOf(read->message);
    REQUIRE(id.has_value());
    REQUIRE(!expected.empty() && *id == expected.front());
    expected.pop_front();
  }

  // The guest writes a type of its own: whatever was there is lost to it.
  void Scribble(Sint sint, uint32_t type) {
    Read(sint);
    std::memcpy(&synic().guest(sint).slot, &type, sizeof(type));
    bogus_[sint.raw()] = type != 0;
  }

  void Signal(Sint sint, uint32_t flag) {
    const HvStatus status = synic()->SignalEvent(sint, flag);
    if (flag >= kHvEventFlagCount) {
      REQUIRE(status == HvStatus::kInvalidParameter);
    } else if (!IsOn(kHvMsrSiefp) || (Register(kHvMsrSint0 + sint.raw()) & kHvSintMasked) != 0) {
      REQUIRE(status == HvStatus::kInvalidSynicState);
    } else {
      REQUIRE(status == HvStatus::kSuccess);
      REQUIRE((synic().event_byte(sint, flag) & (1 << flag % 8)) != 0);
      if ((flag & 1) != 0) synic().event_byte(sint, flag) = 0;
    }
  }

  void Pass(uint64_t ticks) {
    synic().clock.now = synic().clock.now + HvTicks(ticks);
    if (!machine_->deadline.deadline || *machine_->deadline.deadline > synic().clock.now) return;
    machine_->deadline.deadline.reset();
    machine_->vectors.vectors.clear();
    const uint64_t messages = machine_->timers.stats().messages;
    machine_->timers.RunExpired();
    // However long it was: each once, and a second message only for one whose last came from an earlier setting.
    REQUIRE(machine_->vectors.vectors.size() <= kHvStimerCount);
    REQUIRE(machine_->timers.stats().messages - messages <= kHvStimerCount);
    CheckDeadline();
    REQUIRE(!machine_->deadline.deadline || *machine_->deadline.deadline > synic().clock.now);
  }

  void CheckDeadline() {
    std::optional<HvTicks> earliest;
    for (const auto& timer : machine_->timers.SaveState().timers) {
      const bool waits = timer.queued && (timer.config & kHvStimerDirect) == 0;
      if (!timer.running || waits || timer.due == HvTicks(~uint64_t{0})) continue;
      REQUIRE(timer.count != 0 && (timer.config & kHvStimerEnable) != 0);
      if (!earliest || timer.due < *earliest) earliest = timer.due;
    }
    REQUIRE(machine_->deadline.deadline == earliest);
  }

  void CheckWatches() {
    for (unsigned n = 0; n < Sint::kCount; ++n) {
      if (!synic().interrupts.watched[n]) continue;
      REQUIRE((synic().interrupts.values[n] & (kHvSintMasked | kHvSintPolling | kHvSintAutoEoi)) == 0);
    }
  }

  void MoveToAnother() {
    if (restores_ == kMaxRestores) return;
    ++restores_;
    synic()->SetPaused(true);
    const SyntheticTimersState timers = machine_->timers.SaveState();
    const SynicState state = synic()->SaveState();
    auto other = std::make_unique<Machine>(synic().clock.now);
    other->timers.RestoreState(timers);
    REQUIRE(other->synic->RestoreState(state).ok());
    machine_ = std::move(other);
    CheckDeadline();
  }

  void Drain() {
    for (uint32_t n = 0; n < kHvStimerCount; ++n) REQUIRE(machine_->timers.WriteMsr(kHvMsrStimer0Config + 2 * n, 0));
    synic()->SetPaused(false);
    synic()->SetKernelTimerSints(0);
    REQUIRE(synic().Write(kHvMsrScontrol, kHvScontrolEnable));
    REQUIRE(synic().Write(kHvMsrSimp, SynicForTest::kMessagePage << kHvOverlayPageShift | kHvOverlayEnable));
    synic()->RunPending();
    for (uint64_t n = 0; n < Sint::kCount; ++n) {
      const Sint sint = *Sint::From(n);
      // The messages, the timers', and what the guest wrote itself.
      for (size_t left = expected_[n].size() + 2 * kHvStimerCount + 1; left > 0; --left) {
        Read(sint);
        synic()->OnEom();
      }
      REQUIRE(expected_[n].empty());
      REQUIRE(synic().guest(sint).Type() == HvMessageType::kNone);
      REQUIRE(!synic().interrupts.watched[n]);
    }
    for (const auto& timer : machine_->timers.SaveState().timers) REQUIRE(!timer.queued && !timer.running);
  }

  Input input_;
  std::unique_ptr<Machine> machine_ = std::make_unique<Machine>(HvTicks(1000));
  std::array<std::deque<MessageIdentity>, Sint::kCount> expected_;
  std::array<bool, Sint::kCount> bogus_{};
  uint32_t sequence_ = 0;
  uint32_t restores_ = 0;
  size_t steps_ = 0;
};

}  // namespace
}  // namespace vmm

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  vmm::Run(std::span(data, size)).All();
  return 0;
}
