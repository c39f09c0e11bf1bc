#include "vmm/virtio/balloon_control.h"

#include <sys/socket.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "base/errno_status.h"
#include "base/status_macros.h"

namespace vmm {

namespace vb = virtio_balloon;

absl::StatusOr<std::unique_ptr<BalloonControl>> BalloonControl::Create(EventLoop& loop, OwnedFd socket, uint64_t target_mib,
                                                                       uint64_t memory_mib) {
  std::unique_ptr<BalloonControl> control(new BalloonControl(loop, std::move(socket), target_mib, memory_mib));
  RETURN_IF_ERROR(loop.Watch(control->socket_.get(), EPOLLIN, [raw = control.get()](uint32_t) { raw->OnReport(); }));
  return control;
}

BalloonControl::~BalloonControl() { loop_.Unwatch(socket_.get()); }

absl::Status BalloonControl::TellLocked() {
  vb::Command command{target_pages_, last_.actual_pages, last_.poison_val, last_.poison_known};
  if (::send(socket_.get(), &command, sizeof(command), MSG_DONTWAIT | MSG_NOSIGNAL) == static_cast<ssize_t>(sizeof(command))) {
    return absl::OkStatus();
  }
  return ErrnoStatus(errno, "tell the balloon its target");
}

absl::Status BalloonControl::SetTarget(uint64_t mib) {
  if (mib >= memory_mib_) {
    return absl::InvalidArgumentError(absl::StrCat("set the balloon's target to ", mib, " MiB: the machine has ", memory_mib_));
  }
  MutexLock lock(mutex_);
  target_pages_ = PagesOf(mib);
  return TellLocked();
}

BalloonControl::Stats BalloonControl::stats() const {
  MutexLock lock(mutex_);
  return {target_pages_, last_};
}

void BalloonControl::OnReport() {
  vb::Report report;
  const ssize_t got = ::recv(socket_.get(), &report, sizeof(report), MSG_DONTWAIT | MSG_TRUNC);
  // Its other end is ours too: it is never closed before this one.
  if (got != static_cast<ssize_t>(sizeof(report))) return;
  MutexLock lock(mutex_);
  if (report.fresh != 0) {
    // Just started: told what the one before it knew, which stays known here.
    last_.target_pages = report.target_pages;
    (void)TellLocked();
    return;
  }
  last_ = report;
  if (report.target_pages != target_pages_) (void)TellLocked();
}

}  // namespace vmm
