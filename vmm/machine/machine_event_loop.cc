#include "vmm/machine/machine_event_loop.h"

#include <future>
#include <utility>

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
  // packaged_task: a synchronisation that TSan sees. Shared, so that setting the result may outlast this call.
  const auto once = std::make_shared<std::packaged_task<void()>>(task);
  std::future<void> done = once->get_future();
  loop_->Post([once] { (*once)(); });
  done.wait();
}

}  // namespace vmm
