#include "memory/layout.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace vmm {

absl::StatusOr<MemoryLayout> MemoryLayout::Create(uint64_t ram_bytes) {
  if (ram_bytes < kMinRamBytes || ram_bytes > kMaxRamBytes || ram_bytes % kPageBytes != 0) {
    return absl::InvalidArgumentError(absl::StrCat("lay out guest RAM: ", ram_bytes,
                                                   " bytes is not a whole number of pages from 1 MiB to 1 TiB"));
  }
  MemoryLayout layout;
  layout.ram_bytes_ = ram_bytes;
  const uint64_t low = std::min(ram_bytes, kMmioHoleStart.raw());
  layout.ram_.push_back({Gpa(0), low, 0});
  if (ram_bytes > low) layout.ram_.push_back({kMmioHoleEnd, ram_bytes - low, low});
  return layout;
}

std::optional<uint64_t> MemoryLayout::RamOffset(Gpa start, uint64_t bytes) const {
  for (const RamRange& range : ram_) {
    const uint64_t at = start.raw() - range.start.raw();  // wraps to something large below it
    if (at < range.bytes && bytes <= range.bytes - at) return range.ram_offset + at;
  }
  return std::nullopt;
}

Gpa MemoryLayout::high_mmio_start() const {
  const RamRange& last = ram_.back();
  const uint64_t end = std::max(last.start.raw() + last.bytes, kMmioHoleEnd.raw());
  return Gpa((end + kGiB - 1) / kGiB * kGiB);
}

}  // namespace vmm
