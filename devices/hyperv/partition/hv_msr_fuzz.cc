// Any sequence of register accesses on three VPs, with guest memory, time and hypercalls in between: nothing crashes, reads are
// stable, what one VP writes to its own registers another does not see, overlay pages are where the registers say, and only what may
// end the machine asks for its end.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <span>

#include "devices/guest_interface.h"
#include "devices/hyperv/hv_cpuid_layout.h"
#include "devices/hyperv/hv_host.h"
#include "devices/hyperv/hv_msr_layout.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/partition/hv_vps_for_test.h"
#include "memory/gpa.h"

namespace vmm {
namespace {

constexpr size_t kMaxSteps = 1000;

#define REQUIRE(condition)                                                             \
  do {                                                                                 \
    if (!(condition)) {                                                                \
      std::fprintf(stderr, "line %d, step %zu: %s\n", __LINE__, steps, #condition);    \
      std::abort();                                                                    \
    }                                                                                  \
  } while (false)

class Input final {
 public:
  explicit Input(std::span<const uint8_t> bytes) : bytes_(bytes) {}
  [[nodiscard]] bool is_empty() const { return at_ >= bytes_.size(); }
  uint8_t Byte() { return is_empty() ? 0 : bytes_[at_++]; }
  uint64_t Number(unsigned bytes) {
    uint64_t number = 0;
    for (unsigned n = 0; n < bytes; ++n) number = number << 8 | Byte();
    return number;
  }
  // Mostly a register that exists, or is next to one.
  uint32_t Msr() {
    const uint8_t form = Byte();
    return form < 0xf8 ? kHvMsrFirst + (uint32_t{form} | (form % 3 == 0 ? 0x100u : 0u)) : static_cast<uint32_t>(Number(4));
  }
  uint64_t Value() {
    constexpr uint64_t kInteresting[] = {0, 1, 2, 3, 0x5001, 0x6001, 0x5003, 0x10000, 0x50, 0x20050, ~uint64_t{0}, ~uint64_t{1},
                                         0x0fff'f001, 0x1000'1000, 0xc000'0000'0000'0000, 0x8000'0000'0000'0000};
    const uint8_t form = Byte();
    return form < std::size(kInteresting) ? kInteresting[form] : Number(form % 9);
  }

 private:
  std::span<const uint8_t> bytes_;
  size_t at_ = 0;
};

class NoXmm final : public XmmAccess {
 public:
  [[nodiscard]] bool Load(XmmRegisters& xmm) noexcept override {
    xmm = {};
    return true;
  }
  [[nodiscard]] bool Store(const XmmRegisters&) noexcept override { return true; }
};

bool IsClock(uint32_t msr) { return msr == kHvMsrVpRuntime || msr == kHvMsrTimeRefCount; }

void Run(Input input) {
  HvVpsForTest vps(input.Byte() % 2 == 0 ? HvVpsForTest::Timers::kOwn : HvVpsForTest::Timers::kKernel);
  size_t steps = 0;
  for (; !input.is_empty() && steps < kMaxSteps; ++steps) {
    const uint32_t vp = input.Byte() % HvVpsForTest::kVps;
    switch (input.Byte() % 8) {
      case 0: {
        const uint32_t msr = input.Msr();
        const auto once = vps.Get(vp, msr);
        const auto twice = vps.Get(vp, msr);
        REQUIRE(once.has_value() == twice.has_value());
        if (once && !IsClock(msr)) REQUIRE(*once == *twice);
        break;
      }
      case 1:
      case 2:
      case 3: {
        const uint32_t msr = input.Msr();
        const uint64_t value = input.Value();
        const uint32_t other = (vp + 1) % HvVpsForTest::kVps;
        const auto before = vps.Get(other, msr);
        const int ends = vps.control.requests;
        const bool written = vps.Set(vp, msr, value);
        const bool is_vps_own = (msr >= kHvMsrVpAssistPage && msr <= kHvMsrStimer3Count) || msr == kHvMsrVpIndex;
        if (is_vps_own) REQUIRE(vps.Get(other, msr) == before);
        if (vps.control.requests != ends) {
          REQUIRE(written);
          REQUIRE((msr == kHvMsrReset && value == 1) || (msr == kHvMsrCrashCtl && (value & kHvCrashNotify) != 0));
        }
        if (written && msr == kHvMsrVpAssistPage) {
          const Gpfn page(value >> kHvOverlayPageShift);
          const bool placed = (value & kHvOverlayEnable) != 0 && page.raw() < FakeOverlaySpace::kRamPages;
          REQUIRE(vps.assist_page(vp).place() == (placed ? std::optional(page) : std::nullopt));
          REQUIRE(vps.Get(vp, msr) == value);
        }
        break;
      }
      case 4: {
        NoXmm xmm;
        HypercallRegisters registers{.rax = 0,
                                     .rcx = input.Number(8),
                                     .rdx = input.Value(),
                                     .r8 = input.Value(),
                                     .rip = 1,
                                     .long_mode = true,
                                     .protected_mode = true,
                                     .cpl = 0};
        const bool offered = vps.partition->is_hypercall_page_enabled();
        const auto outcome = vps.vp(vp).Hypercall(registers, xmm);
        REQUIRE((outcome == HypercallOutcome::kNotOffered) == !offered);
        break;
      }
      case 5:
        vps.clock.now = vps.clock.now + HvTicks(input.Value() >> 40);
        vps.vp(vp).NotifyDeadline();
        break;
      case 6:
        if (const auto sint = Sint::From(input.Byte())) vps.vp(vp).NotifyEoi(*sint);
        break;
      case 7: vps.vp(vp).PrepareToEnter(); break;
    }
    uint64_t hypercall = 0;
    REQUIRE(vps.partition->Read(kHvMsrHypercall, hypercall));
    REQUIRE(((hypercall & kHvOverlayEnable) != 0) == vps.partition->is_hypercall_page_enabled());
    REQUIRE(vps.overlays.page(0).place().has_value() == vps.partition->is_hypercall_page_enabled());
  }
}

}  // namespace
}  // namespace vmm

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  vmm::Run(vmm::Input(std::span(data, size)));
  return 0;
}
