// The tables that the build compiles from the .asl files: whole, with header and checksum.
//
// Threads  immutable.
#ifndef VMM_VMM_ACPI_COMPILED_AML_H_
#define VMM_VMM_ACPI_COMPILED_AML_H_

#include <cstdint>
#include <span>

namespace vmm {

extern const std::span<const uint8_t> kDsdtAml;
extern const std::span<const uint8_t> kSsdtSerialAml;
extern const std::span<const uint8_t> kSsdtPvpanicAml;
extern const std::span<const uint8_t> kSsdtRtcAml;
extern const std::span<const uint8_t> kSsdtPciAml;

}  // namespace vmm

#endif  // VMM_VMM_ACPI_COMPILED_AML_H_
