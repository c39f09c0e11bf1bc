#include "vmm/config/load_config.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <google/protobuf/text_format.h>

#include "base/status_matchers.h"
#include "devices/virtio/net/mac_address.h"
#include "vmm/config/config.pb.h"
#include "vmm/config/validate.h"

namespace vmm {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr HostLimits kHost{.memory_bytes = 4096ULL << 20};

// A folder with a kernel, an initramfs, and room for configurations.
class LoadConfigTest : public ::testing::Test {
 protected:
  LoadConfigTest() {
    std::string pattern = ::testing::TempDir() + "/load_config.XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
    Write("bzImage", "kernel");
    Write("initrd", "initramfs");
  }
  std::string Write(const std::string& name, const std::string& content) const {
    const std::string path = folder_ + "/" + name;
    std::FILE* const file = std::fopen(path.c_str(), "wb");
    std::fwrite(content.data(), 1, content.size(), file);
    std::fclose(file);
    return path;
  }
  [[nodiscard]] absl::StatusOr<LoadedConfig> Parse(const std::string& text, std::vector<ConfigOverride> overrides = {},
                                                   Dialect dialect = Dialect::kText) const {
    return ParseConfig(text, dialect, "f", folder_, overrides, kHost);
  }
  [[nodiscard]] std::string Problem(const std::string& text, std::vector<ConfigOverride> overrides = {},
                                    Dialect dialect = Dialect::kText) const {
    return std::string(Parse(text, std::move(overrides), dialect).status().message());
  }
  // Minimal, and good.
  const std::string base_ = "memory { size_mib: 64 }\nboot { kernel: \"bzImage\" }\n";
  std::string folder_;
};

ConfigOverride Flag(const std::string& path, const std::string& value) {
  return {"--" + path + "=" + value, path, value};
}

TEST_F(LoadConfigTest, MinimalConfigurationGetsTheDocumentedDefaults) {
  ASSERT_OK_AND_ASSIGN(const LoadedConfig loaded, Parse(base_));
  const VmConfig& config = loaded.config;
  EXPECT_EQ(config.name, "vm");
  EXPECT_EQ(config.memory.bytes, 64u << 20);
  EXPECT_EQ(config.memory.huge_pages, HugePages::kNone);
  EXPECT_EQ(config.processors, 1u);
  EXPECT_EQ(config.boot.kernel, folder_ + "/bzImage");
  EXPECT_EQ(config.boot.initramfs, "");
  EXPECT_TRUE(config.serial.enabled);
  EXPECT_EQ(config.serial.output, SerialOutput::kStdio);
  EXPECT_EQ(config.serial.on_failure, OnFailure::kStop);
  EXPECT_TRUE(config.pvpanic);
  EXPECT_FALSE(config.debug_port);
  EXPECT_EQ(config.machine, MachineKind::kStandard);
  EXPECT_FALSE(config.hyperv.enabled);
  EXPECT_FALSE(config.sandbox.log_only);
  EXPECT_FALSE(config.sandbox.waive_seccomp);
  EXPECT_FALSE(config.monitor.log_only);
  EXPECT_TRUE(WaivedLayers(config.monitor).empty());
  EXPECT_EQ(config.logging.level, LogLevel::kInfo);
}

TEST_F(LoadConfigTest, EveryFieldReachesThePlainStruct) {
  ASSERT_OK_AND_ASSIGN(const LoadedConfig loaded, Parse(R"(
      name: "box_1"
      memory { size_mib: 128 huge_pages: TRANSPARENT lock: true }
      processors { count: 64 }
      boot { kernel: "bzImage" initramfs: "initrd" command_line: "console=ttyS0" }
      devices { serial { output: FILE path: "out" on_failure: DETACH } pvpanic { disabled: true } debug_port { enabled: true } }
      machine: STANDARD
      hyperv { enabled: true backing: OWN }
      sandbox { mode: LOG waive: [NAMESPACES, EMPTY_ROOT] monitor { waive: [UNDUMPABLE, LANDLOCK] } }
      logging { level: DEBUG format: JSON file: "log" })"));
  const VmConfig& config = loaded.config;
  EXPECT_EQ(config.name, "box_1");
  EXPECT_EQ(config.memory.huge_pages, HugePages::kTransparent);
  EXPECT_TRUE(config.memory.lock);
  EXPECT_TRUE(config.memory.prefault);
  EXPECT_EQ(config.processors, 64u);
  EXPECT_EQ(config.boot.initramfs, folder_ + "/initrd");
  EXPECT_EQ(config.boot.command_line, "console=ttyS0");
  EXPECT_EQ(config.serial.output, SerialOutput::kFile);
  EXPECT_EQ(config.serial.path, folder_ + "/out");
  EXPECT_EQ(config.serial.on_failure, OnFailure::kDetach);
  EXPECT_FALSE(config.pvpanic);
  EXPECT_TRUE(config.debug_port);
  EXPECT_TRUE(config.hyperv.enabled);
  EXPECT_EQ(config.hyperv.backing, HypervBacking::kOwn);
  EXPECT_TRUE(config.sandbox.log_only);
  EXPECT_TRUE(config.monitor.log_only);
  EXPECT_EQ(WaivedLayers(config.monitor), (std::vector<absl::string_view>{"LANDLOCK", "UNDUMPABLE"}));
  EXPECT_TRUE(config.sandbox.waive_namespaces);
  EXPECT_TRUE(config.sandbox.waive_empty_root);
  EXPECT_FALSE(config.sandbox.waive_seccomp);
  EXPECT_EQ(config.logging.level, LogLevel::kDebug);
  EXPECT_EQ(config.logging.format, LogFormat::kJson);
  EXPECT_EQ(config.logging.file, folder_ + "/log");
}

TEST_F(LoadConfigTest, TheTestMachineHasNoDebugPort) {
  ASSERT_OK_AND_ASSIGN(const LoadedConfig loaded, Parse(base_ + "machine: TEST"));
  EXPECT_EQ(loaded.config.machine, MachineKind::kTest);
  EXPECT_EQ(Problem(base_ + "machine: TEST\ndevices { debug_port { enabled: true } }"),
            "f:4: devices.debug_port.enabled: contradicts machine, which is TEST: port 0xe9 is in its test register");
}

TEST_F(LoadConfigTest, HypervIsOnInTheTestMachineUnlessSaidOtherwise) {
  const auto enabled = [&](const std::string& rest) {
    const auto loaded = Parse(base_ + rest);
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    return loaded.ok() && loaded->config.hyperv.enabled;
  };
  EXPECT_FALSE(enabled("hyperv { }"));
  EXPECT_TRUE(enabled("hyperv { enabled: true }"));
  EXPECT_FALSE(enabled("machine: STANDARD"));
  EXPECT_TRUE(enabled("machine: TEST"));
  EXPECT_FALSE(enabled("machine: TEST hyperv { enabled: false }"));
  EXPECT_EQ(Problem(base_ + "machine: TEST\nhyperv { enabled: false backing: OWN }"),
            "f:4: hyperv.backing: contradicts hyperv.enabled, which is false");
  EXPECT_EQ(Problem(base_ + "hyperv { backing: OWN }"),
            "f:3: hyperv.backing: contradicts hyperv.enabled, which is false unless given in the STANDARD machine");
}

TEST_F(LoadConfigTest, VsmIsOffUnlessGivenAndNeedsTheHypervInterface) {
  ASSERT_OK_AND_ASSIGN(const LoadedConfig off, Parse(base_ + "machine: TEST"));
  EXPECT_FALSE(off.config.hyperv.vsm);
  EXPECT_FALSE(off.config.hyperv.claim_mbec);
  ASSERT_OK_AND_ASSIGN(const LoadedConfig on, Parse(base_ + "hyperv { enabled: true vsm { enabled: true claim_mbec: true } }"));
  EXPECT_TRUE(on.config.hyperv.vsm);
  EXPECT_TRUE(on.config.hyperv.claim_mbec);
  EXPECT_EQ(Problem(base_ + "hyperv { enabled: false vsm { enabled: true } }"),
            "f:3: hyperv.vsm.enabled: contradicts hyperv.enabled, which is false");
  EXPECT_EQ(Problem(base_ + "hyperv { vsm { enabled: true } }"),
            "f:3: hyperv.vsm.enabled: contradicts hyperv.enabled, which is false unless given in the STANDARD machine");
  EXPECT_EQ(Problem(base_ + "hyperv { enabled: true vsm { claim_mbec: true } }"),
            "f:3: hyperv.vsm.claim_mbec: contradicts hyperv.vsm.enabled, which is false unless given");
}

TEST_F(LoadConfigTest, TheWayToProtectPagesIsAutoAndStrictUnlessGiven) {
  const auto load = [this](const std::string& vsm) {
    const auto loaded = Parse(base_ + "hyperv { enabled: true vsm { enabled: true " + vsm + " } }");
    EXPECT_OK(loaded);
    return loaded.ok() ? loaded->config.hyperv : VmConfig{}.hyperv;
  };
  EXPECT_EQ(load("").protection, VsmProtection::kAuto);
  EXPECT_FALSE(load("").round_unenforceable);
  EXPECT_EQ(load("protection: AUTO").protection, VsmProtection::kAuto);
  EXPECT_EQ(load("protection: PRIVATE_ATTRIBUTE").protection, VsmProtection::kPrivateAttribute);
  EXPECT_EQ(load("protection: HOST_MAPPING").protection, VsmProtection::kHostMapping);
  EXPECT_FALSE(load("unenforceable: REFUSE").round_unenforceable);
  EXPECT_TRUE(load("unenforceable: ROUND").round_unenforceable);
  EXPECT_EQ(Problem(base_ + "hyperv { enabled: true vsm {\n protection: HOST_MAPPING\n unenforceable: REFUSE } }"),
            "f:4: hyperv.vsm.protection: contradicts hyperv.vsm.enabled, which is false unless given\n"
            "f:5: hyperv.vsm.unenforceable: contradicts hyperv.vsm.enabled, which is false unless given");
}

TEST_F(LoadConfigTest, AllProblemsAreReportedWithLineAndField) {
  const std::string message = Problem(
      "nane: \"x\"\n"
      "memory {\n"
      "  size_mib: 7\n"
      "  lock: \"yes\"\n"
      "  lock: true\n"
      "}\n"
      "processors { count: 65 }\n"
      "boot { kernel: \"missing\" }\n");
  EXPECT_THAT(message, HasSubstr("f:1: nane: no such field; did you mean name?"));
  EXPECT_THAT(message, HasSubstr("f:3: memory.size_mib: must be 16 to 1048576 (7)"));
  EXPECT_THAT(message, HasSubstr("f:4: memory.lock: is the string \"yes\", not true or false"));
  EXPECT_THAT(message, HasSubstr("f:5: memory.lock: given twice"));
  EXPECT_THAT(message, HasSubstr("f:7: processors.count: must be 1 to 64 (65)"));
  EXPECT_THAT(message, HasSubstr("f:8: boot.kernel: cannot open \"" + folder_ + "/missing\": No such file"));
}

TEST_F(LoadConfigTest, JsonProblemsHaveLinesToo) {
  const std::string message = Problem(
      "{\n\"memory\": {\n \"sizeMib\": 7,\n \"lock\": 1,\n \"size_mib\": 9},\n\"boot\": {\"kernel\": \"bzImage\"},\n"
      "\"sandbox\": {\"waive\": \"SECCOMP\", \"mode\": 1}}",
      {}, Dialect::kJson);
  EXPECT_EQ(message,
            "f:4: memory.lock: is \"1\", not true or false\n"
            "f:5: memory.size_mib: given twice\n"
            "f:7: sandbox.waive: is the string \"SECCOMP\", not a list\n"
            "f:7: sandbox.mode: is \"1\", not one of ENFORCE, LOG\n"
            "f:3: memory.size_mib: must be 16 to 1048576 (7)");
}

TEST_F(LoadConfigTest, JsonTakesWhatProtobufPrints) {
  ASSERT_OK_AND_ASSIGN(const LoadedConfig loaded,
                       Parse(R"({"memory": {"sizeMib": "64", "lock": null}, "boot": {"kernel": "bzImage"},
                                 "devices": {"debugPort": {"enabled": true}}})",
                             {}, Dialect::kJson));
  EXPECT_EQ(loaded.config.memory.bytes, 64u << 20);
  EXPECT_TRUE(loaded.config.debug_port);
}

TEST_F(LoadConfigTest, OverridesReplaceWhatTheFileSays) {
  ASSERT_OK_AND_ASSIGN(
      const LoadedConfig loaded,
      Parse(base_ + "sandbox { waive: SECCOMP }",
            {Flag("memory.size_mib", "128"), Flag("memory.huge_pages", "size_2m"), Flag("sandbox.waive", "namespaces,EMPTY_ROOT"),
             Flag("devices.serial", "{output: NULL on_failure: DETACH}"), {"--memory.lock", "memory.lock", std::nullopt},
             Flag("name", "other"), Flag("boot.command_line", "a=\"b\" c")}));
  EXPECT_EQ(loaded.config.memory.bytes, 128u << 20);
  EXPECT_EQ(loaded.config.memory.huge_pages, HugePages::k2MiB);
  EXPECT_TRUE(loaded.config.memory.lock);
  EXPECT_FALSE(loaded.config.sandbox.waive_seccomp);
  EXPECT_TRUE(loaded.config.sandbox.waive_namespaces);
  EXPECT_TRUE(loaded.config.sandbox.waive_empty_root);
  EXPECT_EQ(loaded.config.serial.output, SerialOutput::kNull);
  EXPECT_EQ(loaded.config.serial.on_failure, OnFailure::kDetach);
  EXPECT_EQ(loaded.config.name, "other");
  EXPECT_EQ(loaded.config.boot.command_line, "a=\"b\" c");
}

TEST_F(LoadConfigTest, RepeatedMessagesAreGivenByAFlagAsInAFile) {
  const std::string file = base_ + "devices { block { socket: \"first\" } }";
  ASSERT_OK_AND_ASSIGN(const LoadedConfig one, Parse(file, {Flag("devices.block", "{socket: \"/a\" on_failure: RESTART}")}));
  ASSERT_EQ(one.config.blocks.size(), 1u);
  EXPECT_EQ(one.config.blocks[0].socket, "/a");
  EXPECT_EQ(one.config.blocks[0].on_failure, OnFailure::kRestart);
  ASSERT_OK_AND_ASSIGN(const LoadedConfig two, Parse(file, {Flag("devices.block", "[{socket: \"/a\"}, {socket: \"/b\" queues: 4}]")}));
  ASSERT_EQ(two.config.blocks.size(), 2u);
  EXPECT_EQ(two.config.blocks[1].queues, 4);
  EXPECT_FALSE(Parse(file, {Flag("devices.block", "{socket: \"/a\"} x: 1")}).ok());
  EXPECT_FALSE(Parse(file, {Flag("devices.block", "nothing")}).ok());
}

TEST_F(LoadConfigTest, ANetworkInterfaceHasOneWire) {
  ASSERT_OK_AND_ASSIGN(const LoadedConfig loaded,
                       Parse(base_ + "devices { net { tap: \"tap0\" queues: 4 mac: \"52:54:00:12:34:56\" mtu: 9000 bytes_per_second: 1000 } "
                                     "net { socket: \"/s\" mtu: 1400 on_failure: RESTART } }"));
  ASSERT_EQ(loaded.config.nets.size(), 2u);
  EXPECT_EQ(loaded.config.nets[0].tap, "tap0");
  EXPECT_EQ(loaded.config.nets[0].pairs, 4);
  EXPECT_EQ(loaded.config.nets[0].mac, (MacAddress{0x52, 0x54, 0, 0x12, 0x34, 0x56}));
  EXPECT_EQ(loaded.config.nets[0].mtu, 9000);
  EXPECT_EQ(loaded.config.nets[0].bytes_per_second, 1000u);
  EXPECT_EQ(loaded.config.nets[1].socket, "/s");
  EXPECT_EQ(loaded.config.nets[1].pairs, 1);
  EXPECT_EQ(loaded.config.nets[1].on_failure, OnFailure::kRestart);
  const auto refused = [&](const std::string& net, const std::string& why) {
    EXPECT_THAT(Parse(base_ + "devices { net { " + net + " } }"), StatusIs(absl::StatusCode::kInvalidArgument, why)) << net;
  };
  refused("", "devices.net[0]: needs one of tap, tap_fd, user and socket");
  refused("tap: \"a\" socket: \"b\"", "devices.net[0]: needs one of");
  refused("tap: \"a name\"", "devices.net[0].tap: is no interface's name");
  refused("tap: \"sixteenletters__\"", "devices.net[0].tap: is no interface's name");
  refused("tap_fd: 1", "devices.net[0].tap_fd[0]: is no descriptor that was passed on (1)");
  refused("tap_fd: 999999", "devices.net[0].tap_fd[0]: is no descriptor");
  refused("tap: \"a\" queues: 9", "devices.net[0].queues: must be 1 to 8 (9)");
  refused("socket: \"a\" queues: 2", "devices.net[0].queues: is more than one");
  refused("tap: \"a\" mtu: 67", "devices.net[0].mtu: must be 68 to 65535 (67)");
  refused("tap: \"a\" mac: \"ff:ff:ff:ff:ff:ff\"", "devices.net[0].mac: is no interface's address");
  refused("user { passt: \"nothing\" }", "devices.net[0].user.passt: cannot be used");
  refused("user { tcp_ports: \"all\" }", "devices.net[0].user.tcp_ports: is no list of ports");
  refused("socket: \"a\" packets_per_second: 1", "devices.net[0].packets_per_second: contradicts");
  refused("tap: \"a\" } net { tap: \"a\"", "devices.net[1].tap: is another interface's too");
}

TEST_F(LoadConfigTest, ARepeatedFieldIsEmptiedByAnEmptyFlag) {
  ASSERT_OK_AND_ASSIGN(const LoadedConfig loaded,
                       Parse(base_ + "sandbox { waive: SECCOMP }", {Flag("sandbox.waive", "")}));
  EXPECT_FALSE(loaded.config.sandbox.waive_seccomp);
}

TEST_F(LoadConfigTest, ProblemsOfOverridesNameTheFlag) {
  EXPECT_EQ(Problem(base_, {Flag("memory.size_mib", "9")}),
            "--memory.size_mib=9: memory.size_mib: must be 16 to 1048576 (9)");
  EXPECT_EQ(Problem(base_, {Flag("memory.size_mib", "0x")}),
            "--memory.size_mib=0x: memory.size_mib: is \"0x\", not a whole number of 0 or more");
  EXPECT_EQ(Problem(base_, {Flag("memory.sise_mib", "9")}),
            "--memory.sise_mib=9: memory.sise_mib: no such field; did you mean size_mib?");
  EXPECT_EQ(Problem(base_, {Flag("memory.size_mib.x", "9")}),
            "--memory.size_mib.x=9: memory.size_mib.x: memory.size_mib has no fields");
  EXPECT_EQ(Problem(base_, {{"--name", "name", std::nullopt}}), "--name: name: needs a value");
  EXPECT_EQ(Problem(base_, {Flag("memory", "{lock: 5")}), "--memory={lock: 5: memory: '}' is missing");
  EXPECT_EQ(Problem(base_, {Flag("memory", "lock 5")}),
            "--memory=lock 5: memory: value:1: lock: expected ':' or '{' after the field name, found \"5\"");
  EXPECT_EQ(Problem(base_, {Flag("sandbox.waive", "seccomp,x")}),
            "--sandbox.waive=seccomp,x: sandbox.waive[1]: is \"x\", not one of LAYER_UNSPECIFIED, NAMESPACES, EMPTY_ROOT, "
            "SECCOMP");
}

TEST_F(LoadConfigTest, NumbersAreWholeInRangeAndWithoutLeadingZeros) {
  const auto with = [&](const std::string& number) { return Problem("memory { size_mib: " + number + " }\nboot { kernel: \"bzImage\" }"); };
  EXPECT_EQ(with("0x40"), "");
  EXPECT_THAT(with("-64"), HasSubstr("is \"-64\", not a whole number"));
  EXPECT_THAT(with("64.0"), HasSubstr("not a whole number"));
  EXPECT_THAT(with("064"), HasSubstr("not a number without leading zeros"));
  EXPECT_THAT(with("18446744073709551616"), HasSubstr("is too large"));
  EXPECT_THAT(with("0"), HasSubstr("must be 16 to 1048576 (0)"));
  EXPECT_THAT(with("1048577"), HasSubstr("must be 16 to 1048576 (1048577)"));
  EXPECT_THAT(Problem(base_ + "processors { count: 4294967296 }"), HasSubstr("f:3: processors.count: is too large"));
  EXPECT_THAT(Problem(base_ + "processors { count: 0 }"), HasSubstr("must be 1 to 64 (0)"));
}

TEST_F(LoadConfigTest, MemoryBeyondTheHostNeedsOvercommit) {
  const std::string boot = "boot { kernel: \"bzImage\" }";
  EXPECT_EQ(Problem("memory { size_mib: 4096 }" + boot), "");
  EXPECT_EQ(Problem("memory { size_mib: 4097 }" + boot),
            "f:1: memory.size_mib: is more than the host's memory of 4096 MiB (4097); memory.overcommit: true allows it");
  EXPECT_EQ(Problem("memory { size_mib: 1048576 overcommit: true }" + boot), "");
}

TEST_F(LoadConfigTest, ContradictionsAreRefused) {
  const auto memory = [&](const std::string& rest) {
    return Problem("memory { size_mib: 65 " + rest + " }\nboot { kernel: \"bzImage\" }");
  };
  EXPECT_EQ(memory("huge_pages: SIZE_2M"), "f:1: memory.huge_pages: SIZE_2M does not divide memory.size_mib (65)");
  EXPECT_EQ(memory("lock: true prefault: false"),
            "f:1: memory.prefault: is false and contradicts memory.lock, which implies it");
  EXPECT_EQ(memory("overcommit: true lock: true"), "f:1: memory.overcommit: contradicts memory.lock");
  EXPECT_EQ(memory("overcommit: true prefault: true"), "f:1: memory.overcommit: contradicts memory.prefault");
  EXPECT_THAT(memory("overcommit: true huge_pages: SIZE_1G"), HasSubstr("SIZE_1G pages are reserved"));
  EXPECT_THAT(memory("mergeable: true huge_pages: SIZE_1G"), HasSubstr("never merges SIZE_1G pages"));

  const auto serial = [&](const std::string& rest) { return Problem(base_ + "devices { serial { " + rest + " } }"); };
  EXPECT_EQ(serial("path: \"x\""),
            "f:3: devices.serial.path: contradicts devices.serial.output, which is STDIO and not FILE");
  EXPECT_EQ(serial("output: NULL path: \"x\""),
            "f:3: devices.serial.path: contradicts devices.serial.output, which is NULL and not FILE");
  EXPECT_EQ(serial("output: FILE"), "f:3: devices.serial.path: is missing: devices.serial.output is FILE");
  EXPECT_EQ(serial("disabled: true output: STDIO on_failure: STOP"),
            "f:3: devices.serial.output: contradicts devices.serial.disabled\n"
            "f:3: devices.serial.on_failure: contradicts devices.serial.disabled");
  EXPECT_EQ(serial("disabled: true"), "");

  EXPECT_THAT(Problem(base_ + "sandbox { mode: LOG waive: SECCOMP }"), HasSubstr("f:3: sandbox.mode: is LOG and contradicts"));
  EXPECT_EQ(Problem(base_ + "sandbox { waive: SECCOMP\nwaive: SECCOMP }"),
            "f:4: sandbox.waive[1]: names a layer twice (SECCOMP)");
  EXPECT_THAT(Problem(base_ + "sandbox { waive: LAYER_UNSPECIFIED }"), HasSubstr("sandbox.waive[0]: names no layer"));
  EXPECT_EQ(Problem(base_ + "sandbox { monitor { waive: SECCOMP\nwaive: SECCOMP } }"),
            "f:4: sandbox.monitor.waive[1]: names a layer twice (SECCOMP)");
  EXPECT_THAT(Problem(base_ + "sandbox { monitor { waive: LAYER_UNSPECIFIED } }"), HasSubstr("sandbox.monitor.waive[0]: names no layer"));
  EXPECT_THAT(Problem(base_ + "sandbox { waive: NAMESPACES }"), HasSubstr("sandbox.waive: names NAMESPACES but not EMPTY_ROOT"));
  EXPECT_THAT(Problem(base_ + "devices { serial { output: FILE path: \"a\" } } logging { file: \"a\" }"),
              HasSubstr("logging.file: is the same file as devices.serial.path"));
  EXPECT_THAT(Problem(base_ + "devices { serial { output: FILE path: \"bzImage\" } }"),
              HasSubstr("devices.serial.path: is the same file as boot.kernel"));
}

TEST_F(LoadConfigTest, FilesMustBeRegularReadableAndNotEmpty) {
  Write("empty", "");
  const auto kernel = [&](const std::string& name) {
    return Problem("memory { size_mib: 64 } boot { kernel: \"" + name + "\" }");
  };
  EXPECT_EQ(kernel("empty"), "f:1: boot.kernel: is an empty file (\"" + folder_ + "/empty\")");
  EXPECT_EQ(kernel("."), "f:1: boot.kernel: is a directory (\"" + folder_ + "/.\")");
  EXPECT_EQ(kernel("/dev/null"), "f:1: boot.kernel: is not a regular file (\"/dev/null\")");
  EXPECT_EQ(kernel(""), "f:1: boot.kernel: is empty");
  EXPECT_EQ(kernel("a\\0b"), "f:1: boot.kernel: holds a NUL character");
  ASSERT_EQ(::mkfifo((folder_ + "/fifo").c_str(), 0600), 0);
  EXPECT_EQ(kernel("fifo"), "f:1: boot.kernel: is not a regular file (\"" + folder_ + "/fifo\")");
}

TEST_F(LoadConfigTest, ImagesMustFitIntoMemory) {
  const std::string big = Write("big", "x");
  ASSERT_EQ(::truncate(big.c_str(), 17 << 20), 0);
  EXPECT_EQ(Problem("memory { size_mib: 16 } boot { kernel: \"bzImage\" initramfs: \"big\" }"),
            "f:1: memory.size_mib: cannot hold the kernel and initramfs of 17825798 bytes (16)");
}

TEST_F(LoadConfigTest, CommandLineIsOneBoundedLine) {
  const auto line = [&](const std::string& text) { return Problem(base_ + "boot { command_line: \"" + text + "\" }"); };
  // boot is given twice: a message is not merged.
  EXPECT_EQ(line("x"), "f:3: boot: given twice");
  const auto flag = [&](const std::string& text) { return Problem(base_, {Flag("boot.command_line", text)}); };
  EXPECT_EQ(flag(std::string(2047, 'x')), "");
  EXPECT_THAT(flag(std::string(2048, 'x')), HasSubstr("boot.command_line: is longer than 2047 bytes (2048)"));
  EXPECT_THAT(flag("a\nb"), HasSubstr("boot.command_line: holds a control character (\"a\\nb\")"));
  EXPECT_THAT(flag(std::string("a\0b", 3)), HasSubstr("holds a control character"));
}

TEST_F(LoadConfigTest, RelativePathsStartAtTheFileAndThoseOfFlagsAtTheWorkingDirectory) {
  const std::string file = Write("vm.textproto", base_);
  ASSERT_OK_AND_ASSIGN(const VmConfig config, LoadConfig(file, {}));
  EXPECT_EQ(config.boot.kernel, folder_ + "/bzImage");
  const ConfigOverride flag = Flag("boot.kernel", "not-here");
  EXPECT_THAT(LoadConfig(file, {&flag, 1}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "--boot.kernel=not-here: boot.kernel: cannot open \"not-here\": No such file"));
}

TEST_F(LoadConfigTest, FilesThatAreNoConfigurationAreRefused) {
  EXPECT_THAT(LoadConfig(folder_ + "/none", {}),
              StatusIs(absl::StatusCode::kInvalidArgument, "/none: cannot open the configuration: No such file"));
  EXPECT_THAT(LoadConfig(folder_, {}), StatusIs(absl::StatusCode::kInvalidArgument, "is a directory"));
  EXPECT_THAT(LoadConfig("/dev/null", {}), StatusIs(absl::StatusCode::kInvalidArgument, "is not a regular file"));
  EXPECT_THAT(LoadConfig(Write("huge", std::string(kMaxConfigBytes + 1, '#')), {}),
              StatusIs(absl::StatusCode::kInvalidArgument, "is larger than 1048576 bytes"));
  EXPECT_THAT(LoadConfig(Write("vm.json", base_), {}), StatusIs(absl::StatusCode::kInvalidArgument, "vm.json:1: expected '{'"));
}

TEST_F(LoadConfigTest, EffectiveTextLoadsAgainAsTheSame) {
  ASSERT_OK_AND_ASSIGN(const LoadedConfig first, Parse(base_ + "sandbox { waive: SECCOMP }", {Flag("memory.lock", "true")}));
  const std::string text = ConfigToText(first.effective);
  EXPECT_THAT(text, HasSubstr("count: 1"));
  EXPECT_THAT(text, HasSubstr("kernel: \"" + folder_ + "/bzImage\""));
  ASSERT_OK_AND_ASSIGN(const LoadedConfig second, Parse(text));
  EXPECT_EQ(ConfigToText(second.effective), text);
  ASSERT_OK_AND_ASSIGN(const LoadedConfig off, Parse(base_ + "devices { serial { disabled: true } }"));
  EXPECT_OK(Parse(ConfigToText(off.effective)));
}

TEST_F(LoadConfigTest, ManyProblemsAreCutShort) {
  std::string text;
  for (int i = 0; i < 150; ++i) text += "x: 1\n";
  EXPECT_THAT(Problem(text), HasSubstr("\n(52 more problems are not shown)"));
}

TEST_F(LoadConfigTest, HostileTextIsQuotedHarmlessly) {
  const std::string message = Problem(base_ + "name: \"\\033[2J\\nforged\"");
  EXPECT_THAT(message, HasSubstr("(\"\\x1b[2J\\nforged\")"));
  EXPECT_THAT(message, Not(HasSubstr("\x1b")));
}

TEST_F(LoadConfigTest, TheLibraryGivesTheMessageItself) {
  config::VmConfig message;
  message.mutable_memory()->set_size_mib(64);
  message.mutable_boot()->set_kernel("bzImage");
  ASSERT_OK_AND_ASSIGN(const VmConfig config, ValidateConfig(message, folder_, kHost));
  EXPECT_EQ(config.boot.kernel, folder_ + "/bzImage");
  EXPECT_EQ(config.processors, 1u);
  EXPECT_THAT(ValidateConfig(message, "/nonexistent", kHost),
              StatusIs(absl::StatusCode::kInvalidArgument, "boot.kernel: cannot open"));
}

TEST_F(LoadConfigTest, TheLibraryRefusesEnumNumbersAndFieldsThatTheSchemaLacks) {
  config::VmConfig message;
  message.mutable_memory()->set_size_mib(64);
  message.mutable_boot()->set_kernel("bzImage");
  message.mutable_sandbox()->set_mode(static_cast<config::Sandbox::Mode>(7));
  EXPECT_THAT(ValidateConfig(message, folder_, kHost),
              StatusIs(absl::StatusCode::kInvalidArgument, "sandbox.mode: unknown value 7"));
  message.mutable_sandbox()->clear_mode();
  ASSERT_TRUE(message.mutable_memory()->MergeFromString("\x78\x01"));  // field 15
  EXPECT_THAT(ValidateConfig(message, folder_, kHost),
              StatusIs(absl::StatusCode::kInvalidArgument, "memory: holds a field that the schema lacks (number 15)"));
}

}  // namespace
}  // namespace vmm
