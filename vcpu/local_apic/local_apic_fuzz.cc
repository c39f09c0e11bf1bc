// Any sequence of what can happen to a local APIC: register accesses in each mode, messages, time, the run loop's steps. Checked
// after each: what the guest sees hangs together, each vector and event is there until it is taken, a refused access changes
// nothing, a kick comes exactly where one is due, the deadline is what the timer waits for. One thread, time in the input.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <optional>
#include <span>

#include "devices/hyperv/hv_msr_layout.h"
#include "vcpu/local_apic/apic_bus.h"
#include "vcpu/local_apic/apic_layout.h"
#include "vcpu/local_apic/fake_apic_host.h"
#include "vcpu/local_apic/interrupt_inbox.h"
#include "vcpu/local_apic/local_apic.h"
#include "vcpu/local_apic/vector_set.h"

namespace vmm {
namespace {

constexpr size_t kMaxSteps = 2000;
constexpr uint64_t kMinimumPeriod = 64;

#define REQUIRE(condition)                                                           \
  do {                                                                               \
    if (!(condition)) {                                                              \
      std::fprintf(stderr, "line %d, step %zu: %s\n", __LINE__, steps_, #condition); \
      std::abort();                                                                  \
    }                                                                                \
  } while (false)

class Input final {
 public:
  explicit Input(std::span<const uint8_t> bytes) : bytes_(bytes) {}
  [[nodiscard]] bool is_empty() const { return at_ >= bytes_.size(); }
  uint8_t Byte() { return is_empty() ? 0 : bytes_[at_++]; }
  // A short form for numbers that matter, a long one for all.
  uint64_t Number() {
    constexpr uint64_t kInteresting[] = {0,          0x1ff,      0xff,       0x41,         0x20041,      0x40041,
                                         0x10041,    0x4'4041,   0xc'4500,   0x4541,       0xfee0'0800,  0xfee0'0c00,
                                         0xfee0'0000, 0x8041,    0x400,      0x11ff,       0xb,          0x50,
                                         100,        0xffff'ffff, ~uint64_t{0}, 0xff'0000'4041, 0x700,    0x500};
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

constexpr uint8_t kSeen[] = {0x02, 0x03, 0x08, 0x0a, 0x0d, 0x0f, 0x28, 0x30, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38, 0x3e};

// All that the guest can read without changing anything.
struct View {
  uint64_t base = 0;
  std::array<uint64_t, std::size(kSeen)> registers{};
  std::array<uint32_t, 8> isr{}, tmr{}, irr{};
  bool operator==(const View&) const = default;
};

bool Has(const std::array<uint32_t, 8>& bits, uint8_t vector) { return (bits[vector / 32] >> vector % 32 & 1) != 0; }
std::array<uint32_t, 8> With(std::array<uint32_t, 8> bits, uint8_t vector) {
  bits[vector / 32] |= 1u << vector % 32;
  return bits;
}
std::array<uint32_t, 8> Without(std::array<uint32_t, 8> bits, uint8_t vector) {
  bits[vector / 32] &= ~(1u << vector % 32);
  return bits;
}
bool Contains(const std::array<uint32_t, 8>& all, const std::array<uint32_t, 8>& some) {
  for (unsigned n = 0; n < 8; ++n) {
    if ((some[n] & ~all[n]) != 0) return false;
  }
  return true;
}
std::optional<uint8_t> Highest(const std::array<uint32_t, 8>& bits) {
  for (unsigned vector = 256; vector-- > 0;) {
    if (Has(bits, static_cast<uint8_t>(vector))) return static_cast<uint8_t>(vector);
  }
  return std::nullopt;
}

class Run final {
 public:
  explicit Run(std::span<const uint8_t> bytes)
      : input_(bytes), host_({.id = 0x21, .suppresses_eoi_broadcasts = true, .minimum_period_ticks = kMinimumPeriod}) {}

  void All() {
    for (; !input_.is_empty() && steps_ < kMaxSteps; ++steps_) {
      const View before = Look();
      Step(input_.Byte(), before);
      Check();
    }
  }

 private:
  LocalApic& apic() { return host_.apic; }

  [[nodiscard]] bool is_enabled() { return (apic().apic_base() & kApicBaseEnabled) != 0; }
  [[nodiscard]] bool is_x2apic() { return (apic().apic_base() & kApicBaseX2apic) != 0; }

  uint64_t Register(uint8_t number) {
    if (is_x2apic()) {
      const auto value = host_.ReadMsr(kMsrX2apicFirst + number);
      REQUIRE(value.has_value());
      return *value;
    }
    return host_.Read(static_cast<ApicRegister>(number));
  }
  uint32_t Register(ApicRegister reg) { return static_cast<uint32_t>(Register(static_cast<uint8_t>(reg))); }

  View Look() {
    View view;
    view.base = apic().apic_base();
    if (!is_enabled()) return view;
    for (size_t n = 0; n < std::size(kSeen); ++n) view.registers[n] = Register(kSeen[n]);
    for (unsigned n = 0; n < 8; ++n) {
      view.isr[n] = static_cast<uint32_t>(Register(static_cast<uint8_t>(0x10 + n)));
      view.tmr[n] = static_cast<uint32_t>(Register(static_cast<uint8_t>(0x18 + n)));
      view.irr[n] = static_cast<uint32_t>(Register(static_cast<uint8_t>(0x20 + n)));
    }
    return view;
  }

  void Step(uint8_t op, const View& before) {
    // Others' posts meet an armed processor; its own thread wakes first.
    if (op % 14 != 3) {
      apic().Disarm();
      armed_.reset();
    }
    const int kicks = host_.kick.kicks;
    switch (op % 14) {
      case 0:
        WriteMsr(kMsrX2apicFirst + input_.Byte() % 0x48, before);
        break;
      case 1:
        WriteMmio(before);
        break;
      case 2:
        ReadMmio(before);
        break;
      case 3:
        return Post(before);
      case 4:
        Take(before);
        break;
      case 5:
        Eoi(before);
        break;
      case 6:
        Pass(input_.Number() % (uint64_t{1} << 40));
        break;
      case 7:
        Arm();
        break;
      case 8:
        TakeEvents(before);
        break;
      case 9:
        apic().SyncCr8(input_.Byte() & 0xf);
        REQUIRE(Look().irr == before.irr && Look().isr == before.isr);
        break;
      case 10:
        Local(before);
        break;
      case 11:
        SetVectors();
        break;
      case 12: {
        constexpr uint32_t kOthers[] = {kMsrApicBase, kMsrTscDeadline, kHvMsrEoi, kHvMsrIcr, kHvMsrTpr, 0x1a, 0x900};
        WriteMsr(kOthers[input_.Byte() % std::size(kOthers)], before);
        break;
      }
      default:
        if (input_.Byte() != 0xff) break;  // seldom
        apic().Reset();
        events_ = 0;
        startup_.reset();
        REQUIRE(apic().apic_base() == (kApicDefaultPage | kApicBaseEnabled));
        break;
    }
    REQUIRE(host_.kick.kicks == kicks);  // nobody kicks itself
  }

  void WriteMsr(uint32_t msr, const View& before) {
    const uint64_t value = input_.Number();
    if (msr == kHvMsrEoi || msr == kMsrX2apicFirst + 0x0b) return Eoi(before);
    if (!apic().WriteMsr(msr, value)) {
      REQUIRE(Look() == before);
      return;
    }
    REQUIRE(LocalApic::Has(msr));
    uint64_t read = 0;
    if (msr == kMsrApicBase) {
      REQUIRE(apic().apic_base() == value);
      REQUIRE(!is_x2apic() || is_enabled());
    } else if (msr != kMsrTscDeadline && apic().ReadMsr(msr, read) && msr != kMsrX2apicFirst + 0x28) {
      // What reads back is of what was written, but for bits that are the APIC's own.
      REQUIRE((read & ~value & ~uint64_t{kLvtMasked | kLvtRemoteIrr}) == 0);
    }
    const bool changed_mode = ((before.base ^ apic().apic_base()) & (kApicBaseEnabled | kApicBaseX2apic)) != 0;
    CheckOnlyRaised(before, /*may_clear=*/changed_mode);
  }

  void WriteMmio(const View& before) {
    const uint32_t offset = input_.Byte() << 4;
    const uint8_t form = input_.Byte();
    const uint64_t value = input_.Number();
    std::array<uint8_t, 8> data;
    for (unsigned n = 0; n < 8; ++n) data[n] = static_cast<uint8_t>(value >> 8 * n);
    const bool whole = form < 0xe0;
    const uint64_t gpa = (apic().apic_base() & ~uint64_t{0xfff}) + offset + (whole ? 0 : form & 0xf);
    if (!apic().ClaimsMmio(gpa)) return;
    REQUIRE(!is_x2apic() && is_enabled());
    if (whole && offset == 0xb0) return Eoi(before);
    const size_t bytes = whole ? 4 : size_t{1} << form % 4;
    apic().WriteMmio(gpa, std::span(data).first(bytes));
    if (bytes != 4 || gpa % 16 != 0) REQUIRE(Look() == before);
    CheckOnlyRaised(before, /*may_clear=*/false);
  }

  void ReadMmio(const View& before) {
    std::array<uint8_t, 8> data;
    const uint32_t offset = input_.Byte() << 4 | (input_.Byte() & 0xf);
    const uint64_t gpa = (apic().apic_base() & ~uint64_t{0xfff}) + offset;
    const size_t bytes = size_t{1} << input_.Byte() % 4;
    if (!apic().ClaimsMmio(gpa)) return;
    apic().ReadMmio(gpa, std::span(data).first(bytes));
    for (size_t n = 0; n < bytes; ++n) REQUIRE(offset % 16 + n < 4 || data[n] == 0);
    CheckOnlyRaised(before, /*may_clear=*/false);  // the error interrupt, or the timer's
  }

  void CheckOnlyRaised(const View& before, bool may_clear) {
    const View after = Look();
    if (may_clear && !(after.isr == before.isr && Contains(after.irr, before.irr))) {
      REQUIRE(after.isr == decltype(after.isr){} && after.irr == decltype(after.irr){});
      return;
    }
    REQUIRE(after.isr == before.isr || !is_enabled());
    REQUIRE(Contains(after.irr, before.irr) || !is_enabled());
  }

  void Post(const View& before) {
    const auto mode = static_cast<ApicDeliveryMode>(input_.Byte() % 8);
    const uint8_t vector = input_.Byte();
    const bool level = (input_.Byte() & 1) != 0;
    const int kicks = host_.kick.kicks;
    const bool software_enabled = is_enabled() && (Register(ApicRegister::kSvr) & kSvrEnabled) != 0;
    apic().Post(mode, vector, level);
    View expected = before;
    unsigned priority = 0;  // 0: nothing was received
    switch (mode) {
      case ApicDeliveryMode::kFixed:
      case ApicDeliveryMode::kLowestPriority:
        if (!software_enabled) break;
        if (vector < kApicFirstVector) return CheckIllegal(before, kicks);
        priority = vector / 16;
        expected.irr = With(before.irr, vector);
        expected.tmr = level ? With(before.tmr, vector) : Without(before.tmr, vector);
        break;
      case ApicDeliveryMode::kRemoteRead:
        break;
      default:
        if (!is_enabled()) break;
        priority = 16;
        events_ |= 1u << static_cast<unsigned>(mode);
        if (mode == ApicDeliveryMode::kInit) {
          startup_.reset();
          events_ &= ~(1u << static_cast<unsigned>(ApicDeliveryMode::kStartup));
        }
        if (mode == ApicDeliveryMode::kStartup && !startup_) startup_ = vector;
        break;
    }
    REQUIRE(Look() == expected);
    const bool kick = priority != 0 && armed_ && priority > *armed_;
    REQUIRE(host_.kick.kicks == kicks + (kick ? 1 : 0));
    if (kick) armed_.reset();
  }

  // Told of at most once until ESR is written; ESR shows it in any case.
  void CheckIllegal(const View& before, int kicks) {
    REQUIRE(host_.kick.kicks - kicks <= (armed_ ? 1 : 0));
    REQUIRE(Look() == before);
    apic().Disarm();
    armed_.reset();
    apic().RunPending();
    CheckOnlyRaised(before, /*may_clear=*/false);
    if (input_.Byte() % 2 == 0) return;
    const uint32_t esr = LatchErrors();
    REQUIRE((esr & kEsrReceiveIllegalVector) != 0);
    REQUIRE((esr & ~(kEsrSendIllegalVector | kEsrReceiveIllegalVector | kEsrIllegalRegister)) == 0);
    REQUIRE(LatchErrors() == 0);
  }
  uint32_t LatchErrors() {
    if (is_x2apic()) {
      REQUIRE(host_.WriteX2(ApicRegister::kEsr, 0));
    } else {
      host_.Write(ApicRegister::kEsr, 0);
    }
    return Register(ApicRegister::kEsr);
  }

  void Take(const View& before) {
    const std::optional<uint8_t> vector = host_.TakeInterrupt();
    const View after = Look();
    if (!vector) {
      REQUIRE(after == before);
      return;
    }
    REQUIRE(Highest(before.irr) == *vector);
    REQUIRE(after.irr == Without(before.irr, *vector));
    REQUIRE(after.isr == (auto_eoi_.Has(*vector) ? before.isr : With(before.isr, *vector)));
  }

  void Eoi(const View& before) {
    host_.bus.eois.clear();
    observer_.vectors.clear();
    const bool refused = !apic().WriteMsr(kHvMsrEoi, 0);
    REQUIRE(refused == !is_enabled());
    if (refused) return;
    const View after = Look();
    const std::optional<uint8_t> ended = Highest(before.isr);
    if (!ended) {
      REQUIRE(after == before && host_.bus.eois.empty() && observer_.vectors.empty());
      return;
    }
    REQUIRE(after.irr == before.irr && after.isr == Without(before.isr, *ended));
    const bool broadcast = Has(before.tmr, *ended) && (Register(ApicRegister::kSvr) & kSvrSuppressEoi) == 0;
    REQUIRE(host_.bus.eois.size() == (broadcast ? 1 : 0) && (!broadcast || host_.bus.eois[0] == *ended));
    REQUIRE(observer_.vectors.size() == (watched_.Has(*ended) ? 1 : 0));
  }

  void Pass(uint64_t ticks) {
    host_.clock.ticks += ticks;
    host_.clock.tsc += 2 * ticks;
    if (!IsDue()) return;
    host_.deadline.Cancel();  // it has passed
    apic().OnDeadline();
    REQUIRE(!IsDue());
  }
  bool IsDue() {
    return (host_.deadline.ticks && *host_.deadline.ticks <= host_.clock.ticks) ||
           (host_.deadline.tsc && *host_.deadline.tsc <= host_.clock.tsc);
  }

  void Arm() {
    const bool window = (input_.Byte() & 1) != 0;
    const uint8_t threshold = window ? InterruptInbox::kOnlyEvents : apic().priority_class();
    const bool armed = window ? apic().ArmForWindow() : apic().Arm();
    // What RunPending is for has been run at once.
    REQUIRE(armed == (events_ == 0 && (window || !apic().HasDeliverable())));
    if (armed) armed_ = threshold;
  }

  void TakeEvents(const View& before) {
    apic().RunPending();
    CheckOnlyRaised(before, /*may_clear=*/false);
    const auto expects = [&](ApicDeliveryMode mode) {
      const uint32_t bit = 1u << static_cast<unsigned>(mode);
      const bool expected = (events_ & bit) != 0;
      events_ &= ~bit;
      return expected;
    };
    if ((input_.Byte() & 1) != 0) {
      const bool expected = expects(ApicDeliveryMode::kInit);
      REQUIRE(apic().TakeInit() == expected);
      if (expected) {
        events_ &= 1u << static_cast<unsigned>(ApicDeliveryMode::kStartup);
        REQUIRE(Look().irr == View().irr && Look().isr == View().isr && apic().apic_base() == before.base);
      }
    }
    REQUIRE(apic().TakeNmi() == expects(ApicDeliveryMode::kNmi));
    REQUIRE(apic().TakeSmi() == expects(ApicDeliveryMode::kSmi));
    REQUIRE(apic().TakeExtInt() == expects(ApicDeliveryMode::kExtInt));
    if (expects(ApicDeliveryMode::kStartup)) {
      REQUIRE(apic().TakeStartup() == startup_);
      startup_.reset();
    } else {
      REQUIRE(apic().TakeStartup() == std::nullopt);
    }
  }

  // A local interrupt, in the mode of its entry.
  void Local(const View& before) {
    const uint8_t which = input_.Byte() % 4;
    constexpr ApicRegister kEntries[] = {ApicRegister::kLvtThermal, ApicRegister::kLvtPerformance, ApicRegister::kLvtLint0,
                                         ApicRegister::kLvtLint1};
    const uint32_t lvt = is_enabled() ? Register(kEntries[which]) : kLvtMasked;
    if (which == 0) apic().RaiseThermal();
    if (which == 1) apic().RaisePerformance();
    if (which >= 2) apic().PostLint(which - 2);
    apic().RunPending();
    CheckOnlyRaised(before, /*may_clear=*/false);
    if ((lvt & kLvtMasked) != 0) return;
    const uint32_t mode = (lvt & kLvtModeMask) >> kLvtModeShift;
    const bool of_pins = mode == static_cast<uint32_t>(ApicDeliveryMode::kInit) ||
                         mode == static_cast<uint32_t>(ApicDeliveryMode::kExtInt);
    const bool of_all =
        mode == static_cast<uint32_t>(ApicDeliveryMode::kNmi) || mode == static_cast<uint32_t>(ApicDeliveryMode::kSmi);
    if (of_all || (of_pins && which >= 2)) events_ |= 1u << mode;
    if (mode == static_cast<uint32_t>(ApicDeliveryMode::kInit) && which >= 2) {
      startup_.reset();
      events_ &= ~(1u << static_cast<unsigned>(ApicDeliveryMode::kStartup));
    }
    const auto vector = static_cast<uint8_t>(lvt & kLvtVectorMask);
    if (mode == 0 && vector >= kApicFirstVector && (lvt & kLvtRemoteIrr) == 0) REQUIRE(Has(Look().irr, vector));
  }

  void SetVectors() {
    VectorSet& vectors = (input_.Byte() & 1) != 0 ? auto_eoi_ : watched_;
    vectors = {};
    for (unsigned n = input_.Byte() % 8; n > 0; --n) vectors.Set(input_.Byte());
    apic().SetAutoEoi(auto_eoi_);
    apic().SetWatchedEois(watched_);
    apic().SetEoiObserver(&observer_);
  }

  void Check() {
    const View view = Look();
    REQUIRE(view == Look());  // looking changes nothing
    if (!is_enabled()) {
      REQUIRE(!apic().HasDeliverable() && !apic().NextInterrupt() && !host_.deadline.is_set());
      REQUIRE(!apic().Matches({.is_broadcast = true}) && !apic().receives_fixed());
      return;
    }
    REQUIRE((view.irr[0] & 0xffff) == 0 && (view.isr[0] & 0xffff) == 0);
    const uint32_t tpr = Register(ApicRegister::kTpr);
    const uint32_t in_service = Highest(view.isr).value_or(0) & 0xf0;
    const uint32_t ppr = (tpr & 0xf0) >= in_service ? tpr : in_service;
    REQUIRE(Register(ApicRegister::kPpr) == ppr && apic().priority_class() == ppr >> 4 && apic().cr8() == tpr >> 4);
    const std::optional<uint8_t> highest = Highest(view.irr);
    const bool is_deliverable = highest && *highest >> 4 > static_cast<int>(ppr >> 4);
    REQUIRE(apic().NextInterrupt() == (is_deliverable ? highest : std::nullopt));
    REQUIRE(apic().HasDeliverable() == is_deliverable);
    REQUIRE(apic().HasEvent() == (events_ != 0));
    REQUIRE(apic().receives_fixed() == ((Register(ApicRegister::kSvr) & kSvrEnabled) != 0));
    if (!apic().receives_fixed()) {
      for (unsigned n = 0; n < kApicLvtCount; ++n) REQUIRE((Register(static_cast<uint8_t>(0x32 + n)) & kLvtMasked) != 0);
    }
    const uint32_t lvt = Register(ApicRegister::kLvtTimer);
    if (host_.deadline.is_set()) REQUIRE((lvt & kLvtMasked) == 0);
    if (host_.deadline.tsc) REQUIRE((lvt >> kLvtTimerModeShift & 3) == 2);
    if (host_.deadline.ticks) REQUIRE((lvt >> kLvtTimerModeShift & 3) < 2 && Register(ApicRegister::kInitialCount) != 0);
  }

  Input input_;
  FakeApicHost host_;
  FakeEoiObserver observer_;
  VectorSet auto_eoi_;
  VectorSet watched_;
  uint32_t events_ = 0;  // pending, a bit a delivery mode
  std::optional<uint8_t> startup_;
  std::optional<unsigned> armed_;
  size_t steps_ = 0;
};

}  // namespace
}  // namespace vmm

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  vmm::Run(std::span(data, size)).All();
  return 0;
}
