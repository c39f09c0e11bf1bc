#include "vmm/cli/command_line.h"

#include <optional>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "vmm/cli/exit_status.h"
#include "vmm/config/help.h"
#include "vmm/config/problems.h"
#include "vmm/config/suggest.h"

namespace vmm {
namespace {

struct VerbHelp {
  Verb verb;
  const char* name;
  const char* text;
};

constexpr char kMachineFlags[] =
    "  --config FILE             text format, or JSON where the name ends in .json; - is standard input\n"
    "  --FIELD=VALUE             any field of the configuration by its path: --memory.size_mib=512;\n"
    "                            a list's items are separated by commas; --FIELD alone sets a bool\n"
    "  --sandbox=enforce|log     short for --sandbox.mode\n"
    "  --log-level=LEVEL         error, warning, info, debug; short for --logging.level\n"
    "  --log-format=text|json    short for --logging.format\n"
    "  --log-file=FILE           short for --logging.file\n";

constexpr VerbHelp kVerbs[] = {
    {Verb::kRun, "run",
     "vmm run --config FILE [--FIELD=VALUE ...]\n\nStart a microVM; wait for its end. Its serial port is this terminal; Ctrl-A x stops it.\n"},
    {Verb::kValidate, "validate",
     "vmm validate --config FILE [--FIELD=VALUE ...] [--print]\n\nCheck a configuration; start nothing.\n"
     "  --print                   print the effective configuration\n"},
    {Verb::kCheck, "check",
     "vmm check [--json]\n\nSay what this host offers, and what that means for protections.\n"
     "The status is 0 where machines can run, and 8 where the host lacks something.\n"},
    {Verb::kVersion, "version", "vmm version [--json]\n\nSay which build this is.\n"},
    {Verb::kDevice, "device",
     "vmm device KIND --socket PATH|--fd N [ARGUMENT ...]\n\n"
     "Be one virtio device in a process of its own, a vhost-user backend for another VMM that connects to PATH, or has\n"
     "connected to descriptor N. `vmm run` starts its own; console, rtc and serial are for it alone.\n"
     "  balloon                   --target-mib=N --stats-seconds=N --no-deflate-on-oom --no-reporting\n"
     "  block --path=FILE         --serial=TEXT --queues=N --workers=N --read-only --split-rings\n"
     "                            --bytes-per-second=N --operations-per-second=N\n"
     "  net --tap=NAME|--tap-fd=N|--user|--stream-fd=N\n"
     "                            --mac=ADDRESS --mtu=N --queues=N --bytes-per-second=N --packets-per-second=N;\n"
     "                            with --user: --passt=PROGRAM --tcp-ports=SPEC --udp-ports=SPEC\n"
     "  rng\n"
     "  vsock --path=PATH         --guest-cid=N\n"
     "`vmm help config devices` says what they mean.\n"},
    {Verb::kHelp, "help",
     "vmm help [TOPIC]\n\nTopics: run, validate, check, version, device, config [FIELD], exit-status.\n"},
};

constexpr struct {
  const char* flag;
  const char* path;
} kAliases[] = {
    {"sandbox", "sandbox.mode"},
    {"log-level", "logging.level"},
    {"log-format", "logging.format"},
    {"log-file", "logging.file"},
};

constexpr char kOverview[] =
    "vmm: a microVM monitor\n\n"
    "  vmm run --config FILE [--FIELD=VALUE ...]        start a microVM\n"
    "  vmm validate --config FILE [--FIELD=VALUE ...]   check a configuration, start nothing\n"
    "  vmm check [--json]                               what this host offers\n"
    "  vmm version [--json]                             which build this is\n"
    "  vmm device KIND --socket PATH [ARGUMENT ...]     one virtio device, for another VMM\n"
    "  vmm help [TOPIC]                                 a command, config [FIELD], exit-status\n";

bool TakesConfig(Verb verb) { return verb == Verb::kRun || verb == Verb::kValidate; }
bool TakesJson(Verb verb) { return verb == Verb::kCheck || verb == Verb::kVersion; }

std::vector<std::string> FlagNames(Verb verb) {
  std::vector<std::string> names = {"--help"};
  if (TakesJson(verb)) names.push_back("--json");
  if (!TakesConfig(verb)) return names;
  names.push_back("--config");
  if (verb == Verb::kValidate) names.push_back("--print");
  for (const auto& alias : kAliases) names.push_back(absl::StrCat("--", alias.flag));
  for (const FieldHelp& field : ConfigFields()) {
    if (!absl::StrContains(field.path, "[]")) names.push_back(absl::StrCat("--", field.path));
  }
  return names;
}

absl::Status Wrong(absl::string_view what) { return absl::InvalidArgumentError(what); }

class Parser final {
 public:
  Parser(absl::Span<const char* const> arguments, const VerbHelp& verb) : arguments_(arguments), verb_(verb) {
    result_.verb = verb.verb;
  }

  // From the argument after the verb on.
  absl::StatusOr<CommandLine> Parse() {
    for (at_ = 1; at_ < arguments_.size(); ++at_) {
      const absl::string_view argument = arguments_[at_];
      if (argument == "--help" || argument == "-h") return HelpAboutThis();
      if (verb_.verb == Verb::kDevice) {
        if (absl::StartsWith(argument, "-")) return Wrong("device: needs a KIND before its arguments");
        result_.device_kind = std::string(argument);
        result_.device_arguments = at_ + 1;
        return result_;
      }
      if (!absl::StartsWith(argument, "-") || argument == "-") {
        if (verb_.verb != Verb::kHelp) return Wrong(Unexpected(argument));
        result_.help.emplace_back(argument);
        continue;
      }
      RETURN_IF_ERROR(Flag(argument));
    }
    if (verb_.verb == Verb::kDevice) return Wrong("device: needs a KIND");
    if (TakesConfig(verb_.verb) && !seen_.contains("config") && result_.overrides.empty()) {
      return Wrong(absl::StrCat(verb_.name, ": needs --config FILE"));
    }
    return result_;
  }

 private:
  CommandLine HelpAboutThis() {
    CommandLine help;
    if (verb_.verb != Verb::kHelp) help.help.emplace_back(verb_.name);
    return help;
  }
  [[nodiscard]] std::string Unexpected(absl::string_view argument) const {
    const std::string hint = TakesConfig(verb_.verb) && !seen_.contains("config") ? "; a configuration is named by --config" : "";
    return absl::StrCat(verb_.name, ": unexpected argument ", Quote(argument), hint);
  }

  absl::Status Flag(absl::string_view argument) {
    const size_t equals = argument.find('=');
    const absl::string_view typed = argument.substr(0, equals);
    std::optional<std::string> value;
    if (equals != absl::string_view::npos) value = std::string(argument.substr(equals + 1));
    const absl::string_view name = absl::StartsWith(typed, "--") ? typed.substr(2) : "";

    if (TakesJson(verb_.verb) && name == "json") return Switch(name, value, result_.json);
    if (verb_.verb == Verb::kValidate && name == "print") return Switch(name, value, result_.print);
    if (TakesConfig(verb_.verb)) {
      if (name == "config") {
        RETURN_IF_ERROR(Once(name, "--config"));
        RETURN_IF_ERROR(NeedValue(name, value));
        if (value->empty()) return Wrong(absl::StrCat(verb_.name, ": --config needs a FILE"));
        result_.config = *value;
        return absl::OkStatus();
      }
      for (const auto& alias : kAliases) {
        if (name != alias.flag) continue;
        RETURN_IF_ERROR(Once(alias.path, typed));
        RETURN_IF_ERROR(NeedValue(name, value));
        result_.overrides.push_back({absl::StrCat("--", name, "=", *value), alias.path, value});
        return absl::OkStatus();
      }
      if (const FieldHelp* const field = FindConfigField(name); field != nullptr) {
        RETURN_IF_ERROR(Once(name, typed));
        if (!value && absl::string_view(field->type) != "bool") {
          return Wrong(absl::StrCat(verb_.name, ": ", typed, " needs a value: ", typed, "=VALUE"));
        }
        result_.overrides.push_back({std::string(argument), std::string(name), value});
        return absl::OkStatus();
      }
    }
    return Wrong(absl::StrCat(verb_.name, ": unknown flag ", Printable(typed.substr(0, 80)),
                              DidYouMean(typed, FlagNames(verb_.verb))));
  }

  absl::Status Once(absl::string_view key, absl::string_view typed) {
    if (seen_.emplace(key).second) return absl::OkStatus();
    return Wrong(absl::StrCat(verb_.name, ": ", typed, " is given twice"));
  }
  // --name value: the value is the next argument.
  absl::Status NeedValue(absl::string_view name, std::optional<std::string>& value) {
    if (value) return absl::OkStatus();
    // A flag in its place means that it was forgotten. "-" is a file's name.
    if (at_ + 1 >= arguments_.size() || absl::StartsWith(arguments_[at_ + 1], "--")) {
      return Wrong(absl::StrCat(verb_.name, ": --", name, " needs a value"));
    }
    value = arguments_[++at_];
    return absl::OkStatus();
  }
  absl::Status Switch(absl::string_view name, const std::optional<std::string>& value, bool& flag) {
    if (value) return Wrong(absl::StrCat(verb_.name, ": --", name, " takes no value"));
    flag = true;
    return absl::OkStatus();
  }

  const absl::Span<const char* const> arguments_;
  const VerbHelp& verb_;
  size_t at_ = 0;
  std::set<std::string> seen_;
  CommandLine result_;
};

}  // namespace

absl::StatusOr<CommandLine> ParseCommandLine(absl::Span<const char* const> arguments) {
  if (arguments.empty()) return Wrong("needs a command: run, validate, check, version or help");
  const absl::string_view first = arguments[0];
  if (first == "--help" || first == "-h") return CommandLine{};
  std::vector<std::string> names;
  for (const VerbHelp& verb : kVerbs) {
    if (first == verb.name || (verb.verb == Verb::kVersion && first == "--version")) {
      return Parser(arguments, verb).Parse();
    }
    names.emplace_back(verb.name);
  }
  return Wrong(absl::StrCat(absl::StartsWith(first, "-") ? "a command comes before flags: " : "unknown command ",
                            Quote(first), DidYouMean(first, names)));
}

std::string HelpText(absl::Span<const std::string> topic) {
  if (topic.empty()) return kOverview;
  if (topic[0] == "config" && topic.size() <= 2) return ConfigHelpText(topic.size() == 2 ? topic[1] : "");
  if (topic.size() != 1) return "";
  if (topic[0] == "exit-status") return ExitStatusText();
  for (const VerbHelp& verb : kVerbs) {
    if (topic[0] != verb.name) continue;
    return absl::StrCat(verb.text, TakesConfig(verb.verb) ? kMachineFlags : "",
                        TakesConfig(verb.verb) ? "\n`vmm help config` lists the fields.\n" : "");
  }
  return "";
}

}  // namespace vmm
