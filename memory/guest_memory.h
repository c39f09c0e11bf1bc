// The monitor's own access to guest RAM, checked. It sees RAM itself: no overlay page and no protection of any trust level. What
// the guest's processors see is a GuestView.
//
// Shapes   one stretch of host addresses per RamRange, always read and write, backed and locked ahead only where a GuestView does so.
// Threads  accessors: any. The guest runs meanwhile: what was read may have changed since; read once, then check the copy. Where pages can
//          be withdrawn from devices, a write waits while some move (WithdrawnPages): as long as they are copied.
// Trust    every address and length may come from the guest. No access reaches outside the ranges, whatever the sum wraps to.
// Errors   accessors: false, and nothing was copied, where any byte of the span is not RAM.
#ifndef VMM_MEMORY_GUEST_MEMORY_H_
#define VMM_MEMORY_GUEST_MEMORY_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <type_traits>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "memory/access_gate.h"
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

  // Stores `desired` where `expected` is, in one step for processors too, as their locked updates are. `expected` becomes what was
  // there. False: not RAM. Requires: aligned to T.
  template <typename T>
  [[nodiscard]] bool CompareExchange(Gpa guest_gpa, T& expected, T desired) const noexcept {
    const AccessGate::MaybeSection writing(writes_.get());
    std::byte* const host = UnsafeHost(guest_gpa, sizeof(T));
    if (host == nullptr) return false;
    (void)std::atomic_ref(*reinterpret_cast<T*>(host)).compare_exchange_strong(expected, desired, std::memory_order_seq_cst);
    return true;
  }

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

  // For WithdrawnPages: `move` copies [first, first + pages), which is RAM, into another file and says there that it is in it by now.
  // Nobody writes by this meanwhile; at its return their new place is seen. What `move` has said. Requires: RAM is withdrawable.
  [[nodiscard]] bool Move(Gpfn first, uint64_t pages, absl::FunctionRef<bool()> move) const noexcept;

  // For reading files straight into RAM, and as memory slots in tests of bare VMs. The caller owns the checks from here on.
  using Mapping = RamMapping;
  [[nodiscard]] const std::vector<Mapping>& UnsafeMappings() const noexcept { return mappings_; }
  // The host address of [gpa, gpa + bytes) where one mapping holds all of it, else nullptr.
  [[nodiscard]] std::byte* UnsafeHost(Gpa guest_gpa, uint64_t bytes) const noexcept;

 private:
  explicit GuestMemory(const GuestRam& ram);
  const std::shared_ptr<const RamFiles> files_;
  const GuestRamOptions options_;
  const std::unique_ptr<AccessGate> writes_;  // null where no page can move
  std::vector<Mapping> mappings_;
};

}  // namespace vmm

#endif  // VMM_MEMORY_GUEST_MEMORY_H_
