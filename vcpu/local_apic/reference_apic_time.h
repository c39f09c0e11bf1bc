// The APIC timer's time over the partition's reference clock and one of its deadlines.
//
// Units    ticks: 1 / kFrequency s, the number for the APIC_FREQUENCY MSR; they step by kTicksPerHvTick. The TSC is computed from
//          the reference clock, so it steps by 100 ns and is never ahead of the guest's own.
// Threads  the VP's thread.
// Trust    deadlines are the guest's: one beyond the end of reference time never comes.
// Errors   without TSC parameters (the host's TSC has no one rate) deadlines in TSC are not kept: has_tsc() is false, and the
//          APIC is not to offer that mode.
//
// A guest that writes its own TSC has deadlines by what it had before. No deadline is early: reference time is rounded up.
#ifndef VMM_VCPU_LOCAL_APIC_REFERENCE_APIC_TIME_H_
#define VMM_VCPU_LOCAL_APIC_REFERENCE_APIC_TIME_H_

#include <cstdint>
#include <optional>

#include "devices/hyperv/hv_host.h"
#include "devices/hyperv/hv_types.h"
#include "vcpu/local_apic/apic_timer.h"

namespace vmm {

class ReferenceApicTime final : public ApicClock, public ApicDeadline {
 public:
  static constexpr uint64_t kTicksPerHvTick = 20;
  static constexpr uint64_t kFrequency = HvTicks::kPerSecond * kTicksPerHvTick;
  static constexpr uint64_t kMinimumPeriodTicks = kFrequency / 10'000;  // 100 us, as for synthetic timers

  // Both outlive this. `clock`'s parameters are as they are now.
  ReferenceApicTime(ReferenceClock& clock, DeadlineTimer& deadline) noexcept
      : clock_(clock), deadline_(deadline), tsc_(clock.tsc_parameters()) {
    if (tsc_ && tsc_->scale == 0) tsc_.reset();
  }
  ReferenceApicTime(const ReferenceApicTime&) = delete;
  ReferenceApicTime& operator=(const ReferenceApicTime&) = delete;

  [[nodiscard]] bool has_tsc() const noexcept { return tsc_.has_value(); }

  [[nodiscard]] uint64_t Ticks() noexcept override { return clock_.Now().raw() * kTicksPerHvTick; }
  [[nodiscard]] uint64_t Tsc() noexcept override;
  void SetTicks(uint64_t ticks) noexcept override;
  void SetTsc(uint64_t tsc) noexcept override;
  void Cancel() noexcept override { deadline_.Cancel(); }

 private:
  ReferenceClock& clock_;
  DeadlineTimer& deadline_;
  std::optional<ReferenceTscParameters> tsc_;
};

}  // namespace vmm

#endif  // VMM_VCPU_LOCAL_APIC_REFERENCE_APIC_TIME_H_
