// One thread that waits for descriptors: the monitor's event loop, and the main loop of a device process.
//
// Threads  confined to the thread that calls Run, but for Post and Stop: any thread. Watch and Unwatch before Run, or on it.
// Errors   Create, Watch: Status with errno. Callbacks do not fail; they act or stop the loop.
//
// A callback may unwatch any descriptor, itself included: events already fetched for it are dropped.
#ifndef VMM_BASE_EVENT_LOOP_H_
#define VMM_BASE_EVENT_LOOP_H_

#include <sys/epoll.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <unordered_map>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/event_fd.h"
#include "base/mutex.h"
#include "base/owned_fd.h"

namespace vmm {

class EventLoop final {
 public:
  // `events` are the EPOLL* bits that came.
  using Callback = std::function<void(uint32_t events)>;

  static absl::StatusOr<std::unique_ptr<EventLoop>> Create();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // Level-triggered, unless `events` has EPOLLET. The descriptor is borrowed: unwatch it before it is closed.
  absl::Status Watch(int fd, uint32_t events, Callback callback);
  // Changes what an already watched descriptor waits for; 0 mutes all but EPOLLHUP and EPOLLERR.
  absl::Status Rearm(int fd, uint32_t events);
  void Unwatch(int fd) noexcept;

  // Runs `task` on the loop's thread, in the order of posting. Tasks posted after Run has returned are dropped.
  void Post(std::function<void()> task);
  // Until Stop.
  void Run();
  void Stop() noexcept;

 private:
  struct Watcher {
    uint64_t id;
    Callback callback;
  };
  EventLoop(OwnedFd epoll, EventFd wake) : epoll_(std::move(epoll)), wake_(std::move(wake)) {}
  void RunPosted();

  OwnedFd epoll_;
  EventFd wake_;
  std::atomic<bool> stop_{false};
  // Keyed by descriptor. `id` tells a watcher from an earlier one of the same number, whose events may still be in hand.
  std::unordered_map<int, std::shared_ptr<Watcher>> watchers_;
  uint64_t next_id_ = 1;
  Mutex mutex_;
  std::vector<std::function<void()>> posted_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace vmm

#endif  // VMM_BASE_EVENT_LOOP_H_
