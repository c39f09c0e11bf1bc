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
#include "base/owned_fd.h"
#include "devices/io_bus.h"
#include "devices/machine_control.h"
#include "devices/pci/pci_root.h"
#include "kvm/vm.h"
#include "memory/guest_memory.h"
#include "memory/guest_ram.h"
#include "memory/layout.h"
#include "sandbox/spawner.h"
#include "vmm/config/vm_config.h"
#include "vmm/machine/machine_event_loop.h"
#include "vmm/virtio/balloon_control.h"
#include "vmm/virtio/kvm_msi_router.h"
#include "vmm/virtio/virtio_device.h"

namespace vmm {

// Whether there will be devices that guest RAM is shared with.
[[nodiscard]] bool HasVirtioDevices(const VmConfig& config) noexcept;

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
    // The loop's thread will be able to start and to open nothing, from some time after Seal on: devices that are started again are
    // started by a process of their own, from the first time on (sandbox/spawner.h).
    bool confined = false;
    bool interactive = false;  // the person at the terminal may end the machine by a key, where a device has the terminal
  };

  // `executable`: started for each device process; empty: the running program.
  static absl::StatusOr<std::unique_ptr<VirtioMachine>> Create(const Environment& environment, const VmConfig& config,
                                                               const std::string& executable);
  VirtioMachine(const VirtioMachine&) = delete;
  VirtioMachine& operator=(const VirtioMachine&) = delete;

  // Before the loop's thread is confined, on it: nothing but the devices that are there is ever started again.
  absl::Status Seal();
  // Whether one of its processes has no namespaces, so that another user's id may be its own: who ends it needs the right to.
  [[nodiscard]] bool has_foreign_ids() const noexcept { return has_foreign_ids_; }
  // The processors have ended.
  void Shutdown();

  // None: the machine has no balloon.
  [[nodiscard]] BalloonControl* balloon() const noexcept { return balloon_.get(); }
  [[nodiscard]] const std::vector<std::unique_ptr<VirtioDevice>>& devices() const noexcept { return devices_; }

 private:
  explicit VirtioMachine(const Environment& environment);
  absl::Status MakeSpawner(const std::vector<VirtioDevice::Options>& devices);
  absl::Status AddDevices(const Environment& environment, const VmConfig& config, const std::string& executable);

  KvmMsiRouter router_;
  PciRoot root_;
  bool has_foreign_ids_ = false;
  OwnedFd executable_;                // none: the running program
  std::unique_ptr<Spawner> spawner_;  // null: no device is started again, or anybody may do it
  std::unique_ptr<BalloonControl> balloon_;
  std::vector<std::unique_ptr<VirtioDevice>> devices_;
};

}  // namespace vmm

#endif  // VMM_VMM_VIRTIO_VIRTIO_MACHINE_H_
