#include "vmm/virtio/kvm_msi_router.h"

#include <vector>

#include "kvm/irq_routing.h"

namespace vmm {

absl::StatusOr<uint32_t> KvmMsiRouter::Reserve(uint32_t count) { return vm_.routing().ReserveMsis(count); }

absl::Status KvmMsiRouter::Route(std::span<const MsiMessage> messages) {
  std::vector<kvm::MsiRoute> routes;
  for (const MsiMessage& message : messages) routes.push_back({message.interrupt, message.address, message.data});
  return vm_.routing().SetMsis(routes);
}

absl::Status KvmMsiRouter::Connect(int event_fd, uint32_t interrupt) { return vm_.AddIrqFd(event_fd, interrupt); }
absl::Status KvmMsiRouter::Disconnect(int event_fd, uint32_t interrupt) { return vm_.RemoveIrqFd(event_fd, interrupt); }
absl::Status KvmMsiRouter::Add(int event_fd, Gpa address) { return vm_.AddMmioEventFd(event_fd, address); }
absl::Status KvmMsiRouter::Remove(int event_fd, Gpa address) { return vm_.RemoveMmioEventFd(event_fd, address); }

}  // namespace vmm
