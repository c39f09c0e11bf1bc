#include "devices/hyperv/vsm/tlb_locks.h"

namespace vmm {

void TlbLocks::Acquire(VpIndex vp, Vtl owner, Vtl of) noexcept {
  const MutexLock lock(mutex_);
  vps_[vp.raw()].locked[owner.raw()] |= VtlBit(of);
}

bool TlbLocks::Release(VpIndex vp, Vtl owner, VtlSet of) noexcept {
  const MutexLock lock(mutex_);
  VtlSet& locked = vps_[vp.raw()].locked[owner.raw()];
  const VtlSet released = locked & of;
  locked = static_cast<VtlSet>(locked & ~of);
  const bool wake = (released & waited_for_) != 0;
  // Who finds another lock says again that it waits.
  waited_for_ = static_cast<VtlSet>(waited_for_ & ~released);
  return wake;
}

bool TlbLocks::ReleaseAll(VpIndex vp) noexcept {
  const MutexLock lock(mutex_);
  VtlSet released = 0;
  for (VtlSet& locked : vps_[vp.raw()].locked) {
    released |= locked;
    locked = 0;
  }
  const bool wake = (released & waited_for_) != 0;
  waited_for_ = static_cast<VtlSet>(waited_for_ & ~released);
  return wake;
}

bool TlbLocks::MustWait(VpIndex vp, Vtl of) noexcept {
  const MutexLock lock(mutex_);
  for (uint32_t holder = 0; holder < vps_.size(); ++holder) {
    if (VpIndex(holder) == vp) continue;
    for (const VtlSet locked : vps_[holder].locked) {
      if (!Has(locked, of)) continue;
      waited_for_ |= VtlBit(of);
      return true;
    }
  }
  return false;
}

}  // namespace vmm
