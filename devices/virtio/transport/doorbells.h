// A guest write to an address that signals an eventfd without leaving the kernel. vmm/ implements it over KVM's ioeventfd.
//
// Threads  any.
// Trust    addresses come from where the guest put a BAR; one that is taken already is refused.
// Errors   Status. The write then comes as an access of the bus, and the transport signals.
#ifndef VMM_DEVICES_VIRTIO_TRANSPORT_DOORBELLS_H_
#define VMM_DEVICES_VIRTIO_TRANSPORT_DOORBELLS_H_

#include "absl/status/status.h"
#include "memory/gpa.h"

namespace vmm {

class Doorbells {
 public:
  virtual ~Doorbells() = default;
  virtual absl::Status Add(int event_fd, Gpa address) = 0;
  virtual absl::Status Remove(int event_fd, Gpa address) = 0;
};

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_TRANSPORT_DOORBELLS_H_
