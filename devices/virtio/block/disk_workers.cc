#include "devices/virtio/block/disk_workers.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/errno_status.h"
#include "base/status_macros.h"

namespace vmm {
namespace {

#ifdef VMM_DYNAMIC_LINK
constexpr size_t kStackBytes = 1 << 20;  // sanitizers
#else
constexpr size_t kStackBytes = 128 << 10;  // of address space; a few pages are ever touched
#endif

}  // namespace

void DiskWorkers::List::Add(Job& job) noexcept {
  job.next_ = nullptr;
  (last != nullptr ? last->next_ : first) = &job;
  last = &job;
}

DiskWorkers::Job* DiskWorkers::List::Take() noexcept {
  Job* const job = first;
  if (job == nullptr) return nullptr;
  first = job->next_;
  if (first == nullptr) last = nullptr;
  return job;
}

absl::StatusOr<std::unique_ptr<DiskWorkers>> DiskWorkers::Create(size_t count) {
  ASSIGN_OR_RETURN(EventFd done_event, EventFd::Create());
  std::unique_ptr<DiskWorkers> workers(new DiskWorkers(std::move(done_event)));
  pthread_attr_t attributes;
  ::pthread_attr_init(&attributes);
  ::pthread_attr_setstacksize(&attributes, kStackBytes);
  int error = 0;
  for (size_t i = 0; i < count && error == 0; ++i) {
    pthread_t thread;
    error = ::pthread_create(&thread, &attributes, &ThreadMain, workers.get());
    if (error == 0) workers->threads_.push_back(thread);
  }
  ::pthread_attr_destroy(&attributes);
  if (error != 0) return ErrnoStatus(error, absl::StrCat("start ", count, " threads"));
  // Also past what a thread asks of the kernel at its start, which no filter would let it.
  MutexLock lock(workers->mutex_);
  while (workers->running_ < count) workers->done_.wait(workers->mutex_);
  return workers;
}

DiskWorkers::~DiskWorkers() {
  {
    MutexLock lock(mutex_);
    stop_ = true;
    submitted_.notify_all();
  }
  for (const pthread_t thread : threads_) ::pthread_join(thread, nullptr);
}

void* DiskWorkers::ThreadMain(void* self) {
  static_cast<DiskWorkers*>(self)->Work();
  return nullptr;
}

void DiskWorkers::Work() noexcept {
  MutexLock lock(mutex_);
  ++running_;
  done_.notify_all();
  while (true) {
    while (!stop_ && waiting_.first == nullptr) submitted_.wait(mutex_);
    if (stop_) return;
    Job& job = *waiting_.Take();
    mutex_.unlock();
    job.Run();
    mutex_.lock();
    const bool first = finished_.first == nullptr;
    finished_.Add(job);
    if (!first) continue;  // it has been told already
    done_event_.Signal();
    done_.notify_all();
  }
}

void DiskWorkers::Submit(Job& job) noexcept {
  MutexLock lock(mutex_);
  waiting_.Add(job);
  submitted_.notify_one();
}

DiskWorkers::Job* DiskWorkers::TakeDone() noexcept {
  MutexLock lock(mutex_);
  Job* const job = finished_.Take();
  // Under the lock: whoever finds the list empty signals again.
  if (job == nullptr) done_event_.Drain();
  return job;
}

void DiskWorkers::AwaitDone() noexcept {
  MutexLock lock(mutex_);
  while (finished_.first == nullptr) done_.wait(mutex_);
}

}  // namespace vmm
