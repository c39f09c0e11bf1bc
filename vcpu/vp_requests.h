// Work that one virtual processor's thread has for another: posted into a mailbox, the other is kicked, and the poster waits.
//
// Shapes   a mailbox for each VP, a list of requests that live on their posters' stacks: at most one for each other VP, no
//          allocation.
// Threads  RunOn, Serve, Leave: the thread of the VP named as `self`. Stop: any. Guarded by mutex_, one for all: this is the
//          slow path. No lock is held while work runs.
// Trust    `self` and `target` are below the count given to Create's kicks: who has a guest's number checked it.
// Errors   RunOn: false, the machine is ending or the target's thread has ended, and `work` has not run and will not.
//
// Why nothing hangs. A poster waits for its request to be done or dropped, and serves its own mailbox meanwhile, so two that ask
// each other, or a ring of them, serve each other. A target outside RunOn comes to Serve by the kick (VpKick). A target that has
// ended called Leave, which drops what waits there and refuses what comes. Stop drops all that has not begun; what has begun
// ends, since work waits for nothing.
#ifndef VMM_VCPU_VP_REQUESTS_H_
#define VMM_VCPU_VP_REQUESTS_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "base/mutex.h"
#include "devices/guest_interface.h"

namespace vmm {

class VpRequests final {
 public:
  explicit VpRequests(uint32_t vp_count);
  VpRequests(const VpRequests&) = delete;
  VpRequests& operator=(const VpRequests&) = delete;

  // Set-up, once for each VP before any of them runs. `kick` outlives the object's use.
  void SetKick(uint32_t vp, VpKick& kick) noexcept;

  // Runs `work` on the thread of `target` and returns when it has; at once where that is `self`. `work` must not block or call
  // RunOn: it would hold up a thread that others wait for.
  [[nodiscard]] bool RunOn(uint32_t self, uint32_t target, absl::FunctionRef<void()> work) noexcept;

  // Runs what waits for `self`. Without work: one load.
  void Serve(uint32_t self) noexcept;
  // True: Serve would find something. For a thread that has to get ready for it.
  [[nodiscard]] bool HasWork(uint32_t self) const noexcept;

  // The thread of `self` is at its end.
  void Leave(uint32_t self) noexcept;
  // The machine is at its end, for good.
  void Stop() noexcept;

 private:
  enum class State : uint8_t { kPosted, kRunning, kDone, kDropped };
  struct Request {
    absl::FunctionRef<void()> work;
    const uint32_t poster;
    State state = State::kPosted;
    Request* next = nullptr;
  };
  struct Mailbox {
    VpKick* kick = nullptr;
    Request* first = nullptr;  // in the order of posting
    bool left = false;
    std::condition_variable_any changed;  // its VP waits here, in RunOn, for an answer or for work
    // A hint for Serve, which decides under the lock. relaxed: the kick, or mutex_, orders a post before the look that must see it.
    std::atomic<bool> has_work{false};
  };
  void DropAllLocked(Mailbox& box) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Runs the first request, if there is one, with mutex_ released. False: there was none.
  bool ServeOneLocked(Mailbox& box) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Mutex mutex_;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  // The mailboxes' members but has_work and kick are guarded by mutex_; the array is immutable.
  const std::unique_ptr<Mailbox[]> boxes_;
  const uint32_t count_;
};

}  // namespace vmm

#endif  // VMM_VCPU_VP_REQUESTS_H_
