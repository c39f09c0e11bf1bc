// Why the machine ended: the first reason counts, and waking whoever waits for it.
//
// Threads  RequestEnd: any. report: after end_fd has become readable.
// Errors   none.
#ifndef VMM_VMM_MACHINE_LIFECYCLE_H_
#define VMM_VMM_MACHINE_LIFECYCLE_H_

#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "base/event_fd.h"
#include "base/mutex.h"
#include "devices/machine_control.h"

namespace vmm {

struct EndReport {
  MachineEnd end = MachineEnd::kInternalError;
  std::string detail;
  uint32_t value = 0;  // of kDebugExit: what the guest wrote
};

class Lifecycle final : public MachineControl {
 public:
  static absl::StatusOr<std::unique_ptr<Lifecycle>> Create();

  void RequestEnd(MachineEnd end, absl::string_view detail) noexcept override;
  void RequestDebugExit(uint32_t value) noexcept override;

  // Readable once an end has been requested.
  [[nodiscard]] int end_fd() const { return end_.fd(); }
  [[nodiscard]] EndReport report() const;

 private:
  explicit Lifecycle(EventFd end) : end_(std::move(end)) {}
  void Request(EndReport report) noexcept;
  EventFd end_;
  mutable Mutex mutex_;
  bool requested_ ABSL_GUARDED_BY(mutex_) = false;
  EndReport report_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace vmm

#endif  // VMM_VMM_MACHINE_LIFECYCLE_H_
