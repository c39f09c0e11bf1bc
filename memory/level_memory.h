// The monitor's access to guest RAM on behalf of one trust level: what that level may not do with a page is not done for it.
//
// Shapes   copies only: nothing here gives out a pointer into RAM. RAM alone is seen, overlays are not.
// Units    levels are VTL numbers.
// Threads  any. A change of protections that has returned (ProtectionEnforcer) is seen by every access that begins later, and has
//          waited for those that began before it: AccessGate.
// Trust    every address and length may come from the guest.
// Errors   false, and nothing was copied, where a byte of the span is not RAM, or its page does not allow the access.
// Source   Hyper-V TLFS, "Memory Access Protections": writing needs the right to read as well.
#ifndef VMM_MEMORY_LEVEL_MEMORY_H_
#define VMM_MEMORY_LEVEL_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#include "memory/access_gate.h"
#include "memory/gpa.h"
#include "memory/guest_memory.h"
#include "memory/page_rights.h"
#include "memory/protection_map.h"

namespace vmm {

class LevelMemory final {
 public:
  // Of a machine without trust levels: all of RAM. `memory` outlives this.
  explicit LevelMemory(const GuestMemory& memory) noexcept : memory_(memory) {}
  // All arguments outlive this.
  LevelMemory(const GuestMemory& memory, const ProtectionMap& map, AccessGate& gate, unsigned level) noexcept
      : memory_(memory), map_(&map), gate_(&gate), level_(level) {}
  LevelMemory(const LevelMemory&) = delete;
  LevelMemory& operator=(const LevelMemory&) = delete;

  [[nodiscard]] bool Read(Gpa guest_gpa, std::span<std::byte> out) const noexcept;
  [[nodiscard]] bool Write(Gpa guest_gpa, std::span<const std::byte> data) const noexcept;

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

  // Now; an access that is made later is checked again.
  [[nodiscard]] bool CanRead(Gpa guest_gpa, uint64_t bytes) const noexcept;
  [[nodiscard]] bool CanWrite(Gpa guest_gpa, uint64_t bytes) const noexcept;
  // Everything where it is not RAM.
  [[nodiscard]] PageRights Rights(Gpfn guest_page) const noexcept {
    return map_ == nullptr ? PageRights() : map_->Rights(level_, guest_page);
  }

 private:
  [[nodiscard]] bool Allows(Gpa guest_gpa, uint64_t bytes, PageRights needed) const noexcept;

  const GuestMemory& memory_;
  const ProtectionMap* const map_ = nullptr;
  AccessGate* const gate_ = nullptr;  // with map_
  const unsigned level_ = 0;
};

}  // namespace vmm

#endif  // VMM_MEMORY_LEVEL_MEMORY_H_
