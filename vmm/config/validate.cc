#include "vmm/config/validate.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <google/protobuf/unknown_field_set.h>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/errno_status.h"
#include "base/owned_fd.h"
#include "devices/virtio/net/mac_address.h"
#include "devices/virtio/net/net_device.h"
#include "devices/virtio/net/net_layout.h"
#include "devices/virtio/net/passt.h"
#include "memory/gpa.h"
#include "memory/layout.h"

namespace vmm {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

constexpr uint64_t kMib = 1024 * 1024;
constexpr size_t kMaxSocketPathBytes = 107;  // sockaddr_un's
// Leaves room for "_4294967295".
constexpr size_t kMaxVsockPathBytes = kMaxSocketPathBytes - 11;
constexpr size_t kMaxShares = 8;
constexpr size_t kMaxTagBytes = 36;
constexpr size_t kMaxBlocks = 16;
constexpr uint32_t kMaxBlockQueues = 16;
constexpr size_t kMaxNets = 8;
constexpr size_t kMaxInterfaceName = 15;  // IFNAMSIZ's
// With the hole, at most six parts are left: a vhost-user memory table has eight.
constexpr size_t kMaxReservedRanges = 4;

std::string Because(int error) { return std::string(ErrnoStatus(error, "").message()); }

struct FileId {
  dev_t device;
  ino_t inode;
  bool operator==(const FileId&) const = default;
};

class Validator final {
 public:
  Validator(config::VmConfig& message, const std::string& base_dir, const FieldOrigins& origins, const HostLimits& host,
            Problems& problems)
      : message_(message), base_dir_(base_dir), origins_(origins), host_(host), problems_(problems) {}

  VmConfig Run() {
    CheckShape(message_, "");
    Name();
    Memory();
    Processors();
    Boot();
    Devices();
    Hyperv();
    Sandbox();
    Logging();
    return std::move(result_);
  }

 private:
  void Report(const std::string& path, absl::string_view what) { problems_.Add(origins_.Where(path), path, what); }

  // Unknown fields and enum numbers reach us through the library only: files and flags are built by name.
  void CheckShape(const google::protobuf::Message& message, const std::string& path) {
    const Reflection& reflection = *message.GetReflection();
    if (!reflection.GetUnknownFields(message).empty()) {
      Report(path, absl::StrCat("holds a field that the schema lacks (number ",
                                reflection.GetUnknownFields(message).field(0).number(), ")"));
    }
    std::vector<const FieldDescriptor*> fields;
    reflection.ListFields(message, &fields);
    for (const FieldDescriptor* field : fields) {
      const std::string field_path = path.empty() ? field->name() : absl::StrCat(path, ".", field->name());
      const int count = field->is_repeated() ? reflection.FieldSize(message, field) : 1;
      for (int i = 0; i < count; ++i) {
        if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
          CheckShape(field->is_repeated() ? reflection.GetRepeatedMessage(message, field, i)
                                          : reflection.GetMessage(message, field),
                     field_path);
        } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_ENUM) {
          const int number = field->is_repeated() ? reflection.GetRepeatedEnumValue(message, field, i)
                                                  : reflection.GetEnumValue(message, field);
          if (field->enum_type()->FindValueByNumber(number) == nullptr) {
            Report(field_path, absl::StrCat("unknown value ", number));
          }
        }
      }
    }
  }

  void Name() {
    if (!message_.has_name()) message_.set_name("vm");
    const std::string& name = message_.name();
    const auto good = [](char c) { return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_'; };
    if (name.empty()) {
      Report("name", "is empty");
    } else if (!std::all_of(name.begin(), name.end(), good)) {
      Report("name", absl::StrCat("may hold letters, digits, '-' and '_' only (", Quote(name), ")"));
    } else if (name.size() > kMaxNameBytes) {
      Report("name", absl::StrCat("is longer than ", kMaxNameBytes, " characters (", name.size(), ")"));
    }
    result_.name = name;
  }

  void Memory() {
    config::Memory& memory = *message_.mutable_memory();
    if (!memory.has_huge_pages()) memory.set_huge_pages(config::Memory::NONE);
    const uint64_t mib = memory.size_mib();
    bool sane = false;
    if (!memory.has_size_mib()) {
      Report("memory.size_mib", "is missing: say how much RAM the guest gets");
    } else if (mib < kMinMemoryMib || mib > kMaxMemoryMib) {
      Report("memory.size_mib", absl::StrCat("must be ", kMinMemoryMib, " to ", kMaxMemoryMib, " (", mib, ")"));
    } else {
      sane = true;
      result_.memory.bytes = mib * kMib;
    }
    const uint64_t host_mib = host_.memory_bytes / kMib;
    if (sane && !memory.overcommit() && result_.memory.bytes > host_.memory_bytes) {
      Report("memory.size_mib", absl::StrCat("is more than the host's memory of ", host_mib,
                                             " MiB (", mib, "); memory.overcommit: true allows it"));
    }

    uint64_t page_mib = 0;
    switch (memory.huge_pages()) {
      case config::Memory::TRANSPARENT: result_.memory.huge_pages = HugePages::kTransparent; break;
      case config::Memory::SIZE_2M: result_.memory.huge_pages = HugePages::k2MiB; page_mib = 2; break;
      case config::Memory::SIZE_1G: result_.memory.huge_pages = HugePages::k1GiB; page_mib = 1024; break;
      default: break;
    }
    const std::string pages = config::Memory::HugePages_Name(memory.huge_pages());
    if (sane && page_mib != 0 && mib % page_mib != 0) {
      Report("memory.huge_pages", absl::StrCat(pages, " does not divide memory.size_mib (", mib, ")"));
    }
    if (memory.mergeable() && page_mib != 0) {
      Report("memory.mergeable", absl::StrCat("contradicts memory.huge_pages: the host never merges ", pages, " pages"));
    }
    if (memory.lock() && memory.has_prefault() && !memory.prefault()) {
      Report("memory.prefault", "is false and contradicts memory.lock, which implies it");
    }
    if (memory.overcommit() && memory.lock()) Report("memory.overcommit", "contradicts memory.lock");
    if (memory.overcommit() && memory.prefault()) Report("memory.overcommit", "contradicts memory.prefault");
    if (memory.overcommit() && page_mib != 0) {
      Report("memory.overcommit", absl::StrCat("contradicts memory.huge_pages: ", pages, " pages are reserved"));
    }
    result_.memory.prefault = memory.prefault() || memory.lock();
    result_.memory.lock = memory.lock();
    result_.memory.mergeable = memory.mergeable();
    ReservedMemoryRanges(sane, std::max<uint64_t>(page_mib, 2));
  }

  void ReservedMemoryRanges(bool sane, uint64_t unit_mib) {
    const auto& ranges = message_.memory().reserved();
    if (static_cast<size_t>(ranges.size()) > kMaxReservedRanges) {
      return Report("memory.reserved", absl::StrCat("has more than ", kMaxReservedRanges, " ranges (", ranges.size(), ")"));
    }
    for (const config::ReservedMemory& range : ranges) {
      const std::string what = absl::StrCat(range.size_mib(), " MiB at ", range.start_mib(), " MiB");
      if (!range.has_start_mib() || !range.has_size_mib() || range.size_mib() == 0) {
        Report("memory.reserved", "needs start_mib and size_mib, more than 0");
      } else if (range.start_mib() % unit_mib != 0 || range.size_mib() % unit_mib != 0) {
        Report("memory.reserved", absl::StrCat("must begin at, and be, a multiple of ", unit_mib, " MiB (", what, ")"));
      } else if (range.start_mib() < unit_mib) {
        Report("memory.reserved", absl::StrCat("must lie above the first ", unit_mib, " MiB, which the guest starts from (", what, ")"));
      } else if (range.start_mib() > kMaxMemoryMib * 2 || range.size_mib() > kMaxMemoryMib) {
        Report("memory.reserved", absl::StrCat("is not RAM (", what, ")"));
      } else {
        result_.reserved_memory.push_back({Gpa(range.start_mib() * kMib), range.size_mib() * kMib});
      }
    }
    auto& reserved = result_.reserved_memory;
    std::sort(reserved.begin(), reserved.end(), [](const auto& a, const auto& b) { return a.start.raw() < b.start.raw(); });
    const auto layout = sane ? MemoryLayout::Create(result_.memory.bytes) : absl::InvalidArgumentError("");
    for (size_t i = 0; i < reserved.size(); ++i) {
      const std::string what = absl::StrCat(reserved[i].bytes / kMib, " MiB at ", reserved[i].start.raw() / kMib, " MiB");
      if (i > 0 && reserved[i - 1].start.raw() + reserved[i - 1].bytes > reserved[i].start.raw()) {
        Report("memory.reserved", absl::StrCat("overlaps another range (", what, ")"));
      }
      if (layout.ok() && !layout->RamOffset(reserved[i].start, reserved[i].bytes).has_value()) {
        Report("memory.reserved", absl::StrCat("is not RAM, or not all of it: that ends at memory.size_mib, and has a hole from 3 to 4 GiB (",
                                               what, ")"));
      }
    }
  }

  void Processors() {
    config::Processors& processors = *message_.mutable_processors();
    if (!processors.has_count()) processors.set_count(1);
    if (processors.count() < 1 || processors.count() > kMaxProcessors) {
      Report("processors.count", absl::StrCat("must be 1 to ", kMaxProcessors, " (", processors.count(), ")"));
    }
    result_.processors = processors.count();
  }

  // False, and reported, where no file can have that name.
  bool PathIsSane(const std::string& path, const std::string& value) {
    if (value.empty()) {
      Report(path, "is empty");
    } else if (value.find('\0') != std::string::npos) {
      Report(path, "holds a NUL character");
    } else {
      return true;
    }
    return false;
  }

  [[nodiscard]] std::string Resolve(const std::string& path, const std::string& value) const {
    if (value.empty() || value[0] == '/' || base_dir_.empty() || origins_.FromFlag(path)) return value;
    return absl::StrCat(base_dir_, base_dir_.back() == '/' ? "" : "/", value);
  }

  // Its size; 0, and reported, where it cannot be used.
  uint64_t CheckInput(const std::string& path, const std::string& file) {
    // O_NONBLOCK: opening a FIFO must not wait for somebody to write to it.
    const OwnedFd fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
    const int error = errno;
    if (!fd.valid()) {
      Report(path, absl::StrCat("cannot open ", QuotePath(file), Because(error)));
      return 0;
    }
    struct stat about{};
    if (::fstat(fd.get(), &about) != 0 || !S_ISREG(about.st_mode)) {
      Report(path, absl::StrCat(S_ISDIR(about.st_mode) ? "is a directory" : "is not a regular file", " (", QuotePath(file), ")"));
      return 0;
    }
    if (about.st_size == 0) {
      Report(path, absl::StrCat("is an empty file (", QuotePath(file), ")"));
      return 0;
    }
    inputs_.push_back({path, {about.st_dev, about.st_ino}, false});
    return static_cast<uint64_t>(about.st_size);
  }

  // A file that will be written: nothing is created here.
  void CheckOutput(const std::string& path, const std::string& file) {
    struct stat about{};
    if (::stat(file.c_str(), &about) == 0) {
      if (S_ISDIR(about.st_mode)) return Report(path, absl::StrCat("is a directory (", QuotePath(file), ")"));
      if (::access(file.c_str(), W_OK) != 0) return Report(path, absl::StrCat("is not writable (", QuotePath(file), ")"));
      const FileId id{about.st_dev, about.st_ino};
      for (const Used& input : inputs_) {
        if (input.id == id) return Report(path, absl::StrCat("is the same file as ", input.path, " (", QuotePath(file), ")"));
      }
      return;
    }
    const int error = errno;
    const size_t slash = file.rfind('/');
    const std::string folder = slash == std::string::npos ? "." : slash == 0 ? "/" : file.substr(0, slash);
    if (error != ENOENT) {
      return Report(path, absl::StrCat("cannot use ", QuotePath(file), Because(error)));
    }
    if (::stat(folder.c_str(), &about) != 0 || !S_ISDIR(about.st_mode)) {
      return Report(path, absl::StrCat("there is no folder ", QuotePath(folder)));
    }
    if (::access(folder.c_str(), W_OK | X_OK) != 0) {
      Report(path, absl::StrCat("cannot create a file in ", QuotePath(folder)));
    }
  }

  void Boot() {
    config::Boot& boot = *message_.mutable_boot();
    uint64_t image_bytes = 0;
    if (!boot.has_kernel()) {
      Report("boot.kernel", "is missing: name a kernel image");
    } else if (PathIsSane("boot.kernel", boot.kernel())) {
      boot.set_kernel(Resolve("boot.kernel", boot.kernel()));
      image_bytes += CheckInput("boot.kernel", boot.kernel());
    }
    if (boot.has_initramfs() && PathIsSane("boot.initramfs", boot.initramfs())) {
      boot.set_initramfs(Resolve("boot.initramfs", boot.initramfs()));
      const uint64_t bytes = CheckInput("boot.initramfs", boot.initramfs());
      image_bytes += bytes;
      if (inputs_.size() == 2 && inputs_[0].id == inputs_[1].id) {
        Report("boot.initramfs", absl::StrCat("is the same file as boot.kernel (", QuotePath(boot.initramfs()), ")"));
      }
    }
    if (result_.memory.bytes != 0 && image_bytes >= result_.memory.bytes) {
      Report("memory.size_mib", absl::StrCat("cannot hold the kernel and initramfs of ", image_bytes, " bytes (",
                                             message_.memory().size_mib(), ")"));
    }
    const std::string& line = boot.command_line();
    if (line.size() > kMaxCommandLineBytes) {
      Report("boot.command_line", absl::StrCat("is longer than ", kMaxCommandLineBytes, " bytes (", line.size(), ")"));
    }
    const auto bad = [](char c) { return absl::ascii_iscntrl(static_cast<unsigned char>(c)) && c != '\t'; };
    if (std::any_of(line.begin(), line.end(), bad)) {
      Report("boot.command_line", absl::StrCat("holds a control character (", Quote(line), ")"));
    }
    result_.boot.kernel = boot.kernel();
    result_.boot.initramfs = boot.initramfs();
    result_.boot.command_line = line;
  }

  void Devices() {
    config::Devices& devices = *message_.mutable_devices();
    config::Serial& serial = *devices.mutable_serial();
    result_.serial.enabled = !serial.disabled();
    if (serial.disabled()) {
      if (serial.has_output()) Report("devices.serial.output", "contradicts devices.serial.disabled");
      if (serial.has_path()) Report("devices.serial.path", "contradicts devices.serial.disabled");
      if (serial.has_on_failure()) Report("devices.serial.on_failure", "contradicts devices.serial.disabled");
    } else {
      const bool console_has_it = devices.console().output() == config::Console::STDIO;
      if (console_has_it && serial.has_output() && serial.output() == config::Serial::STDIO) {
        Report("devices.serial.output", "is STDIO, as is devices.console.output");
      }
      if (!serial.has_output()) serial.set_output(console_has_it ? config::Serial::NULL_ : config::Serial::STDIO);
      if (!serial.has_on_failure()) serial.set_on_failure(config::STOP);
      if (serial.on_failure() == config::RESTART) Report("devices.serial.on_failure", "is RESTART, which virtio devices alone have");
      const bool to_file = serial.output() == config::Serial::FILE;
      if (serial.has_path() && !to_file) {
        Report("devices.serial.path", absl::StrCat("contradicts devices.serial.output, which is ",
                                                   config::Serial::Output_Name(serial.output()), " and not FILE"));
      } else if (to_file && !serial.has_path()) {
        Report("devices.serial.path", "is missing: devices.serial.output is FILE");
      } else if (to_file && PathIsSane("devices.serial.path", serial.path())) {
        serial.set_path(Resolve("devices.serial.path", serial.path()));
        CheckOutput("devices.serial.path", serial.path());
      }
    }
    switch (serial.output()) {
      case config::Serial::FILE: result_.serial.output = SerialOutput::kFile; break;
      case config::Serial::NULL_: result_.serial.output = SerialOutput::kNull; break;
      default: result_.serial.output = SerialOutput::kStdio; break;
    }
    result_.serial.path = serial.path();
    result_.serial.on_failure = serial.on_failure() == config::DETACH ? OnFailure::kDetach : OnFailure::kStop;
    result_.pvpanic = !devices.pvpanic().disabled();
    result_.debug_port = devices.debug_port().enabled();
    if (result_.debug_port && message_.machine() == config::VmConfig::TEST) {
      Report("devices.debug_port.enabled", "contradicts machine, which is TEST: port 0xe9 is in its test register");
    }
    Rng(*devices.mutable_rng());
    Console(*devices.mutable_console());
    Balloon(*devices.mutable_balloon());
    Vsock(*devices.mutable_vsock());
    if (devices.fs_size() > static_cast<int>(kMaxShares)) {
      Report("devices.fs", absl::StrCat("there are more than ", kMaxShares, " (", devices.fs_size(), ")"));
    }
    for (int i = 0; i < devices.fs_size(); ++i) Fs(*devices.mutable_fs(i), absl::StrCat("devices.fs[", i, "]"));
    if (devices.block_size() > static_cast<int>(kMaxBlocks)) {
      Report("devices.block", absl::StrCat("there are more than ", kMaxBlocks, " (", devices.block_size(), ")"));
    }
    for (int i = 0; i < devices.block_size(); ++i) Block(*devices.mutable_block(i), absl::StrCat("devices.block[", i, "]"));
    if (devices.net_size() > static_cast<int>(kMaxNets)) {
      Report("devices.net", absl::StrCat("there are more than ", kMaxNets, " (", devices.net_size(), ")"));
    }
    for (int i = 0; i < devices.net_size(); ++i) Net(*devices.mutable_net(i), absl::StrCat("devices.net[", i, "]"));
  }

  void Net(config::Net& net, const std::string& path) {
    const auto field = [&](absl::string_view name) { return absl::StrCat(path, ".", name); };
    VmConfig::Net to;
    const int wires = (net.has_tap() ? 1 : 0) + (net.tap_fd_size() != 0 ? 1 : 0) + (net.has_user() ? 1 : 0) + (net.has_socket() ? 1 : 0);
    if (wires != 1) Report(path, "needs one of tap, tap_fd, user and socket");
    const auto in_name = [](char c) { return absl::ascii_isgraph(static_cast<unsigned char>(c)) && c != '/' && c != ':' && c != '%'; };
    if (net.has_tap() && (net.tap().empty() || net.tap().size() > kMaxInterfaceName || !std::all_of(net.tap().begin(), net.tap().end(), in_name))) {
      Report(field("tap"), absl::StrCat("is no interface's name (", Quote(net.tap()), ")"));
    }
    for (int i = 0; i < net.tap_fd_size(); ++i) TapFd(net.tap_fd(i), absl::StrCat(path, ".tap_fd[", i, "]"), to);
    if (net.tap_fd_size() > static_cast<int>(NetDevice::kMaxPairs)) {
      Report(field("tap_fd"), absl::StrCat("has more than ", NetDevice::kMaxPairs, " descriptors (", net.tap_fd_size(), ")"));
    }
    if (net.has_user()) User(*net.mutable_user(), field("user"), to);
    if (net.has_socket()) {
      net.set_socket(BackendSocket(field("socket"), net.socket()));
      if (net.has_bytes_per_second()) Report(field("bytes_per_second"), absl::StrCat("contradicts ", field("socket"), ": the backend there has its own"));
      if (net.has_packets_per_second()) Report(field("packets_per_second"), absl::StrCat("contradicts ", field("socket"), ": the backend there has its own"));
    }
    if (net.has_mac()) {
      const std::optional<MacAddress> mac = ParseMacAddress(net.mac());
      if (!mac.has_value()) Report(field("mac"), absl::StrCat("is no interface's address, such as 52:54:00:12:34:56 (", Quote(net.mac()), ")"));
      to.mac = mac.value_or(MacAddress{});
    }
    if (net.has_mtu() && (net.mtu() < virtio_net::kMinMtu || net.mtu() > 65535)) {
      Report(field("mtu"), absl::StrCat("must be ", virtio_net::kMinMtu, " to 65535 (", net.mtu(), ")"));
    }
    Queues(net, field("queues"));
    if (!net.has_on_failure()) net.set_on_failure(config::STOP);
    to.tap = net.tap();
    to.user = net.has_user();
    to.socket = net.socket();
    to.mtu = static_cast<uint16_t>(net.mtu());
    to.pairs = static_cast<uint16_t>(net.queues());
    to.bytes_per_second = net.bytes_per_second();
    to.packets_per_second = net.packets_per_second();
    to.on_failure = PolicyOf(net.on_failure());
    for (const VmConfig::Net& other : result_.nets) {
      if (!to.tap.empty() && other.tap == to.tap) Report(field("tap"), absl::StrCat("is another interface's too (", Quote(to.tap), ")"));
    }
    result_.nets.push_back(std::move(to));
  }

  void Queues(config::Net& net, const std::string& path) {
    const bool given = net.has_queues();
    const auto fds = static_cast<uint32_t>(net.tap_fd_size());
    if (!given) net.set_queues(std::max(fds, 1u));
    if (net.queues() < 1 || net.queues() > NetDevice::kMaxPairs) {
      Report(path, absl::StrCat("must be 1 to ", NetDevice::kMaxPairs, " (", net.queues(), ")"));
    } else if (fds != 0 && net.queues() != fds) {
      Report(path, absl::StrCat("is ", net.queues(), ", and there are ", fds, " descriptors in tap_fd"));
    } else if (given && net.queues() != 1 && !net.has_tap() && fds == 0) {
      Report(path, "is more than one, which only tap and tap_fd have");
    }
  }

  void TapFd(uint32_t fd, const std::string& path, VmConfig::Net& to) {
    if (fd <= STDERR_FILENO || fd > 1'000'000 || ::fcntl(static_cast<int>(fd), F_GETFD) < 0) {
      return Report(path, absl::StrCat("is no descriptor that was passed on (", fd, ")"));
    }
    const auto is_it = [&](const std::vector<int>& fds) { return std::find(fds.begin(), fds.end(), static_cast<int>(fd)) != fds.end(); };
    if (is_it(to.tap_fds) || std::any_of(result_.nets.begin(), result_.nets.end(), [&](const VmConfig::Net& net) { return is_it(net.tap_fds); })) {
      Report(path, absl::StrCat("is given twice (", fd, ")"));
    }
    to.tap_fds.push_back(static_cast<int>(fd));
  }

  void User(config::UserNetwork& user, const std::string& path, VmConfig::Net& to) {
    const std::string program = absl::StrCat(path, ".passt");
    if (!user.has_passt()) user.set_passt(std::string(kPasstProgram));
    if (PathIsSane(program, user.passt())) {
      user.set_passt(Resolve(program, user.passt()));
      const auto found = OpenPasst(user.passt());
      if (!found.ok()) Report(program, absl::StrCat("cannot be used: ", found.status().message()));
    }
    const auto ports = [&](bool given, const std::string& value, absl::string_view name) {
      if (given && !IsPasstPorts(value)) Report(absl::StrCat(path, ".", name), absl::StrCat("is no list of ports, such as 2222:22,8080 (", Quote(value), ")"));
      return value;
    };
    to.tcp_ports = ports(user.has_tcp_ports(), user.tcp_ports(), "tcp_ports");
    to.udp_ports = ports(user.has_udp_ports(), user.udp_ports(), "udp_ports");
    to.passt = user.passt();
  }

  void Console(config::Console& console) {
    if (!console.has_output()) console.set_output(config::Console::NONE);
    const std::string output = config::Console::Output_Name(console.output());
    const bool named = console.output() == config::Console::FILE || console.output() == config::Console::SOCKET;
    if (console.output() == config::Console::NONE && console.has_on_failure()) {
      Report("devices.console.on_failure", "contradicts devices.console.output, which is NONE");
    }
    if (console.has_path() && !named) {
      Report("devices.console.path", absl::StrCat("contradicts devices.console.output, which is ", output, " and not FILE or SOCKET"));
    } else if (named && !console.has_path()) {
      Report("devices.console.path", absl::StrCat("is missing: devices.console.output is ", output));
    } else if (console.output() == config::Console::FILE && PathIsSane("devices.console.path", console.path())) {
      console.set_path(Resolve("devices.console.path", console.path()));
      CheckOutput("devices.console.path", console.path());
      if (result_.serial.output == SerialOutput::kFile && SameFile(result_.serial.path, console.path())) {
        Report("devices.console.path", absl::StrCat("is the same file as devices.serial.path (", QuotePath(console.path()), ")"));
      }
    } else if (named) {
      console.set_path(BackendSocket("devices.console.path", console.path()));
    }
    switch (console.output()) {
      case config::Console::PTY: result_.console.output = ConsoleOutput::kPty; break;
      case config::Console::FILE: result_.console.output = ConsoleOutput::kFile; break;
      case config::Console::SOCKET: result_.console.output = ConsoleOutput::kSocket; break;
      case config::Console::STDIO: result_.console.output = ConsoleOutput::kStdio; break;
      default: return;
    }
    if (!console.has_on_failure()) console.set_on_failure(config::STOP);
    result_.console.path = console.path();
    result_.console.on_failure = PolicyOf(console.on_failure());
  }

  void Block(config::Block& block, const std::string& path) {
    const bool own = !block.has_socket();
    if (!own) {
      block.set_socket(BackendSocket(absl::StrCat(path, ".socket"), block.socket()));
      const auto contradicts = [&](bool given, absl::string_view field) {
        if (given) Report(absl::StrCat(path, ".", field), absl::StrCat("contradicts ", path, ".socket: the backend there has its own"));
      };
      contradicts(block.has_path(), "path");
      contradicts(block.has_format(), "format");
      contradicts(block.has_read_only(), "read_only");
      contradicts(block.has_serial(), "serial");
      contradicts(block.has_bytes_per_second(), "bytes_per_second");
      contradicts(block.has_operations_per_second(), "operations_per_second");
    } else if (!block.has_path()) {
      Report(absl::StrCat(path, ".path"), "is missing: name the disk's image");
    } else if (PathIsSane(absl::StrCat(path, ".path"), block.path())) {
      block.set_path(Resolve(absl::StrCat(path, ".path"), block.path()));
      CheckDisk(absl::StrCat(path, ".path"), block.path(), !block.read_only());
      if (block.format() == config::Block::FORMAT_UNSPECIFIED) {
        Report(absl::StrCat(path, ".format"), "is missing: say RAW if that is what the image is");
      }
    }
    if (!block.has_queues()) block.set_queues(1);
    if (block.queues() < 1 || block.queues() > kMaxBlockQueues) {
      Report(absl::StrCat(path, ".queues"), absl::StrCat("must be 1 to ", kMaxBlockQueues, " (", block.queues(), ")"));
    }
    const auto printable = [](char c) { return absl::ascii_isgraph(static_cast<unsigned char>(c)); };
    if (block.serial().size() > 20 || !std::all_of(block.serial().begin(), block.serial().end(), printable)) {
      Report(absl::StrCat(path, ".serial"), absl::StrCat("is not at most 20 printable characters (", Quote(block.serial()), ")"));
    }
    if (!block.has_on_failure()) block.set_on_failure(config::STOP);
    result_.blocks.push_back({.path = block.path(),
                              .socket = block.socket(),
                              .read_only = block.read_only(),
                              .serial = block.serial(),
                              .queues = static_cast<uint16_t>(block.queues()),
                              .bytes_per_second = block.bytes_per_second(),
                              .operations_per_second = block.operations_per_second(),
                              .on_failure = PolicyOf(block.on_failure())});
  }

  // A file or a block device, for reading, or for writing as well.
  void CheckDisk(const std::string& path, const std::string& file, bool writable) {
    const OwnedFd fd(::open(file.c_str(), (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
    const int error = errno;
    if (!fd.valid()) return Report(path, absl::StrCat("cannot open ", QuotePath(file), Because(error)));
    struct stat about{};
    if (::fstat(fd.get(), &about) != 0 || !(S_ISREG(about.st_mode) || S_ISBLK(about.st_mode))) {
      return Report(path, absl::StrCat("is neither a file nor a block device (", QuotePath(file), ")"));
    }
    const FileId id{about.st_dev, about.st_ino};
    for (const Used& input : inputs_) {
      // Two that only read may share one.
      if (input.id == id && (writable || input.written)) {
        return Report(path, absl::StrCat("is the same file as ", input.path, " (", QuotePath(file), ")"));
      }
    }
    inputs_.push_back({path, id, writable});
    if (S_ISREG(about.st_mode) && about.st_size < 512) {
      return Report(path, absl::StrCat("is smaller than a sector of 512 bytes (", QuotePath(file), ")"));
    }
  }

  [[nodiscard]] static OnFailure PolicyOf(config::OnFailure policy) {
    switch (policy) {
      case config::DETACH: return OnFailure::kDetach;
      case config::RESTART: return OnFailure::kRestart;
      default: return OnFailure::kStop;
    }
  }

  // The socket of somebody else's backend: need not be there yet when this is checked.
  std::string BackendSocket(const std::string& path, const std::string& value) {
    if (!PathIsSane(path, value)) return "";
    const std::string resolved = Resolve(path, value);
    if (resolved.size() > kMaxSocketPathBytes) {
      Report(path, absl::StrCat("is longer than ", kMaxSocketPathBytes, " bytes (", QuotePath(resolved), ")"));
    }
    return resolved;
  }

  void Rng(config::Rng& rng) {
    if (!rng.enabled()) {
      if (rng.has_on_failure()) Report("devices.rng.on_failure", "is given without devices.rng.enabled");
      if (rng.has_socket()) Report("devices.rng.socket", "is given without devices.rng.enabled");
      return;
    }
    if (!rng.has_on_failure()) rng.set_on_failure(config::STOP);
    if (rng.has_socket()) rng.set_socket(BackendSocket("devices.rng.socket", rng.socket()));
    result_.rng = {.enabled = true, .socket = rng.socket(), .on_failure = PolicyOf(rng.on_failure())};
  }

  static VsmProtection ProtectionOf(config::Vsm::Protection protection) {
    switch (protection) {
      case config::Vsm::PRIVATE_ATTRIBUTE: return VsmProtection::kPrivateAttribute;
      case config::Vsm::HOST_MAPPING: return VsmProtection::kHostMapping;
      default: return VsmProtection::kAuto;
    }
  }

  void Fs(config::Fs& fs, const std::string& path) {
    const std::string& tag = fs.tag();
    if (!fs.has_tag() || tag.empty()) {
      Report(absl::StrCat(path, ".tag"), "is missing: the guest mounts it by that name");
    } else if (tag.size() > kMaxTagBytes || tag.find('\0') != std::string::npos) {
      Report(absl::StrCat(path, ".tag"), absl::StrCat("is not 1 to ", kMaxTagBytes, " bytes (", Quote(tag), ")"));
    }
    for (const VmConfig::Fs& other : result_.shares) {
      if (other.tag == tag) Report(absl::StrCat(path, ".tag"), absl::StrCat("is another share's too (", Quote(tag), ")"));
    }
    if (fs.has_socket()) {
      fs.set_socket(BackendSocket(absl::StrCat(path, ".socket"), fs.socket()));
      if (fs.has_path()) Report(absl::StrCat(path, ".path"), absl::StrCat("contradicts ", path, ".socket: the virtiofsd there has its own"));
      if (fs.has_program()) Report(absl::StrCat(path, ".program"), absl::StrCat("contradicts ", path, ".socket: a virtiofsd runs there"));
    } else if (!fs.has_path()) {
      Report(absl::StrCat(path, ".path"), "is missing: name the folder");
    } else if (PathIsSane(absl::StrCat(path, ".path"), fs.path())) {
      fs.set_path(Resolve(absl::StrCat(path, ".path"), fs.path()));
      CheckFolder(absl::StrCat(path, ".path"), fs.path());
      if (!fs.has_program()) fs.set_program("/usr/lib/qemu/virtiofsd");
      if (PathIsSane(absl::StrCat(path, ".program"), fs.program())) {
        fs.set_program(Resolve(absl::StrCat(path, ".program"), fs.program()));
        if (::access(fs.program().c_str(), X_OK) != 0) {
          Report(absl::StrCat(path, ".program"), absl::StrCat("cannot run ", QuotePath(fs.program()), Because(errno)));
        }
      }
    }
    if (!fs.has_on_failure()) fs.set_on_failure(config::STOP);
    if (fs.on_failure() == config::RESTART) {
      Report(absl::StrCat(path, ".on_failure"), "is RESTART: what a virtiofsd knows of its guest is lost with it");
    }
    result_.shares.push_back(
        {.tag = tag, .path = fs.path(), .socket = fs.socket(), .program = fs.program(), .on_failure = PolicyOf(fs.on_failure())});
  }

  void CheckFolder(const std::string& path, const std::string& folder) {
    struct stat about{};
    if (::stat(folder.c_str(), &about) != 0) return Report(path, absl::StrCat("cannot use ", QuotePath(folder), Because(errno)));
    if (!S_ISDIR(about.st_mode)) return Report(path, absl::StrCat("is no folder (", QuotePath(folder), ")"));
    // virtiofsd takes it in a list of options.
    const auto bad = [](char c) { return c == ',' || c == '\\' || absl::ascii_iscntrl(static_cast<unsigned char>(c)); };
    if (std::any_of(folder.begin(), folder.end(), bad)) {
      Report(path, absl::StrCat("holds a comma, a backslash or a control character (", Quote(folder), ")"));
    }
  }

  void Vsock(config::Vsock& vsock) {
    if (!vsock.has_path()) {
      if (vsock.has_guest_cid()) Report("devices.vsock.guest_cid", "is given without devices.vsock.path");
      if (vsock.has_on_failure()) Report("devices.vsock.on_failure", "is given without devices.vsock.path");
      return;
    }
    if (PathIsSane("devices.vsock.path", vsock.path())) {
      vsock.set_path(Resolve("devices.vsock.path", vsock.path()));
      const std::string& path = vsock.path();
      if (path.size() > kMaxVsockPathBytes) {
        Report("devices.vsock.path", absl::StrCat("is longer than ", kMaxVsockPathBytes, " bytes (", QuotePath(path), ")"));
      }
      struct stat about{};
      if (::lstat(path.c_str(), &about) != 0) {
        CheckOutput("devices.vsock.path", path);
      } else if (!S_ISSOCK(about.st_mode)) {
        Report("devices.vsock.path", absl::StrCat("is there, and is no socket (", QuotePath(path), ")"));
      }
    }
    if (!vsock.has_guest_cid()) vsock.set_guest_cid(3);
    if (vsock.guest_cid() < 3 || vsock.guest_cid() == ~uint32_t{0}) {
      Report("devices.vsock.guest_cid", absl::StrCat("must be 3 to 4294967294 (", vsock.guest_cid(), ")"));
    }
    if (!vsock.has_on_failure()) vsock.set_on_failure(config::STOP);
    result_.vsock = {.path = vsock.path(), .guest_cid = vsock.guest_cid(), .on_failure = PolicyOf(vsock.on_failure())};
  }

  void Balloon(config::Balloon& balloon) {
    if (!balloon.enabled()) {
      const auto alone = [&](bool given, absl::string_view field) {
        if (given) Report(absl::StrCat("devices.balloon.", field), "is given without devices.balloon.enabled");
      };
      alone(balloon.has_target_mib(), "target_mib");
      alone(balloon.has_no_free_page_reporting(), "no_free_page_reporting");
      alone(balloon.has_no_deflate_on_oom(), "no_deflate_on_oom");
      alone(balloon.has_stats_seconds(), "stats_seconds");
      alone(balloon.has_on_failure(), "on_failure");
      return;
    }
    if (result_.memory.bytes != 0 && balloon.target_mib() >= result_.memory.bytes / kMib) {
      Report("devices.balloon.target_mib", absl::StrCat("must be less than memory.size_mib (", balloon.target_mib(), ")"));
    }
    const std::string pages = config::Memory::HugePages_Name(message_.memory().huge_pages());
    if (message_.memory().huge_pages() == config::Memory::SIZE_2M || message_.memory().huge_pages() == config::Memory::SIZE_1G) {
      Report("devices.balloon.enabled", absl::StrCat("contradicts memory.huge_pages: ", pages, " pages are reserved and cannot be given back"));
    }
    if (result_.memory.lock) Report("devices.balloon.enabled", "contradicts memory.lock: locked pages cannot be given back");
    if (!balloon.has_on_failure()) balloon.set_on_failure(config::STOP);
    result_.balloon = {.enabled = true,
                       .target_mib = balloon.target_mib(),
                       .free_page_reporting = !balloon.no_free_page_reporting(),
                       .deflate_on_oom = !balloon.no_deflate_on_oom(),
                       .stats_seconds = balloon.stats_seconds(),
                       .on_failure = PolicyOf(balloon.on_failure())};
  }

  void Hyperv() {
    if (!message_.has_machine()) message_.set_machine(config::VmConfig::STANDARD);
    const bool test = message_.machine() == config::VmConfig::TEST;
    result_.machine = test ? MachineKind::kTest : MachineKind::kStandard;
    config::Hyperv& hyperv = *message_.mutable_hyperv();
    const bool given = hyperv.has_enabled();
    if (!given) hyperv.set_enabled(test);
    result_.hyperv.enabled = hyperv.enabled();
    const auto needs_vsm = [&](bool set, const char* field) {
      if (set && !hyperv.vsm().enabled()) Report(field, "contradicts hyperv.vsm.enabled, which is false unless given");
    };
    needs_vsm(hyperv.vsm().claim_mbec(), "hyperv.vsm.claim_mbec");
    needs_vsm(hyperv.vsm().has_protection(), "hyperv.vsm.protection");
    needs_vsm(hyperv.vsm().has_unenforceable(), "hyperv.vsm.unenforceable");
    if (!hyperv.enabled()) {
      if (hyperv.has_backing()) {
        Report("hyperv.backing", given ? "contradicts hyperv.enabled, which is false"
                                       : "contradicts hyperv.enabled, which is false unless given in the STANDARD machine");
      }
      if (hyperv.vsm().enabled()) {
        Report("hyperv.vsm.enabled", given ? "contradicts hyperv.enabled, which is false"
                                           : "contradicts hyperv.enabled, which is false unless given in the STANDARD machine");
      }
      return;
    }
    result_.hyperv.vsm = hyperv.vsm().enabled();
    result_.hyperv.claim_mbec = hyperv.vsm().claim_mbec();
    if (result_.hyperv.vsm) {
      config::Vsm& vsm = *hyperv.mutable_vsm();
      if (!vsm.has_protection()) vsm.set_protection(config::Vsm::AUTO);
      if (!vsm.has_unenforceable()) vsm.set_unenforceable(config::Vsm::REFUSE);
      result_.hyperv.protection = ProtectionOf(vsm.protection());
      result_.hyperv.round_unenforceable = vsm.unenforceable() == config::Vsm::ROUND;
    }
    if (!hyperv.has_backing()) hyperv.set_backing(config::Hyperv::KERNEL);
    if (message_.memory().huge_pages() == config::Memory::SIZE_2M || message_.memory().huge_pages() == config::Memory::SIZE_1G) {
      Report("hyperv.enabled", "contradicts memory.huge_pages: overlay pages of 4 KiB cannot lie over reserved huge pages");
    }
    result_.hyperv.backing = hyperv.backing() == config::Hyperv::OWN ? HypervBacking::kOwn : HypervBacking::kKernel;
  }

  void Sandbox() {
    config::Sandbox& sandbox = *message_.mutable_sandbox();
    if (!sandbox.has_mode()) sandbox.set_mode(config::Sandbox::ENFORCE);
    result_.sandbox.log_only = result_.monitor.log_only = sandbox.mode() == config::Sandbox::LOG;
    std::set<int> seen;
    for (int i = 0; i < sandbox.waive_size(); ++i) {
      const config::Sandbox::Layer layer = sandbox.waive(i);
      const std::string path = absl::StrCat("sandbox.waive[", i, "]");
      if (!seen.insert(layer).second) {
        Report(path, absl::StrCat("names a layer twice (", config::Sandbox::Layer_Name(layer), ")"));
      }
      switch (layer) {
        case config::Sandbox::NAMESPACES: result_.sandbox.waive_namespaces = true; break;
        case config::Sandbox::EMPTY_ROOT: result_.sandbox.waive_empty_root = true; break;
        case config::Sandbox::SECCOMP: result_.sandbox.waive_seccomp = true; break;
        case config::Sandbox::LAYER_UNSPECIFIED: Report(path, "names no layer (LAYER_UNSPECIFIED)"); break;
        default: break;  // CheckShape has refused it
      }
    }
    if (result_.sandbox.waive_namespaces && !result_.sandbox.waive_empty_root) {
      Report("sandbox.waive", "names NAMESPACES but not EMPTY_ROOT, which needs a mount namespace: waive both or none");
    }
    if (result_.sandbox.log_only && result_.sandbox.waive_seccomp) {
      Report("sandbox.mode", "is LOG and contradicts sandbox.waive, which leaves SECCOMP out");
    }
    Monitor(sandbox.monitor());
  }

  void Monitor(const config::MonitorSandbox& monitor) {
    std::set<int> seen;
    for (int i = 0; i < monitor.waive_size(); ++i) {
      const config::MonitorSandbox::Layer layer = monitor.waive(i);
      const std::string path = absl::StrCat("sandbox.monitor.waive[", i, "]");
      if (!seen.insert(layer).second) {
        Report(path, absl::StrCat("names a layer twice (", config::MonitorSandbox::Layer_Name(layer), ")"));
      }
      switch (layer) {
        case config::MonitorSandbox::SECCOMP: result_.monitor.waive_seccomp = true; break;
        case config::MonitorSandbox::LANDLOCK: result_.monitor.waive_landlock = true; break;
        case config::MonitorSandbox::CAPABILITIES: result_.monitor.waive_capabilities = true; break;
        case config::MonitorSandbox::UNDUMPABLE: result_.monitor.waive_undumpable = true; break;
        case config::MonitorSandbox::LAYER_UNSPECIFIED: Report(path, "names no layer (LAYER_UNSPECIFIED)"); break;
        default: break;  // CheckShape has refused it
      }
    }
  }

  void Logging() {
    config::Logging& logging = *message_.mutable_logging();
    if (!logging.has_level()) logging.set_level(config::Logging::INFO);
    if (!logging.has_format()) logging.set_format(config::Logging::TEXT);
    switch (logging.level()) {
      case config::Logging::ERROR: result_.logging.level = LogLevel::kError; break;
      case config::Logging::WARNING: result_.logging.level = LogLevel::kWarning; break;
      case config::Logging::DEBUG: result_.logging.level = LogLevel::kDebug; break;
      default: result_.logging.level = LogLevel::kInfo; break;
    }
    result_.logging.format = logging.format() == config::Logging::JSON ? LogFormat::kJson : LogFormat::kText;
    if (!logging.has_file()) return;
    if (!PathIsSane("logging.file", logging.file())) return;
    logging.set_file(Resolve("logging.file", logging.file()));
    CheckOutput("logging.file", logging.file());
    if (result_.serial.output == SerialOutput::kFile && SameFile(result_.serial.path, logging.file())) {
      Report("logging.file", absl::StrCat("is the same file as devices.serial.path (", QuotePath(logging.file()), ")"));
    }
    result_.logging.file = logging.file();
  }

  [[nodiscard]] static bool SameFile(const std::string& a, const std::string& b) {
    if (a == b) return true;
    struct stat about_a{}, about_b{};
    if (::stat(a.c_str(), &about_a) != 0 || ::stat(b.c_str(), &about_b) != 0) return false;
    // Both may well go to /dev/null.
    return S_ISREG(about_a.st_mode) && about_a.st_dev == about_b.st_dev && about_a.st_ino == about_b.st_ino;
  }

  struct Used {
    std::string path;
    FileId id;
    bool written = false;
  };

  config::VmConfig& message_;
  const std::string base_dir_;
  const FieldOrigins& origins_;
  const HostLimits host_;
  Problems& problems_;
  VmConfig result_;
  std::vector<Used> inputs_;
};

}  // namespace

HostLimits ThisHost() {
  const long pages = ::sysconf(_SC_PHYS_PAGES);
  const long page_bytes = ::sysconf(_SC_PAGESIZE);
  return {.memory_bytes = pages > 0 && page_bytes > 0 ? static_cast<uint64_t>(pages) * static_cast<uint64_t>(page_bytes) : 0};
}

VmConfig ValidateMessage(config::VmConfig& message, const std::string& base_dir, const FieldOrigins& origins,
                         const HostLimits& host, Problems& problems) {
  return Validator(message, base_dir, origins, host, problems).Run();
}

absl::StatusOr<VmConfig> ValidateConfig(const config::VmConfig& message, const std::string& base_dir,
                                        const HostLimits& host) {
  Problems problems;
  config::VmConfig copy = message;
  VmConfig result = ValidateMessage(copy, base_dir, FieldOrigins(""), host, problems);
  if (!problems.empty()) return problems.ToStatus();
  return result;
}

}  // namespace vmm
