#include "vmm/machine/lifecycle.h"

#include <utility>

#include "base/status_macros.h"

namespace vmm {

absl::StatusOr<std::unique_ptr<Lifecycle>> Lifecycle::Create() {
  ASSIGN_OR_RETURN(EventFd end, EventFd::Create());
  return std::unique_ptr<Lifecycle>(new Lifecycle(std::move(end)));
}

void Lifecycle::RequestEnd(MachineEnd end, absl::string_view detail) noexcept {
  {
    MutexLock lock(mutex_);
    if (requested_) return;
    requested_ = true;
    report_ = {end, std::string(detail)};
  }
  end_.Signal();
}

EndReport Lifecycle::report() const {
  MutexLock lock(mutex_);
  return report_;
}

}  // namespace vmm
