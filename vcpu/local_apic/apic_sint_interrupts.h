// The SINTs and direct timers of one virtual processor at one trust level, over its user-space local APIC.
//
// A vector is auto-EOI if any unmasked source that has it says so, as with KVM's. Sources share vectors: an EOI is told to the
// first watched source of the vector, which stands for all (Synic::OnEoi).
//
// Threads  Raise, RaiseVector: any. The rest: the VP's thread.
// Trust    the value is the guest's: any vector.
// Errors   none.
// Source   Hyper-V TLFS, "Synthetic Interrupt Sources".
#ifndef VMM_VCPU_LOCAL_APIC_APIC_SINT_INTERRUPTS_H_
#define VMM_VCPU_LOCAL_APIC_APIC_SINT_INTERRUPTS_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>

#include "devices/hyperv/hv_host.h"
#include "devices/hyperv/hv_types.h"
#include "vcpu/local_apic/local_apic.h"
#include "vcpu/local_apic/vector_set.h"

namespace vmm {

// Synic::OnEoi.
class SintEoiSink {
 public:
  virtual ~SintEoiSink() = default;
  virtual void OnEoi(Sint sint) noexcept = 0;
};

class ApicSintInterrupts final : public SintInterrupts, public VectorInterrupts, private EoiObserver {
 public:
  // `apic` outlives this. Observes its EOIs until the end.
  explicit ApicSintInterrupts(LocalApic& apic) noexcept;
  ~ApicSintInterrupts() override;
  ApicSintInterrupts(const ApicSintInterrupts&) = delete;
  ApicSintInterrupts& operator=(const ApicSintInterrupts&) = delete;

  // Before the VP runs, once; outlives the last EOI.
  void SetSink(SintEoiSink& sink) noexcept { sink_ = &sink; }

  void Configure(Sint sint, uint64_t value) noexcept override;
  void Raise(Sint sint) noexcept override;
  void WatchEoi(Sint sint, bool watched) noexcept override;
  void RaiseVector(uint8_t vector) noexcept override;
  // A vector that is auto-EOI whatever the sources say: that of VINA.
  void SetAutoEoi(std::optional<uint8_t> vector) noexcept;

 private:
  void OnEoi(uint8_t vector) noexcept override;
  void UpdateVectors() noexcept;

  LocalApic& apic_;
  SintEoiSink* sink_ = nullptr;
  // release by the VP's thread, acquire by who raises: after Configure, this vector. Masked at first.
  std::array<std::atomic<uint64_t>, Sint::kCount> values_;
  uint32_t watched_ = 0;  // a bit a source
  std::optional<uint8_t> auto_eoi_;
};

}  // namespace vmm

#endif  // VMM_VCPU_LOCAL_APIC_APIC_SINT_INTERRUPTS_H_
