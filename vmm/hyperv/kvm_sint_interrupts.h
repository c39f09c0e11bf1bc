// The SINTs of one virtual processor over KVM's synthetic interrupt controller, which knows their vectors and auto-EOI: an
// eventfd raises one, a resample eventfd tells of its end of interrupt.
//
// Shapes   descriptors and routes of a SINT are made when the guest first gives it a vector.
// Threads  Configure, WatchEoi: the VP's thread. Raise: any.
// Trust    the SINT's value is the guest's; KVM takes any from us.
// Errors   where no route or descriptor is to be had (a bounded number) the SINT raises nothing: counted in failures().
#ifndef VMM_VMM_HYPERV_KVM_SINT_INTERRUPTS_H_
#define VMM_VMM_HYPERV_KVM_SINT_INTERRUPTS_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/event_fd.h"
#include "devices/hyperv/hv_host.h"
#include "kvm/vcpu.h"
#include "kvm/vm.h"
#include "vmm/hyperv/eoi_watch.h"

namespace vmm {

class KvmSintInterrupts final : public SintInterrupts {
 public:
  // All arguments outlive this. `vcpu` has its SynIC. `raised`: any thread, after an interrupt was raised.
  KvmSintInterrupts(kvm::Vm& vm, kvm::Vcpu& vcpu, EoiWatch& watch, std::function<void()> raised)
      : vm_(vm), vcpu_(vcpu), watch_(watch), raised_(std::move(raised)) {}
  ~KvmSintInterrupts() override;

  void Configure(Sint sint, uint64_t value) noexcept override;
  void Raise(Sint sint) noexcept override;
  void WatchEoi(Sint sint, bool watched) noexcept override;

  [[nodiscard]] uint64_t failures() const noexcept { return failures_.load(std::memory_order_relaxed); }

 private:
  struct Line {
    std::unique_ptr<EventFd> raise;
    std::unique_ptr<EventFd> eoi;
    uint32_t gsi = 0;
    // release by the VP's thread when the line is connected; acquire by who raises.
    std::atomic<bool> connected{false};
  };
  absl::Status Connect(Sint sint);

  kvm::Vm& vm_;
  kvm::Vcpu& vcpu_;
  EoiWatch& watch_;
  const std::function<void()> raised_;
  std::array<Line, Sint::kCount> lines_;
  std::optional<uint32_t> first_gsi_;  // the VP's thread's: a change of routes is slow, so all are made by the first
  std::atomic<uint64_t> failures_{0};
};

}  // namespace vmm

#endif  // VMM_VMM_HYPERV_KVM_SINT_INTERRUPTS_H_
