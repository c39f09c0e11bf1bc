// Message-signalled interrupts and doorbells of PCI devices over one KVM VM: routes with irqfds, ioeventfds.
//
// Threads  any.
// Errors   KVM's.
#ifndef VMM_VMM_VIRTIO_KVM_MSI_ROUTER_H_
#define VMM_VMM_VIRTIO_KVM_MSI_ROUTER_H_

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "devices/pci/msi_router.h"
#include "devices/virtio/transport/doorbells.h"
#include "kvm/vm.h"
#include "memory/gpa.h"

namespace vmm {

class KvmMsiRouter final : public MsiRouter, public Doorbells {
 public:
  // `vm` outlives it.
  explicit KvmMsiRouter(kvm::Vm& vm) : vm_(vm) {}

  absl::StatusOr<uint32_t> Reserve(uint32_t count) override;
  absl::Status Route(std::span<const MsiMessage> messages) override;
  absl::Status Connect(int event_fd, uint32_t interrupt) override;
  absl::Status Disconnect(int event_fd, uint32_t interrupt) override;
  absl::Status Add(int event_fd, Gpa address) override;
  absl::Status Remove(int event_fd, Gpa address) override;

 private:
  kvm::Vm& vm_;
};

}  // namespace vmm

#endif  // VMM_VMM_VIRTIO_KVM_MSI_ROUTER_H_
