// The ACPI tables of a machine, as one piece of guest memory: hardware-reduced ACPI, without legacy hardware.
//
// Shapes   RSDP first, then XSDT, FADT, MADT, MCFG (with PCI), DSDT, one SSDT for each optional device, and one generated
//          SSDT: the processors and what else depends on the machine's size. A device that is off leaves no trace.
// Units    processor n has APIC id n and ACPI UID n. Interrupts are global system interrupts of one I/O APIC, from 0.
// Threads  any; pure.
// Errors   INVALID_ARGUMENT: no processors or more than kMaxAcpiProcessors, or a 64-bit window that is not whole pages above
//          4 GiB.
// Source   ACPI 6.3; acpi_layout.h. Registers: devices/platform/power/power_registers.h.
#ifndef VMM_VMM_ACPI_ACPI_TABLES_H_
#define VMM_VMM_ACPI_ACPI_TABLES_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "memory/gpa.h"

namespace vmm {

// Three hexadecimal digits of a device's name; far above what a configuration can ask for.
inline constexpr uint32_t kMaxAcpiProcessors = 1024;

struct AcpiConfig {
  uint32_t processors = 1;
  bool serial = true;
  bool pvpanic = true;
  bool rtc = false;
  bool pci = true;
  // For large 64-bit BARs; 0 bytes: none. Without PCI it is ignored.
  Gpa pci_window64;
  uint64_t pci_window64_bytes = 0;
};

struct AcpiImage {
  std::vector<std::byte> bytes;  // to be written at `base`
  Gpa rsdp;
};

// `base` is where the caller writes the image: 16-byte aligned, and below 1 MiB if a kernel is to find it by itself.
[[nodiscard]] absl::StatusOr<AcpiImage> BuildAcpi(const AcpiConfig& config, Gpa base);

}  // namespace vmm

#endif  // VMM_VMM_ACPI_ACPI_TABLES_H_
