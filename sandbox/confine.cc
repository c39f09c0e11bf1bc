#include "sandbox/confine.h"

#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "base/errno_status.h"
#include "base/status_macros.h"
#include "sandbox/landlock.h"

namespace vmm {
namespace {

constexpr int kWords = _LINUX_CAPABILITY_U32S_3;

bool Has(const __user_cap_data_struct (&data)[kWords], unsigned capability) {
  return (data[capability / 32].effective >> (capability % 32) & 1) != 0;
}

absl::Status DropCapabilities(bool keep_kill) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[kWords] = {};
  if (::syscall(SYS_capget, &header, data) != 0) return ErrnoStatus(errno, "read capabilities");
  if (Has(data, CAP_SETPCAP)) {
    for (unsigned long capability = 0; capability < 64; ++capability) {
      if (::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0 && errno != EINVAL) {
        return ErrnoStatus(errno, absl::StrCat("drop capability ", capability, " from the bounding set"));
      }
    }
  }
  if (::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0) return ErrnoStatus(errno, "clear the ambient capabilities");
  __user_cap_data_struct kept[kWords] = {};
  if (keep_kill && Has(data, CAP_KILL)) kept[0].effective = kept[0].permitted = 1u << CAP_KILL;
  // Raw: glibc has no wrapper, and libcap's would set all threads.
  if (::syscall(SYS_capset, &header, kept) != 0) return ErrnoStatus(errno, "drop the capabilities");
  return absl::OkStatus();
}

}  // namespace

absl::Status DropThreadPrivileges(const MonitorJailOptions& options, const ThreadPrivileges& keep) {
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return ErrnoStatus(errno, "set no_new_privs");
  if (!options.waive_capabilities) RETURN_IF_ERROR(DropCapabilities(keep.keep_kill));
  if (!options.waive_landlock) RETURN_IF_ERROR(LandlockDenyAll(LandlockSignals::kAllow));
  return absl::OkStatus();
}

absl::Status RaiseLockLimit() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[kWords] = {};
  if (::syscall(SYS_capget, &header, data) != 0) return ErrnoStatus(errno, "read capabilities");
  // Without the capability the limit was the limit before.
  if (!Has(data, CAP_IPC_LOCK)) return absl::OkStatus();
  const rlimit unlimited{RLIM_INFINITY, RLIM_INFINITY};
  if (::setrlimit(RLIMIT_MEMLOCK, &unlimited) != 0) {
    return ErrnoStatus(errno, "raise RLIMIT_MEMLOCK, which stands in for CAP_IPC_LOCK once that is dropped");
  }
  return absl::OkStatus();
}

absl::Status MakeUndumpable() {
  if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return ErrnoStatus(errno, "make process not dumpable");
  return absl::OkStatus();
}

}  // namespace vmm
