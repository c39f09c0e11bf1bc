// The monitor's own confinement: what its threads give up once the machine is built, and the filters that they run under.
//
// Shapes   the event-loop thread calls DropPrivileges before it starts the processors' threads, which have the same from then on;
//          each then puts its filter on: FilterVpThread (vp.policy), FilterMonitorThread (monitor.policy; main of `vmm run` too).
// Threads  PrepareConfinement: once a machine, before the rest; any thread. The others: each thread for itself.
// Trust    what holds against a guest that has taken a thread over is the wider of the two filters: threads share memory.
//          PrepareConfinement sets options of malloc (mallopt: arenas, trimming), for the process.
// Errors   Status; the caller ends the machine. What the options waive is left out, and nothing else; a kernel without Landlock
//          lacks that layer (`vmm check` says so).
//
// No device process can be started afterwards: all are started while the machine is built, and those that may have to be started again
// by a process that is let do it (sandbox/spawner.h; docs/design.md, section 3).
#ifndef VMM_VMM_CONFINE_CONFINE_MONITOR_H_
#define VMM_VMM_CONFINE_CONFINE_MONITOR_H_

#include "absl/status/status.h"
#include "sandbox/jail_options.h"

namespace vmm {

struct ConfinementNeeds {
  bool locks_memory = false;        // pages are locked while the machine runs
  bool foreign_device_ids = false;  // device processes without namespaces, whose user may be another
};

[[nodiscard]] absl::Status PrepareConfinement(const MonitorJailOptions& options, const ConfinementNeeds& needs);
[[nodiscard]] absl::Status DropPrivileges(const MonitorJailOptions& options, const ConfinementNeeds& needs);
[[nodiscard]] absl::Status FilterVpThread(const MonitorJailOptions& options);
[[nodiscard]] absl::Status FilterMonitorThread(const MonitorJailOptions& options);

// One warning in the log for what is waived or only reported, of the monitor and of its devices; nothing where all holds.
void TellWaivedConfinement(const MonitorJailOptions& monitor, const JailOptions& devices);

}  // namespace vmm

#endif  // VMM_VMM_CONFINE_CONFINE_MONITOR_H_
