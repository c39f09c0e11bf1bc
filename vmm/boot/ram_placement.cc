#include "vmm/boot/ram_placement.h"

#include <algorithm>

#include "vmm/boot/boot_layout.h"

namespace vmm {

RamPlacement::RamPlacement(const MemoryLayout& layout, std::span<const ReservedRange> reserved) {
  const uint64_t end = layout.ram().front().bytes;
  if (end > kHighRamStart.raw()) free_.push_back({kHighRamStart.raw(), end});
  // What lies above the hole is not ours: Claim says so, and there is nothing to do.
  for (const ReservedRange& range : reserved) (void)Claim(range.start, range.bytes);
}

bool RamPlacement::Claim(Gpa start, uint64_t bytes) {
  if (bytes == 0) return true;
  const uint64_t from = start.raw();
  for (auto it = free_.begin(); it != free_.end(); ++it) {
    if (from < it->start || from >= it->end || bytes > it->end - from) continue;
    const Stretch after{from + bytes, it->end};
    it->end = from;
    if (after.start < after.end) it = free_.insert(it + 1, after) - 1;
    if (it->start == it->end) free_.erase(it);
    return true;
  }
  return false;
}

std::optional<Gpa> RamPlacement::Lowest(uint64_t bytes, uint64_t alignment) const {
  for (const Stretch& stretch : free_) {
    // RAM ends below 4 GiB and an alignment is 32 bits, so the sum does not wrap.
    const uint64_t start = (stretch.start + alignment - 1) & ~(alignment - 1);
    if (start < stretch.end && bytes <= stretch.end - start) return Gpa(start);
  }
  return std::nullopt;
}

std::optional<Gpa> RamPlacement::Highest(uint64_t bytes, uint64_t alignment, Gpa limit) const {
  for (auto it = free_.rbegin(); it != free_.rend(); ++it) {
    const uint64_t end = std::min(it->end, limit.raw());
    if (end <= it->start || bytes > end - it->start) continue;
    const uint64_t start = (end - bytes) & ~(alignment - 1);
    if (start >= it->start) return Gpa(start);
  }
  return std::nullopt;
}

uint64_t RamPlacement::LargestFreeBytes(Gpa limit) const {
  uint64_t largest = 0;
  for (const Stretch& stretch : free_) {
    const uint64_t end = std::min(stretch.end, limit.raw());
    if (end > stretch.start) largest = std::max(largest, end - stretch.start);
  }
  return largest;
}

}  // namespace vmm
