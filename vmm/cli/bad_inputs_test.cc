// What people get wrong, and what they are told: each row goes through the whole command line in this process.
// The rows are also the page docs/bad_inputs.md: `bazel run //vmm/cli:bad_inputs_test -- --update` writes it anew.
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "vmm/cli/cli.h"
#include "vmm/cli/exit_status.h"
#include "vmm/cli/host_report.h"
#include "vmm/config/golden_file.h"
#include "vmm/config/vm_config.h"

namespace vmm {
namespace {

bool g_update = false;

// The folder holds `kernel`, `initrd`, `empty`, `folder/`, `secret` (no permissions), and each row's own configuration.
struct BadInput {
  std::string name;
  std::string file;    // the configuration's name; "" where there is none
  std::string config;
  std::vector<std::string> arguments;  // DIR stands for the folder
  ExitCode status;
  std::vector<std::string> messages;
  bool shown = true;     // in the page: not where the bytes cannot be printed
  bool as_user = false;  // root reads everything
};

constexpr char kGood[] = "memory { size_mib: 64 }\nboot { kernel: \"kernel\" }\n";

BadInput Config(std::string name, std::string config, std::vector<std::string> messages) {
  return {std::move(name), "vm.textproto", std::move(config), {"run", "--config", "DIR/vm.textproto"},
          ExitCode::kConfigRefused, std::move(messages)};
}
BadInput Json(std::string name, std::string config, std::vector<std::string> messages) {
  return {std::move(name), "vm.json", std::move(config), {"validate", "--config", "DIR/vm.json"},
          ExitCode::kConfigRefused, std::move(messages)};
}
BadInput Good(std::string name, std::string rest, std::vector<std::string> messages) {
  return Config(std::move(name), kGood + rest, std::move(messages));
}
BadInput Flags(std::string name, std::vector<std::string> flags, ExitCode status, std::vector<std::string> messages) {
  std::vector<std::string> arguments = {"run", "--config", "DIR/vm.textproto"};
  arguments.insert(arguments.end(), flags.begin(), flags.end());
  return {std::move(name), "vm.textproto", kGood, arguments, status, std::move(messages)};
}
BadInput Usage(std::string name, std::vector<std::string> arguments, std::vector<std::string> messages) {
  return {std::move(name), "", "", std::move(arguments), ExitCode::kUsage, std::move(messages)};
}
BadInput Hidden(BadInput row) {
  row.shown = false;
  return row;
}
BadInput AsUser(BadInput row) {
  row.as_user = true;
  return row;
}

std::vector<BadInput> Rows() {
  return {
      // Syntax.
      Config("empty configuration", "", {"vm.textproto: memory.size_mib: is missing", "boot.kernel: is missing"}),
      Config("brace missing", "memory {\n  size_mib: 64\n", {"vm.textproto:3: memory: '}' is missing: the message that starts in line 1"}),
      Config("colon missing", "memory {\n  size_mib 64\n}", {"vm.textproto:2: memory.size_mib: expected ':' or '{'"}),
      Config("string not closed", "boot {\n  kernel: \"kernel\n}", {"vm.textproto:2: boot.kernel: String literals cannot cross line"}),
      Config("JSON in a text file", "{\"memory\": {}}", {"vm.textproto:1: expected a field name, found \"{\""}),
      Hidden(Config("binary garbage", std::string("\x7f" "ELF\x02\x01\0\0\0", 9), {"vm.textproto:1: not a text file: it holds a NUL byte"})),
      Hidden(Config("control characters", "\x01\x02\x03", {"vm.textproto:1: Invalid control characters"})),
      Hidden(Config("not UTF-8", "name: \"\xff\"", {"vm.textproto:1: name: the string \"\\xff\" is not UTF-8"})),
      Hidden(Config("larger than 1 MiB", std::string((1 << 20) + 1, '#'), {"vm.textproto: is larger than 1048576 bytes"})),
      // Fields.
      Good("unknown field", "sandbox {\n  mod: LOG\n}", {"vm.textproto:4: sandbox.mod: no such field; did you mean mode?"}),
      Good("unknown top-level field", "disks { }", {"vm.textproto:3: disks: no such field"}),
      Good("field given twice", "processors { count: 1\n count: 2 }", {"vm.textproto:4: processors.count: given twice"}),
      Good("message given twice", "boot { initramfs: \"initrd\" }", {"vm.textproto:3: boot: given twice"}),
      Good("string for a number", "processors { count: \"two\" }", {"vm.textproto:3: processors.count: is the string \"two\", not a whole number"}),
      Good("number for a message", "processors: 2", {"vm.textproto:3: processors: is \"2\", not a message"}),
      Good("fraction", "processors { count: 1.5 }", {"processors.count: is \"1.5\", not a whole number"}),
      Good("negative number", "processors { count: -1 }", {"processors.count: is \"-1\", not a whole number"}),
      Good("number beyond 32 bits", "processors { count: 4294967297 }", {"processors.count: is too large"}),
      Good("unknown enum value", "sandbox { mode: OFF }", {"sandbox.mode: is \"OFF\", not one of ENFORCE, LOG"}),
      Good("number for an enum", "sandbox { mode: 1 }", {"sandbox.mode: is \"1\", not one of ENFORCE, LOG"}),
      Good("yes for a bool", "devices { debug_port { enabled: yes } }", {"devices.debug_port.enabled: is \"yes\", not true or false"}),
      // Values.
      Config("no memory", "boot { kernel: \"kernel\" }", {"vm.textproto: memory.size_mib: is missing"}),
      Config("memory 0", "memory { size_mib: 0 } boot { kernel: \"kernel\" }", {"vm.textproto:1: memory.size_mib: must be 16 to 1048576 (0)"}),
      Config("memory above the limit", "memory { size_mib: 1048577 } boot { kernel: \"kernel\" }", {"memory.size_mib: must be 16 to 1048576 (1048577)"}),
      Config("memory above the host's", "memory { size_mib: 1048576 } boot { kernel: \"kernel\" }", {"memory.size_mib: is more than the host's memory", "memory.overcommit: true allows it"}),
      Good("no processors", "processors { count: 0 }", {"processors.count: must be 1 to 64 (0)"}),
      Good("too many processors", "processors { count: 65 }", {"processors.count: must be 1 to 64 (65)"}),
      Good("name with a slash", "name: \"a/b\"", {"vm.textproto:3: name: may hold letters, digits, '-' and '_' only (\"a/b\")"}),
      Good("empty name", "name: \"\"", {"vm.textproto:3: name: is empty"}),
      Hidden(Good("overlong name", "name: \"" + std::string(65, 'x') + "\"", {"name: is longer than 64 characters (65)"})),
      Hidden(Flags("overlong command line", {"--boot.command_line=" + std::string(2048, 'x')}, ExitCode::kConfigRefused, {"boot.command_line: is longer than 2047 bytes (2048)"})),
      Config("command line of two lines", "memory { size_mib: 64 } boot { kernel: \"kernel\" command_line: \"a\\nb\" }", {"boot.command_line: holds a control character (\"a\\nb\")"}),
      // Contradictions.
      Config("reserved memory without a size", "memory { size_mib: 64 reserved { start_mib: 32 } } boot { kernel: \"kernel\" }", {"memory.reserved: needs start_mib and size_mib, more than 0"}),
      Config("reserved memory off its unit", "memory { size_mib: 64 reserved { start_mib: 33 size_mib: 2 } } boot { kernel: \"kernel\" }", {"memory.reserved: must begin at, and be, a multiple of 2 MiB (2 MiB at 33 MiB)"}),
      Config("reserved memory where the guest starts", "memory { size_mib: 64 reserved { start_mib: 0 size_mib: 2 } } boot { kernel: \"kernel\" }", {"memory.reserved: must lie above the first 2 MiB"}),
      Config("reserved memory beyond RAM", "memory { size_mib: 64 reserved { start_mib: 62 size_mib: 4 } } boot { kernel: \"kernel\" }", {"memory.reserved: is not RAM, or not all of it", "(4 MiB at 62 MiB)"}),
      Config("reserved memory beyond all addresses", "memory { size_mib: 64 reserved { start_mib: 18446744073709551614 size_mib: 4 } } boot { kernel: \"kernel\" }", {"memory.reserved: is not RAM (4 MiB at 18446744073709551614 MiB)"}),
      Config("reserved memory twice", "memory { size_mib: 64 reserved { start_mib: 34 size_mib: 2 } reserved { start_mib: 32 size_mib: 4 } } boot { kernel: \"kernel\" }", {"memory.reserved: overlaps another range (2 MiB at 34 MiB)"}),
      Config("reserved memory in five pieces", "memory { size_mib: 64 reserved { start_mib: 4 size_mib: 2 } reserved { start_mib: 8 size_mib: 2 } reserved { start_mib: 12 size_mib: 2 } reserved { start_mib: 16 size_mib: 2 } reserved { start_mib: 20 size_mib: 2 } } boot { kernel: \"kernel\" }", {"memory.reserved: has more than 4 ranges (5)"}),
      Config("huge pages that do not divide", "memory { size_mib: 65 huge_pages: SIZE_2M } boot { kernel: \"kernel\" }", {"memory.huge_pages: SIZE_2M does not divide memory.size_mib (65)"}),
      Config("lock without prefault", "memory { size_mib: 64 lock: true prefault: false } boot { kernel: \"kernel\" }", {"memory.prefault: is false and contradicts memory.lock"}),
      Config("overcommit and lock", "memory { size_mib: 64 lock: true overcommit: true } boot { kernel: \"kernel\" }", {"memory.overcommit: contradicts memory.lock"}),
      Config("merging reserved pages", "memory { size_mib: 64 mergeable: true huge_pages: SIZE_2M } boot { kernel: \"kernel\" }", {"memory.mergeable: contradicts memory.huge_pages"}),
      Good("serial path without FILE", "devices { serial { path: \"out\" } }", {"devices.serial.path: contradicts devices.serial.output, which is STDIO and not FILE"}),
      Good("serial FILE without path", "devices { serial { output: FILE } }", {"devices.serial.path: is missing"}),
      Good("options of a disabled serial port", "devices { serial { disabled: true output: NULL } }", {"devices.serial.output: contradicts devices.serial.disabled"}),
      Good("serial output over the kernel", "devices { serial { output: FILE path: \"kernel\" } }", {"devices.serial.path: is the same file as boot.kernel"}),
      Good("layer waived twice", "sandbox { waive: [SECCOMP, SECCOMP] }", {"sandbox.waive[1]: names a layer twice (SECCOMP)"}),
      Good("layer of the monitor waived twice", "sandbox { monitor { waive: [LANDLOCK, LANDLOCK] } }", {"sandbox.monitor.waive[1]: names a layer twice (LANDLOCK)"}),
      Good("layer that the monitor has not", "sandbox { monitor { waive: NAMESPACES } }", {"sandbox.monitor.waive[0]: is \"NAMESPACES\", not one of LAYER_UNSPECIFIED, SECCOMP, LANDLOCK, CAPABILITIES, UNDUMPABLE"}),
      Good("log of a waived filter", "sandbox { mode: LOG waive: SECCOMP }", {"sandbox.mode: is LOG and contradicts sandbox.waive"}),
      Good("backing of a Hyper-V interface that is off", "machine: TEST\nhyperv { enabled: false backing: OWN }", {"vm.textproto:4: hyperv.backing: contradicts hyperv.enabled, which is false"}),
      Config("Hyper-V interface over reserved pages", "memory { size_mib: 64 huge_pages: SIZE_2M } boot { kernel: \"kernel\" } hyperv { enabled: true }", {"hyperv.enabled: contradicts memory.huge_pages"}),
      Good("way to protect pages without VTL1", "hyperv { enabled: true vsm { protection: HOST_MAPPING } }", {"vm.textproto:3: hyperv.vsm.protection: contradicts hyperv.vsm.enabled, which is false unless given"}),
      Good("rounding of protections without VTL1", "hyperv { enabled: true vsm { unenforceable: ROUND } }", {"vm.textproto:3: hyperv.vsm.unenforceable: contradicts hyperv.vsm.enabled, which is false unless given"}),
      Good("unknown way to protect pages", "hyperv { enabled: true vsm { enabled: true protection: B } }", {"hyperv.vsm.protection: is \"B\", not one of AUTO, PRIVATE_ATTRIBUTE, HOST_MAPPING"}),
      Good("debug port of the test machine", "machine: TEST\ndevices { debug_port { enabled: true } }", {"vm.textproto:4: devices.debug_port.enabled: contradicts machine, which is TEST"}),
      Good("serial port that is to be started again", "devices { serial { on_failure: RESTART } }", {"devices.serial.on_failure: is RESTART, which virtio devices alone have"}),
      Good("options of an entropy device that is off", "devices { rng { on_failure: RESTART } }", {"devices.rng.on_failure: is given without devices.rng.enabled"}),
      Good("options of a balloon that is off", "devices { balloon { target_mib: 16 } }", {"devices.balloon.target_mib: is given without devices.balloon.enabled"}),
      Good("balloon as large as the machine", "devices { balloon { enabled: true target_mib: 64 } }", {"devices.balloon.target_mib: must be less than memory.size_mib (64)"}),
      Good("share without a name or a folder", "devices { fs { } }", {"devices.fs[0].tag: is missing", "devices.fs[0].path: is missing"}),
      Good("share of a file", "devices { fs { tag: \"a\" path: \"kernel\" program: \"/bin/true\" } }", {"devices.fs[0].path: is no folder"}),
      Good("two shares of one name", "devices { fs { tag: \"a\" socket: \"s\" } fs { tag: \"a\" socket: \"t\" } }", {"devices.fs[1].tag: is another share's too"}),
      Good("share of two kinds", "devices { fs { tag: \"a\" socket: \"s\" path: \"folder\" } }", {"devices.fs[0].path: contradicts devices.fs[0].socket"}),
      Good("share that is to be started again", "devices { fs { tag: \"a\" socket: \"s\" on_failure: RESTART } }", {"devices.fs[0].on_failure: is RESTART"}),
      Good("share without virtiofsd", "devices { fs { tag: \"a\" path: \"folder\" program: \"nothing\" } }", {"devices.fs[0].program: cannot run"}),
      Good("vsock without a path", "devices { vsock { guest_cid: 4 } }", {"devices.vsock.guest_cid: is given without devices.vsock.path"}),
      Good("the host's own CID for a guest", "devices { vsock { path: \"v.sock\" guest_cid: 2 } }", {"devices.vsock.guest_cid: must be 3 to 4294967294 (2)"}),
      Good("vsock over a file", "devices { vsock { path: \"kernel\" } }", {"devices.vsock.path: is there, and is no socket"}),
      Good("vsock in a missing folder", "devices { vsock { path: \"nowhere/v.sock\" } }", {"devices.vsock.path: there is no folder"}),
      Good("console file without a path", "devices { console { output: FILE } }", {"devices.console.path: is missing: devices.console.output is FILE"}),
      Good("one terminal for two devices", "devices { serial { output: STDIO } console { output: STDIO } }", {"devices.serial.output: is STDIO, as is devices.console.output"}),
      Good("path of a pseudo-terminal", "devices { console { output: PTY path: \"x\" } }", {"devices.console.path: contradicts devices.console.output, which is PTY"}),
      Good("disk without an image", "devices { block { format: RAW } }", {"devices.block[0].path: is missing"}),
      Good("disk without a format", "devices { block { path: \"disk\" } }", {"devices.block[0].format: is missing: say RAW"}),
      Good("disk of another's backend with an image", "devices { block { socket: \"s\" path: \"disk\" format: RAW } }", {"devices.block[0].path: contradicts devices.block[0].socket", "devices.block[0].format: contradicts devices.block[0].socket"}),
      Good("socket with an overlong path", "devices { block { socket: \"/" + std::string(107, 's') + "\" } }", {"devices.block[0].socket: is longer than 107 bytes"}),
      Good("disk with no queues", "devices { block { path: \"disk\" format: RAW queues: 0 } }", {"devices.block[0].queues: must be 1 to 16 (0)"}),
      Good("overlong serial number", "devices { block { path: \"disk\" format: RAW serial: \"123456789012345678901\" } }", {"devices.block[0].serial: is not at most 20 printable characters"}),
      Good("one image for two disks", "devices { block { path: \"disk\" format: RAW } block { path: \"disk\" format: RAW read_only: true } }", {"devices.block[1].path: is the same file as devices.block[0].path"}),
      Good("image that is the kernel", "devices { block { path: \"kernel\" format: RAW } }", {"devices.block[0].path: is the same file as boot.kernel"}),
      // Files.
      Good("image missing", "devices { block { path: \"nothing\" format: RAW } }", {"devices.block[0].path: cannot open", "DIR/nothing", "No such file or directory"}),
      Good("image is a folder", "devices { block { path: \"folder\" format: RAW read_only: true } }", {"devices.block[0].path: is neither a file nor a block device"}),
      Good("image without a sector", "devices { block { path: \"empty\" format: RAW } }", {"devices.block[0].path: is smaller than a sector of 512 bytes"}),
      Good("network interface without a wire", "devices { net { mtu: 1500 } }", {"devices.net[0]: needs one of tap, tap_fd, user and socket"}),
      Good("network interface with two", "devices { net { tap: \"tap0\" socket: \"s\" } }", {"devices.net[0]: needs one of tap, tap_fd, user and socket"}),
      Good("TAP interface with an impossible name", "devices { net { tap: \"../tap0\" } }", {"devices.net[0].tap: is no interface's name (\"../tap0\")"}),
      Good("descriptor that was not passed on", "devices { net { tap_fd: 999 } }", {"devices.net[0].tap_fd[0]: is no descriptor that was passed on (999)"}),
      Good("address of a group", "devices { net { tap: \"tap0\" mac: \"01:00:5e:00:00:01\" } }", {"devices.net[0].mac: is no interface's address, such as 52:54:00:12:34:56 (\"01:00:5e:00:00:01\")"}),
      Good("queue pairs that a stream has not", "devices { net { socket: \"s\" queues: 2 } }", {"devices.net[0].queues: is more than one, which only tap and tap_fd have"}),
      Good("passt that is not there", "devices { net { user { passt: \"nothing\" } } }", {"devices.net[0].user.passt: cannot be used: open passt", "No such file or directory"}),
      Good("options of passt where ports belong", "devices { net { user { tcp_ports: \"22 --pcap /x\" } } }", {"devices.net[0].user.tcp_ports: is no list of ports"}),
      Config("kernel missing", "memory { size_mib: 64 }\nboot { kernel: \"nothing\" }", {"vm.textproto:2: boot.kernel: cannot open", "DIR/nothing", "No such file or directory"}),
      Config("kernel is a directory", "memory { size_mib: 64 } boot { kernel: \"folder\" }", {"boot.kernel: is a directory"}),
      Config("kernel is empty", "memory { size_mib: 64 } boot { kernel: \"empty\" }", {"boot.kernel: is an empty file"}),
      Config("kernel is a device", "memory { size_mib: 64 } boot { kernel: \"/dev/zero\" }", {"boot.kernel: is not a regular file"}),
      AsUser(Config("kernel unreadable", "memory { size_mib: 64 } boot { kernel: \"secret\" }", {"boot.kernel: cannot open", "Permission denied"})),
      Config("initramfs missing", "memory { size_mib: 64 } boot { kernel: \"kernel\" initramfs: \"nothing\" }", {"boot.initramfs: cannot open"}),
      Config("initramfs is the kernel", "memory { size_mib: 64 } boot { kernel: \"kernel\" initramfs: \"kernel\" }", {"boot.initramfs: is the same file as boot.kernel"}),
      Good("log into a missing folder", "logging { file: \"nowhere/log\" }", {"logging.file: there is no folder"}),
      Good("log is a directory", "logging { file: \"folder\" }", {"logging.file: is a directory"}),
      {"configuration missing", "", "", {"run", "--config", "DIR/none"}, ExitCode::kConfigRefused, {"DIR/none: cannot open the configuration: No such file"}},
      {"configuration is a directory", "", "", {"run", "--config=DIR/folder"}, ExitCode::kConfigRefused, {"DIR/folder: is a directory, not a configuration file"}},
      {"configuration is a device", "", "", {"run", "--config=/dev/zero"}, ExitCode::kConfigRefused, {"/dev/zero: is not a regular file"}},
      // JSON.
      Json("JSON: empty file", "", {"vm.json:1: expected '{', found the end of the file"}),
      Json("JSON: trailing comma", "{\"memory\": {\"size_mib\": 64,}}", {"vm.json:1: memory: expected a field name in double quotes"}),
      Json("JSON: comment", "{\n// memory\n}", {"vm.json:2: expected a field name in double quotes, found \"/\""}),
      Json("JSON: unknown field", "{\n\"memory\": {\"size_mb\": 64}}", {"vm.json:2: memory.size_mb: no such field; did you mean size_mib?"}),
      Json("JSON: same field by both names", "{\"memory\": {\"size_mib\": 64, \"sizeMib\": 64}}", {"vm.json:1: memory.size_mib: given twice"}),
      Json("JSON: wrong type", "{\"memory\":\n {\"size_mib\": true}}", {"vm.json:2: memory.size_mib: is \"true\", not a whole number"}),
      Json("JSON: value for a list", "{\"sandbox\": {\"waive\": \"SECCOMP\"}}", {"vm.json:1: sandbox.waive: is the string \"SECCOMP\", not a list"}),
      Hidden(Json("JSON: nested too deep", "{\"a\":" + std::string(1000, '['), {"vm.json:1: a: nested deeper than 32 levels"})),
      // Flags.
      Flags("flag: value out of range", {"--memory.size_mib=9"}, ExitCode::kConfigRefused, {"--memory.size_mib=9: memory.size_mib: must be 16 to 1048576 (9)"}),
      Flags("flag: not a number", {"--memory.size_mib=512M"}, ExitCode::kConfigRefused, {"--memory.size_mib=512M: memory.size_mib: is \"512M\", not a whole number"}),
      Flags("flag: unknown enum value", {"--sandbox=off"}, ExitCode::kConfigRefused, {"--sandbox=off: sandbox.mode: is \"off\", not one of ENFORCE, LOG"}),
      Flags("flag: unknown log level", {"--log-level", "loud"}, ExitCode::kConfigRefused, {"--log-level=loud: logging.level: is \"loud\", not one of INFO, ERROR, WARNING, DEBUG"}),
      Flags("flag: unknown item of a list", {"--sandbox.waive=seccomp,root"}, ExitCode::kConfigRefused, {"sandbox.waive[1]: is \"root\""}),
      Flags("flag: message that does not end", {"--memory={lock: true"}, ExitCode::kConfigRefused, {"memory: '}' is missing"}),
      Flags("flag: unknown field", {"--memory.sise_mib=9"}, ExitCode::kUsage, {"run: unknown flag --memory.sise_mib; did you mean --memory.size_mib?"}),
      Flags("flag: unknown", {"--verbose"}, ExitCode::kUsage, {"run: unknown flag --verbose"}),
      Flags("flag: no value", {"--memory.size_mib"}, ExitCode::kUsage, {"--memory.size_mib needs a value"}),
      Flags("flag: given twice", {"--name=a", "--name=b"}, ExitCode::kUsage, {"run: --name is given twice"}),
      Flags("flag: of another command", {"--json"}, ExitCode::kUsage, {"run: unknown flag --json"}),
      Usage("nothing", {}, {"needs a command: run, validate, check, version or help"}),
      Usage("unknown command", {"start"}, {"unknown command \"start\""}),
      Usage("mistyped command", {"valdate"}, {"unknown command \"valdate\"; did you mean validate?"}),
      Usage("flag before the command", {"--config=x", "run"}, {"a command comes before flags"}),
      Usage("no configuration", {"run"}, {"run: needs --config FILE"}),
      Usage("configuration without its flag", {"run", "vm.textproto"}, {"run: unexpected argument \"vm.textproto\"; a configuration is named by --config"}),
      Usage("value for a switch", {"check", "--json=1"}, {"check: --json takes no value"}),
      Usage("device without kind", {"device"}, {"device: needs a KIND"}),
      Usage("unknown help topic", {"help", "everything"}, {"help: no such topic \"everything\""}),
      Hidden(Usage("terminal escapes in a flag", {"run", "--\x1b[2J"}, {"unknown flag --\\x1b[2J"})),
  };
}

class Folder final {
 public:
  Folder() {
    std::string pattern = ::testing::TempDir() + "bad_inputs.XXXXXX";
    path_ = ::mkdtemp(pattern.data());
    Write("kernel", "kernel");
    Write("initrd", "initrd");
    Write("empty", "");
    Write("disk", std::string(512, '\0'));
    Write("secret", "secret");
    ::chmod((path_ + "/secret").c_str(), 0);
    ::mkdir((path_ + "/folder").c_str(), 0700);
  }
  void Write(const std::string& name, const std::string& content) const {
    std::FILE* const file = std::fopen((path_ + "/" + name).c_str(), "wb");
    std::fwrite(content.data(), 1, content.size(), file);
    std::fclose(file);
  }
  [[nodiscard]] std::string Expand(std::string text) const {
    for (size_t at = 0; (at = text.find("DIR/", at)) != std::string::npos; at += path_.size()) text.replace(at, 3, path_);
    return text;
  }

 private:
  std::string path_;
};

TEST(BadInputsTest, EveryRowIsRefusedWithItsStatusAndMessage) {
  const Folder folder;
  for (const BadInput& row : Rows()) {
    SCOPED_TRACE(row.name);
    if (row.as_user && ::geteuid() == 0) continue;
    if (!row.file.empty()) folder.Write(row.file, row.config);
    std::vector<std::string> arguments = {"vmm"};
    for (const std::string& argument : row.arguments) arguments.push_back(folder.Expand(argument));
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());

    bool started = false;
    CliHooks hooks;
    hooks.run = [&](const VmConfig&) { return started = true, 0; };
    hooks.check = [&] { return started = true, HostReport{}; };
    hooks.device = [&](absl::string_view, int, char**) { return started = true, 0; };
    hooks.error_fd = ::memfd_create("error", 0);
    const int status = RunCli(static_cast<int>(argv.size()), argv.data(), hooks);
    std::string said(1 << 16, '\0');
    const ssize_t count = ::pread(hooks.error_fd, said.data(), said.size(), 0);
    said.resize(count > 0 ? static_cast<size_t>(count) : 0);
    ::close(hooks.error_fd);

    EXPECT_EQ(status, static_cast<int>(row.status));
    EXPECT_FALSE(started);
    EXPECT_THAT(said, testing::StartsWith("vmm: "));
    EXPECT_THAT(said, testing::EndsWith("\n"));
    for (const std::string& message : row.messages) EXPECT_THAT(said, testing::HasSubstr(folder.Expand(message)));
  }
}

std::string Cell(const std::string& text) {
  std::string out;
  for (const char c : text) out += c == '|' ? "\\|" : c == '\n' ? " " : std::string(1, c);
  return out;
}

std::string Page() {
  std::string out =
      "# Bad inputs\n\n"
      "What is refused before anything starts, with which exit status, and what is said. Made from the rows of\n"
      "`vmm/cli/bad_inputs_test.cc`, which checks each of them; `bazel run //vmm/cli:bad_inputs_test -- --update` writes it\n"
      "anew. Messages are shown in part.\n\n"
      "| what | input | status | says |\n|---|---|---|---|\n";
  for (const BadInput& row : Rows()) {
    std::string arguments = "vmm";
    for (const std::string& argument : row.arguments) arguments += " " + argument;
    const bool in_file = !row.file.empty() && (row.config != kGood);
    const std::string input = !row.shown ? "" : in_file ? row.config : arguments;
    std::string messages;
    for (const std::string& message : row.messages) messages += (messages.empty() ? "`" : " ... `") + Cell(message) + "`";
    out += "| " + row.name + " | " + (input.empty() ? "" : "`" + Cell(input) + "`") + " | " +
           std::to_string(static_cast<int>(row.status)) + " | " + messages + " |\n";
  }
  return out;
}

TEST(BadInputsTest, PageIsUpToDate) {
  EXPECT_EQ(CheckGoldenFile("docs/bad_inputs.md", Page(), g_update, "//vmm/cli:bad_inputs_test"), "");
}

}  // namespace
}  // namespace vmm

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  vmm::g_update = vmm::WantsGoldenUpdate(argc, argv);
  return RUN_ALL_TESTS();
}
