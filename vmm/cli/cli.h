// The command line as a whole: everything between main and the running of a machine.
//
// Threads  the caller's; called once, before there are others.
// Trust    arguments, files and what hooks report are quoted escaped.
// Errors   on standard error, one "vmm: ..." line a problem; the result is the exit status (exit_status.h).
#ifndef VMM_VMM_CLI_CLI_H_
#define VMM_VMM_CLI_CLI_H_

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "vmm/cli/host_report.h"
#include "vmm/config/vm_config.h"

namespace vmm {

struct CliHooks {
  // Runs the machine to its end; returns the exit status. The log has been configured.
  std::function<int(const VmConfig&)> run;
  std::function<HostReport()> check;
  // Is one device. argv[0..argc) are the arguments after KIND. Unknown kinds: PrintProblem, and ExitCode::kUsage.
  std::function<int(absl::string_view kind, int argc, char** argv)> device;
  absl::string_view kernel_headers;
  int out_fd = 1;
  int error_fd = 2;
};

// argv[0] is the program's name and is not looked at.
int RunCli(int argc, char** argv, const CliHooks& hooks);

// The status's message as "vmm: ..." lines, for hooks.
void PrintProblem(int fd, const absl::Status& status);

}  // namespace vmm

#endif  // VMM_VMM_CLI_CLI_H_
