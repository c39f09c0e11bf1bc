// Guest physical addresses and page numbers, as types that cannot be mixed up.
//
// Units    Gpa: bytes. Gpfn: pages of 4096 bytes.
// Trust    a Gpa is only a number: it may come from the guest and point anywhere. GuestMemory checks.
#ifndef VMM_MEMORY_GPA_H_
#define VMM_MEMORY_GPA_H_

#include <compare>
#include <cstdint>

namespace vmm {

inline constexpr uint64_t kPageBytes = 4096;

class Gpfn final {
 public:
  constexpr explicit Gpfn(uint64_t number) noexcept : number_(number) {}
  [[nodiscard]] constexpr uint64_t raw() const noexcept { return number_; }
  constexpr auto operator<=>(const Gpfn&) const = default;

 private:
  uint64_t number_;
};

class Gpa final {
 public:
  constexpr Gpa() noexcept = default;
  constexpr explicit Gpa(uint64_t address) noexcept : address_(address) {}
  constexpr explicit Gpa(Gpfn page) noexcept : address_(page.raw() * kPageBytes) {}
  [[nodiscard]] constexpr uint64_t raw() const noexcept { return address_; }
  [[nodiscard]] constexpr Gpfn page() const noexcept { return Gpfn(address_ / kPageBytes); }
  [[nodiscard]] constexpr uint64_t page_offset() const noexcept { return address_ % kPageBytes; }
  // Wraps as the processor's addresses do; range checks are made with sizes, not with sums.
  constexpr Gpa operator+(uint64_t bytes) const noexcept { return Gpa(address_ + bytes); }
  constexpr uint64_t operator-(Gpa other) const noexcept { return address_ - other.address_; }
  constexpr auto operator<=>(const Gpa&) const = default;

 private:
  uint64_t address_ = 0;
};

}  // namespace vmm

#endif  // VMM_MEMORY_GPA_H_
