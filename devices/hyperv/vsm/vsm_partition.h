// Virtual Secure Mode of a partition: which levels there are, and what each has decided for the levels below it.
//
// Shapes   one object a partition; arrays by level.
// Threads  any; guarded. Nothing is called out of here.
// Trust    levels that callers pass as Vtl are below kHvVtlCount, `caller` is one that runs; numbers and flags are the guest's.
// Errors   HvStatus; each function lists its own in the order of the checks.
// Source   Hyper-V TLFS, "Virtual Secure Mode". Where it leaves the order of checks or a status open, OpenVMM's.
//
// Where sources differ:
// - A level that may not be enabled at all is ACCESS_DENIED, VTL0 too, and not INVALID_PARAMETER: as OpenVMM.
// - VsmPartitionConfig's default mask, once protection is enabled, cannot be changed: INVALID_REGISTER_VALUE as OpenVMM, where
//   another implementation answers success and changes nothing. The same value again is a success.
// - MBEC's bits in the capabilities and in the partition's status are those of the level that asks for it and of all below it:
//   some guests look at the one, some at the other.
#ifndef VMM_DEVICES_HYPERV_VSM_VSM_PARTITION_H_
#define VMM_DEVICES_HYPERV_VSM_VSM_PARTITION_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "base/mutex.h"
#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/vsm/vsm_layout.h"

namespace vmm {

// What the machine's configuration offers.
struct VsmOffer {
  Vtl maximum = kVtl1;
  // Claims mode-based execution control. Kernel and user execution are one to us: a guest that relies on the difference must not
  // be told that there is one, and some secure kernels do not start without.
  bool mbec = false;
  bool dr6_shared = false;  // the host's processor decides
  // The intercepts that happen on this host: bits of CrInterceptControl.
  uint64_t cr_intercepts = kHvCrInterceptKnown;
  // What does not happen is accepted all the same, and counted.
  bool accept_unenforceable = false;
};

// Whether a page may be protected so. Anything needs reading; kernel and user execution differ only with MBEC, and never so that
// the kernel alone may execute.
[[nodiscard]] bool IsLegalProtection(uint32_t guest_flags, bool mbec) noexcept;

class VsmPartition final {
 public:
  explicit VsmPartition(const VsmOffer& offer) noexcept : offer_(offer) {}
  VsmPartition(const VsmPartition&) = delete;
  VsmPartition& operator=(const VsmPartition&) = delete;

  // As after power-on. Ask MustZeroMemory before.
  void Reset() noexcept;
  // Guest memory holds what is not for the next one: a higher level was enabled, and has not said otherwise.
  [[nodiscard]] bool MustZeroMemory() const noexcept;

  // acquire: pairs with Enable's release, so that who sees a level sees its configuration.
  [[nodiscard]] VtlSet enabled() const noexcept { return enabled_.load(std::memory_order_acquire); }
  [[nodiscard]] bool IsEnabled(Vtl vtl) const noexcept { return Has(enabled(), vtl); }
  [[nodiscard]] bool IsMbecEnabled(Vtl vtl) const noexcept;
  [[nodiscard]] uint64_t status() const noexcept;        // VsmPartitionStatus
  [[nodiscard]] uint64_t capabilities() const noexcept;  // VsmCapabilities

  // EnablePartitionVtl. kAccessDenied: a level that may not be, kInvalidVtlState: is enabled already, kAccessDenied: the caller
  // is not the highest below it, kInvalidParameter: flags that are not offered.
  [[nodiscard]] HvStatus Enable(Vtl caller, uint8_t guest_target, uint8_t guest_flags) noexcept;

  // Whether `caller` may enable `target` on its own VP, or another. kInvalidParameter: VTL0, or a level that may not be;
  // kInvalidVtlState: not enabled on the partition; kAccessDenied: above the caller, and on another VP or not the first time.
  [[nodiscard]] HvStatus MayEnableVp(Vtl caller, bool own_vp, uint8_t guest_target) const noexcept;
  // The same, and from here on `target` is there: only itself may enable itself on further VPs. Of two lower levels that try at
  // once, one succeeds.
  [[nodiscard]] HvStatus ClaimVp(Vtl caller, bool own_vp, Vtl target) noexcept;

  // StartVirtualProcessor. kAccessDenied: a level above the caller has denied it.
  [[nodiscard]] HvStatus MayStart(Vtl caller) const noexcept;

  // ModifyVtlProtectionMask by `caller` of the pages that `owner` protects. kAccessDenied: above the caller, kInvalidParameter:
  // VTL0, kAccessDenied: its own, without EnableVtlProtection, kInvalidVtlState, kInvalidRegisterValue.
  [[nodiscard]] HvStatus CheckProtection(Vtl caller, Vtl owner, uint32_t guest_flags) const noexcept;

  // Whether a level may ask for intercepts, some of which the host cannot make (`unenforceable`). True with any of them: counted.
  [[nodiscard]] bool MayIntercept(bool unenforceable) noexcept;
  [[nodiscard]] bool MayInterceptRegisters(uint64_t cr_events) noexcept { return MayIntercept((cr_events & ~offer_.cr_intercepts) != 0); }
  [[nodiscard]] uint64_t unenforced_intercepts() const noexcept { return unenforced_.load(std::memory_order_relaxed); }

  // VsmPartitionConfig of a level above VTL0.
  [[nodiscard]] uint64_t config(Vtl owner) const noexcept;
  struct ConfigWrite {
    HvStatus status;
    // Protection begins now: to be applied to all memory, what is added later included, before the guest goes on.
    std::optional<uint32_t> default_protection = std::nullopt;
    bool operator==(const ConfigWrite&) const = default;
  };
  // kInvalidVtlState: not enabled, kInvalidRegisterValue: bits that are not offered, protection off again, a default that is not
  // legal, takes reading or writing away, or has changed since protection was enabled.
  [[nodiscard]] ConfigWrite SetConfig(Vtl owner, uint64_t value) noexcept;

 private:
  [[nodiscard]] HvStatus MayEnableVpLocked(Vtl caller, bool own_vp, uint8_t guest_target) const noexcept
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] bool MayBe(uint8_t guest_vtl) const noexcept { return guest_vtl != 0 && guest_vtl <= offer_.maximum.raw(); }

  static constexpr std::array<uint64_t, kHvVtlCount> AllReset() noexcept {
    std::array<uint64_t, kHvVtlCount> configs;
    configs.fill(kHvConfigReset);
    return configs;
  }

  const VsmOffer offer_;
  mutable Mutex mutex_;
  std::atomic<VtlSet> enabled_{VtlBit(kVtl0)};  // stored under the mutex
  std::atomic<uint64_t> unenforced_{0};         // a statistic
  VtlSet mbec_ ABSL_GUARDED_BY(mutex_) = 0;         // enabled with MBEC
  VtlSet on_some_vp_ ABSL_GUARDED_BY(mutex_) = 0;
  std::array<uint64_t, kHvVtlCount> configs_ ABSL_GUARDED_BY(mutex_) = AllReset();
};

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_VSM_VSM_PARTITION_H_
