// The panic notifier: one port by which a guest kernel says that it has crashed.
//
// Shapes   one byte register; a read gives the events that are supported.
// Threads  any.
// Trust    a guest may write again and again: the log is rate-limited, the end is requested once.
// Source   QEMU, "pvpanic device"; ACPI id QEMU0001.
#ifndef VMM_DEVICES_PLATFORM_POWER_PVPANIC_H_
#define VMM_DEVICES_PLATFORM_POWER_PVPANIC_H_

#include "base/log.h"
#include "devices/io_device.h"
#include "devices/machine_control.h"

namespace vmm {

class Pvpanic final : public IoDevice {
 public:
  explicit Pvpanic(MachineControl& control) : control_(control) {}
  void Read(uint64_t offset, std::span<std::byte> data) noexcept override;
  void Write(uint64_t offset, std::span<const std::byte> data) noexcept override;

 private:
  MachineControl& control_;
  GuestLog log_{"pvpanic"};
};

}  // namespace vmm

#endif  // VMM_DEVICES_PLATFORM_POWER_PVPANIC_H_
