// Starts virtiofsd, as Debian has it, for a folder of the host: the vhost-user backend of a virtio-fs device.
//
// Shapes   it is given a listening socket that nobody but us can have connected to, and our connection waits in it already.
// Threads  the one with which it dies (sandbox/spawn.h).
// Trust    it parses what the guest sends, and confines itself, not by us: mount, pid and network namespaces with the folder as its root,
//          a filter, most capabilities dropped. It stays root, and keeps those that files of any owner need (CAP_DAC_OVERRIDE, CAP_CHOWN and
//          their like): in the shared folder it does what the guest's root says. From us it has no_new_privs, an empty environment, and no
//          descriptor but its socket.
// Errors   Status. FAILED_PRECONDITION for a caller that is not root: that program needs it.
// Source   virtiofsd(1) of QEMU 7.2.
#ifndef VMM_VMM_VIRTIO_VIRTIOFSD_H_
#define VMM_VMM_VIRTIO_VIRTIOFSD_H_

#include <string>

#include "absl/status/statusor.h"
#include "base/owned_fd.h"
#include "sandbox/child_process.h"

namespace vmm {

inline constexpr char kVirtiofsdProgram[] = "/usr/lib/qemu/virtiofsd";

struct Virtiofsd {
  ChildProcess process;
  OwnedFd connection;
};
absl::StatusOr<Virtiofsd> StartVirtiofsd(const std::string& program, const std::string& folder);

}  // namespace vmm

#endif  // VMM_VMM_VIRTIO_VIRTIOFSD_H_
