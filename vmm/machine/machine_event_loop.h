// The event loop on a thread of its own, which lives as long as the machine: device processes die with the thread that
// spawned them, so they are spawned here.
//
// Threads  Create, destructor: the owner's. RunThere: any but the loop's own.
// Errors   Create: Status.
#ifndef VMM_VMM_MACHINE_MACHINE_EVENT_LOOP_H_
#define VMM_VMM_MACHINE_MACHINE_EVENT_LOOP_H_

#include <pthread.h>

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "base/event_loop.h"

namespace vmm {

class MachineEventLoop final {
 public:
  static absl::StatusOr<std::unique_ptr<MachineEventLoop>> Create();
  MachineEventLoop(const MachineEventLoop&) = delete;
  MachineEventLoop& operator=(const MachineEventLoop&) = delete;
  // Stops the loop and joins its thread.
  ~MachineEventLoop();

  [[nodiscard]] EventLoop& loop() { return *loop_; }
  // Runs `task` on the loop's thread and returns when it is done.
  void RunThere(const std::function<void()>& task);

 private:
  explicit MachineEventLoop(std::unique_ptr<EventLoop> loop) : loop_(std::move(loop)) {}
  std::unique_ptr<EventLoop> loop_;
  pthread_t thread_{};
};

}  // namespace vmm

#endif  // VMM_VMM_MACHINE_MACHINE_EVENT_LOOP_H_
