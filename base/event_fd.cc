#include "base/event_fd.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>

#include "base/errno_status.h"

namespace vmm {

absl::StatusOr<EventFd> EventFd::Create() {
  const int fd = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0) return ErrnoStatus(errno, "create eventfd");
  return EventFd(OwnedFd(fd));
}

void EventFd::Signal() noexcept {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(fd_.get(), &one, sizeof(one));
}

uint64_t EventFd::Drain() noexcept {
  uint64_t count = 0;
  return ::read(fd_.get(), &count, sizeof(count)) == sizeof(count) ? count : 0;
}

}  // namespace vmm
