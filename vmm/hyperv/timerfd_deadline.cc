#include "vmm/hyperv/timerfd_deadline.h"

#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/errno_status.h"
#include "base/status_macros.h"

namespace vmm {
namespace {

constexpr uint64_t kNanosecondsPerSecond = 1'000'000'000;
constexpr uint64_t kFarthest = HvTicks::kPerSecond * 3600 * 24 * 365;

void Arm(int fd, uint64_t nanoseconds) {
  itimerspec time{};
  time.it_value.tv_sec = static_cast<time_t>(nanoseconds / kNanosecondsPerSecond);
  time.it_value.tv_nsec = static_cast<long>(nanoseconds % kNanosecondsPerSecond);
  ::timerfd_settime(fd, 0, &time, nullptr);
}

}  // namespace

absl::StatusOr<std::unique_ptr<TimerfdDeadline>> TimerfdDeadline::Create(EventLoop& loop, ReferenceClock& clock,
                                                                         std::function<void()> on_passed) {
  OwnedFd fd(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!fd.valid()) return ErrnoStatus(errno, "create timer of a virtual processor");
  auto deadline = std::unique_ptr<TimerfdDeadline>(new TimerfdDeadline(std::move(fd), loop, clock));
  const int number = deadline->fd_.get();
  RETURN_IF_ERROR(loop.Watch(number, EPOLLIN, [number, passed = std::move(on_passed)](uint32_t) {
    uint64_t expirations;
    if (::read(number, &expirations, sizeof(expirations)) == sizeof(expirations)) passed();
  }));
  return deadline;
}

TimerfdDeadline::~TimerfdDeadline() { loop_.Unwatch(fd_.get()); }

void TimerfdDeadline::Set(HvTicks deadline) noexcept {
  const uint64_t now = clock_.Now().raw();
  const uint64_t ticks = deadline.raw() > now ? std::min(deadline.raw() - now, kFarthest) : 0;
  // Zero would disarm it.
  Arm(fd_.get(), std::max<uint64_t>(ticks * HvTicks::kNanoseconds, 1));
}

void TimerfdDeadline::Cancel() noexcept { Arm(fd_.get(), 0); }

}  // namespace vmm
