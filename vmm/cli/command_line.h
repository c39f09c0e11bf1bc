// Arguments to a command: which verb, which configuration, which fields are overridden.
//
// Shapes   vmm VERB [FLAG ...]; a flag is --name=value, and for the flags that are not fields also --name value.
//          Every field of the configuration is a flag by its path.
// Threads  any, pure.
// Trust    arguments are quoted escaped.
// Errors   INVALID_ARGUMENT with one line; whether a field's *value* makes sense is the configuration's business.
#ifndef VMM_VMM_CLI_COMMAND_LINE_H_
#define VMM_VMM_CLI_COMMAND_LINE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "vmm/config/message_builder.h"

namespace vmm {

enum class Verb : uint8_t { kRun, kValidate, kCheck, kVersion, kDevice, kHelp };

struct CommandLine {
  Verb verb = Verb::kHelp;
  std::string config;                     // run, validate: the file; "" where flags say everything
  std::vector<ConfigOverride> overrides;  // run, validate
  bool print = false;                     // validate
  bool json = false;                      // check, version
  std::string device_kind;                // device
  size_t device_arguments = 0;            // device: index into the arguments of the first after KIND
  std::vector<std::string> help;          // help: the topic, or nothing
};

// `arguments` does not hold the program's name.
absl::StatusOr<CommandLine> ParseCommandLine(absl::Span<const char* const> arguments);

// "" where there is no such topic. Topics: nothing, a verb, "config [FIELD]", "exit-status".
[[nodiscard]] std::string HelpText(absl::Span<const std::string> topic);

}  // namespace vmm

#endif  // VMM_VMM_CLI_COMMAND_LINE_H_
