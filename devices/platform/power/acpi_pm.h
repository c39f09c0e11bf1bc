// The three registers of hardware-reduced ACPI that end the machine: sleep control, sleep status, reset.
//
// Shapes   kAcpiPmPorts byte registers from kAcpiSleepControlPort.
// Threads  any; no state.
// Trust    any value may be written; only S5 with SLP_EN, and the reset value, mean something.
#ifndef VMM_DEVICES_PLATFORM_POWER_ACPI_PM_H_
#define VMM_DEVICES_PLATFORM_POWER_ACPI_PM_H_

#include "devices/io_device.h"
#include "devices/machine_control.h"

namespace vmm {

class AcpiPm final : public IoDevice {
 public:
  explicit AcpiPm(MachineControl& control) : control_(control) {}
  void Read(uint64_t offset, std::span<std::byte> data) noexcept override;
  void Write(uint64_t offset, std::span<const std::byte> data) noexcept override;

 private:
  MachineControl& control_;
};

}  // namespace vmm

#endif  // VMM_DEVICES_PLATFORM_POWER_ACPI_PM_H_
