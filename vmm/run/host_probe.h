// What this host offers, for `vmm check`: asked of KVM, of the kernel's sandboxing and of /proc.
//
// Threads  any; starts and reaps one short-lived child (sandbox/probe.h).
// Errors   none: what is missing, or cannot be read, is a value of the report.
#ifndef VMM_VMM_RUN_HOST_PROBE_H_
#define VMM_VMM_RUN_HOST_PROBE_H_

#include "vmm/cli/host_report.h"

namespace vmm {

[[nodiscard]] HostReport ProbeHost();

}  // namespace vmm

#endif  // VMM_VMM_RUN_HOST_PROBE_H_
