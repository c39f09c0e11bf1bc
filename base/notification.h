// Something that happens once, and threads that wait for it.
//
// Why not absl::Notification: its mutex, when a thread first has to wait, opens files of /sys to learn the processor's frequency and asks for
// the thread's priority. A confined thread may not (vmm/confine), and TSan does not see it (mutex.h).
//
// Threads  any; what was done before Notify is visible after Wait.
// Errors   none. Notify once.
#ifndef VMM_BASE_NOTIFICATION_H_
#define VMM_BASE_NOTIFICATION_H_

#include <condition_variable>
#include <mutex>

namespace vmm {

class Notification final {
 public:
  Notification() = default;
  Notification(const Notification&) = delete;
  Notification& operator=(const Notification&) = delete;

  void Notify() {
    // Under the lock: whoever waits may destroy this as soon as it has it.
    const std::lock_guard<std::mutex> lock(mutex_);
    happened_ = true;
    condition_.notify_all();
  }
  void Wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    condition_.wait(lock, [this] { return happened_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable condition_;
  bool happened_ = false;  // guarded by mutex_
};

}  // namespace vmm

#endif  // VMM_BASE_NOTIFICATION_H_
