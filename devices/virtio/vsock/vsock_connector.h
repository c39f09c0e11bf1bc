// Connects to Unix sockets of the host on behalf of a vsock device, which can open no path itself.
//
// A process of its own that knows one path, P, and does one thing: told a port number, it connects to P_port and hands the connection
// over. So a device that was taken over reaches what its guest reaches anyway, and no other socket of the host.
//
// Shapes   a pair of packet sockets: ConnectRequest one way, ConnectAnswer, with a descriptor where error is 0, the other.
// Threads  Start: the one with which the process dies (sandbox/spawn.h). The process has one.
// Trust    the process is trusted: it has its user's view of the file system, no capability, Landlock where the kernel has it (no file can
//          be opened) and a filter of nine system calls. What it reads are sixteen bytes of a device that is not trusted.
// Errors   Start: Status. The process ends when the other end is closed; where it is gone, the guest's connections are refused.
#ifndef VMM_DEVICES_VIRTIO_VSOCK_VSOCK_CONNECTOR_H_
#define VMM_DEVICES_VIRTIO_VSOCK_VSOCK_CONNECTOR_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "base/owned_fd.h"
#include "sandbox/child_process.h"
#include "sandbox/jail_options.h"

namespace vmm {

// What a socket's address holds, without its final NUL, and what "_4294967295" leaves of it.
inline constexpr size_t kMaxVsockPathBytes = 107 - 11;

struct ConnectRequest {
  uint64_t id;  // the device's, given back
  uint32_t port;
  uint32_t zero;
};
static_assert(sizeof(ConnectRequest) == 16);
struct ConnectAnswer {
  uint64_t id;
  int32_t error;  // of connect(2); 0: the connection comes along
  uint32_t zero;
};
static_assert(sizeof(ConnectAnswer) == 16);

struct VsockConnector {
  ChildProcess process;
  // The device's descriptors: its end, and an eventfd by which one process of a device knows that there was another before it.
  OwnedFd device_end;
  OwnedFd before;
};
// `executable_fd`, borrowed: -1 for the running program.
absl::StatusOr<VsockConnector> StartVsockConnector(const std::string& path, const JailOptions& jail, int executable_fd);

// The machine's socket at `path`, listening, for its user alone; one that nobody listens on any more is replaced.
absl::StatusOr<OwnedFd> ListenForVsock(const std::string& path);

// What `vmm device vsock --connector PATH` runs.
int RunVsockConnector(const std::string& path, const JailOptions& jail);

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_VSOCK_VSOCK_CONNECTOR_H_
