// The program's exit statuses: published, never changed, never used again for something else.
//
// Shapes   all of them are even: odd ones belong to guests that end the TEST machine by writing a value to its debug-exit
//          port, (value << 1) | 1, of which the system keeps 8 bits. A shell shows 128+n for a program that signal n ended;
//          no status here is that large.
// Threads  any, pure.
#ifndef VMM_VMM_CLI_EXIT_STATUS_H_
#define VMM_VMM_CLI_EXIT_STATUS_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "devices/machine_control.h"

namespace vmm {

enum class ExitCode : int {
  kOk = 0,
  kUsage = 2,
  kConfigRefused = 4,
  kImageRefused = 6,
  kHostLacks = 8,
  kNoResources = 10,
  kRebooted = 32,
  kTripleFault = 34,
  kPanicked = 36,
  kDeviceFailed = 38,
  kInternalError = 40,
  kStopped = 42,
  kGuestCrash = 44,
};

struct ExitCodeHelp {
  ExitCode code;
  const char* name;
  const char* sentence;
};
[[nodiscard]] absl::Span<const ExitCodeHelp> ExitCodes();

// Why a machine could not be created or started (microvm.h says which code means what). OK is 0.
[[nodiscard]] int ExitStatusOf(const absl::Status& status);
// How a machine ended. `value` is EndReport's: what the guest wrote, where that is how.
[[nodiscard]] int ExitStatusOf(MachineEnd end, uint32_t value);

// What `vmm help exit-status` prints.
[[nodiscard]] std::string ExitStatusText();

}  // namespace vmm

#endif  // VMM_VMM_CLI_EXIT_STATUS_H_
