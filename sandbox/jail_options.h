// Which layers of a device's sandbox, and of the monitor's own, are left out. The default leaves out none; nothing but this
// waives a layer.
//
// Threads  immutable.
// Errors   ValidateJailOptions: INVALID_ARGUMENT for a combination that cannot be kept.
#ifndef VMM_SANDBOX_JAIL_OPTIONS_H_
#define VMM_SANDBOX_JAIL_OPTIONS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace vmm {

struct JailOptions {
  bool log_only = false;          // what a policy does not allow is reported and let through
  bool waive_namespaces = false;  // needs waive_empty_root too: without a mount namespace there is no root of its own
  bool waive_empty_root = false;
  bool waive_seccomp = false;
};

// The monitor's threads (confine.h).
struct MonitorJailOptions {
  bool log_only = false;
  bool waive_seccomp = false;
  bool waive_landlock = false;
  bool waive_capabilities = false;  // keeps those that the caller has
  bool waive_undumpable = false;    // a core may be dumped, the process be traced by its user
};

// The names of the layers that are waived, as the configuration spells them; for who tells the person.
[[nodiscard]] std::vector<absl::string_view> WaivedLayers(const JailOptions& options);
[[nodiscard]] std::vector<absl::string_view> WaivedLayers(const MonitorJailOptions& options);

[[nodiscard]] absl::Status ValidateJailOptions(const JailOptions& options);

// How the options travel to the device process: `--jail-...` arguments, none for the default.
[[nodiscard]] std::vector<std::string> JailOptionArguments(const JailOptions& options);
// True: `argument` was one of them and is now set in `options`.
[[nodiscard]] bool ParseJailOptionArgument(absl::string_view argument, JailOptions& options);

}  // namespace vmm

#endif  // VMM_SANDBOX_JAIL_OPTIONS_H_
