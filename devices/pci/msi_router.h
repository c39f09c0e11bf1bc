// What a function's MSI-X table stands on: interrupts that an eventfd raises, each with the message that the guest wrote for it. vmm/
// implements it over KVM.
//
// Shapes   an interrupt is a number, reserved once; it leads nowhere before it has a message.
// Threads  any. Route waits for all of the VM's interrupts in flight (about 10 ms): many in one call, and no call for none.
// Trust    messages are the guest's; one that names no processor raises nothing.
// Errors   Status; the caller cannot mend any and goes on without that interrupt.
#ifndef VMM_DEVICES_PCI_MSI_ROUTER_H_
#define VMM_DEVICES_PCI_MSI_ROUTER_H_

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace vmm {

struct MsiMessage {
  uint32_t interrupt;
  uint64_t address;
  uint32_t data;
  bool operator==(const MsiMessage&) const = default;
};

class MsiRouter {
 public:
  virtual ~MsiRouter() = default;
  // Consecutive numbers, the first of them.
  virtual absl::StatusOr<uint32_t> Reserve(uint32_t count) = 0;
  virtual absl::Status Route(std::span<const MsiMessage> messages) = 0;
  // Each write to the eventfd raises the interrupt, and so does one that nobody has read yet.
  virtual absl::Status Connect(int event_fd, uint32_t interrupt) = 0;
  virtual absl::Status Disconnect(int event_fd, uint32_t interrupt) = 0;
};

}  // namespace vmm

#endif  // VMM_DEVICES_PCI_MSI_ROUTER_H_
