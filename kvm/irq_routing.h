// The table of a VM's interrupt routes: KVM takes it whole, so somebody has to keep it.
//
// Shapes   a GSI is the number of a route. 0 to 23 are the I/O APIC's inputs, then one for each (vCPU, SINT) or MSI asked for.
// Threads  any: guarded by mutex_. KVM waits for its readers at each change (tens of milliseconds on a busy host): routes are
//          made at set-up or when a guest turns something on, not per interrupt.
// Trust    vCPU and SINT come from the caller; a GSI once given stays for the life of the VM.
// Errors   AddHvSint(s), ReserveMsis: RESOURCE_EXHAUSTED when the table is full, else KVM's.
// Source   Linux, "The Definitive KVM API Documentation", KVM_SET_GSI_ROUTING.
#ifndef VMM_KVM_IRQ_ROUTING_H_
#define VMM_KVM_IRQ_ROUTING_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "kvm/uapi.h"

namespace vmm::kvm {

inline constexpr uint32_t kIoApicInputs = 24;
inline constexpr uint32_t kHvSints = 16;
// Below KVM's own 4096: room for every SINT of 64 processors and as many again for MSIs.
inline constexpr uint32_t kMaxRoutes = 2048;

// What a guest wrote into a message-signalled interrupt's address and data.
struct MsiRoute {
  uint32_t gsi;
  uint64_t address;
  uint32_t data;
};

class IrqRouting final {
 public:
  // `vm_fd` outlives the object.
  explicit IrqRouting(int vm_fd) noexcept : vm_fd_(vm_fd) {}
  IrqRouting(const IrqRouting&) = delete;
  IrqRouting& operator=(const IrqRouting&) = delete;

  // The I/O APIC's inputs and nothing else: no legacy PIC is reachable.
  absl::Status RouteIoApic();

  // The GSI that raises the vector of synthetic interrupt source `sint` of the vCPU; the same one when asked again. The vCPU
  // has its SynIC by then (EnableSynic2): KVM notes whose acknowledgement is whose when the route is made, and only for those.
  absl::StatusOr<uint32_t> AddHvSint(uint32_t vcpu, uint32_t sint);
  // All sixteen of a vCPU that has none yet, in one change: source n has the GSI returned plus n.
  absl::StatusOr<uint32_t> AddHvSints(uint32_t vcpu);

  // Numbers for `count` MSIs, the first of them; they lead nowhere, and KVM is not told, before SetMsis.
  absl::StatusOr<uint32_t> ReserveMsis(uint32_t count);
  // All in one change of the table, none where nothing changes. Each gsi is a reserved one.
  absl::Status SetMsis(std::span<const MsiRoute> routes);

 private:
  absl::StatusOr<uint32_t> AppendLocked(uint32_t vcpu, uint32_t first_sint, uint32_t count) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Gives KVM the table: 0 or errno.
  int StoreLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int vm_fd_;
  Mutex mutex_;
  std::vector<kvm_irq_routing_entry> entries_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace vmm::kvm

#endif  // VMM_KVM_IRQ_ROUTING_H_
