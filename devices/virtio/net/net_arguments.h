// The command line of the network device.
//
// `vmm device net WIRE [--mac M] [--mtu N] [--queues N] [--bytes-per-second N] [--packets-per-second N] (--socket PATH | --fd N)`, WIRE:
//   --tap NAME               a TAP interface, used or made
//   --tap-fd N ...           opened already: one descriptor for each queue pair
//   --user [--passt PROGRAM] [--tcp-ports P] [--udp-ports P]
//   --stream-fd N            a connected stream socket whose other end speaks QEMU's frames
#ifndef VMM_DEVICES_VIRTIO_NET_NET_ARGUMENTS_H_
#define VMM_DEVICES_VIRTIO_NET_NET_ARGUMENTS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "devices/virtio/net/net_device.h"
#include "devices/virtio/net/passt.h"

namespace vmm {

struct NetArguments {
  NetOptions options;  // pairs: of --queues, or as many as there are --tap-fd
  bool has_mac = false;
  bool stream = false;  // inside the jail: the descriptor is a stream
  std::string tap;
  std::vector<int> tap_fds;
  int stream_fd = -1;
  bool user = false;
  std::string passt_program{kPasstProgram};
  PasstOptions passt;
};

// Takes the network device's own out of `arguments`. `jailed`: only what NetDeviceArguments makes.
absl::StatusOr<NetArguments> TakeNetArguments(std::vector<absl::string_view>& arguments, bool jailed);

// How the monitor gives the options to the process that it starts. The wire is descriptors: `pairs` of a TAP interface, or one stream.
[[nodiscard]] std::vector<std::string> NetDeviceArguments(const NetOptions& options, bool stream);

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_NET_NET_ARGUMENTS_H_
