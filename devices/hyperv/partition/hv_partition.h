// What all virtual processors of a partition share at one trust level: guest OS id, hypercall page, reference TSC page; and what
// they share at all levels: reference time, crash registers, reset.
//
// Shapes   one object a partition and VTL; the partition-wide registers are the same ones in each (SharedRegisters).
// Units    times in HvTicks, frequencies in Hz.
// Threads  all: any VP's thread.
// Trust    numbers and values are the guest's. A page number outside RAM is #GP for the hypercall page, and a page that nobody
//          sees for the reference TSC page; one that this level may not read is #GP for both.
// Errors   false is #GP(0).
// Source   Hyper-V TLFS, "Hypercall Interface", "Partition Reference Time", "Guest Crash Enlightenment".
//
// Where sources differ: reserved bits are kept as written; an HYPERCALL write with a guest OS id of 0 is accepted and stays
// disabled; a guest OS id of 0 takes the page away, unless it is locked.
#ifndef VMM_DEVICES_HYPERV_PARTITION_HV_PARTITION_H_
#define VMM_DEVICES_HYPERV_PARTITION_HV_PARTITION_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "devices/hyperv/hv_cpuid_layout.h"
#include "devices/hyperv/hv_host.h"
#include "devices/hyperv/overlay_page.h"
#include "devices/machine_control.h"
#include "memory/level_memory.h"

namespace vmm {

// What is the same at every trust level.
class HvSharedRegisters final {
 public:
  struct Environment {  // outlives this
    ReferenceClock& clock;
    MachineControl& control;
    const LevelMemory& memory;  // VTL0's: the crash message is read from it
  };
  struct Frequencies {
    uint64_t tsc_hz;
    uint64_t apic_hz;
  };
  HvSharedRegisters(Environment environment, Frequencies frequencies) : environment_(environment), frequencies_(frequencies) {}

  [[nodiscard]] bool Read(uint32_t msr, uint64_t& value) const noexcept;
  [[nodiscard]] bool Write(uint32_t msr, uint64_t value) noexcept;
  [[nodiscard]] ReferenceClock& clock() const noexcept { return environment_.clock; }

 private:
  static constexpr size_t kCrashParameters = 5;
  void ReportCrash(uint64_t control) noexcept;

  const Environment environment_;
  const Frequencies frequencies_;
  // Scratch of the guest's: relaxed, no order between them is promised.
  std::array<std::atomic<uint64_t>, kCrashParameters> crash_{};
};

class HvPartition final {
 public:
  // `shared` and `overlays` outlive it. `apic_hz`: of this level's local APICs, where it differs from what is shared.
  static absl::StatusOr<std::unique_ptr<HvPartition>> Create(const HvOffer& offer, HvSharedRegisters& shared,
                                                             OverlaySpace& overlays,
                                                             std::optional<uint64_t> apic_hz = std::nullopt);

  // Registers of the partition; others are false.
  [[nodiscard]] bool Read(uint32_t msr, uint64_t& value) const noexcept;
  [[nodiscard]] bool Write(uint32_t msr, uint64_t value) noexcept;

  // acquire: pairs with the release of the HYPERCALL write, so that who made it may call from any VP.
  [[nodiscard]] bool is_hypercall_page_enabled() const noexcept { return hypercall_enabled_.load(std::memory_order_acquire); }
  // Where it is: its guest page number; meaningful while enabled.
  [[nodiscard]] Gpfn hypercall_page() const noexcept { return Gpfn(hypercall_page_.load(std::memory_order_relaxed)); }
  // A page that the guest may only read is or was in place. Never false again: a write that has faulted is looked at after the
  // page may have gone, and a guest that races with itself so must not look like a host whose memory fails.
  [[nodiscard]] bool had_read_only_page() const noexcept { return had_read_only_page_.load(std::memory_order_acquire); }

 private:
  HvPartition(const HvOffer& offer, HvSharedRegisters& shared, std::unique_ptr<OverlayPage> hypercall,
              std::unique_ptr<OverlayPage> reference_tsc, std::optional<uint64_t> apic_hz);
  [[nodiscard]] bool WriteHypercallLocked(uint64_t value) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] bool WriteReferenceTscLocked(uint64_t value) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RemoveHypercallPageLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const HvOffer offer_;
  HvSharedRegisters& shared_;
  const std::optional<uint64_t> apic_hz_;
  mutable Mutex mutex_;
  const std::unique_ptr<OverlayPage> hypercall_overlay_ ABSL_PT_GUARDED_BY(mutex_);
  const std::unique_ptr<OverlayPage> reference_tsc_overlay_ ABSL_PT_GUARDED_BY(mutex_);
  uint64_t guest_os_id_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t hypercall_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t reference_tsc_ ABSL_GUARDED_BY(mutex_) = 0;
  std::atomic<bool> hypercall_enabled_{false};
  std::atomic<uint64_t> hypercall_page_{0};
  std::atomic<bool> had_read_only_page_{false};  // release before the page is placed
};

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_PARTITION_HV_PARTITION_H_
