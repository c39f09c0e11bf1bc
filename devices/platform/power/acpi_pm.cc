#include "devices/platform/power/acpi_pm.h"

#include "devices/platform/power/power_registers.h"

namespace vmm {

void AcpiPm::Read(uint64_t, std::span<std::byte> data) noexcept {
  for (std::byte& byte : data) byte = std::byte{0};
}

void AcpiPm::Write(uint64_t offset, std::span<const std::byte> data) noexcept {
  // The registers are bytes; a wider access is several of them.
  for (size_t i = 0; i < data.size(); ++i) {
    const auto value = std::to_integer<uint8_t>(data[i]);
    switch (kAcpiSleepControlPort + offset + i) {
      case kAcpiSleepControlPort:
        if ((value & kSleepEnable) != 0 && (value >> kSleepTypeShift & kSleepTypeMask) == kSleepTypeS5) {
          control_.RequestEnd(MachineEnd::kPoweredOff, "the guest powered off");
        }
        break;
      case kAcpiResetPort:
        if (value == kResetValue) control_.RequestEnd(MachineEnd::kRebooted, "the guest asked for a reset");
        break;
      default:
        break;
    }
  }
}

}  // namespace vmm
