// Landlock: the file system (and what else the kernel's version of it covers) is denied to this process for ever.
//
// Threads  before other threads exist: the restriction is the calling thread's and what it starts.
// Errors   0 as ABI: this kernel has no Landlock, or it is off; that is no error, the other layers stand without it.
// Source   Linux, Documentation/userspace-api/landlock.rst.
#ifndef VMM_SANDBOX_LANDLOCK_H_
#define VMM_SANDBOX_LANDLOCK_H_

#include <cstdint>

#include "absl/status/status.h"

namespace vmm {

[[nodiscard]] int LandlockAbi();
enum class LandlockSignals : uint8_t {
  kDeny,   // signals to processes and threads outside of the domain, where the kernel's Landlock covers them
  kAllow,  // for who has children to end, or threads with domains of their own
};

// Requires no_new_privs. OK without doing anything where LandlockAbi() is 0.
[[nodiscard]] absl::Status LandlockDenyAll(LandlockSignals signals);

}  // namespace vmm

#endif  // VMM_SANDBOX_LANDLOCK_H_
