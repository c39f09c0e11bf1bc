#include "sandbox/jail_options.h"

#include <initializer_list>
#include <utility>

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

template <typename Options>
std::vector<absl::string_view> Waived(const Options& options,
                                      std::initializer_list<std::pair<absl::string_view, bool Options::*>> layers) {
  std::vector<absl::string_view> names;
  for (const auto& [name, waived] : layers) {
    if (options.*waived) names.push_back(name);
  }
  return names;
}

}  // namespace

std::vector<absl::string_view> WaivedLayers(const JailOptions& options) {
  return Waived(options, {{"NAMESPACES", &JailOptions::waive_namespaces},
                          {"EMPTY_ROOT", &JailOptions::waive_empty_root},
                          {"SECCOMP", &JailOptions::waive_seccomp}});
}

std::vector<absl::string_view> WaivedLayers(const MonitorJailOptions& options) {
  return Waived(options, {{"SECCOMP", &MonitorJailOptions::waive_seccomp},
                          {"LANDLOCK", &MonitorJailOptions::waive_landlock},
                          {"CAPABILITIES", &MonitorJailOptions::waive_capabilities},
                          {"UNDUMPABLE", &MonitorJailOptions::waive_undumpable}});
}

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
