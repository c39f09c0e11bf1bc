// The four synthetic timers of one virtual processor at one trust level (VTL): one-shot, periodic, lazy, by message or direct.
//
// Rules, where the specification leaves room
//   - Writing CONFIG or COUNT stops the timer and starts it anew by its new values. A message that is on its way stays on its
//     way; the next one of this timer follows when that one has been written. So a timer never has two.
//   - A one-shot's Enable clears when its message has been written into the slot, or its interrupt raised. Until then a busy
//     slot, or a SynIC that is disabled, makes it wait; EOM, EOI or the enabling brings it on.
//   - A periodic timer keeps to the grid of its start: next = last due + n x period, n the least that is not past. What was
//     missed is skipped: no drift, no burst. While its message waits it does not tick, so that a guest that ignores its slot
//     costs nothing. Lazy timers are treated the same, which the specification allows.
//   - A period below kMinimumPeriod is kept as asked for, but ticks within it are skipped: at most one interrupt in that time.
//   - COUNT = 0 stops and clears Enable, whatever AutoEnable says. Enable with COUNT = 0 is kept and does nothing. An absolute
//     time or a period that leads beyond the end of the clock never comes.
//   - Reserved bits of CONFIG are kept as written and mean nothing, as in KVM, so that both ways of having timers look alike.
//   - Enable with SINTx = 0 in message mode: Enable is cleared at once. DirectMode where it is not offered: #GP.
//   - A direct vector below 16 is dropped, and counts as raised.
//
// Shapes   CONFIG and COUNT of four timers in turn, 0x400000b0 to b7.
// Units    100 ns of reference time: HvTicks.
// Threads  confined to the VP's thread, outside the guest.
// Trust    values are the guest's, any number.
// Errors   false: #GP(0). No allocation.
// Source   Hyper-V TLFS, "Timers": "Synthetic Timers".
#ifndef VMM_DEVICES_HYPERV_TIMERS_SYNTHETIC_TIMERS_H_
#define VMM_DEVICES_HYPERV_TIMERS_SYNTHETIC_TIMERS_H_

#include <array>
#include <cstdint>
#include <optional>

#include "devices/hyperv/hv_host.h"
#include "devices/hyperv/hv_msr_layout.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/synic/synic.h"

namespace vmm {

struct SyntheticTimersState {
  struct Timer {
    uint64_t config = 0;
    uint64_t count = 0;
    HvTicks due;          // periodic timers: the next
    bool running = false;
    bool queued = false;  // a message is in the Synic's state
    bool stale = false;   // and belongs to an earlier setting
  };
  std::array<Timer, kHvStimerCount> timers;
};

class SyntheticTimers final : private TimerMessageSink {
 public:
  static constexpr HvTicks kMinimumPeriod{1000};  // 100 us

  struct Stats {
    uint64_t messages;  // handed to the SynIC
    uint64_t direct;    // interrupts raised
    uint64_t waited;    // times that a timer was due while its last message was still on its way
  };

  // All outlive this; the Synic's functions of this thread are not called after its end. `offers_direct`:
  // HvFeature::kDirectTimers.
  SyntheticTimers(Synic& synic, ReferenceClock& clock, DeadlineTimer& deadline, VectorInterrupts& vectors,
                  bool offers_direct) noexcept;
  SyntheticTimers(const SyntheticTimers&) = delete;
  SyntheticTimers& operator=(const SyntheticTimers&) = delete;

  [[nodiscard]] static constexpr bool Has(uint32_t msr) noexcept {
    return msr >= kHvMsrStimer0Config && msr <= kHvMsrStimer3Count;
  }
  [[nodiscard]] bool ReadMsr(uint32_t msr, uint64_t& value) noexcept;
  [[nodiscard]] bool WriteMsr(uint32_t msr, uint64_t value) noexcept;

  // The deadline has passed, or may have.
  void RunExpired() noexcept;

  [[nodiscard]] Stats stats() const noexcept { return stats_; }
  // Before Synic::SaveState and Synic::RestoreState, under the same conditions: a message that the Synic then delivers is known.
  [[nodiscard]] SyntheticTimersState SaveState() noexcept;
  void RestoreState(const SyntheticTimersState& state) noexcept;

 private:
  using Timer = SyntheticTimersState::Timer;
  void OnTimerMessagesWritten() noexcept override;
  [[nodiscard]] bool TakeWritten(HvTicks now) noexcept;
  void Start(Timer& timer) noexcept;
  void Expire(uint32_t index, HvTicks now) noexcept;
  void Run() noexcept;
  void Arm() noexcept;

  Synic& synic_;
  ReferenceClock& clock_;
  DeadlineTimer& deadline_;
  VectorInterrupts& vectors_;
  const bool offers_direct_;
  std::array<Timer, kHvStimerCount> timers_{};
  std::optional<HvTicks> armed_;  // what the deadline is set to, as far as known
  Stats stats_{};
};

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_TIMERS_SYNTHETIC_TIMERS_H_
