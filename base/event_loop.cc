#include "base/event_loop.h"

#include <array>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errno_status.h"
#include "base/status_macros.h"

namespace vmm {

absl::StatusOr<std::unique_ptr<EventLoop>> EventLoop::Create() {
  const int fd = ::epoll_create1(EPOLL_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "create epoll instance");
  OwnedFd epoll(fd);
  ASSIGN_OR_RETURN(EventFd wake, EventFd::Create());
  std::unique_ptr<EventLoop> loop(new EventLoop(std::move(epoll), std::move(wake)));
  RETURN_IF_ERROR(loop->Watch(loop->wake_.fd(), EPOLLIN, [raw = loop.get()](uint32_t) {
    raw->wake_.Drain();
    raw->RunPosted();
  }));
  return loop;
}

absl::Status EventLoop::Watch(int fd, uint32_t events, Callback callback) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
    return ErrnoStatus(errno, absl::StrCat("watch descriptor ", fd));
  }
  watchers_[fd] = std::make_shared<Watcher>(Watcher{next_id_++, std::move(callback)});
  return absl::OkStatus();
}

absl::Status EventLoop::Rearm(int fd, uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event) != 0) {
    return ErrnoStatus(errno, absl::StrCat("rearm descriptor ", fd));
  }
  return absl::OkStatus();
}

void EventLoop::Unwatch(int fd) noexcept {
  if (watchers_.erase(fd) != 0) ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
}

void EventLoop::Post(std::function<void()> task) {
  {
    MutexLock lock(mutex_);
    posted_.push_back(std::move(task));
  }
  wake_.Signal();
}

void EventLoop::Stop() noexcept {
  // release: pairs with the acquire in Run, so what the stopper did before is visible after Run returns.
  stop_.store(true, std::memory_order_release);
  wake_.Signal();
}

void EventLoop::RunPosted() {
  std::vector<std::function<void()>> tasks;
  {
    MutexLock lock(mutex_);
    tasks.swap(posted_);
  }
  for (const auto& task : tasks) task();
}

void EventLoop::Run() {
  std::array<epoll_event, 16> events;
  struct Ready {
    uint32_t events;
    std::shared_ptr<Watcher> watcher;
  };
  std::array<Ready, events.size()> ready;
  while (!stop_.load(std::memory_order_acquire)) {
    const int count = ::epoll_wait(epoll_.get(), events.data(), events.size(), -1);
    if (count < 0) continue;  // EINTR: the only error a valid instance can give
    // Watchers are looked up before any callback runs, so that a number reused meanwhile does not get old events.
    for (int i = 0; i < count; ++i) {
      const auto found = watchers_.find(events[i].data.fd);
      ready[i] = {events[i].events, found == watchers_.end() ? nullptr : found->second};
    }
    for (int i = 0; i < count; ++i) {
      const auto found = watchers_.find(events[i].data.fd);
      if (ready[i].watcher == nullptr || found == watchers_.end() || found->second->id != ready[i].watcher->id) continue;
      ready[i].watcher->callback(ready[i].events);
    }
    for (int i = 0; i < count; ++i) ready[i].watcher.reset();
  }
}

}  // namespace vmm
