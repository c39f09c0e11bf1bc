// Which part of the RAM below the MMIO hole is still free while a kernel and its initramfs are placed.
//
// Shapes   from 1 MiB to the end of the first RAM range, less what is reserved or claimed.
// Units    bytes.
// Threads  confined to the caller.
// Trust    addresses and sizes come from images: any value is answered, none wraps.
// Errors   false or nullopt: does not fit.
#ifndef VMM_VMM_BOOT_RAM_PLACEMENT_H_
#define VMM_VMM_BOOT_RAM_PLACEMENT_H_

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "memory/gpa.h"
#include "memory/layout.h"
#include "vmm/boot/boot_memory_map.h"

namespace vmm {

class RamPlacement final {
 public:
  // `reserved` has passed BuildBootMemoryMap.
  RamPlacement(const MemoryLayout& layout, std::span<const ReservedRange> reserved);

  // True: it was free, and is the caller's now. An empty range is always free.
  [[nodiscard]] bool Claim(Gpa start, uint64_t bytes);
  // The lowest free place with that alignment (a power of two), not claimed yet.
  [[nodiscard]] std::optional<Gpa> Lowest(uint64_t bytes, uint64_t alignment) const;
  // The highest one that ends at or below `limit`.
  [[nodiscard]] std::optional<Gpa> Highest(uint64_t bytes, uint64_t alignment, Gpa limit) const;
  // What the longest free stretch that ends at or below `limit` holds, for messages.
  [[nodiscard]] uint64_t LargestFreeBytes(Gpa limit) const;

 private:
  struct Stretch {
    uint64_t start;
    uint64_t end;  // not included
  };
  std::vector<Stretch> free_;  // ascending, not empty, never adjacent
};

}  // namespace vmm

#endif  // VMM_VMM_BOOT_RAM_PLACEMENT_H_
