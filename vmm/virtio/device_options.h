// From the configuration to what each virtio device is started with, files opened.
//
// Threads  any.
// Errors   Status naming the device and the path.
#ifndef VMM_VMM_VIRTIO_DEVICE_OPTIONS_H_
#define VMM_VMM_VIRTIO_DEVICE_OPTIONS_H_

#include <vector>

#include "absl/status/statusor.h"
#include "vmm/config/vm_config.h"
#include "vmm/virtio/virtio_device.h"

namespace vmm {

// `interactive`: the person at the terminal may end the machine by a key.
// In the order of their slots. Memory, jail and executable are the caller's to fill in.
absl::StatusOr<std::vector<VirtioDevice::Options>> VirtioDeviceOptions(const VmConfig& config, bool interactive);

}  // namespace vmm

#endif  // VMM_VMM_VIRTIO_DEVICE_OPTIONS_H_
