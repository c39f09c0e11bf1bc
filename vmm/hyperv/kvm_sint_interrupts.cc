#include "vmm/hyperv/kvm_sint_interrupts.h"

#include <utility>

#include "base/status_macros.h"
#include "devices/hyperv/hv_msr_layout.h"

namespace vmm {

KvmSintInterrupts::~KvmSintInterrupts() {
  for (Line& line : lines_) {
    if (!line.connected.load(std::memory_order_relaxed)) continue;
    watch_.Remove(line.eoi->fd());
    (void)vm_.RemoveIrqFd(line.raise->fd(), line.gsi);
  }
}

void KvmSintInterrupts::Configure(Sint sint, uint64_t value) noexcept {
  Line& line = lines_[sint.raw()];
  const bool interrupts = (value & (kHvSintMasked | kHvSintPolling)) == 0;
  // KVM knows no polling: to it, such a SINT is masked.
  if (!vcpu_.SetMsr(kHvMsrSint0 + sint.raw(), (value & kHvSintPolling) != 0 ? value | kHvSintMasked : value)) {
    failures_.fetch_add(1, std::memory_order_relaxed);
  }
  if (interrupts && !line.connected.load(std::memory_order_relaxed) && !Connect(sint).ok()) {
    failures_.fetch_add(1, std::memory_order_relaxed);
  }
}

absl::Status KvmSintInterrupts::Connect(Sint sint) {
  Line& line = lines_[sint.raw()];
  ASSIGN_OR_RETURN(EventFd raise, EventFd::Create());
  ASSIGN_OR_RETURN(EventFd eoi, EventFd::Create());
  if (!first_gsi_) {
    ASSIGN_OR_RETURN(first_gsi_, vm_.routing().AddHvSints(vcpu_.index()));
  }
  line.gsi = *first_gsi_ + sint.raw();
  RETURN_IF_ERROR(vm_.AddIrqFd(raise.fd(), line.gsi, eoi.fd()));
  RETURN_IF_ERROR(watch_.Add(eoi.fd(), VpIndex(vcpu_.index()), sint));
  line.raise = std::make_unique<EventFd>(std::move(raise));
  line.eoi = std::make_unique<EventFd>(std::move(eoi));
  line.connected.store(true, std::memory_order_release);
  return absl::OkStatus();
}

void KvmSintInterrupts::Raise(Sint sint) noexcept {
  Line& line = lines_[sint.raw()];
  if (!line.connected.load(std::memory_order_acquire)) return;
  line.raise->Signal();
  raised_();
}

void KvmSintInterrupts::WatchEoi(Sint sint, bool watched) noexcept {
  Line& line = lines_[sint.raw()];
  if (!line.connected.load(std::memory_order_relaxed)) return;
  if (watched) line.eoi->Drain();
  watch_.Arm(line.eoi->fd(), VpIndex(vcpu_.index()), sint, watched);
}

}  // namespace vmm
