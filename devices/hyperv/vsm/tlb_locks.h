// Which levels' translations are locked on which VPs, so that a flush by such a level waits.
//
// A higher level that acts on what a lower one's page tables said (it emulates an access) holds a lock until it is done: no flush
// by the lower level is over before, on any VP. A VTL return gives up all locks of the level that leaves on that VP.
//
// Shapes   for each VP and owner, a set of locked levels.
// Threads  any; guarded. Whoever is told to wake does so after the call.
// Trust    VpIndex and Vtl are in range.
// Errors   none.
// Source   Hyper-V TLFS, "Virtual TLB" and "Virtual Secure Mode", "VTL TLB Locking".
//
// A flush waits for whoever holds a lock when it looks, and looks again when it is made again: a lock taken meanwhile makes it
// wait longer (OpenVMM: only for those that held one at first). Changes of protections do not wait, because two higher levels
// that hold locks while they protect pages would wait for each other: what they take away is taken from the holders of locks too.
#ifndef VMM_DEVICES_HYPERV_VSM_TLB_LOCKS_H_
#define VMM_DEVICES_HYPERV_VSM_TLB_LOCKS_H_

#include <array>
#include <cstdint>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "base/mutex.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/vsm/vsm_layout.h"

namespace vmm {

class TlbLocks final {
 public:
  explicit TlbLocks(uint32_t vp_count) : vps_(vp_count) {}
  TlbLocks(const TlbLocks&) = delete;
  TlbLocks& operator=(const TlbLocks&) = delete;

  // `owner` locks the translations of `of` on `vp`, once however often it does.
  void Acquire(VpIndex vp, Vtl owner, Vtl of) noexcept;
  // True: somebody waited for one of these; every VP is to be kicked, and those that wait try again.
  [[nodiscard]] bool Release(VpIndex vp, Vtl owner, VtlSet of) noexcept;
  // All of a VP that starts anew or is reset. As Release.
  [[nodiscard]] bool ReleaseAll(VpIndex vp) noexcept;

  // Whether a flush by `of` on `vp` must wait. True: the release that ends it says so. A VP never waits for itself.
  [[nodiscard]] bool MustWait(VpIndex vp, Vtl of) noexcept;

 private:
  struct Vp {
    std::array<VtlSet, kHvVtlCount> locked{};  // by owner
  };

  Mutex mutex_;
  std::vector<Vp> vps_ ABSL_GUARDED_BY(mutex_);
  VtlSet waited_for_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_VSM_TLB_LOCKS_H_
