#include "vcpu/vp_requests.h"

#include <cstdlib>

namespace vmm {

VpRequests::VpRequests(uint32_t vp_count) : boxes_(std::make_unique<Mailbox[]>(vp_count)), count_(vp_count) {}

void VpRequests::SetKick(uint32_t vp, VpKick& kick) noexcept {
  if (vp >= count_) std::abort();
  boxes_[vp].kick = &kick;
}

bool VpRequests::RunOn(uint32_t self, uint32_t target, absl::FunctionRef<void()> work) noexcept {
  if (self >= count_ || target >= count_) std::abort();
  if (self == target) {
    work();
    return true;
  }
  Mailbox& to = boxes_[target];
  Mailbox& own = boxes_[self];
  Request request{.work = work, .poster = self};
  {
    MutexLock lock(mutex_);
    if (stopped_ || to.left) return false;
    Request** end = &to.first;
    while (*end != nullptr) end = &(*end)->next;
    *end = &request;
    to.has_work.store(true, std::memory_order_relaxed);
    to.changed.notify_one();
  }
  // After unlocking: the target may come at once. It may also have served the request by now, and only the request's own state,
  // read under the lock, says so.
  if (to.kick != nullptr) to.kick->Kick();
  MutexLock lock(mutex_);
  while (request.state != State::kDone && request.state != State::kDropped) {
    if (!ServeOneLocked(own)) own.changed.wait(mutex_);
  }
  return request.state == State::kDone;
}

void VpRequests::Serve(uint32_t self) noexcept {
  if (self >= count_) std::abort();
  Mailbox& own = boxes_[self];
  if (!own.has_work.load(std::memory_order_relaxed)) return;
  MutexLock lock(mutex_);
  while (ServeOneLocked(own)) {
  }
}

bool VpRequests::HasWork(uint32_t self) const noexcept {
  return self < count_ && boxes_[self].has_work.load(std::memory_order_relaxed);
}

void VpRequests::Leave(uint32_t self) noexcept {
  if (self >= count_) std::abort();
  MutexLock lock(mutex_);
  boxes_[self].left = true;
  DropAllLocked(boxes_[self]);
}

void VpRequests::Stop() noexcept {
  MutexLock lock(mutex_);
  stopped_ = true;
  for (uint32_t vp = 0; vp < count_; ++vp) DropAllLocked(boxes_[vp]);
}

void VpRequests::DropAllLocked(Mailbox& box) {
  for (Request* request = box.first; request != nullptr;) {
    // The poster cannot return and take the request with it before mutex_ is released.
    Request* const next = request->next;
    request->state = State::kDropped;
    boxes_[request->poster].changed.notify_one();
    request = next;
  }
  box.first = nullptr;
  box.has_work.store(false, std::memory_order_relaxed);
}

bool VpRequests::ServeOneLocked(Mailbox& box) {
  Request* const request = box.first;
  if (request == nullptr) return false;
  box.first = request->next;
  box.has_work.store(box.first != nullptr, std::memory_order_relaxed);
  request->state = State::kRunning;
  mutex_.unlock();
  request->work();
  mutex_.lock();
  request->state = State::kDone;
  boxes_[request->poster].changed.notify_one();
  return true;
}

}  // namespace vmm
