#include "base/errno_status.h"

#include "absl/strings/str_cat.h"

namespace vmm {

absl::Status ErrnoStatus(int error, absl::string_view what) {
  if (error == 0) return absl::UnknownError(absl::StrCat(what, ": failed without an error number"));
  return absl::ErrnoToStatus(error, what);
}

}  // namespace vmm
