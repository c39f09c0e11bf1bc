#include "vmm/boot/boot_memory_map.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "vmm/boot/boot_layout.h"

namespace vmm {
namespace {

bool InRam(const MemoryLayout& layout, const ReservedRange& range) {
  for (const RamRange& ram : layout.ram()) {
    const uint64_t offset = range.start.raw() - ram.start.raw();  // huge where the range begins below
    if (offset < ram.bytes && range.bytes <= ram.bytes - offset) return true;
  }
  return false;
}

}  // namespace

absl::StatusOr<std::vector<MemoryMapEntry>> BuildBootMemoryMap(const MemoryLayout& layout,
                                                               std::span<const ReservedRange> reserved) {
  std::vector<ReservedRange> holes(reserved.begin(), reserved.end());
  std::sort(holes.begin(), holes.end(), [](const auto& a, const auto& b) { return a.start < b.start; });
  for (size_t i = 0; i < holes.size(); ++i) {
    const ReservedRange& hole = holes[i];
    const auto refuse = [&hole](absl::string_view why) {
      return absl::InvalidArgumentError(absl::StrCat("reserve guest RAM 0x", absl::Hex(hole.start.raw()), " + 0x",
                                                     absl::Hex(hole.bytes), " bytes: ", why));
    };
    if (hole.bytes == 0 || hole.bytes % kPageBytes != 0 || hole.start.page_offset() != 0) return refuse("not whole pages");
    if (hole.start < kHighRamStart) return refuse("begins below 1 MiB");
    if (!InRam(layout, hole)) return refuse("not RAM");
    if (i > 0 && hole.start - holes[i - 1].start < holes[i - 1].bytes) {
      return refuse(absl::StrCat("overlaps the range at 0x", absl::Hex(holes[i - 1].start.raw())));
    }
  }

  std::vector<MemoryMapEntry> map;
  map.push_back({Gpa(0), kLowRamEnd.raw(), MemoryMapType::kRam});
  map.push_back({kLowRamEnd, kHighRamStart - kLowRamEnd, MemoryMapType::kReserved});
  auto hole = holes.begin();
  for (const RamRange& ram : layout.ram()) {
    Gpa at = std::max(ram.start, kHighRamStart);
    const Gpa end = ram.start + ram.bytes;
    for (; hole != holes.end() && hole->start < end; ++hole) {
      if (at < hole->start) map.push_back({at, hole->start - at, MemoryMapType::kRam});
      map.push_back({hole->start, hole->bytes, MemoryMapType::kReserved});
      at = hole->start + hole->bytes;
    }
    if (at < end) map.push_back({at, end - at, MemoryMapType::kRam});
    if (ram.start == Gpa(0)) {
      map.push_back({kEcamBase, kEcamBytes, MemoryMapType::kReserved});
      map.push_back({kIoApicBase, kMmioHoleEnd - kIoApicBase, MemoryMapType::kReserved});
    }
  }
  if (map.size() > kMaxMemoryMapEntries) {
    return absl::ResourceExhaustedError(absl::StrCat("build the memory map: ", map.size(), " entries, the zero page holds ",
                                                     kMaxMemoryMapEntries));
  }
  return map;
}

}  // namespace vmm
