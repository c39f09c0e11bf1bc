// ioctl(2) on KVM's descriptors, and what its errors mean.
#ifndef VMM_KVM_IOCTL_H_
#define VMM_KVM_IOCTL_H_

#include <sys/ioctl.h>

#include <cerrno>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "base/errno_status.h"

namespace vmm::kvm {

// EINTR is retried, as is right everywhere but for KVM_RUN.
template <typename Argument>
inline int Ioctl(int fd, unsigned long request, Argument argument) noexcept {
  int result;
  do {
    result = ::ioctl(fd, request, argument);
  } while (result < 0 && errno == EINTR);
  return result;
}

// EINVAL of KVM says that this host does not do what was asked (a processor too many, a register's bit): FAILED_PRECONDITION.
// INVALID_ARGUMENT would blame the person's input.
[[nodiscard]] inline absl::Status KvmStatus(int error, absl::string_view what) {
  const absl::Status status = ErrnoStatus(error, what);
  return error == EINVAL ? absl::FailedPreconditionError(status.message()) : status;
}

}  // namespace vmm::kvm

#endif  // VMM_KVM_IOCTL_H_
