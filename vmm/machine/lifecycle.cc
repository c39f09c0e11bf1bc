#include "vmm/machine/lifecycle.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace vmm {

absl::StatusOr<std::unique_ptr<Lifecycle>> Lifecycle::Create() {
  ASSIGN_OR_RETURN(EventFd end, EventFd::Create());
  return std::unique_ptr<Lifecycle>(new Lifecycle(std::move(end)));
}

void Lifecycle::RequestEnd(MachineEnd end, absl::string_view detail) noexcept {
  Request({.end = end, .detail = std::string(detail)});
}

void Lifecycle::RequestDebugExit(uint32_t value) noexcept {
  Request({.end = MachineEnd::kDebugExit, .detail = absl::StrCat("the guest ended its machine with ", value), .value = value});
}

void Lifecycle::Request(EndReport report) noexcept {
  {
    MutexLock lock(mutex_);
    if (requested_) return;
    requested_ = true;
    report_ = std::move(report);
  }
  end_.Signal();
}

EndReport Lifecycle::report() const {
  MutexLock lock(mutex_);
  return report_;
}

}  // namespace vmm
