// A SynIC with everything around it, and a guest's hands on it. Testonly: use it wherever the whole SynIC of a VP is part of
// what is tested. FakeSintInterrupts alone: wherever something configures or raises sources.
#ifndef VMM_DEVICES_HYPERV_SYNIC_SYNIC_FOR_TEST_H_
#define VMM_DEVICES_HYPERV_SYNIC_SYNIC_FOR_TEST_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "devices/guest_interface.h"
#include "devices/hyperv/fake_overlay_space.h"
#include "devices/hyperv/fake_reference_clock.h"
#include "devices/hyperv/hv_host.h"
#include "devices/hyperv/hv_msr_layout.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/synic/fake_guest_driver.h"
#include "devices/hyperv/synic/hv_message_layout.h"
#include "devices/hyperv/synic/synic.h"

namespace vmm {

// Counts edges as a local APIC would get them. The hooks run in the call.
class FakeSintInterrupts final : public SintInterrupts {
 public:
  void Configure(Sint sint, uint64_t value) noexcept override { values[sint.raw()] = value; }
  void Raise(Sint sint) noexcept override {
    if ((values[sint.raw()] & (kHvSintMasked | kHvSintPolling)) != 0) return;
    ++edges[sint.raw()];
    if (on_edge) on_edge(sint);
  }
  void WatchEoi(Sint sint, bool watch) noexcept override {
    watched[sint.raw()] = watch;
    if (on_watch) on_watch(sint, watch);
  }

  std::array<std::atomic<uint64_t>, Sint::kCount> values{};
  std::array<std::atomic<int>, Sint::kCount> edges{};
  std::array<bool, Sint::kCount> watched{};
  std::function<void(Sint)> on_edge;
  std::function<void(Sint, bool)> on_watch;
};

class FakeVpKick final : public VpKick {
 public:
  void Kick() noexcept override {
    ++kicks;
    if (on_kick) on_kick();
  }
  std::atomic<int> kicks{0};
  std::function<void()> on_kick;
};

class SynicForTest final {
 public:
  static constexpr uint32_t kVps = 3;
  static constexpr uint64_t kMessagePage = 5;  // Gpfn
  static constexpr uint64_t kEventPage = 6;
  static constexpr uint64_t kEnable = kHvOverlayEnable;

  SynicForTest() : SynicForTest(nullptr) {}
  // With a clock of the test's own.
  explicit SynicForTest(ReferenceClock* other)
      : synic_(Synic::Create(kVps, overlays, interrupts, other != nullptr ? *other : clock, kick).value()) {}

  Synic& operator*() { return *synic_; }
  Synic* operator->() { return synic_.get(); }

  // SIMP, SIEFP and one unmasked source.
  void Enable(Sint sint, uint64_t value = 0x50) {
    Write(kHvMsrSimp, kMessagePage << kHvOverlayPageShift | kEnable);
    Write(kHvMsrSiefp, kEventPage << kHvOverlayPageShift | kEnable);
    WriteSint(sint, value);
  }
  bool Write(uint32_t msr, uint64_t value) { return synic_->WriteMsr(msr, value); }
  bool WriteSint(Sint sint, uint64_t value) { return Write(kHvMsrSint0 + sint.raw(), value); }
  std::optional<uint64_t> Read(uint32_t msr) {
    uint64_t value = 0xbad;
    return synic_->ReadMsr(msr, value) ? std::optional(value) : std::nullopt;
  }
  FakeOverlayPage& message_page() { return overlays.page(0); }
  FakeOverlayPage& event_page() { return overlays.page(1); }
  // The guest's driver of a source's slot.
  FakeGuestDriver& guest(Sint sint) {
    static_assert(sizeof(FakeGuestDriver) == kHvMessageBytes);
    return *reinterpret_cast<FakeGuestDriver*>(message_page().data() + sint.raw() * kHvMessageBytes);
  }
  uint8_t& event_byte(Sint sint, uint32_t flag) {
    return *reinterpret_cast<uint8_t*>(event_page().data() + sint.raw() * kHvMessageBytes + flag / 8);
  }

  FakeOverlaySpace overlays;
  FakeSintInterrupts interrupts;
  FakeReferenceClock clock;
  FakeVpKick kick;

 private:
  std::unique_ptr<Synic> synic_;
};

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_SYNIC_SYNIC_FOR_TEST_H_
