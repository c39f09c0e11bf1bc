#include "vmm/hyperv/eoi_watch.h"

#include <sys/epoll.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <optional>
#include <utility>

#include "base/errno_status.h"
#include "base/status_macros.h"

namespace vmm {
namespace {

epoll_event Event(uint32_t events, VpIndex vp, Sint sint) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = uint64_t{vp.raw()} << 8 | sint.raw();
  return event;
}

}  // namespace

absl::StatusOr<std::unique_ptr<EoiWatch>> EoiWatch::Create(EventLoop& loop, OnEoi on_eoi) {
  OwnedFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll.valid()) return ErrnoStatus(errno, "create epoll of interrupt ends");
  auto watch = std::unique_ptr<EoiWatch>(new EoiWatch(std::move(epoll), loop, std::move(on_eoi)));
  RETURN_IF_ERROR(loop.Watch(watch->epoll_.get(), EPOLLIN, [it = watch.get()](uint32_t) { it->Dispatch(); }));
  return watch;
}

EoiWatch::~EoiWatch() { loop_.Unwatch(epoll_.get()); }

absl::Status EoiWatch::Add(int resample_fd, VpIndex vp, Sint sint) {
  epoll_event event = Event(0, vp, sint);
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, resample_fd, &event) != 0) return ErrnoStatus(errno, "watch interrupt ends");
  return absl::OkStatus();
}

void EoiWatch::Remove(int resample_fd) noexcept { ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, resample_fd, nullptr); }

void EoiWatch::Arm(int resample_fd, VpIndex vp, Sint sint, bool armed) noexcept {
  epoll_event event = Event(armed ? EPOLLIN | EPOLLET : 0, vp, sint);
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, resample_fd, &event);
}

void EoiWatch::Dispatch() {
  std::array<epoll_event, 16> events;
  const int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), 0);
  for (int i = 0; i < count; ++i) {
    const uint64_t data = events[static_cast<size_t>(i)].data.u64;
    if (const auto sint = Sint::From(data & 0xff)) on_eoi_(VpIndex(static_cast<uint32_t>(data >> 8)), *sint);
  }
}

}  // namespace vmm
