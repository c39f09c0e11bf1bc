#include "devices/hyperv/vsm/vsm_registers.h"

#include "devices/hyperv/partition/hypercall_page_layout.h"
#include "devices/hyperv/vsm/vp_registers.h"
#include "devices/hyperv/vsm/vsm_layout.h"

namespace vmm {
namespace {

using Name = HvRegisterName;

constexpr uint64_t kLongModeOffsets = kHvVtlCall64Offset | kHvVtlReturn64Offset << kHvVsmReturnOffsetShift;
constexpr uint64_t kProtectedModeOffsets = kHvVtlCall32Offset | kHvVtlReturn32Offset << kHvVsmReturnOffsetShift;
constexpr uint64_t kCr4La57 = 1 << 12;

// VsmVpSecureConfigVtlN, as long as there is such a level.
std::optional<Vtl> SecureConfigOf(Name name) noexcept {
  const uint32_t offset = static_cast<uint32_t>(name) - static_cast<uint32_t>(Name::kVsmVpSecureConfigVtl0);
  if (offset >= kHvVtlCount) return std::nullopt;
  return Vtl(static_cast<uint8_t>(offset));
}

uint64_t* CrIntercept(VsmVp::CrIntercepts& cr, Name name) noexcept {
  switch (name) {
    case Name::kCrInterceptControl: return &cr.control;
    case Name::kCrInterceptCr0Mask: return &cr.cr0_mask;
    case Name::kCrInterceptCr4Mask: return &cr.cr4_mask;
    case Name::kCrInterceptMiscEnableMask: return &cr.misc_enable_mask;
    default: return nullptr;
  }
}

bool IsReadOnly(Name name) noexcept {
  return name == Name::kVsmCodePageOffsets || name == Name::kVsmVpStatus || name == Name::kVsmPartitionStatus ||
         name == Name::kVsmCapabilities;
}

// #DE to #CP; NMI is not an exception, 15 is reserved, #VE is the hypervisor's own.
bool IsException(uint64_t vector) noexcept { return vector <= 21 && vector != 2 && vector != 15 && vector != 20; }
bool HasErrorCode(uint64_t vector) noexcept {
  return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21;
}

}  // namespace

std::optional<HvStatus> VsmRegisters::Get(Target target, Name name, HvRegisterValue& value) noexcept {
  if (target.vtl > target.caller) return HvStatus::kAccessDenied;
  if (!state_.IsEnabled(target.vtl)) return HvStatus::kInvalidVtlState;
  value = {};
  switch (name) {
    case Name::kVsmCodePageOffsets:
      value.low = target.long_mode ? kLongModeOffsets : kProtectedModeOffsets;
      return HvStatus::kSuccess;
    case Name::kVsmVpStatus: value.low = state_.status(); return HvStatus::kSuccess;
    case Name::kVsmPartitionStatus: value.low = partition_.status(); return HvStatus::kSuccess;
    case Name::kVsmCapabilities: value.low = partition_.capabilities(); return HvStatus::kSuccess;
    case Name::kVsmVina:
      if (target.vtl == kVtl0) return HvStatus::kInvalidParameter;
      value.low = state_.vina(target.vtl);
      return HvStatus::kSuccess;
    case Name::kVsmPartitionConfig:
      if (target.vtl == kVtl0) return HvStatus::kInvalidParameter;
      value.low = partition_.config(target.vtl);
      return HvStatus::kSuccess;
    case Name::kPendingEvent0:
      if (target.vtl >= target.caller) return HvStatus::kInvalidParameter;
      value = state_.pending_event(target.vtl);
      return HvStatus::kSuccess;
    default: break;
  }
  if (const uint64_t* const intercept = CrIntercept(state_.cr_intercepts(target.vtl), name)) {
    if (target.vtl == kVtl0) return HvStatus::kAccessDenied;
    value.low = *intercept;
    return HvStatus::kSuccess;
  }
  if (const std::optional<Vtl> of = SecureConfigOf(name)) {
    if (*of >= target.vtl) return HvStatus::kAccessDenied;
    value.low = state_.secure_config(target.vtl, *of);
    return HvStatus::kSuccess;
  }
  if (FindLowerRegister(name) == nullptr) return std::nullopt;
  if (target.vtl == target.caller) return HvStatus::kAccessDenied;
  return lower_.Get(target.vtl, name, value);
}

std::optional<HvStatus> VsmRegisters::Set(Target target, Name name, const HvRegisterValue& value, Effect& effect) noexcept {
  effect = {};
  if (target.vtl > target.caller) return HvStatus::kAccessDenied;
  if (!state_.IsEnabled(target.vtl)) return HvStatus::kInvalidVtlState;
  if (IsReadOnly(name)) return HvStatus::kInvalidParameter;
  switch (name) {
    case Name::kVsmVina:
      if (target.vtl == kVtl0 || (value.low & ~kHvVinaKnown) != 0) return HvStatus::kInvalidParameter;
      state_.set_vina(target.vtl, value.low);
      return HvStatus::kSuccess;
    case Name::kVsmPartitionConfig: {
      if (target.vtl == kVtl0) return HvStatus::kInvalidParameter;
      const VsmPartition::ConfigWrite written = partition_.SetConfig(target.vtl, value.low);
      effect.default_protection = written.default_protection;
      return written.status;
    }
    case Name::kPendingEvent0: return SetPendingEvent(target, value);
    default: break;
  }
  if (uint64_t* const intercept = CrIntercept(state_.cr_intercepts(target.vtl), name)) {
    if (target.vtl == kVtl0) return HvStatus::kAccessDenied;
    if (name == Name::kCrInterceptControl && ((value.low & ~kHvCrInterceptKnown) != 0 || !partition_.MayInterceptRegisters(value.low))) {
      return HvStatus::kInvalidRegisterValue;
    }
    *intercept = value.low;
    effect.intercepts_changed = true;
    return HvStatus::kSuccess;
  }
  if (const std::optional<Vtl> of = SecureConfigOf(name)) return SetSecureConfig(target.vtl, *of, value.low, effect);
  if (FindLowerRegister(name) == nullptr) return std::nullopt;
  return SetLower(target, name, value);
}

HvStatus VsmRegisters::SetSecureConfig(Vtl owner, Vtl of, uint64_t value, Effect& effect) noexcept {
  if (of >= owner) return HvStatus::kAccessDenied;
  if (!state_.IsEnabled(of)) return HvStatus::kInvalidVtlState;
  if ((value & ~(kHvSecureMbec | kHvSecureTlbLocked)) != 0) return HvStatus::kInvalidRegisterValue;
  if ((value & kHvSecureMbec) != 0 && !partition_.IsMbecEnabled(owner)) return HvStatus::kInvalidRegisterValue;
  state_.set_secure_config(owner, of, value);
  if ((value & kHvSecureTlbLocked) != 0) {
    locks_.Acquire(vp_, owner, of);
  } else {
    effect.wake_flushes = locks_.Release(vp_, owner, VtlBit(of));
  }
  return HvStatus::kSuccess;
}

HvStatus VsmRegisters::SetPendingEvent(Target target, const HvRegisterValue& value) noexcept {
  if (target.vtl >= target.caller) return HvStatus::kInvalidParameter;
  if ((value.low & kHvEventPending) == 0) {
    state_.set_pending_event(target.vtl, {});
    return HvStatus::kSuccess;
  }
  const uint64_t vector = (value.low >> kHvEventVectorShift) & 0xffff;
  if (((value.low >> kHvEventTypeShift) & kHvEventTypeMask) != kHvEventTypeException || (value.low & kHvEventReserved) != 0 ||
      !IsException(vector) || HasErrorCode(vector) != ((value.low & kHvEventDeliverErrorCode) != 0)) {
    return HvStatus::kInvalidRegisterValue;
  }
  state_.set_pending_event(target.vtl, value);
  return HvStatus::kSuccess;
}

HvStatus VsmRegisters::SetLower(Target target, Name name, const HvRegisterValue& value) noexcept {
  if (target.vtl == target.caller) return HvStatus::kAccessDenied;
  const RegisterCheck check = FindLowerRegister(name)->check;
  if (check == RegisterCheck::kReadOnly) return HvStatus::kInvalidParameter;
  if (check == RegisterCheck::kSameValue) {
    HvRegisterValue now{};
    const HvStatus status = lower_.Get(target.vtl, name, now);
    if (status != HvStatus::kSuccess) return status;
    return now == value ? HvStatus::kSuccess : HvStatus::kInvalidParameter;
  }
  HvRegisterValue cr4{};
  const HvStatus status = lower_.Get(target.vtl, Name::kCr4, cr4);
  if (status != HvStatus::kSuccess) return status;
  if (!IsAcceptable(check, value, (cr4.low & kCr4La57) != 0)) return HvStatus::kInvalidRegisterValue;
  return lower_.Set(target.vtl, name, value);
}

}  // namespace vmm
