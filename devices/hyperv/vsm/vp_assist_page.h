// The VP assist page of one virtual processor at one level, as Virtual Secure Mode uses it.
//
// Shapes   vsm_layout.h.
// Threads  the VP's thread; the guest may write at the same time, on other processors too.
// Trust    each field is loaded once. What is read is only ever given back to the guest, or is one bit.
// Errors   none. Where the guest has not enabled the page, the overlay is nowhere to be seen, and these are its bytes still.
// Source   Hyper-V TLFS, "Virtual Secure Mode", "VTL Entry" and "VTL Return"; "Virtual Interrupt Notification Assist".
#ifndef VMM_DEVICES_HYPERV_VSM_VP_ASSIST_PAGE_H_
#define VMM_DEVICES_HYPERV_VSM_VP_ASSIST_PAGE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "devices/hyperv/vsm/vsm_layout.h"

namespace vmm {

// What a VTL return that is not fast restores, as the level that leaves has put it there.
struct VtlReturnRegisters {
  uint64_t rax;
  uint64_t rcx;
  bool operator==(const VtlReturnRegisters&) const = default;
};
struct VtlReturnRegisters32 {
  uint32_t eax;
  uint32_t ecx;
  uint32_t edx;
  bool operator==(const VtlReturnRegisters32&) const = default;
};

class VpAssistPage final {
 public:
  // OverlayPage::data() of the level's page: aligned to a page, and outlives this.
  explicit VpAssistPage(std::byte* page) noexcept : page_(reinterpret_cast<HvVpAssistPage*>(page)) {}

  // Relaxed: the guest reads it after the entry that follows, on this thread.
  void SetEntryReason(VtlEntryReason reason) noexcept {
    std::atomic_ref(page_->entry_reason).store(static_cast<uint32_t>(reason), std::memory_order_relaxed);
  }
  [[nodiscard]] VtlReturnRegisters return_registers() const noexcept {
    return {.rax = std::atomic_ref(page_->vtl_return_rax).load(std::memory_order_relaxed),
            .rcx = std::atomic_ref(page_->vtl_return_rcx).load(std::memory_order_relaxed)};
  }
  [[nodiscard]] VtlReturnRegisters32 return_registers32() const noexcept {
    const VtlReturnRegisters both = return_registers();
    return {.eax = static_cast<uint32_t>(both.rax),
            .ecx = static_cast<uint32_t>(both.rax >> 32),
            .edx = static_cast<uint32_t>(both.rcx)};
  }
  [[nodiscard]] bool is_vina_asserted() const noexcept {
    return (std::atomic_ref(page_->vina_status).load(std::memory_order_relaxed) & kHvVinaAsserted) != 0;
  }
  void SetVinaAsserted(bool asserted) noexcept {
    std::atomic_ref(page_->vina_status).store(asserted ? kHvVinaAsserted : 0, std::memory_order_relaxed);
  }

 private:
  HvVpAssistPage* page_;
};

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_VSM_VP_ASSIST_PAGE_H_
