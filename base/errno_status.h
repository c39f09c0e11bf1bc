// absl::Status from errno, in the house's wording: "<verb> <object>: <what the kernel said>".
//
// Threads  any.
// Errors   this is one; OkStatus is never returned (errno 0 becomes UNKNOWN: the caller asked too late).
#ifndef VMM_BASE_ERRNO_STATUS_H_
#define VMM_BASE_ERRNO_STATUS_H_

#include "absl/strings/string_view.h"

#include "absl/status/status.h"

namespace vmm {

// `error` is errno, taken on the line after the failing call.
[[nodiscard]] absl::Status ErrnoStatus(int error, absl::string_view what);

}  // namespace vmm

#endif  // VMM_BASE_ERRNO_STATUS_H_
