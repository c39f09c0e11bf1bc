#include "vmm/run/run_machine.h"

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/event_fd.h"
#include "base/log.h"
#include "base/owned_fd.h"
#include "sandbox/violation.h"
#include "vmm/cli/cli.h"
#include "vmm/cli/exit_status.h"
#include "vmm/microvm.h"
#include "vmm/run/inherited_fds.h"
#include "vmm/run/stats_text.h"
#include "vmm/run/terminal.h"

namespace vmm {
namespace {

// Blocks, in this thread and all that it starts, the signals by which people end a program, and makes them readable.
absl::StatusOr<OwnedFd> TakeSignals() {
  sigset_t signals;
  ::sigemptyset(&signals);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGCONT}) ::sigaddset(&signals, signal);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  const int fd = ::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
  if (fd < 0) return absl::InternalError(absl::StrCat("create signalfd: error ", errno));
  return OwnedFd(fd);
}

// The number of the signal that ended it, 0 if none did.
int WaitForEnd(int signal_fd, int end_fd, MicroVm& vm, RawTerminal* terminal) {
  pollfd fds[] = {{signal_fd, POLLIN, 0}, {end_fd, POLLIN, 0}};
  int ended_by = 0;
  while (true) {
    if (::poll(fds, 2, -1) < 0) continue;
    if ((fds[1].revents & POLLIN) != 0) return ended_by;
    signalfd_siginfo info;
    if (::read(signal_fd, &info, sizeof(info)) != sizeof(info)) continue;
    const int signal = static_cast<int>(info.ssi_signo);
    if (signal == SIGCONT) {
      if (terminal != nullptr) terminal->Reenter();
    } else {
      ended_by = signal;
      vm.Stop();
    }
  }
}

}  // namespace

int RunMachine(const VmConfig& config) {
  const std::vector<int> inherited = InheritedFds();
  absl::StatusOr<OwnedFd> signals = TakeSignals();
  absl::StatusOr<EventFd> end = EventFd::Create();
  if (!signals.ok() || !end.ok()) {
    PrintProblem(STDERR_FILENO, signals.ok() ? end.status() : signals.status());
    return static_cast<int>(ExitCode::kInternalError);
  }
  const bool owns_terminal = (config.serial.enabled && config.serial.output == SerialOutput::kStdio) ||
                             config.console.output == ConsoleOutput::kStdio;
  MicroVm::Options options;
  options.on_end = [&end](const EndReport&) { end->Signal(); };
#ifdef VMM_DYNAMIC_LINK
  Log(LogLevel::kWarning, "sandbox", "this is a sanitizer build: the monitor is not confined");
  constexpr bool confine = false;
#else
  constexpr bool confine = true;
#endif
  options.confine = confine;
  options.interactive = owns_terminal && ::isatty(STDIN_FILENO) != 0;
  auto vm = MicroVm::Create(config, std::move(options));
  if (!vm.ok()) {
    PrintProblem(STDERR_FILENO, vm.status());
    return ExitStatusOf(vm.status());
  }
  std::optional<RawTerminal> terminal;
  if (owns_terminal) terminal.emplace();
  // What the configuration names by number or path has been opened by now.
  if (confine) CloseInherited(inherited);
  absl::Status started;
  if (confine) started = (*vm)->ConfineCaller();
  if (started.ok()) started = (*vm)->Start();
  if (!started.ok()) {
    terminal.reset();
    PrintProblem(STDERR_FILENO, started);
    return ExitStatusOf(started);
  }
  const int signal = WaitForEnd(signals->get(), end->fd(), **vm, terminal ? &*terminal : nullptr);
  const EndReport report = (*vm)->Wait();
  const MicroVmStats stats = (*vm)->stats();
  vm->reset();
  terminal.reset();
  for (const StatsLine& line : StatsLines(stats)) Log(line.level, "vmm", line.text);
  if (const int calls = ViolationsLetThrough(); calls > 0) {
    Log(LogLevel::kWarning, "sandbox", absl::StrCat(calls, " different system calls outside the monitor's policies were let through"));
  }
  // A guest that ended by itself before the signal came has its own status.
  if (signal != 0 && report.end == MachineEnd::kStopped) {
    Log(LogLevel::kInfo, "vmm", absl::StrCat("stopped by signal ", signal));
    return 128 + signal;
  }
  const bool expected = report.end == MachineEnd::kPoweredOff || report.end == MachineEnd::kRebooted ||
                        report.end == MachineEnd::kStopped || report.end == MachineEnd::kDebugExit;
  Log(expected ? LogLevel::kInfo : LogLevel::kError, "vmm", report.detail);
  return ExitStatusOf(report.end, report.value);
}

}  // namespace vmm
