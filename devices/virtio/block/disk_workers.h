// A few threads that wait for the host's disk in the place of the device's own, so that one request does not hold up the next.
//
// Shapes   jobs are handed over in order, and may end in any.
// Threads  Create, Submit, TakeDone, AwaitDone and the destructor: the owner's, one. Job::Run: a worker's.
// Trust    a job is the worker's from Submit until TakeDone gives it back. Workers allocate nothing: what they need is there before a
//          process puts its filter on, which holds for them too (seccomp's TSYNC).
// Errors   Create: RESOURCE_EXHAUSTED where the host gives no thread. Nothing else can fail.
//
// Why threads and not io_uring: the image is read and written through the host's page cache. There a miss, a flush or a write that has to
// wait is work for a thread in io_uring too (the kernel's), while its requests pass no system call filter, and hosts that are to be hard to
// attack turn it off. What needs no waiting needs neither: the device does it itself.
#ifndef VMM_DEVICES_VIRTIO_BLOCK_DISK_WORKERS_H_
#define VMM_DEVICES_VIRTIO_BLOCK_DISK_WORKERS_H_

#include <pthread.h>

#include <condition_variable>
#include <cstddef>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "base/event_fd.h"
#include "base/mutex.h"

namespace vmm {

class DiskWorkers final {
 public:
  static constexpr size_t kMaxWorkers = 16;

  class Job {
   public:
    virtual ~Job() = default;
    virtual void Run() noexcept = 0;

   private:
    friend class DiskWorkers;
    Job* next_ = nullptr;
  };

  // From its return on all of them run.
  static absl::StatusOr<std::unique_ptr<DiskWorkers>> Create(size_t count);
  DiskWorkers(const DiskWorkers&) = delete;
  DiskWorkers& operator=(const DiskWorkers&) = delete;
  // Waits for the jobs that run.
  ~DiskWorkers();

  // Readable while something has been done that was not taken.
  [[nodiscard]] int done_fd() const noexcept { return done_event_.fd(); }

  void Submit(Job& job) noexcept;
  // One that is done, or null.
  [[nodiscard]] Job* TakeDone() noexcept;
  // Until TakeDone has one. Something must have been submitted.
  void AwaitDone() noexcept;

 private:
  // A queue of jobs by their own links.
  struct List {
    Job* first = nullptr;
    Job* last = nullptr;
    void Add(Job& job) noexcept;
    Job* Take() noexcept;
  };

  explicit DiskWorkers(EventFd done_event) : done_event_(std::move(done_event)) {}
  static void* ThreadMain(void* self);
  void Work() noexcept;

  Mutex mutex_;
  std::condition_variable_any submitted_, done_;
  List waiting_ ABSL_GUARDED_BY(mutex_);
  List finished_ ABSL_GUARDED_BY(mutex_);
  size_t running_ ABSL_GUARDED_BY(mutex_) = 0;  // threads
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  EventFd done_event_;
  std::vector<pthread_t> threads_;
};

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_BLOCK_DISK_WORKERS_H_
