#include "vcpu/local_apic/apic_sint_interrupts.h"

#include "devices/hyperv/hv_msr_layout.h"
#include "vcpu/local_apic/apic_layout.h"

namespace vmm {
namespace {

constexpr uint8_t VectorOf(uint64_t value) { return static_cast<uint8_t>(value & kHvSintVectorMask); }

}  // namespace

ApicSintInterrupts::ApicSintInterrupts(LocalApic& apic) noexcept : apic_(apic) {
  for (auto& value : values_) value.store(kHvSintReset, std::memory_order_relaxed);
  apic_.SetEoiObserver(this);
  UpdateVectors();
}

ApicSintInterrupts::~ApicSintInterrupts() { apic_.SetEoiObserver(nullptr); }

void ApicSintInterrupts::Configure(Sint sint, uint64_t value) noexcept {
  values_[sint.raw()].store(value, std::memory_order_release);
  UpdateVectors();
}

void ApicSintInterrupts::Raise(Sint sint) noexcept {
  const uint64_t value = values_[sint.raw()].load(std::memory_order_acquire);
  if ((value & (kHvSintMasked | kHvSintPolling)) == 0) RaiseVector(VectorOf(value));
}

void ApicSintInterrupts::RaiseVector(uint8_t vector) noexcept {
  // Below 16 it would be an error in ESR, of a sender that the guest does not see.
  if (vector >= kHvFirstVector) apic_.Post(ApicDeliveryMode::kFixed, vector);
}

void ApicSintInterrupts::WatchEoi(Sint sint, bool watched) noexcept {
  const uint32_t bit = 1u << sint.raw();
  watched_ = watched ? watched_ | bit : watched_ & ~bit;
  UpdateVectors();
}

void ApicSintInterrupts::SetAutoEoi(std::optional<uint8_t> vector) noexcept {
  if (vector == auto_eoi_) return;
  auto_eoi_ = vector;
  UpdateVectors();
}

void ApicSintInterrupts::UpdateVectors() noexcept {
  VectorSet auto_eoi;
  if (auto_eoi_) auto_eoi.Set(*auto_eoi_);
  VectorSet watched;
  for (unsigned n = 0; n < Sint::kCount; ++n) {
    // relaxed: this thread's own store.
    const uint64_t value = values_[n].load(std::memory_order_relaxed);
    if ((value & kHvSintMasked) != 0) continue;
    if ((value & kHvSintAutoEoi) != 0) auto_eoi.Set(VectorOf(value));
    if ((watched_ >> n & 1) != 0) watched.Set(VectorOf(value));
  }
  apic_.SetAutoEoi(auto_eoi);
  apic_.SetWatchedEois(watched);
}

void ApicSintInterrupts::OnEoi(uint8_t vector) noexcept {
  if (sink_ == nullptr) return;
  for (unsigned n = 0; n < Sint::kCount; ++n) {
    const uint64_t value = values_[n].load(std::memory_order_relaxed);
    if ((watched_ >> n & 1) == 0 || (value & kHvSintMasked) != 0 || VectorOf(value) != vector) continue;
    return sink_->OnEoi(*Sint::From(n));
  }
}

}  // namespace vmm
