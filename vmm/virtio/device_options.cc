#include "vmm/virtio/device_options.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/errno_status.h"
#include "base/log.h"
#include "base/owned_fd.h"
#include "base/status_macros.h"
#include "base/unix_socket.h"
#include "devices/virtio/balloon/balloon_device.h"
#include "devices/virtio/balloon/balloon_layout.h"
#include "devices/virtio/block/block_device.h"
#include "devices/virtio/block/block_layout.h"
#include "devices/virtio/console/console_device.h"
#include "devices/virtio/net/mac_address.h"
#include "devices/virtio/net/net_arguments.h"
#include "devices/virtio/net/net_layout.h"
#include "devices/virtio/net/passt.h"
#include "devices/virtio/net/tap_wire.h"
#include "devices/virtio/virtio_layout.h"
#include "devices/virtio/vsock/vsock_connector.h"
#include "devices/virtio/vsock/vsock_device.h"
#include "devices/virtio/vsock/vsock_layout.h"
#include "devices/virtio/vsock/vsock_options.h"
#include "vmm/virtio/balloon_control.h"
#include "vmm/virtio/virtiofsd.h"

namespace vmm {
namespace {

VirtioDevice::Options RngOptions(const VmConfig& config) {
  VirtioDevice::Options options;
  options.frontend.name = "rng";
  options.frontend.device_id = virtio::DeviceId::kRng;
  options.frontend.max_queue_size = 64;
  options.on_failure = config.rng.on_failure;
  options.socket = config.rng.socket;
  options.spawn.kind = "rng";
  return options;
}

VirtioDevice::Options FsOptionsOf(const VmConfig::Fs& fs) {
  // "File System Device": hiprio queue and one for requests, which is what virtiofsd has; its configuration space is the front end's.
  struct {
    char tag[36];
    uint32_t request_queues;
  } config{};
  static_assert(sizeof(config) == 40);
  fs.tag.copy(config.tag, sizeof(config.tag));
  config.request_queues = 1;
  VirtioDevice::Options options;
  options.frontend.name = absl::StrCat("fs-", fs.tag);
  options.frontend.device_id = virtio::DeviceId::kFs;
  options.frontend.queues = 1 + config.request_queues;
  options.frontend.max_queue_size = 1024;
  const auto bytes = std::as_bytes(std::span(&config, 1));
  options.frontend.own_config.assign(bytes.begin(), bytes.end());
  options.frontend.config_bytes = sizeof(config);
  options.on_failure = fs.on_failure;
  options.socket = fs.socket;
  return options;
}

absl::StatusOr<VirtioDevice::Options> VsockOptionsOf(const VmConfig& config) {
  VirtioDevice::Options options;
  options.frontend.name = "vsock";
  options.frontend.device_id = virtio::DeviceId::kVsock;
  options.frontend.queues = virtio_vsock::kQueues;
  options.frontend.config_bytes = sizeof(virtio_vsock::Config);
  options.on_failure = config.vsock.on_failure;
  options.spawn.kind = "vsock";
  options.spawn.arguments = VsockDeviceArguments(config.vsock.guest_cid);
  options.spawn.connections = VsockDevice::kMaxConnections;
  ASSIGN_OR_RETURN(OwnedFd listening, ListenForVsock(config.vsock.path));
  options.fds.push_back(std::move(listening));
  return options;
}

absl::StatusOr<VirtioDevice::Options> BalloonOptionsOf(const VmConfig& config) {
  VirtioDevice::Options options;
  options.frontend.name = "balloon";
  options.frontend.device_id = virtio::DeviceId::kBalloon;
  options.frontend.queues = virtio_balloon::kQueues;
  options.frontend.max_queue_size = 128;
  options.frontend.config_bytes = sizeof(virtio_balloon::Config);
  options.on_failure = config.balloon.on_failure;
  options.spawn.kind = "balloon";
  options.spawn.arguments = BalloonDeviceArguments({.target_pages = BalloonControl::PagesOf(config.balloon.target_mib),
                                                    .stats_seconds = config.balloon.stats_seconds,
                                                    .deflate_on_oom = config.balloon.deflate_on_oom,
                                                    .reporting = config.balloon.free_page_reporting});
  options.spawn.arguments.emplace_back("--commanded");
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return ErrnoStatus(errno, "create the balloon's socket pair");
  options.control.Reset(pair[0]);
  options.fds.emplace_back(pair[1]);
  return options;
}

absl::StatusOr<VirtioDevice::Options> BlockOptionsOf(const VmConfig::Block& block, size_t index) {
  VirtioDevice::Options options;
  options.frontend.name = absl::StrCat("block", index);
  options.frontend.device_id = virtio::DeviceId::kBlock;
  options.frontend.queues = block.queues;
  options.frontend.config_bytes = virtio_blk::kConfigBytes;
  options.on_failure = block.on_failure;
  options.socket = block.socket;
  if (!block.socket.empty()) return options;
  options.spawn.kind = "block";
  options.spawn.threads = BlockOptions{}.workers;
  options.spawn.arguments = BlockDeviceArguments({.read_only = block.read_only,
                                                  .serial = block.serial,
                                                  .queues = block.queues,
                                                  .bytes_per_second = block.bytes_per_second,
                                                  .operations_per_second = block.operations_per_second});
  // O_NONBLOCK: what was a file when the configuration was checked may be a FIFO by now.
  OwnedFd disk(::open(block.path.c_str(), (block.read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  if (!disk.valid()) return ErrnoStatus(errno, absl::StrCat("open disk image '", block.path, "'"));
  struct stat about {};
  if (::fstat(disk.get(), &about) != 0) return ErrnoStatus(errno, absl::StrCat("examine disk image '", block.path, "'"));
  // Two writers would ruin each other's file systems. Other programs need not care for the lock; other machines of ours do.
  if (::flock(disk.get(), (block.read_only ? LOCK_SH : LOCK_EX) | LOCK_NB) != 0) {
    return absl::UnavailableError(absl::StrCat("lock disk image '", block.path, "': another machine uses it"));
  }
  // A file's size never changes: nothing may be written behind its end.
  if (!block.read_only) options.spawn.file_bytes = S_ISREG(about.st_mode) ? static_cast<uint64_t>(about.st_size) : kNoLimit;
  options.fds.push_back(std::move(disk));
  return options;
}

// What a network device has in its configuration space where the backend is somebody else's, which has none.
void GiveOwnConfig(const VmConfig::Net& net, const MacAddress& mac, VhostUserFrontendOptions& frontend) {
  virtio_net::Config config{};
  std::copy(mac.begin(), mac.end(), config.mac);
  config.status = virtio_net::kStatusLinkUp;
  config.max_virtqueue_pairs = 1;
  config.mtu = net.mtu;
  const auto bytes = std::as_bytes(std::span(&config, 1));
  frontend.own_config.assign(bytes.begin(), bytes.end());
  frontend.own_features = virtio_net::kFeatureMac | virtio_net::kFeatureStatus | (net.mtu != 0 ? virtio_net::kFeatureMtu : 0);
  // One pair, and no control queue, which other backends leave to the front end.
  frontend.withheld_features = virtio_net::kFeatureMq | virtio_net::kFeatureCtrlVq | virtio_net::kFeatureCtrlRx |
                               virtio_net::kFeatureCtrlMacAddr | virtio_net::kFeatureCtrlGuestOffloads | virtio_net::kFeatureMtu;
  frontend.queues = 2;
}

absl::StatusOr<VirtioDevice::Options> NetOptionsOf(const VmConfig::Net& net, size_t index) {
  VirtioDevice::Options options;
  options.frontend.name = absl::StrCat("net", index);
  options.frontend.device_id = virtio::DeviceId::kNet;
  options.frontend.queues = static_cast<uint16_t>(2 * net.pairs + 1);
  options.frontend.config_bytes = sizeof(virtio_net::Config);
  options.on_failure = net.on_failure;
  MacAddress mac = net.mac;
  if (mac == MacAddress{}) {
    ASSIGN_OR_RETURN(mac, RandomMacAddress());
  }
  options.socket = net.socket;
  if (!net.socket.empty()) {
    GiveOwnConfig(net, mac, options.frontend);
    return options;
  }
  options.spawn.kind = "net";
  options.spawn.arguments = NetDeviceArguments({.mac = mac,
                                                .mtu = net.mtu,
                                                .pairs = net.pairs,
                                                .bytes_per_second = net.bytes_per_second,
                                                .packets_per_second = net.packets_per_second},
                                               net.user);
  if (net.user) {
    ASSIGN_OR_RETURN(OwnedFd program, OpenPasst(net.passt));
    options.spawn.companion = PasstCompanion({.mtu = net.mtu, .tcp_ports = net.tcp_ports, .udp_ports = net.udp_ports}, program);
    options.kept.push_back(std::move(program));
  } else if (!net.tap.empty()) {
    ASSIGN_OR_RETURN(options.fds, OpenTap(net.tap, net.pairs));
  } else {
    RETURN_IF_ERROR(CheckTap(net.tap_fds));
    for (const int fd : net.tap_fds) {
      OwnedFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
      if (!copy.valid()) return ErrnoStatus(errno, absl::StrCat("copy descriptor ", fd));
      options.fds.push_back(std::move(copy));
    }
  }
  return options;
}

// A pseudo-terminal: our end, and the other kept open, so that ours does not end with whoever uses it.
absl::Status MakePty(std::vector<OwnedFd>& fds, std::vector<OwnedFd>& kept) {
  OwnedFd ours(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK));
  if (!ours.valid() || ::grantpt(ours.get()) != 0 || ::unlockpt(ours.get()) != 0) return ErrnoStatus(errno, "create pseudo-terminal");
  std::array<char, 64> name{};
  if (const int error = ::ptsname_r(ours.get(), name.data(), name.size()); error != 0) return ErrnoStatus(error, "name pseudo-terminal");
  OwnedFd theirs(::open(name.data(), O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!theirs.valid()) return ErrnoStatus(errno, absl::StrCat("open ", name.data()));
  // The guest's line discipline is the one that counts.
  termios modes{};
  if (::tcgetattr(theirs.get(), &modes) != 0) return ErrnoStatus(errno, absl::StrCat("get the modes of ", name.data()));
  ::cfmakeraw(&modes);
  if (::tcsetattr(theirs.get(), TCSANOW, &modes) != 0) return ErrnoStatus(errno, absl::StrCat("set the modes of ", name.data()));
  Log(LogLevel::kInfo, "vmm", absl::StrCat("the console is ", name.data()));
  OwnedFd input(::fcntl(ours.get(), F_DUPFD_CLOEXEC, 0));
  if (!input.valid()) return ErrnoStatus(errno, "copy descriptor");
  fds.push_back(std::move(ours));
  fds.push_back(std::move(input));
  kept.push_back(std::move(theirs));
  return absl::OkStatus();
}

absl::StatusOr<VirtioDevice::Options> ConsoleOptions(const VmConfig& config, bool interactive) {
  VirtioDevice::Options options;
  options.frontend.name = "console";
  options.frontend.device_id = virtio::DeviceId::kConsole;
  options.frontend.queues = 2;
  options.frontend.max_queue_size = 64;
  options.frontend.config_bytes = sizeof(ConsoleDevice::Config);
  options.on_failure = config.console.on_failure;
  options.spawn.kind = "console";
  const std::string& path = config.console.path;
  if (config.console.output == ConsoleOutput::kPty) {
    RETURN_IF_ERROR(MakePty(options.fds, options.kept));
  } else if (config.console.output == ConsoleOutput::kStdio) {
    OwnedFd output(::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0));
    OwnedFd input(::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0));
    if (!output.valid() || !input.valid()) return ErrnoStatus(errno, "copy standard input and output");
    options.quit.Reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    OwnedFd quit(::fcntl(options.quit.get(), F_DUPFD_CLOEXEC, 0));
    if (!quit.valid()) return ErrnoStatus(errno, "create eventfd");
    options.fds.push_back(std::move(output));
    options.fds.push_back(std::move(input));
    options.fds.push_back(std::move(quit));
    options.spawn.keeps_terminal = true;
    options.spawn.arguments = {"--shared-terminal"};
    if (interactive) options.spawn.arguments.emplace_back("--interactive");
    options.spawn.file_bytes = kNoLimit;  // standard output may be a file
  } else if (config.console.output == ConsoleOutput::kSocket) {
    ASSIGN_OR_RETURN(OwnedFd output, ConnectUnixSocket(path));
    OwnedFd input(::fcntl(output.get(), F_DUPFD_CLOEXEC, 0));
    if (!input.valid()) return ErrnoStatus(errno, "copy descriptor");
    options.fds.push_back(std::move(output));
    options.fds.push_back(std::move(input));
  } else {
    // From its start, as the schema says. O_NONBLOCK: a FIFO without a reader is an error, not a wait.
    OwnedFd output(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600));
    if (!output.valid()) return ErrnoStatus(errno, absl::StrCat("open console output '", path, "'"));
    options.fds.push_back(std::move(output));
    options.spawn.arguments = {"--no-input"};
    options.spawn.file_bytes = kNoLimit;
  }
  return options;
}

}  // namespace

absl::StatusOr<std::vector<VirtioDevice::Options>> VirtioDeviceOptions(const VmConfig& config, bool interactive) {
  std::vector<VirtioDevice::Options> all;
  for (size_t i = 0; i < config.blocks.size(); ++i) {
    ASSIGN_OR_RETURN(VirtioDevice::Options options, BlockOptionsOf(config.blocks[i], i));
    all.push_back(std::move(options));
  }
  for (size_t i = 0; i < config.nets.size(); ++i) {
    auto options = NetOptionsOf(config.nets[i], i);
    if (!options.ok()) return absl::Status(options.status().code(), absl::StrCat("device 'net", i, "': ", options.status().message()));
    all.push_back(*std::move(options));
  }
  if (config.console.output != ConsoleOutput::kNone) {
    ASSIGN_OR_RETURN(VirtioDevice::Options options, ConsoleOptions(config, interactive));
    all.push_back(std::move(options));
  }
  if (config.rng.enabled) all.push_back(RngOptions(config));
  for (const VmConfig::Fs& fs : config.shares) {
    VirtioDevice::Options options = FsOptionsOf(fs);
    if (fs.socket.empty()) {
      ASSIGN_OR_RETURN(Virtiofsd virtiofsd, StartVirtiofsd(fs.program, fs.path));
      options.helper = std::move(virtiofsd.process);
      options.connection = std::move(virtiofsd.connection);
    }
    all.push_back(std::move(options));
  }
  if (!config.vsock.path.empty()) {
    ASSIGN_OR_RETURN(VirtioDevice::Options options, VsockOptionsOf(config));
    all.push_back(std::move(options));
  }
  if (config.balloon.enabled) {
    ASSIGN_OR_RETURN(VirtioDevice::Options options, BalloonOptionsOf(config));
    all.push_back(std::move(options));
  }
  return all;
}

}  // namespace vmm
