// One deadline in reference time, kept by the kernel: a timer descriptor on the machine's event loop.
//
// Threads  Create, destructor: on the loop's thread. Set, Cancel: the VP's.
// Trust    any deadline: one far away is cut to a year, and asked again.
// Errors   Create: Status with errno.
#ifndef VMM_VMM_HYPERV_TIMERFD_DEADLINE_H_
#define VMM_VMM_HYPERV_TIMERFD_DEADLINE_H_

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "base/event_loop.h"
#include "base/owned_fd.h"
#include "devices/hyperv/hv_host.h"

namespace vmm {

class TimerfdDeadline final : public DeadlineTimer {
 public:
  // `on_passed` is called on the loop's thread, perhaps a moment early or once too often. All arguments outlive this.
  static absl::StatusOr<std::unique_ptr<TimerfdDeadline>> Create(EventLoop& loop, ReferenceClock& clock,
                                                                 std::function<void()> on_passed);
  ~TimerfdDeadline() override;

  void Set(HvTicks deadline) noexcept override;
  void Cancel() noexcept override;

 private:
  TimerfdDeadline(OwnedFd fd, EventLoop& loop, ReferenceClock& clock) : fd_(std::move(fd)), loop_(loop), clock_(clock) {}

  const OwnedFd fd_;
  EventLoop& loop_;
  ReferenceClock& clock_;
};

}  // namespace vmm

#endif  // VMM_VMM_HYPERV_TIMERFD_DEADLINE_H_
