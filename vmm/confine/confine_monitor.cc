#include "vmm/confine/confine_monitor.h"

#include <malloc.h>

#include <climits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "sandbox/confine.h"
#include "sandbox/seccomp_filter.h"
#include "sandbox/violation.h"
#include "vmm/confine/monitor_policy.h"
#include "vmm/confine/vp_policy.h"

namespace vmm {
namespace {

ViolationMode ModeOf(const MonitorJailOptions& options) {
  return options.log_only ? ViolationMode::kLetThrough : ViolationMode::kDie;
}

absl::Status Filter(const MonitorJailOptions& options, const SeccompPolicy& policy) {
  if (options.waive_seccomp) return absl::OkStatus();
  return InstallSeccomp(policy, SeccompScope::kThisThread, ModeOf(options));
}

// What libraries look up in files or ask the kernel when they first need it, which is too late for a confined thread.
void LookUpEarly() {
  // glibc's malloc asks for the number of processors when a ninth thread wants an arena, and opens /proc/sys/vm/overcommit_memory
  // before it gives back the end of an arena that is not the first.
  constexpr int kArenas = 4;
  ::mallopt(M_ARENA_MAX, kArenas);
  ::mallopt(M_TRIM_THRESHOLD, INT_MAX);
}

}  // namespace

absl::Status PrepareConfinement(const MonitorJailOptions& options, const ConfinementNeeds& needs) {
  LookUpEarly();
  if (needs.locks_memory && !options.waive_capabilities) RETURN_IF_ERROR(RaiseLockLimit());
  if (options.waive_seccomp) return absl::OkStatus();
  return InstallViolationHandler(ModeOf(options), ViolationOutput::kLog);
}

absl::Status DropPrivileges(const MonitorJailOptions& options, const ConfinementNeeds& needs) {
  return DropThreadPrivileges(options, {.keep_kill = needs.foreign_device_ids});
}

absl::Status FilterVpThread(const MonitorJailOptions& options) { return Filter(options, kVpPolicy); }
absl::Status FilterMonitorThread(const MonitorJailOptions& options) { return Filter(options, kMonitorPolicy); }

void TellWaivedConfinement(const MonitorJailOptions& monitor, const JailOptions& devices) {
  const auto waived = [](absl::string_view whose, const std::vector<absl::string_view>& layers) {
    if (layers.empty()) return;
    Log(LogLevel::kWarning, "sandbox",
        absl::StrCat("the configuration waives ", absl::StrJoin(layers, ", "), " for ", whose));
  };
  waived("device processes", WaivedLayers(devices));
  waived("the monitor", WaivedLayers(monitor));
  if (devices.log_only || monitor.log_only) {
    Log(LogLevel::kWarning, "sandbox",
        "sandbox.mode is LOG: system calls that a policy does not have are reported and LET THROUGH. This is for development; a guest "
        "that is not trusted must not run like this");
  }
}

}  // namespace vmm
