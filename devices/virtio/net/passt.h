// User-mode networking by passt, unmodified: the guest's connections become the host's sockets, with no privilege and no interface.
//
// Shapes   passt has one end of a stream socket, the device the other (stream_wire.h, CompanionOptions in backend_spawn.h).
// Trust    passt parses what the guest sends, and confines itself: user, mount, pid, ipc and uts namespaces of its own, an empty root, no
//          capabilities, a system call filter. It keeps the host's network, which is what it is for. From us it has no descriptor but its
//          end, no environment, no_new_privs and limits.
// Errors   OpenPasst: Status with the path.
// Source   passt(1) of Debian 12 (2023-03-09); the options used are still the newest's.
#ifndef VMM_DEVICES_VIRTIO_NET_PASST_H_
#define VMM_DEVICES_VIRTIO_NET_PASST_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/owned_fd.h"
#include "devices/virtio/backend/backend_spawn.h"

namespace vmm {

inline constexpr absl::string_view kPasstProgram = "/usr/bin/passt";

struct PasstOptions {
  uint16_t mtu = 0;       // told to the guest by DHCP; 0: passt says nothing
  std::string tcp_ports;  // of the host, to the guest: "2222:22,8080"; empty: none
  std::string udp_ports;
};

absl::StatusOr<OwnedFd> OpenPasst(const std::string& program);
// What to start beside the device; `program` is OpenPasst's, borrowed.
[[nodiscard]] CompanionOptions PasstCompanion(const PasstOptions& options, const OwnedFd& program);
// Whether it is a list of ports as passt(1) has it: digits and the separators, at most 1000 characters.
[[nodiscard]] bool IsPasstPorts(absl::string_view ports);

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_NET_PASST_H_
