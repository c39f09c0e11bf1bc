#include "vmm/cli/exit_status.h"

#include "absl/strings/str_format.h"

namespace vmm {
namespace {

constexpr ExitCodeHelp kExitCodes[] = {
    {ExitCode::kOk, "ok", "The guest powered off; every other command: it was done."},
    {ExitCode::kUsage, "usage", "The command line is wrong."},
    {ExitCode::kConfigRefused, "config-refused", "The configuration is refused; nothing was started."},
    {ExitCode::kImageRefused, "image-refused", "The kernel or the initramfs is refused."},
    {ExitCode::kHostLacks, "host-lacks", "The host lacks something: /dev/kvm, a permission, a capability. `vmm check` says what."},
    {ExitCode::kNoResources, "no-resources", "Memory or another resource is not to be had."},
    {ExitCode::kRebooted, "rebooted", "The guest asked for a reboot."},
    {ExitCode::kTripleFault, "triple-fault", "A virtual processor triple-faulted."},
    {ExitCode::kPanicked, "panicked", "The guest's kernel reported a panic."},
    {ExitCode::kDeviceFailed, "device-failed", "A device failed, and its on_failure is STOP."},
    {ExitCode::kInternalError, "internal-error", "KVM could not go on, or the monitor is at fault."},
    {ExitCode::kStopped, "stopped", "The machine was stopped on request: Ctrl-A x, or the library's Stop."},
    {ExitCode::kGuestCrash, "guest-crash", "The guest reported a crash by the Hyper-V crash registers."},
};

}  // namespace

absl::Span<const ExitCodeHelp> ExitCodes() { return kExitCodes; }

int ExitStatusOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk: return static_cast<int>(ExitCode::kOk);
    case absl::StatusCode::kInvalidArgument: return static_cast<int>(ExitCode::kImageRefused);
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kUnimplemented: return static_cast<int>(ExitCode::kHostLacks);
    case absl::StatusCode::kUnavailable:  // EAGAIN: no further thread or process
    case absl::StatusCode::kResourceExhausted: return static_cast<int>(ExitCode::kNoResources);
    default: return static_cast<int>(ExitCode::kInternalError);
  }
}

int ExitStatusOf(MachineEnd end, uint32_t value) {
  switch (end) {
    case MachineEnd::kPoweredOff: return static_cast<int>(ExitCode::kOk);
    case MachineEnd::kRebooted: return static_cast<int>(ExitCode::kRebooted);
    case MachineEnd::kTripleFault: return static_cast<int>(ExitCode::kTripleFault);
    case MachineEnd::kPanicked: return static_cast<int>(ExitCode::kPanicked);
    case MachineEnd::kDeviceFailed: return static_cast<int>(ExitCode::kDeviceFailed);
    case MachineEnd::kInternalError: return static_cast<int>(ExitCode::kInternalError);
    case MachineEnd::kStopped: return static_cast<int>(ExitCode::kStopped);
    case MachineEnd::kGuestCrash: return static_cast<int>(ExitCode::kGuestCrash);
    case MachineEnd::kDebugExit: return static_cast<int>((value << 1 | 1) & 0xff);
  }
  return static_cast<int>(ExitCode::kInternalError);
}

std::string ExitStatusText() {
  std::string out;
  for (const ExitCodeHelp& help : kExitCodes) {
    absl::StrAppendFormat(&out, "%6d  %-15s %s\n", static_cast<int>(help.code), help.name, help.sentence);
  }
  absl::StrAppendFormat(&out, "%6s  %-15s %s\n", "odd", "debug-exit",
                        "The guest of a TEST machine wrote a value to its debug-exit port: (value << 1) | 1.");
  absl::StrAppendFormat(&out, "%6s  %-15s %s\n", "128+n", "signal", "Signal n ended the program (as a shell shows it).");
  return out;
}

}  // namespace vmm
