#include "devices/hyperv/vsm/vsm_partition.h"

#include <bit>

namespace vmm {
namespace {

constexpr uint32_t kExecute = kHvProtectKernelExecute | kHvProtectUserExecute;

// The level and those below it.
constexpr VtlSet UpTo(Vtl vtl) noexcept { return static_cast<VtlSet>(VtlsBelow(vtl) | VtlBit(vtl)); }

constexpr uint32_t DefaultProtection(uint64_t config) noexcept {
  return static_cast<uint32_t>((config & kHvConfigDefaultMask) >> kHvConfigDefaultShift);
}

}  // namespace

bool IsLegalProtection(uint32_t guest_flags, bool mbec) noexcept {
  if ((guest_flags & ~kHvProtectAll) != 0) return false;
  if (guest_flags != 0 && (guest_flags & kHvProtectRead) == 0) return false;
  const uint32_t execute = guest_flags & kExecute;
  return execute == 0 || execute == kExecute || (mbec && execute == kHvProtectUserExecute);
}

void VsmPartition::Reset() noexcept {
  const MutexLock lock(mutex_);
  mbec_ = 0;
  on_some_vp_ = 0;
  configs_ = AllReset();
  enabled_.store(VtlBit(kVtl0), std::memory_order_release);
}

bool VsmPartition::MustZeroMemory() const noexcept {
  const MutexLock lock(mutex_);
  for (uint8_t vtl = 1; vtl < kHvVtlCount; ++vtl) {
    if (IsEnabled(Vtl(vtl)) && (configs_[vtl] & kHvConfigZeroMemory) != 0) return true;
  }
  return false;
}

bool VsmPartition::IsMbecEnabled(Vtl vtl) const noexcept {
  const MutexLock lock(mutex_);
  return Has(mbec_, vtl);
}

uint64_t VsmPartition::status() const noexcept {
  const MutexLock lock(mutex_);
  const VtlSet mbec = mbec_ == 0 ? 0 : UpTo(Vtl(static_cast<uint8_t>(std::bit_width(mbec_) - 1)));
  return uint64_t{enabled()} | uint64_t{offer_.maximum.raw()} << kHvPartitionStatusMaximumShift |
         uint64_t{mbec} << kHvPartitionStatusMbecShift;
}

uint64_t VsmPartition::capabilities() const noexcept {
  return (offer_.dr6_shared ? kHvVsmDr6Shared : 0) | (offer_.mbec ? uint64_t{UpTo(offer_.maximum)} << kHvVsmMbecShift : 0) |
         kHvVsmCanDenyStartup;
}

HvStatus VsmPartition::Enable(Vtl caller, uint8_t guest_target, uint8_t guest_flags) noexcept {
  if (!MayBe(guest_target)) return HvStatus::kAccessDenied;
  const Vtl target(guest_target);
  const MutexLock lock(mutex_);
  const VtlSet enabled_now = enabled();
  if (Has(enabled_now, target)) return HvStatus::kInvalidVtlState;
  // A lower level may be enabled by any above; a higher one by the next below it.
  if (caller < target && std::bit_width(static_cast<unsigned>(enabled_now & VtlsBelow(target))) - 1 != caller.raw()) {
    return HvStatus::kAccessDenied;
  }
  if ((guest_flags & ~(offer_.mbec ? kHvEnableMbec : 0)) != 0) return HvStatus::kInvalidParameter;
  if ((guest_flags & kHvEnableMbec) != 0) mbec_ |= VtlBit(target);
  enabled_.store(static_cast<VtlSet>(enabled_now | VtlBit(target)), std::memory_order_release);
  return HvStatus::kSuccess;
}

HvStatus VsmPartition::MayEnableVp(Vtl caller, bool own_vp, uint8_t guest_target) const noexcept {
  const MutexLock lock(mutex_);
  return MayEnableVpLocked(caller, own_vp, guest_target);
}

HvStatus VsmPartition::ClaimVp(Vtl caller, bool own_vp, Vtl target) noexcept {
  const MutexLock lock(mutex_);
  const HvStatus status = MayEnableVpLocked(caller, own_vp, target.raw());
  if (status == HvStatus::kSuccess) on_some_vp_ |= VtlBit(target);
  return status;
}

HvStatus VsmPartition::MayEnableVpLocked(Vtl caller, bool own_vp, uint8_t guest_target) const noexcept {
  if (!MayBe(guest_target)) return HvStatus::kInvalidParameter;
  const Vtl target(guest_target);
  if (!IsEnabled(target)) return HvStatus::kInvalidVtlState;
  if (caller < target && (!own_vp || Has(on_some_vp_, target))) return HvStatus::kAccessDenied;
  return HvStatus::kSuccess;
}

bool VsmPartition::MayIntercept(bool unenforceable) noexcept {
  if (!unenforceable) return true;
  if (offer_.accept_unenforceable) unenforced_.fetch_add(1, std::memory_order_relaxed);
  return offer_.accept_unenforceable;
}

HvStatus VsmPartition::MayStart(Vtl caller) const noexcept {
  const MutexLock lock(mutex_);
  for (uint8_t above = caller.raw() + 1; above < kHvVtlCount; ++above) {
    if ((configs_[above] & kHvConfigDenyStartup) != 0) return HvStatus::kAccessDenied;
  }
  return HvStatus::kSuccess;
}

HvStatus VsmPartition::CheckProtection(Vtl caller, Vtl owner, uint32_t guest_flags) const noexcept {
  const MutexLock lock(mutex_);
  if (owner > caller) return HvStatus::kAccessDenied;
  if (owner == kVtl0) return HvStatus::kInvalidParameter;
  if (owner == caller && (configs_[owner.raw()] & kHvConfigEnableProtection) == 0) return HvStatus::kAccessDenied;
  if (!IsEnabled(owner)) return HvStatus::kInvalidVtlState;
  if (!IsLegalProtection(guest_flags, Has(mbec_, owner))) return HvStatus::kInvalidRegisterValue;
  return HvStatus::kSuccess;
}

uint64_t VsmPartition::config(Vtl owner) const noexcept {
  const MutexLock lock(mutex_);
  return configs_[owner.raw()];
}

VsmPartition::ConfigWrite VsmPartition::SetConfig(Vtl owner, uint64_t value) noexcept {
  constexpr ConfigWrite kBadValue{HvStatus::kInvalidRegisterValue};
  const MutexLock lock(mutex_);
  if (owner == kVtl0 || !IsEnabled(owner)) return {HvStatus::kInvalidVtlState};
  uint64_t& config = configs_[owner.raw()];
  const bool was_on = (config & kHvConfigEnableProtection) != 0;
  const bool is_on = (value & kHvConfigEnableProtection) != 0;
  if ((value & ~kHvConfigKnown) != 0 || (was_on && !is_on)) return kBadValue;
  const uint32_t protection = DefaultProtection(value);
  constexpr uint32_t kNeeded = kHvProtectRead | kHvProtectWrite;
  if ((protection & kNeeded) != kNeeded || !IsLegalProtection(protection, Has(mbec_, owner))) return kBadValue;
  if (was_on && protection != DefaultProtection(config)) return kBadValue;
  config = value;
  if (was_on || !is_on) return {HvStatus::kSuccess};
  return {HvStatus::kSuccess, protection};
}

}  // namespace vmm
