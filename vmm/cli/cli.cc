#include "vmm/cli/cli.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/types/span.h"
#include "base/errno_status.h"
#include "base/log.h"
#include "vmm/cli/check_report.h"
#include "vmm/cli/command_line.h"
#include "vmm/cli/exit_status.h"
#include "vmm/cli/version.h"
#include "vmm/config/load_config.h"
#include "vmm/config/problems.h"

namespace vmm {
namespace {

bool WriteAll(int fd, absl::string_view text) {
  while (!text.empty()) {
    const ssize_t count = ::write(fd, text.data(), text.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    text.remove_prefix(static_cast<size_t>(count));
  }
  return true;
}

int Exit(ExitCode code) { return static_cast<int>(code); }

// What cannot be written was not said: a program that reads us must not take silence for an answer.
int Say(const CliHooks& hooks, absl::string_view text, ExitCode code = ExitCode::kOk) {
  if (WriteAll(hooks.out_fd, text)) return Exit(code);
  PrintProblem(hooks.error_fd, ErrnoStatus(errno, "write standard output"));
  return Exit(ExitCode::kInternalError);
}

int Refuse(const CliHooks& hooks, const absl::Status& status, ExitCode code) {
  PrintProblem(hooks.error_fd, status);
  return Exit(code);
}

// The descriptor stays open for the life of the process: the log borrows it.
absl::Status SetUpLog(const VmConfig& config) {
  LogConfig log{.level = config.logging.level, .format = config.logging.format};
  if (!config.logging.file.empty()) {
    log.fd = ::open(config.logging.file.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0640);
    if (const int error = errno; log.fd < 0) {
      return ErrnoStatus(error, absl::StrCat("logging.file: cannot open ", QuotePath(config.logging.file)));
    }
  }
  ConfigureLog(log);
  return absl::OkStatus();
}

int RunOrValidate(const CommandLine& command, const CliHooks& hooks) {
  absl::StatusOr<LoadedConfig> loaded = LoadConfigWithMessage(command.config, command.overrides);
  if (!loaded.ok()) return Refuse(hooks, loaded.status(), ExitCode::kConfigRefused);
  if (command.verb == Verb::kValidate) return Say(hooks, command.print ? ConfigToText(loaded->effective) : "");
  const VmConfig config = std::move(loaded->config);
  loaded = absl::CancelledError();  // the message is not needed while the machine runs
  if (const absl::Status status = SetUpLog(config); !status.ok()) return Refuse(hooks, status, ExitCode::kConfigRefused);
  return hooks.run(config);
}

int Help(const CommandLine& command, const CliHooks& hooks) {
  const std::string text = HelpText(command.help);
  if (!text.empty()) return Say(hooks, text);
  std::string topic;
  for (const std::string& word : command.help) absl::StrAppend(&topic, topic.empty() ? "" : " ", word);
  return Refuse(hooks, absl::InvalidArgumentError(absl::StrCat("help: no such topic ", Quote(topic), "; `vmm help help` lists them")),
                ExitCode::kUsage);
}

}  // namespace

void PrintProblem(int fd, const absl::Status& status) {
  std::string out;
  for (const absl::string_view line : absl::StrSplit(status.message(), '\n')) {
    absl::StrAppend(&out, "vmm: ", Printable(line), "\n");
  }
  WriteAll(fd, out);
}

int RunCli(int argc, char** argv, const CliHooks& hooks) {
  const std::vector<const char*> arguments(argv + (argc > 0 ? 1 : 0), argv + argc);
  const absl::StatusOr<CommandLine> command = ParseCommandLine(arguments);
  if (!command.ok()) return Refuse(hooks, command.status(), ExitCode::kUsage);
  switch (command->verb) {
    case Verb::kRun:
    case Verb::kValidate: return RunOrValidate(*command, hooks);
    case Verb::kCheck: {
      const HostReport report = hooks.check();
      return Say(hooks, command->json ? CheckReportJson(report) : CheckReportText(report),
                 JudgeHost(report).ready ? ExitCode::kOk : ExitCode::kHostLacks);
    }
    case Verb::kVersion:
      return Say(hooks, command->json ? VersionJson(hooks.kernel_headers) : VersionText(hooks.kernel_headers));
    case Verb::kDevice: {
      const int skip = static_cast<int>(command->device_arguments) + 1;
      return hooks.device(command->device_kind, argc - skip, argv + skip);
    }
    case Verb::kHelp: return Help(*command, hooks);
  }
  return Exit(ExitCode::kInternalError);
}

}  // namespace vmm
