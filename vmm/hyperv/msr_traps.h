// Which of a level's MSR accesses leave the guest, changed while it runs: KVM's filter is the VM's, what levels above want to hear of
// is each VP's own.
//
// Invariants
//   1. An access that some VP's higher level wants to hear of leaves the guest on every VP: who made it is looked at afterwards.
//   2. The filter has what was always trapped at any time: it is swapped whole.
//   3. Set is over when the VP it is for exits by the new filter: it is made on that VP's thread, which is outside the guest.
//
// Shapes   KVM's ranges: neighbouring MSRs are one, and of a range all reads or none leave, so more may leave than was asked for.
// Threads  Set: any, the VP's thread for invariant 3; guarded.
// Trust    `events` are bits of CrInterceptControl that the caller has checked.
// Errors   Set: false, KVM refused and nothing has changed.
// Source   Linux, "The Definitive KVM API Documentation", KVM_X86_SET_MSR_FILTER.
#ifndef VMM_VMM_HYPERV_MSR_TRAPS_H_
#define VMM_VMM_HYPERV_MSR_TRAPS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "base/mutex.h"
#include "devices/hyperv/hv_types.h"
#include "kvm/vm.h"

namespace vmm {

class MsrTraps final {
 public:
  // At the most, beside `always`.
  static constexpr size_t kMostRanges = 6;
  static constexpr size_t kKvmRanges = 16;

  // `replace` swaps the VM's filter. `always` is in it now, kKvmRanges - kMostRanges of them at most, none of them an
  // intercepted MSR's.
  MsrTraps(uint32_t vp_count, std::span<const kvm::MsrRange> always, std::function<bool(std::span<const kvm::MsrRange>)> replace);
  MsrTraps(const MsrTraps&) = delete;
  MsrTraps& operator=(const MsrTraps&) = delete;

  [[nodiscard]] bool Set(VpIndex vp, uint64_t events) noexcept;

 private:
  [[nodiscard]] uint64_t AllLocked() const noexcept ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::vector<kvm::MsrRange> always_;
  const std::function<bool(std::span<const kvm::MsrRange>)> replace_;
  Mutex mutex_;
  std::vector<uint64_t> events_ ABSL_GUARDED_BY(mutex_);  // by VP
};

}  // namespace vmm

#endif  // VMM_VMM_HYPERV_MSR_TRAPS_H_
