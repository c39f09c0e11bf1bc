#include "vmm/machine/machine_event_loop.h"

#include <utility>

#include "absl/synchronization/notification.h"
#include "base/errno_status.h"
#include "base/status_macros.h"

namespace vmm {

absl::StatusOr<std::unique_ptr<MachineEventLoop>> MachineEventLoop::Create() {
  ASSIGN_OR_RETURN(std::unique_ptr<EventLoop> loop, EventLoop::Create());
  std::unique_ptr<MachineEventLoop> self(new MachineEventLoop(std::move(loop)));
  pthread_attr_t attributes;
  ::pthread_attr_init(&attributes);
  ::pthread_attr_setstacksize(&attributes, 512 * 1024);
  const int error = ::pthread_create(
      &self->thread_, &attributes,
      [](void* raw) -> void* {
        static_cast<EventLoop*>(raw)->Run();
        return nullptr;
      },
      self->loop_.get());
  ::pthread_attr_destroy(&attributes);
  if (error != 0) {
    self->loop_.reset();  // the destructor has no thread to join
    return ErrnoStatus(error, "start event-loop thread");
  }
  ::pthread_setname_np(self->thread_, "event-loop");
  return self;
}

MachineEventLoop::~MachineEventLoop() {
  if (loop_ == nullptr) return;
  loop_->Stop();
  ::pthread_join(thread_, nullptr);
}

void MachineEventLoop::RunThere(const std::function<void()>& task) {
  absl::Notification done;
  loop_->Post([&] {
    task();
    done.Notify();
  });
  done.WaitForNotification();
}

}  // namespace vmm
