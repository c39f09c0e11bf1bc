#include "sandbox/jail_options.h"

namespace vmm {
namespace {

struct Name {
  absl::string_view argument;
  bool JailOptions::*field;
};
constexpr Name kNames[] = {
    {"--jail-log-only", &JailOptions::log_only},
    {"--jail-waive-namespaces", &JailOptions::waive_namespaces},
    {"--jail-waive-empty-root", &JailOptions::waive_empty_root},
    {"--jail-waive-seccomp", &JailOptions::waive_seccomp},
};

}  // namespace

absl::Status ValidateJailOptions(const JailOptions& options) {
  if (options.waive_namespaces && !options.waive_empty_root) {
    return absl::InvalidArgumentError(
        "sandbox: namespaces are waived but the empty root is not: it needs a mount namespace, so waive both or none");
  }
  return absl::OkStatus();
}

std::vector<std::string> JailOptionArguments(const JailOptions& options) {
  std::vector<std::string> arguments;
  for (const Name& name : kNames) {
    if (options.*name.field) arguments.emplace_back(name.argument);
  }
  return arguments;
}

bool ParseJailOptionArgument(absl::string_view argument, JailOptions& options) {
  for (const Name& name : kNames) {
    if (argument == name.argument) return options.*name.field = true;
  }
  return false;
}

}  // namespace vmm
