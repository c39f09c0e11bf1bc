// Partition reference time: KVM's own clock, in ticks of 100 ns, so that its synthetic timers and ours, the MSR and the page
// agree.
//
// Units    HvTicks; TSC values are the guest's.
// Threads  immutable after Create; Now: any thread, no lock, no system call.
// Trust    none: what the guest does to its own TSC changes what it computes from the page, not this.
// Errors   Create: KVM's.
//
// KVM's clock runs on the host's TSC where that is stable; then the page's formula is used for all, taken from one reading of
// the clock. It is one tick ahead, so that a timer of KVM's that has expired has expired by the page too. Where the host's
// TSC is not stable, CLOCK_MONOTONIC_RAW, which KVM's clock then follows, is read, and there is no page.
#ifndef VMM_VMM_HYPERV_KVM_REFERENCE_CLOCK_H_
#define VMM_VMM_HYPERV_KVM_REFERENCE_CLOCK_H_

#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "devices/hyperv/hv_host.h"
#include "kvm/vcpu.h"
#include "kvm/vm.h"

namespace vmm {

class KvmReferenceClock final : public ReferenceClock {
 public:
  // `vcpu`: one of the partition's; all have the same TSC offset.
  static absl::StatusOr<std::unique_ptr<KvmReferenceClock>> Create(const kvm::Vm& vm, const kvm::Vcpu& vcpu);

  [[nodiscard]] HvTicks Now() noexcept override;
  [[nodiscard]] std::optional<ReferenceTscParameters> tsc_parameters() const noexcept override { return parameters_; }

 private:
  KvmReferenceClock() = default;

  std::optional<ReferenceTscParameters> parameters_;
  uint64_t tsc_offset_ = 0;      // guest TSC = host TSC + this
  uint64_t raw_offset_ns_ = 0;   // without parameters: partition time = CLOCK_MONOTONIC_RAW + this
};

}  // namespace vmm

#endif  // VMM_VMM_HYPERV_KVM_REFERENCE_CLOCK_H_
