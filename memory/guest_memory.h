// The monitor's own access to guest RAM, checked. It sees RAM itself: no overlay page and no protection of any trust level. What
// the guest's processors see is a GuestView.
//
// Shapes   one stretch of host addresses per RamRange, always read and write, backed and locked ahead only where a GuestView does so.
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
#include "memory/ram_mapping.h"

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

  // The pages of what was touched so far are taken out of this process's page tables, not out of RAM: for after loading, as the
  // guest runs by its view's page tables.
  void ForgetTouched() const noexcept;

  // For reading files straight into RAM, and as memory slots in tests of bare VMs. The caller owns the checks from here on.
  using Mapping = RamMapping;
  [[nodiscard]] const std::vector<Mapping>& UnsafeMappings() const noexcept { return mappings_; }
  // The host address of [gpa, gpa + bytes) where one mapping holds all of it, else nullptr.
  [[nodiscard]] std::byte* UnsafeHost(Gpa guest_gpa, uint64_t bytes) const noexcept;

 private:
  GuestMemory() = default;
  std::vector<Mapping> mappings_;
};

}  // namespace vmm

#endif  // VMM_MEMORY_GUEST_MEMORY_H_
