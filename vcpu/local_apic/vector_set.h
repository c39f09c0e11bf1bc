// 256 bits, one a vector.
//
// Threads  a plain value.
#ifndef VMM_VCPU_LOCAL_APIC_VECTOR_SET_H_
#define VMM_VCPU_LOCAL_APIC_VECTOR_SET_H_

#include <array>
#include <bit>
#include <cstdint>
#include <optional>

namespace vmm {

class VectorSet final {
 public:
  void Set(uint8_t vector) noexcept { words_[vector / 64] |= uint64_t{1} << vector % 64; }
  void Clear(uint8_t vector) noexcept { words_[vector / 64] &= ~(uint64_t{1} << vector % 64); }
  [[nodiscard]] bool Has(uint8_t vector) const noexcept { return (words_[vector / 64] >> vector % 64 & 1) != 0; }
  [[nodiscard]] std::optional<uint8_t> Highest() const noexcept {
    for (unsigned n = words_.size(); n-- > 0;) {
      if (words_[n] != 0) return static_cast<uint8_t>(64 * n + 63 - static_cast<unsigned>(std::countl_zero(words_[n])));
    }
    return std::nullopt;
  }
  // Vectors 32n to 32n + 31, n < 8: the registers' view.
  [[nodiscard]] uint32_t Part(unsigned n) const noexcept { return static_cast<uint32_t>(words_[n / 2] >> n % 2 * 32); }
  bool operator==(const VectorSet&) const = default;

 private:
  std::array<uint64_t, 4> words_{};
};

}  // namespace vmm

#endif  // VMM_VCPU_LOCAL_APIC_VECTOR_SET_H_
