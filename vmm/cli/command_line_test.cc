#include "vmm/cli/command_line.h"

#include <set>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/status_matchers.h"
#include "devices/machine_control.h"
#include "vmm/cli/exit_status.h"

namespace vmm {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::StatusOr<CommandLine> Parse(std::vector<const char*> arguments) { return ParseCommandLine(arguments); }
auto Refused(const char* text) { return StatusIs(absl::StatusCode::kInvalidArgument, text); }

TEST(CommandLineTest, RunTakesConfigurationOverridesAndAliases) {
  ASSERT_OK_AND_ASSIGN(const CommandLine line,
                       Parse({"run", "--config", "vm.textproto", "--memory.size_mib=512", "--memory.lock",
                              "--sandbox=log", "--log-level", "debug", "--log-file=-x", "--boot.command_line=a=b c"}));
  EXPECT_EQ(line.verb, Verb::kRun);
  EXPECT_EQ(line.config, "vm.textproto");
  ASSERT_EQ(line.overrides.size(), 6u);
  EXPECT_EQ(line.overrides[0].path, "memory.size_mib");
  EXPECT_EQ(line.overrides[0].value, "512");
  EXPECT_EQ(line.overrides[0].flag, "--memory.size_mib=512");
  EXPECT_EQ(line.overrides[1].value, std::nullopt);
  EXPECT_EQ(line.overrides[2].path, "sandbox.mode");
  EXPECT_EQ(line.overrides[3].flag, "--log-level=debug");
  EXPECT_EQ(line.overrides[3].path, "logging.level");
  EXPECT_EQ(line.overrides[4].value, "-x");
  EXPECT_EQ(line.overrides[5].value, "a=b c");
}

TEST(CommandLineTest, ConfigMayBeStandardInputOrFlagsAlone) {
  ASSERT_OK_AND_ASSIGN(const CommandLine input, Parse({"validate", "--config", "-", "--print"}));
  EXPECT_EQ(input.config, "-");
  EXPECT_TRUE(input.print);
  ASSERT_OK_AND_ASSIGN(const CommandLine flags, Parse({"run", "--boot.kernel=bzImage"}));
  EXPECT_EQ(flags.config, "");
}

TEST(CommandLineTest, CheckAndVersionTakeJson) {
  ASSERT_OK_AND_ASSIGN(const CommandLine check, Parse({"check", "--json"}));
  EXPECT_EQ(check.verb, Verb::kCheck);
  EXPECT_TRUE(check.json);
  ASSERT_OK_AND_ASSIGN(const CommandLine version, Parse({"--version"}));
  EXPECT_EQ(version.verb, Verb::kVersion);
  EXPECT_THAT(Parse({"check", "--json=yes"}), Refused("check: --json takes no value"));
}

TEST(CommandLineTest, DeviceLeavesItsArgumentsAlone) {
  ASSERT_OK_AND_ASSIGN(const CommandLine line, Parse({"device", "serial", "--fd", "3", "--help"}));
  EXPECT_EQ(line.device_kind, "serial");
  EXPECT_EQ(line.device_arguments, 2u);
  EXPECT_THAT(Parse({"device"}), Refused("device: needs a KIND"));
  EXPECT_THAT(Parse({"device", "--fd"}), Refused("device: needs a KIND before its arguments"));
}

TEST(CommandLineTest, HelpIsEverywhere) {
  for (const char* verb : {"run", "validate", "check", "version", "device"}) {
    ASSERT_OK_AND_ASSIGN(const CommandLine line, Parse({verb, "--help"}));
    EXPECT_EQ(line.verb, Verb::kHelp);
    EXPECT_THAT(line.help, ElementsAre(verb));
    EXPECT_THAT(HelpText(line.help), HasSubstr(verb));
  }
  ASSERT_OK_AND_ASSIGN(const CommandLine overview, Parse({"--help"}));
  EXPECT_THAT(HelpText(overview.help), HasSubstr("vmm run"));
  ASSERT_OK_AND_ASSIGN(const CommandLine field, Parse({"help", "config", "memory.lock"}));
  EXPECT_THAT(HelpText(field.help), HasSubstr("memory.lock  (bool)"));
  EXPECT_EQ(HelpText(std::vector<std::string>{"nonsense"}), "");
}

TEST(CommandLineTest, MistakesAreNamedWithASuggestion) {
  EXPECT_THAT(Parse({}), Refused("needs a command"));
  EXPECT_THAT(Parse({"rum"}), Refused("unknown command \"rum\"; did you mean run?"));
  EXPECT_THAT(Parse({"--config=x"}), Refused("a command comes before flags"));
  EXPECT_THAT(Parse({"run", "--confg=x"}), Refused("run: unknown flag --confg; did you mean --config?"));
  EXPECT_THAT(Parse({"run", "--memory.sise_mib=1"}), Refused("did you mean --memory.size_mib?"));
  EXPECT_THAT(Parse({"run", "--memory.size_mib", "1"}), Refused("--memory.size_mib needs a value: --memory.size_mib=VALUE"));
  EXPECT_THAT(Parse({"run", "vm.textproto"}), Refused("unexpected argument \"vm.textproto\"; a configuration is named by --config"));
  EXPECT_THAT(Parse({"run", "--config"}), Refused("--config needs a value"));
  EXPECT_THAT(Parse({"run", "--config", "--print"}), Refused("--config needs a value"));
  EXPECT_THAT(Parse({"run"}), Refused("run: needs --config FILE"));
  EXPECT_THAT(Parse({"run", "--config=a", "--config=b"}), Refused("--config is given twice"));
  EXPECT_THAT(Parse({"run", "--config=a", "--sandbox=log", "--sandbox.mode=LOG"}), Refused("is given twice"));
  EXPECT_THAT(Parse({"run", "--config=a", "--print"}), Refused("unknown flag --print"));
  EXPECT_THAT(Parse({"version", "-x"}), Refused("unknown flag -x"));
}

TEST(ExitStatusTest, StatusesAreEvenSmallAndDifferent) {
  std::set<int> seen;
  for (const ExitCodeHelp& help : ExitCodes()) {
    const int code = static_cast<int>(help.code);
    EXPECT_EQ(code % 2, 0) << help.name;
    EXPECT_LT(code, 128) << help.name;
    EXPECT_TRUE(seen.insert(code).second) << help.name;
  }
}

TEST(ExitStatusTest, StagesAndEndsMapToTheTable) {
  EXPECT_EQ(ExitStatusOf(absl::OkStatus()), 0);
  EXPECT_EQ(ExitStatusOf(absl::InvalidArgumentError("")), 6);
  EXPECT_EQ(ExitStatusOf(absl::PermissionDeniedError("")), 8);
  EXPECT_EQ(ExitStatusOf(absl::ResourceExhaustedError("")), 10);
  EXPECT_EQ(ExitStatusOf(absl::InternalError("")), 40);
  EXPECT_EQ(ExitStatusOf(MachineEnd::kPoweredOff, 0), 0);
  EXPECT_EQ(ExitStatusOf(MachineEnd::kRebooted, 0), 32);
  EXPECT_EQ(ExitStatusOf(MachineEnd::kTripleFault, 0), 34);
  EXPECT_EQ(ExitStatusOf(MachineEnd::kPanicked, 0), 36);
  EXPECT_EQ(ExitStatusOf(MachineEnd::kDeviceFailed, 0), 38);
  EXPECT_EQ(ExitStatusOf(MachineEnd::kInternalError, 0), 40);
  EXPECT_EQ(ExitStatusOf(MachineEnd::kStopped, 0), 42);
  EXPECT_EQ(ExitStatusOf(MachineEnd::kGuestCrash, 0), 44);
}

TEST(ExitStatusTest, ADebugExitIsItsValueTwiceAndOneInEightBits) {
  EXPECT_EQ(ExitStatusOf(MachineEnd::kDebugExit, 0), 1);
  EXPECT_EQ(ExitStatusOf(MachineEnd::kDebugExit, 1), 3);
  EXPECT_EQ(ExitStatusOf(MachineEnd::kDebugExit, 127), 255);
  EXPECT_EQ(ExitStatusOf(MachineEnd::kDebugExit, 128), 1);
  EXPECT_EQ(ExitStatusOf(MachineEnd::kDebugExit, 0xffff'ffff), 255);
}

}  // namespace
}  // namespace vmm
