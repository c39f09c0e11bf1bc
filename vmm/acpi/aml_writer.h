// The few AML terms that cannot be compiled ahead, because their number or value is the machine's: bytes from the inside out.
//
// Shapes   a term is a byte string; terms one after another are a term list. Names are single segments of four characters.
// Threads  any; pure.
// Source   ACPI 6.3, "ACPI Machine Language (AML) Specification".
#ifndef VMM_VMM_ACPI_AML_WRITER_H_
#define VMM_VMM_ACPI_AML_WRITER_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace vmm {

// A byte string, not text.
using Aml = std::string;

[[nodiscard]] Aml AmlInteger(uint64_t value);
[[nodiscard]] Aml AmlString(absl::string_view ascii);
[[nodiscard]] Aml AmlName(absl::string_view name, const Aml& value);
[[nodiscard]] Aml AmlDevice(absl::string_view name, const Aml& terms);
// The scope \NAME.
[[nodiscard]] Aml AmlRootScope(absl::string_view name, const Aml& terms);

// The length prefix of a package of `bytes`, with the prefix itself counted in. At most 2^28 - 1 in all.
[[nodiscard]] Aml AmlPackageLength(uint64_t bytes);

}  // namespace vmm

#endif  // VMM_VMM_ACPI_AML_WRITER_H_
