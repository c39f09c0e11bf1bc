// Tells virtual processors of ends of interrupt, of those SINTs that have a message waiting for it: usually none.
//
// Shapes   one set of descriptors for the machine, each armed only while somebody waits: other ends of interrupt wake nobody.
//          Edge-triggered, so that nobody has to read them: each signal is news, until the descriptor is disarmed.
// Threads  Create, destructor: on the loop's thread. Add, Remove, Arm: any.
// Errors   Create, Add: Status with errno.
#ifndef VMM_VMM_HYPERV_EOI_WATCH_H_
#define VMM_VMM_HYPERV_EOI_WATCH_H_

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/event_loop.h"
#include "base/owned_fd.h"
#include "devices/hyperv/hv_types.h"

namespace vmm {

class EoiWatch final {
 public:
  // Called on the loop's thread: for each end of interrupt while armed, or once for several; perhaps once after it was disarmed.
  using OnEoi = std::function<void(VpIndex vp, Sint sint)>;
  static absl::StatusOr<std::unique_ptr<EoiWatch>> Create(EventLoop& loop, OnEoi on_eoi);
  EoiWatch(const EoiWatch&) = delete;
  EoiWatch& operator=(const EoiWatch&) = delete;
  ~EoiWatch();

  // `resample_fd` stays open until Remove.
  absl::Status Add(int resample_fd, VpIndex vp, Sint sint);
  void Remove(int resample_fd) noexcept;
  // Armed: every signal of the descriptor from now on is told, and one that is there already.
  void Arm(int resample_fd, VpIndex vp, Sint sint, bool armed) noexcept;

 private:
  EoiWatch(OwnedFd epoll, EventLoop& loop, OnEoi on_eoi) : epoll_(std::move(epoll)), loop_(loop), on_eoi_(std::move(on_eoi)) {}
  void Dispatch();

  const OwnedFd epoll_;  // within the loop's: so that any thread may arm
  EventLoop& loop_;
  const OnEoi on_eoi_;
};

}  // namespace vmm

#endif  // VMM_VMM_HYPERV_EOI_WATCH_H_
