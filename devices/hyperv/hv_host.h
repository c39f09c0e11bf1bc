// What the Hyper-V interface asks of the machine around it. Implemented by vmm/hyperv over KVM, by fakes in tests, and for VTL1
// over the user-space local APIC.
//
// Threads  said at each function.
// Errors   none unless said: what the host cannot do was refused when the machine was made.
#ifndef VMM_DEVICES_HYPERV_HV_HOST_H_
#define VMM_DEVICES_HYPERV_HV_HOST_H_

#include <cstdint>
#include <optional>

#include "absl/functional/function_ref.h"
#include "devices/hyperv/hv_types.h"

namespace vmm {

// The interrupts of one VP's synthetic interrupt sources at one VTL.
class SintInterrupts {
 public:
  virtual ~SintInterrupts() = default;
  // The VP's thread. `value` is what the guest wrote to SINTx: from its return on Raise means this vector, and auto-EOI is as it says.
  virtual void Configure(Sint sint, uint64_t value) noexcept = 0;
  // Any thread: one edge of the vector, nothing if masked or polling.
  virtual void Raise(Sint sint) noexcept = 0;
  // The VP's thread. While watched, an EOI of the source's vector leads to Synic::OnEoi on the VP's thread; edges from before
  // the call are forgotten. Asked for only while a message waits for a busy slot.
  virtual void WatchEoi(Sint sint, bool watched) noexcept = 0;
};

// The local APIC of one VP at one VTL, for interrupts without a SINT (direct-mode timers).
class VectorInterrupts {
 public:
  virtual ~VectorInterrupts() = default;
  // Any thread: fixed delivery, edge. Vectors below 16 are dropped.
  virtual void RaiseVector(uint8_t vector) noexcept = 0;
};

// The one clock of a partition: TIME_REF_COUNT, the reference TSC page, timers and message times all read it.
struct ReferenceTscParameters {
  uint64_t scale;   // ticks = ((tsc * scale) >> 64) + offset
  uint64_t offset;
};
class ReferenceClock {
 public:
  virtual ~ReferenceClock() = default;
  // Any thread. Strictly monotonic is the caller's business; this never goes back.
  [[nodiscard]] virtual HvTicks Now() noexcept = 0;
  // None where the guest's TSC does not run at one rate on all processors: the page says "invalid" then.
  [[nodiscard]] virtual std::optional<ReferenceTscParameters> tsc_parameters() const noexcept = 0;
};

// One deadline. When it passes, the VP is kicked and its timers are asked (SyntheticTimers::RunExpired).
class DeadlineTimer {
 public:
  virtual ~DeadlineTimer() = default;
  // The VP's thread. Replaces the one before; one in the past fires at once. Never early.
  virtual void Set(HvTicks deadline) noexcept = 0;
  virtual void Cancel() noexcept = 0;
};

// What hypercalls ask about other VPs. All on the calling VP's thread.
class PartitionHost {
 public:
  virtual ~PartitionHost() = default;
  [[nodiscard]] virtual uint32_t vp_count() const noexcept = 0;
  // Fixed, edge, to the VP's local APIC; visible before the call returns. `vp` < vp_count.
  virtual void SendInterrupt(VpIndex vp, uint8_t vector) noexcept = 0;
  // After its return no VP uses a translation of this VTL that was cached before the call. More may be flushed than asked.
  virtual void FlushTlb() noexcept = 0;
  // Runs `work` on the thread of `vp`, outside the guest, and returns when it has; serves this VP's own such requests
  // meanwhile, so that two VPs may ask each other. False: the machine is ending, `work` has not run and will not.
  [[nodiscard]] virtual bool RunOn(VpIndex vp, absl::FunctionRef<void()> work) noexcept = 0;
};

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_HV_HOST_H_
