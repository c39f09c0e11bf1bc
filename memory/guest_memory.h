// One virtual trust level's view of guest RAM: a mapping of its own, and checked access through it.
//
// Shapes   one host mapping per RamRange; the view of VTL n will carry the protections that VTLs above n imposed.
// Threads  accessors: any. The guest runs meanwhile: what was read may have changed since; read once, then check the copy.
// Trust    every address and length may come from the guest. No access reaches outside the ranges, whatever the sum wraps to.
// Errors   accessors: false, and nothing was copied, where any byte of the span is not RAM.
#ifndef VMM_MEMORY_GUEST_MEMORY_H_
#define VMM_MEMORY_GUEST_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <type_traits>
#include <vector>

#include "absl/status/statusor.h"
#include "memory/gpa.h"
#include "memory/guest_ram.h"
#include "memory/layout.h"

namespace vmm {

class GuestMemory final {
 public:
  // Maps `ram`, which may be closed afterwards.
  static absl::StatusOr<std::unique_ptr<GuestMemory>> Create(const GuestRam& ram, const MemoryLayout& layout);
  GuestMemory(const GuestMemory&) = delete;
  GuestMemory& operator=(const GuestMemory&) = delete;
  ~GuestMemory();

  [[nodiscard]] bool Read(Gpa guest_gpa, std::span<std::byte> out) const noexcept;
  [[nodiscard]] bool Write(Gpa guest_gpa, std::span<const std::byte> data) const noexcept;
  [[nodiscard]] bool Fill(Gpa guest_gpa, std::byte value, uint64_t bytes) const noexcept;

  template <typename T>
  [[nodiscard]] bool ReadObject(Gpa guest_gpa, T& out) const noexcept {
    static_assert(std::is_trivially_copyable_v<T>);
    return Read(guest_gpa, std::as_writable_bytes(std::span(&out, 1)));
  }
  template <typename T>
  [[nodiscard]] bool WriteObject(Gpa guest_gpa, const T& value) const noexcept {
    static_assert(std::is_trivially_copyable_v<T>);
    return Write(guest_gpa, std::as_bytes(std::span(&value, 1)));
  }

  [[nodiscard]] bool Contains(Gpa guest_gpa, uint64_t bytes) const noexcept;

  // For KVM memory slots and for reading files straight into RAM. The caller owns the checks from here on.
  struct Mapping {
    RamRange range;
    std::byte* host;
  };
  [[nodiscard]] const std::vector<Mapping>& UnsafeMappings() const noexcept { return mappings_; }
  // The host address of [gpa, gpa + bytes) where one mapping holds all of it, else nullptr.
  [[nodiscard]] std::byte* UnsafeHost(Gpa guest_gpa, uint64_t bytes) const noexcept;

 private:
  GuestMemory() = default;
  std::vector<Mapping> mappings_;
};

}  // namespace vmm

#endif  // VMM_MEMORY_GUEST_MEMORY_H_
