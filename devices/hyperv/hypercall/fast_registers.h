// The registers of the fast form as one run of bytes: slot 0 in general registers, slots 1 to 6 in XMM0 to XMM5.
//
// Shapes   kHypercallFastBytes; a copy of the registers, made once.
// Threads  confined: lives within one Dispatch.
// Trust    the bytes are the guest's. Offsets and lengths are the dispatcher's, within kHypercallFastBytes.
// Errors   false: the host could not fetch or store XMM registers; no general register has changed then.
#ifndef VMM_DEVICES_HYPERV_HYPERCALL_FAST_REGISTERS_H_
#define VMM_DEVICES_HYPERV_HYPERCALL_FAST_REGISTERS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "devices/guest_interface.h"
#include "devices/hyperv/hypercall/hypercall_layout.h"

namespace vmm {

class FastRegisters final {
 public:
  // XMM registers cost the host a system call: they are fetched only where `bytes` go beyond slot 0.
  [[nodiscard]] bool Load(const HypercallRegisters& registers, XmmAccess& xmm, size_t bytes) noexcept {
    if (registers.long_mode) {
      words_[0] = registers.rdx;
      words_[1] = registers.r8;
    } else {
      words_[0] = registers.rbx << 32 | (registers.rcx & 0xffff'ffff);
      words_[1] = registers.rdi << 32 | (registers.rsi & 0xffff'ffff);
    }
    if (bytes <= kHypercallSlotBytes) return true;
    XmmRegisters values;
    if (!xmm.Load(values)) return false;
    std::memcpy(&words_[2], &values, sizeof(values));
    return true;
  }

  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return std::as_bytes(std::span(words_)); }

  // Long mode only. What `made` does not cover keeps its value, to the byte. Requires: Load was told of as many bytes.
  [[nodiscard]] bool Store(size_t offset, std::span<const std::byte> made, HypercallRegisters& registers,
                           XmmAccess& xmm) noexcept {
    std::memcpy(std::as_writable_bytes(std::span(words_)).subspan(offset, made.size()).data(), made.data(), made.size());
    if (offset + made.size() > kHypercallSlotBytes) {
      XmmRegisters values;
      std::memcpy(&values, &words_[2], sizeof(values));
      if (!xmm.Store(values)) return false;
    }
    if (offset < kHypercallSlotBytes) {
      registers.rdx = words_[0];
      registers.r8 = words_[1];
    }
    return true;
  }

 private:
  static_assert(sizeof(XmmRegisters) == kHypercallFastBytes - kHypercallSlotBytes);
  std::array<uint64_t, kHypercallFastBytes / sizeof(uint64_t)> words_{};
};

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_HYPERCALL_FAST_REGISTERS_H_
