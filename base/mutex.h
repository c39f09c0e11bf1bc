// std::mutex that clang's thread-safety analysis knows.
//
// Why not absl::Mutex: Debian builds abseil without TSan, which then sees neither its locking nor what it orders, and
// reports races that are none. Where waiting for a condition is needed: std::condition_variable_any takes a Mutex.
//
// Threads  any.
#ifndef VMM_BASE_MUTEX_H_
#define VMM_BASE_MUTEX_H_

#include <mutex>

#include "absl/base/thread_annotations.h"

namespace vmm {

class ABSL_LOCKABLE Mutex final {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  // Lower case: what the standard library calls.
  void lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() { mutex_.lock(); }
  void unlock() ABSL_UNLOCK_FUNCTION() { mutex_.unlock(); }

 private:
  std::mutex mutex_;
};

class ABSL_SCOPED_LOCKABLE MutexLock final {
 public:
  explicit MutexLock(Mutex& mutex) ABSL_EXCLUSIVE_LOCK_FUNCTION(mutex) : mutex_(mutex) { mutex_.lock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;
  ~MutexLock() ABSL_UNLOCK_FUNCTION() { mutex_.unlock(); }

 private:
  Mutex& mutex_;
};

}  // namespace vmm

#endif  // VMM_BASE_MUTEX_H_
