// A microVM as a library: create it from a configuration, start it, wait for its end.
//
// Shapes   one process each for its devices, one thread for each virtual processor, one event-loop thread.
// Threads  Create, Start, Wait and the destructor: the owner's. Stop, stats: any. on_end: called on the event-loop thread.
// Trust    the configuration has been validated (vmm/config); the kernel, the initramfs and the guest are hostile.
// Errors   Create, Start: Status whose code tells the stage: INVALID_ARGUMENT an image was refused; NOT_FOUND,
//          PERMISSION_DENIED, FAILED_PRECONDITION, UNIMPLEMENTED the host lacks something; RESOURCE_EXHAUSTED, UNAVAILABLE
//          not to be had; else our fault. ExitStatusOf in vmm/cli/exit_status.h maps them.
//
// Signals: SIGRTMIN is ours (an empty handler), and SIGSYS where a machine is confined; everything else is left to the
// program. A device process is a re-execution of `device_executable`, whose main must call RunDeviceProcess when it is
// started as `... device KIND ...`.
#ifndef VMM_VMM_MICROVM_H_
#define VMM_VMM_MICROVM_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "devices/machine_control.h"
#include "vmm/config/vm_config.h"
#include "vmm/machine/lifecycle.h"
#include "vmm/microvm_stats.h"

namespace vmm {

class MicroVm {
 public:
  struct Options {
    // The machine has ended; called once, before Wait returns, if Start has been called. Must not call Wait or destroy the
    // machine: it runs on the thread that those wait for.
    std::function<void(const EndReport&)> on_end;
    // Started for each device process. Empty: the running program.
    std::string device_executable;
    // The person at the terminal may end the machine by Ctrl-A x.
    bool interactive = false;
    // Start shuts the machine's own threads in for good (vmm/confine): no capability, no file, a system call filter, but for what
    // VmConfig::monitor waives. SIGSYS is then ours too. The program's other threads are the program's: ConfineCaller.
    bool confine = false;
  };

  static absl::StatusOr<std::unique_ptr<MicroVm>> Create(const VmConfig& config, Options options);
  virtual ~MicroVm() = default;

  // Once. After an error the machine can only be destroyed.
  virtual absl::Status Start() = 0;
  // Until the machine has ended and its device processes are gone. A second call returns the same at once, as does a call
  // for a machine that was never started.
  virtual EndReport Wait() = 0;
  // With Options::confine, between Create and Start: the same for the calling thread, and the process not dumpable. Only for a
  // program that does nothing else from then on: opening a file ends it.
  virtual absl::Status ConfineCaller() = 0;
  // Ends the machine as if its plug were pulled. Idempotent. Before Start: the machine ends as soon as it is started.
  virtual void Stop() noexcept = 0;
  // Asks the guest to give up so much memory, or to take some back. FAILED_PRECONDITION without a balloon. Any thread.
  virtual absl::Status SetBalloonTarget(uint64_t mib) = 0;
  [[nodiscard]] virtual MicroVmStats stats() const = 0;
};

// True if `argv` is that of a device process; then `exit_code` is what main returns, at once.
[[nodiscard]] bool RunDeviceProcess(int argc, char** argv, int& exit_code);

}  // namespace vmm

#endif  // VMM_VMM_MICROVM_H_
