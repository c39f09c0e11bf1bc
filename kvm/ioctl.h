// ioctl(2) with EINTR retried where that is right: everywhere but KVM_RUN.
#ifndef VMM_KVM_IOCTL_H_
#define VMM_KVM_IOCTL_H_

#include <sys/ioctl.h>

#include <cerrno>

namespace vmm::kvm {

template <typename Argument>
inline int Ioctl(int fd, unsigned long request, Argument argument) noexcept {
  int result;
  do {
    result = ::ioctl(fd, request, argument);
  } while (result < 0 && errno == EINTR);
  return result;
}

}  // namespace vmm::kvm

#endif  // VMM_KVM_IOCTL_H_
