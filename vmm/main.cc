// The `vmm` program: the command line, a machine to run, a host to look at, or one device.

#include "absl/strings/str_cat.h"
#include "vmm/cli/cli.h"
#include "vmm/cli/exit_status.h"
#include "vmm/microvm.h"
#include "vmm/run/host_probe.h"
#include "vmm/run/run_machine.h"

int main(int argc, char** argv) {
  // First of all: a device process parses no configuration and no flags but its own.
  if (int exit_code = 0; vmm::RunDeviceProcess(argc, argv, exit_code)) return exit_code;

  vmm::CliHooks hooks;
  hooks.run = &vmm::RunMachine;
  hooks.check = &vmm::ProbeHost;
  hooks.device = [](absl::string_view kind, int, char**) {
    vmm::PrintProblem(2, absl::InvalidArgumentError(absl::StrCat("device: unknown kind '", kind, "'; there are: balloon, block, console, net, rng, rtc, serial, vsock")));
    return static_cast<int>(vmm::ExitCode::kUsage);
  };
  hooks.kernel_headers = VMM_KERNEL_HEADERS;
  return vmm::RunCli(argc, argv, hooks);
}
