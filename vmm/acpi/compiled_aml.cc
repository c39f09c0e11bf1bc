#include "vmm/acpi/compiled_aml.h"

namespace vmm {
namespace {

constexpr uint8_t kDsdt[] = {
#include "vmm/acpi/dsdt.inc"
};
constexpr uint8_t kSsdtSerial[] = {
#include "vmm/acpi/ssdt_serial.inc"
};
constexpr uint8_t kSsdtPvpanic[] = {
#include "vmm/acpi/ssdt_pvpanic.inc"
};
constexpr uint8_t kSsdtRtc[] = {
#include "vmm/acpi/ssdt_rtc.inc"
};
constexpr uint8_t kSsdtPci[] = {
#include "vmm/acpi/ssdt_pci.inc"
};

}  // namespace

// constinit: used from other files, whatever the order of initialisation.
constinit const std::span<const uint8_t> kDsdtAml(kDsdt);
constinit const std::span<const uint8_t> kSsdtSerialAml(kSsdtSerial);
constinit const std::span<const uint8_t> kSsdtPvpanicAml(kSsdtPvpanic);
constinit const std::span<const uint8_t> kSsdtRtcAml(kSsdtRtc);
constinit const std::span<const uint8_t> kSsdtPciAml(kSsdtPci);

}  // namespace vmm
