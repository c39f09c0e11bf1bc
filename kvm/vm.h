// One KVM VM: memory slots, interrupt controller and routing, eventfds, vCPUs.
//
// Shapes   a slot maps [gpa, gpa + bytes) of the guest to [host, host + bytes) of this process.
// Threads  set-up: one thread, before any vCPU runs. AddIrqFd, AddPioEventFd: any thread.
// Trust    `host` memory outlives the Vm; the kernel checks all else.
// Errors   Status with errno, naming the object.
// Source   Linux, "The Definitive KVM API Documentation".
#ifndef VMM_KVM_VM_H_
#define VMM_KVM_VM_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/owned_fd.h"
#include "kvm/uapi.h"
#include "kvm/vcpu.h"
#include "memory/gpa.h"

namespace vmm::kvm {

class Vm final {
 public:
  Vm(OwnedFd fd, uint32_t run_bytes) noexcept : fd_(std::move(fd)), run_bytes_(run_bytes) {}
  Vm(const Vm&) = delete;
  Vm& operator=(const Vm&) = delete;

  // 0 where KVM does not know the capability: the answer of this VM, which may differ from the system's.
  [[nodiscard]] int CheckExtension(uint32_t capability) const noexcept;
  absl::Status EnableCap(uint32_t capability, uint64_t argument = 0);

  absl::Status SetMemorySlot(uint32_t slot, Gpa start, std::byte* host, uint64_t bytes);

  // Local APICs and I/O APIC in the kernel; only the I/O APIC's 24 inputs are routed (no legacy PIC is reachable).
  absl::Status CreateIrqChip(Gpa kvm_identity_map, Gpa kvm_tss);
  // A write to `event_fd` is one edge on I/O APIC input `gsi`.
  absl::Status AddIrqFd(int event_fd, uint32_t gsi);
  // A guest write of `bytes` to `port` signals `event_fd` and does not leave the kernel.
  absl::Status AddPioEventFd(int event_fd, uint16_t port, uint32_t bytes);

  absl::StatusOr<std::unique_ptr<Vcpu>> CreateVcpu(uint32_t index);

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

 private:
  const OwnedFd fd_;
  const uint32_t run_bytes_;
};

inline constexpr uint32_t kIoApicInputs = 24;

}  // namespace vmm::kvm

#endif  // VMM_KVM_VM_H_
