// One KVM VM: memory slots, interrupt controller and routing, eventfds, vCPUs.
//
// Shapes   a slot maps [gpa, gpa + bytes) of the guest to [host, host + bytes) of this process.
// Threads  set-up: one thread, before any vCPU runs. Interrupts, their routes and eventfds, GetClock: any thread.
// Trust    `host` memory outlives the Vm; the kernel checks all else.
// Errors   Status with errno, naming the object.
// Source   Linux, "The Definitive KVM API Documentation".
#ifndef VMM_KVM_VM_H_
#define VMM_KVM_VM_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/owned_fd.h"
#include "kvm/irq_routing.h"
#include "kvm/uapi.h"
#include "kvm/vcpu.h"
#include "memory/gpa.h"

namespace vmm::kvm {

// MSRs [base, base + count) whose accesses leave KVM as KVM_EXIT_X86_RDMSR and KVM_EXIT_X86_WRMSR, known to KVM or not. What
// this process does by SetMsr is not filtered. KVM ignores ranges in 0x800 to 0x8ff (x2APIC).
struct MsrRange {
  uint32_t base;
  uint32_t count;
  bool read = true;
  bool write = true;
};

class Vm final {
 public:
  Vm(OwnedFd fd, uint32_t run_bytes) noexcept : fd_(std::move(fd)), run_bytes_(run_bytes), routing_(fd_.get()) {}
  Vm(const Vm&) = delete;
  Vm& operator=(const Vm&) = delete;

  // 0 where KVM does not know the capability: the answer of this VM, which may differ from the system's.
  [[nodiscard]] int CheckExtension(uint32_t capability) const noexcept;
  absl::Status EnableCap(uint32_t capability, uint64_t argument = 0);

  absl::Status SetMemorySlot(uint32_t slot, Gpa start, std::byte* host, uint64_t bytes);

  // Guest addresses are translated by the processor (and Linux is 6.11 or later, whose KVM says so). Without, KVM emulates what its
  // shadow tables cannot map, and an access to a page that its host mapping denies shows as one to a device.
  [[nodiscard]] bool HasNestedPaging() const noexcept { return CheckExtension(KVM_CAP_PRE_FAULT_MEMORY) > 0; }

  // Whether SetPrivate can be asked for: of this VM, as only some types have the attribute.
  [[nodiscard]] bool HasPrivateAttribute() const noexcept;
  // Pages whose every access by a vCPU ends KVM_RUN with KVM_EXIT_MEMORY_FAULT (their slots have no guest_memfd), or no longer; at
  // its return no vCPU uses what was before. KVM's own accesses are not stopped by it. Whole pages. Any thread. False: refused.
  [[nodiscard]] bool SetPrivate(Gpa start, uint64_t bytes, bool is_private) noexcept;

  // Local APICs and I/O APIC in the kernel; only the I/O APIC's 24 inputs are routed (no legacy PIC is reachable).
  absl::Status CreateIrqChip(Gpa kvm_identity_map, Gpa kvm_tss);
  // The routes beyond those inputs.
  [[nodiscard]] IrqRouting& routing() noexcept { return routing_; }
  // A write to `event_fd` is one edge on the route `gsi`. `resample_fd`, where there is one, is signalled when the guest
  // acknowledges: end of interrupt, for a SINT also an end of message. One pair of descriptors each, one such fd a route.
  absl::Status AddIrqFd(int event_fd, uint32_t gsi, std::optional<int> resample_fd = std::nullopt);
  absl::Status RemoveIrqFd(int event_fd, uint32_t gsi);
  // The level of the route `gsi`. A SINT is raised by each true, and false means nothing to it.
  absl::Status SetIrqLine(uint32_t gsi, bool level);
  // One fixed, edge-triggered interrupt, in the local APIC when the call returns. False: no APIC has that id or it is off.
  // Ids above 254 would mean all processors, and are refused.
  [[nodiscard]] bool SignalMsi(uint32_t apic_id, uint8_t vector) noexcept;
  // Any message of an I/O APIC's kind; `destination` as 8 bits of an xAPIC's. False: it names nobody who receives it.
  struct Msi {
    uint8_t destination;
    bool logical;
    bool level;
    uint8_t delivery_mode;  // 0 fixed, 4 NMI
    uint8_t vector;
  };
  [[nodiscard]] bool SignalMsi(const Msi& msi) noexcept;

  // Replaces the filter. At most 16 ranges. Accesses that KVM itself refuses elsewhere stay #GP, unless `refused_exit`: then they
  // leave KVM too (x2APIC's are refused where there is no local APIC in the kernel).
  absl::Status SetMsrFilter(std::span<const MsrRange> trapped, bool refused_exit = false);
  // The same afterwards, as often as wanted, by any thread and without allocation of ours. A vCPU that is outside the guest at its
  // return exits by the new filter; one that runs may make one access yet by the old. False: KVM refused, and the old one stays.
  [[nodiscard]] bool ReplaceMsrFilter(std::span<const MsrRange> trapped) noexcept;

  // kvmclock's time with the host's TSC and wall clock of the same moment, as far as `flags` says that it has them.
  absl::StatusOr<kvm_clock_data> GetClock() const;
  // From here on it counts from `nanoseconds`. KVM then looks whether the TSC can be the clock's source, which it otherwise does
  // only once a vCPU runs: set it when all vCPUs are made, and GetClock says before that what holds after it.
  absl::Status SetClock(uint64_t nanoseconds);

  // A guest write of `bytes` to `port` signals `event_fd` and does not leave the kernel.
  absl::Status AddPioEventFd(int event_fd, uint16_t port, uint32_t bytes);
  // The same for a write of any size and value to the address, which is not RAM; and its end.
  absl::Status AddMmioEventFd(int event_fd, Gpa address);
  absl::Status RemoveMmioEventFd(int event_fd, Gpa address);

  absl::StatusOr<std::unique_ptr<Vcpu>> CreateVcpu(uint32_t index);

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

 private:
  const OwnedFd fd_;
  const uint32_t run_bytes_;
  IrqRouting routing_;
};

}  // namespace vmm::kvm

#endif  // VMM_KVM_VM_H_
