// What a trust level may do with a page: read, write, and execute in kernel and in user mode.
//
// Shapes   bits as ModifyVtlProtectionMask's MapFlags has them.
// Trust    raw bits come from the guest: FromMapFlags says whether they are a combination that the interface has.
// Source   Hyper-V TLFS, "HvCallModifyVtlProtectionMask", "Memory Access Protections".
#ifndef VMM_MEMORY_PAGE_RIGHTS_H_
#define VMM_MEMORY_PAGE_RIGHTS_H_

#include <cstdint>
#include <optional>

namespace vmm {

class PageRights final {
 public:
  static constexpr uint8_t kRead = 1 << 0;
  static constexpr uint8_t kWrite = 1 << 1;
  static constexpr uint8_t kKernelExecute = 1 << 2;
  static constexpr uint8_t kUserExecute = 1 << 3;
  static constexpr uint8_t kAllBits = 0xf;

  // Everything.
  constexpr PageRights() noexcept = default;
  // Any combination, legal or not (an intersection of legal ones may be none of them); bits above are dropped.
  constexpr explicit PageRights(uint8_t bits) noexcept : bits_(bits & kAllBits) {}
  static constexpr PageRights None() noexcept { return PageRights(0); }

  // The legal ones: none; R and RW, each with no execution, with both kinds, or (mode_based: with the partition's mode-based
  // execution control) with user execution alone. nullopt: anything else, bits above these four included.
  static constexpr std::optional<PageRights> FromMapFlags(uint32_t guest_flags, bool mode_based) noexcept {
    if ((guest_flags & ~uint32_t{kAllBits}) != 0) return std::nullopt;
    const PageRights rights(static_cast<uint8_t>(guest_flags));
    if (guest_flags != 0 && !rights.read()) return std::nullopt;
    if (rights.kernel_execute() && !rights.user_execute()) return std::nullopt;
    if (rights.user_execute() && !rights.kernel_execute() && !mode_based) return std::nullopt;
    return rights;
  }

  [[nodiscard]] constexpr uint8_t bits() const noexcept { return bits_; }
  [[nodiscard]] constexpr bool read() const noexcept { return (bits_ & kRead) != 0; }
  [[nodiscard]] constexpr bool write() const noexcept { return (bits_ & kWrite) != 0; }
  [[nodiscard]] constexpr bool kernel_execute() const noexcept { return (bits_ & kKernelExecute) != 0; }
  [[nodiscard]] constexpr bool user_execute() const noexcept { return (bits_ & kUserExecute) != 0; }

  // What both allow.
  constexpr PageRights operator&(PageRights other) const noexcept { return PageRights(bits_ & other.bits_); }
  constexpr bool operator==(const PageRights&) const = default;

 private:
  uint8_t bits_ = kAllBits;
};

}  // namespace vmm

#endif  // VMM_MEMORY_PAGE_RIGHTS_H_
