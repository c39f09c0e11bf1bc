// A stopped vCPU's registers as the access decoder and intercept messages want them.
//
// Shapes   out of the run page (kvm/vcpu.h, synced_regs); debug registers, events, XCR0 and vector state by system calls.
// Threads  the VP's, outside the guest, registers settled.
// Trust    values are the guest's.
// Errors   what KVM does not tell is as after a reset.
#ifndef VMM_VMM_HYPERV_VCPU_STATE_H_
#define VMM_VMM_HYPERV_VCPU_STATE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/vsm/intercept_messages.h"
#include "kvm/uapi.h"
#include "kvm/vcpu.h"
#include "vcpu/access_decoder/access_decoder.h"

namespace vmm {

[[nodiscard]] AccessRegisters AccessRegistersOf(kvm::Vcpu& vcpu) noexcept;
[[nodiscard]] InterceptedState InterceptedStateOf(kvm::Vcpu& vcpu, VpIndex vp, Vtl vtl) noexcept;
// An event that was being delivered when the guest stopped.
[[nodiscard]] std::optional<AccessEvent> EventOf(const kvm::Vcpu& vcpu) noexcept;

// XMM, YMM and MMX registers. Not known: ZMM, mask registers, the layout of XSAVE's area.
class VcpuVectors final : public VectorState {
 public:
  explicit VcpuVectors(const kvm::Vcpu& vcpu) noexcept : vcpu_(vcpu) {}

  [[nodiscard]] bool Vector(unsigned index, std::span<std::byte, 64> out) noexcept override;
  [[nodiscard]] bool Mask(unsigned, uint64_t&) noexcept override { return false; }
  [[nodiscard]] bool Mmx(unsigned index, uint64_t& out) noexcept override;
  [[nodiscard]] bool XsaveComponent(unsigned, Component&) noexcept override { return false; }

 private:
  [[nodiscard]] bool Fetch() noexcept { return fetched_ || (fetched_ = vcpu_.GetXsave(xsave_)); }
  [[nodiscard]] const std::byte* Image() const noexcept { return reinterpret_cast<const std::byte*>(xsave_.region); }

  const kvm::Vcpu& vcpu_;
  bool fetched_ = false;
  kvm_xsave xsave_;  // valid once fetched_
};

}  // namespace vmm

#endif  // VMM_VMM_HYPERV_VCPU_STATE_H_
