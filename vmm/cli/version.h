// Which build this is.
//
// Threads  any, pure.
#ifndef VMM_VMM_CLI_VERSION_H_
#define VMM_VMM_CLI_VERSION_H_

#include <string>

#include "absl/strings/string_view.h"

namespace vmm {

inline constexpr absl::string_view kVersion = "0.1.0";

// `kernel_headers`: the version of the kernel's interface that kvm/ was built against; "" is left out.
[[nodiscard]] std::string VersionText(absl::string_view kernel_headers);
[[nodiscard]] std::string VersionJson(absl::string_view kernel_headers);

}  // namespace vmm

#endif  // VMM_VMM_CLI_VERSION_H_
