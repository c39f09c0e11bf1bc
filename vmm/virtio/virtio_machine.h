// The PCI bus of a machine and the virtio devices on it.
//
// Threads  Create: the thread that builds the machine; devices are made on the event loop's. Shutdown and the destructor: the loop's.
// Errors   Create: Status, naming the device.
#ifndef VMM_VMM_VIRTIO_VIRTIO_MACHINE_H_
#define VMM_VMM_VIRTIO_VIRTIO_MACHINE_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "devices/io_bus.h"
#include "devices/machine_control.h"
#include "devices/pci/pci_root.h"
#include "kvm/vm.h"
#include "memory/guest_memory.h"
#include "memory/guest_ram.h"
#include "memory/layout.h"
#include "vmm/config/vm_config.h"
#include "vmm/machine/machine_event_loop.h"
#include "vmm/virtio/balloon_control.h"
#include "vmm/virtio/kvm_msi_router.h"
#include "vmm/virtio/virtio_device.h"

namespace vmm {

class VirtioMachine final {
 public:
  // All outlive it.
  struct Environment {
    kvm::Vm& vm;
    const GuestMemory& memory;
    const GuestRam& ram;
    const MemoryLayout& layout;
    MachineEventLoop& loop;
    MachineControl& control;
    IoBus& ports;
    IoBus& mmio;
  };

  // `executable`: started for each device process; empty: the running program.
  static absl::StatusOr<std::unique_ptr<VirtioMachine>> Create(const Environment& environment, const VmConfig& config,
                                                               const std::string& executable);
  VirtioMachine(const VirtioMachine&) = delete;
  VirtioMachine& operator=(const VirtioMachine&) = delete;

  // The processors have ended.
  void Shutdown();

  // None: the machine has no balloon.
  [[nodiscard]] BalloonControl* balloon() const noexcept { return balloon_.get(); }
  [[nodiscard]] const std::vector<std::unique_ptr<VirtioDevice>>& devices() const noexcept { return devices_; }

 private:
  explicit VirtioMachine(const Environment& environment);
  absl::Status AddDevices(const Environment& environment, const VmConfig& config, const std::string& executable);

  KvmMsiRouter router_;
  PciRoot root_;
  std::unique_ptr<BalloonControl> balloon_;
  std::vector<std::unique_ptr<VirtioDevice>> devices_;
};

}  // namespace vmm

#endif  // VMM_VMM_VIRTIO_VIRTIO_MACHINE_H_
