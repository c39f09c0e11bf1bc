// `vmm run`: one machine, from its start to its end, with the person's terminal and signals.
//
// Threads  main's, before there are others.
// Errors   on standard error and in the log; the result is the exit status (vmm/cli/exit_status.h).
#ifndef VMM_VMM_RUN_RUN_MACHINE_H_
#define VMM_VMM_RUN_RUN_MACHINE_H_

#include "vmm/config/vm_config.h"

namespace vmm {

int RunMachine(const VmConfig& config);

}  // namespace vmm

#endif  // VMM_VMM_RUN_RUN_MACHINE_H_
