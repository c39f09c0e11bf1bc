// An eventfd: a counter that wakes poll(2), KVM's irqfd and ioeventfd.
//
// Threads  Signal and Drain: any thread, never block (the descriptor is non-blocking).
// Errors   Signal cannot fail while the counter has room; at its limit the wake-up is already pending, so EAGAIN is success.
#ifndef VMM_BASE_EVENT_FD_H_
#define VMM_BASE_EVENT_FD_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "base/owned_fd.h"

namespace vmm {

class EventFd final {
 public:
  static absl::StatusOr<EventFd> Create();
  // Takes over a descriptor that was inherited.
  explicit EventFd(OwnedFd fd) noexcept : fd_(std::move(fd)) {}

  void Signal() noexcept;
  // The number of signals since the last call, 0 for none.
  uint64_t Drain() noexcept;
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

 private:
  OwnedFd fd_;
};

}  // namespace vmm

#endif  // VMM_BASE_EVENT_FD_H_
