// The ACPI tables that are built here, as they lie in guest memory.
//
// Source   ACPI 6.3, "ACPI Software Programming Model": "ACPI System Description Tables"; PCI Firmware Specification 3.3,
//          "MCFG Table Description".
#ifndef VMM_VMM_ACPI_ACPI_LAYOUT_H_
#define VMM_VMM_ACPI_ACPI_LAYOUT_H_

#include <cstddef>
#include <cstdint>

namespace vmm {

struct [[gnu::packed]] AcpiRsdp {
  char signature[8];  // "RSD PTR "
  uint8_t checksum;   // of the first 20 bytes
  char oem_id[6];
  uint8_t revision;
  uint32_t rsdt_address;
  uint32_t length;
  uint64_t xsdt_address;
  uint8_t extended_checksum;  // of all
  uint8_t reserved[3];
};
static_assert(sizeof(AcpiRsdp) == 36);
inline constexpr size_t kAcpiRsdpV1Bytes = 20;

struct [[gnu::packed]] AcpiTableHeader {
  char signature[4];
  uint32_t length;  // with this header
  uint8_t revision;
  uint8_t checksum;
  char oem_id[6];
  char oem_table_id[8];
  uint32_t oem_revision;
  char creator_id[4];
  uint32_t creator_revision;
};
static_assert(sizeof(AcpiTableHeader) == 36);

inline constexpr uint8_t kAcpiSpaceSystemIo = 1;
inline constexpr uint8_t kAcpiAccessByte = 1;
struct [[gnu::packed]] AcpiGenericAddress {
  uint8_t space = 0;
  uint8_t bit_width = 0;
  uint8_t bit_offset = 0;
  uint8_t access_size = 0;
  uint64_t address = 0;
};
static_assert(sizeof(AcpiGenericAddress) == 12);

// "Fixed ACPI Description Table (FADT)"
inline constexpr uint32_t kFadtWbinvd = 1u << 0;
inline constexpr uint32_t kFadtProcessorsHaveC1 = 1u << 2;
inline constexpr uint32_t kFadtNoFixedPowerButton = 1u << 4;
inline constexpr uint32_t kFadtNoFixedSleepButton = 1u << 5;
inline constexpr uint32_t kFadtNoFixedRtcWake = 1u << 6;
inline constexpr uint32_t kFadtResetRegister = 1u << 10;
inline constexpr uint32_t kFadtHeadless = 1u << 12;
inline constexpr uint32_t kFadtHardwareReduced = 1u << 20;
// IAPC_BOOT_ARCH. Absent here: LEGACY_DEVICES (0) and 8042 (1).
inline constexpr uint16_t kFadtNoVga = 1u << 2;
inline constexpr uint16_t kFadtNoAspm = 1u << 4;
inline constexpr uint16_t kFadtNoCmosRtc = 1u << 5;
// Latencies above 100 and 1000 say: no such C state.
inline constexpr uint16_t kFadtNoC2Latency = 101;
inline constexpr uint16_t kFadtNoC3Latency = 1001;

struct [[gnu::packed]] AcpiFadt {
  AcpiTableHeader header;
  uint32_t firmware_ctrl;
  uint32_t dsdt;
  uint8_t reserved0;
  uint8_t preferred_pm_profile;
  uint16_t sci_interrupt;
  uint32_t smi_command;
  uint8_t acpi_enable;
  uint8_t acpi_disable;
  uint8_t s4bios_request;
  uint8_t pstate_control;
  uint32_t legacy_blocks[8];
  uint8_t legacy_lengths[8];
  uint16_t c2_latency;
  uint16_t c3_latency;
  uint16_t flush_size;
  uint16_t flush_stride;
  uint8_t duty_offset;
  uint8_t duty_width;
  uint8_t day_alarm;
  uint8_t month_alarm;
  uint8_t century;
  uint16_t iapc_boot_arch;
  uint8_t reserved1;
  uint32_t flags;
  AcpiGenericAddress reset_register;
  uint8_t reset_value;
  uint16_t arm_boot_arch;
  uint8_t minor_revision;
  uint64_t x_firmware_ctrl;
  uint64_t x_dsdt;
  AcpiGenericAddress x_legacy_blocks[8];
  AcpiGenericAddress sleep_control;
  AcpiGenericAddress sleep_status;
  char hypervisor_vendor[8];
};
static_assert(sizeof(AcpiFadt) == 276);
static_assert(offsetof(AcpiFadt, iapc_boot_arch) == 109);
static_assert(offsetof(AcpiFadt, flags) == 112);
static_assert(offsetof(AcpiFadt, minor_revision) == 131);
static_assert(offsetof(AcpiFadt, x_dsdt) == 140);
static_assert(offsetof(AcpiFadt, sleep_control) == 244);

// "Multiple APIC Description Table (MADT)"
struct [[gnu::packed]] AcpiMadt {
  AcpiTableHeader header;
  uint32_t local_apic_address;
  uint32_t flags;  // bit 0: there are two 8259 as well. There are none.
};
static_assert(sizeof(AcpiMadt) == 44);

inline constexpr uint32_t kMadtEnabled = 1;
struct [[gnu::packed]] AcpiMadtLocalApic {
  uint8_t type = 0;
  uint8_t length = 8;
  uint8_t uid;
  uint8_t apic_id;
  uint32_t flags;
};
static_assert(sizeof(AcpiMadtLocalApic) == 8);

struct [[gnu::packed]] AcpiMadtIoApic {
  uint8_t type = 1;
  uint8_t length = 12;
  uint8_t id;
  uint8_t reserved = 0;
  uint32_t address;
  uint32_t first_interrupt;
};
static_assert(sizeof(AcpiMadtIoApic) == 12);

struct [[gnu::packed]] AcpiMadtLocalApicNmi {
  uint8_t type = 4;
  uint8_t length = 6;
  uint8_t uid = 0xff;  // all
  uint16_t flags = 0;  // as the bus has it
  uint8_t local_interrupt = 1;
};
static_assert(sizeof(AcpiMadtLocalApicNmi) == 6);

// For APIC ids from 255 on, which the old entry cannot hold.
inline constexpr uint32_t kMadtFirstX2ApicId = 255;
struct [[gnu::packed]] AcpiMadtLocalX2Apic {
  uint8_t type = 9;
  uint8_t length = 16;
  uint16_t reserved = 0;
  uint32_t x2apic_id;
  uint32_t flags;
  uint32_t uid;
};
static_assert(sizeof(AcpiMadtLocalX2Apic) == 16);

struct [[gnu::packed]] AcpiMadtLocalX2ApicNmi {
  uint8_t type = 10;
  uint8_t length = 12;
  uint16_t flags = 0;
  uint32_t uid = 0xffff'ffff;  // all
  uint8_t local_interrupt = 1;
  uint8_t reserved[3] = {};
};
static_assert(sizeof(AcpiMadtLocalX2ApicNmi) == 12);

struct [[gnu::packed]] AcpiMcfg {
  AcpiTableHeader header;
  uint64_t reserved;
  // One segment.
  uint64_t ecam_base;
  uint16_t segment;
  uint8_t first_bus;
  uint8_t last_bus;
  uint32_t reserved1;
};
static_assert(sizeof(AcpiMcfg) == 60);

}  // namespace vmm

#endif  // VMM_VMM_ACPI_ACPI_LAYOUT_H_
