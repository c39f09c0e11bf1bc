#include "memory/guest_memory.h"

#include <sys/mman.h>

#include <cstring>

#include "base/status_macros.h"

namespace vmm {

absl::StatusOr<std::unique_ptr<GuestMemory>> GuestMemory::Create(const GuestRam& ram, const MemoryLayout& layout) {
  std::unique_ptr<GuestMemory> memory(new GuestMemory());
  RETURN_IF_ERROR(MapRam(ram, layout, RamUse::kMonitor, memory->mappings_));
  return memory;
}

GuestMemory::~GuestMemory() { UnmapRam(mappings_); }

void GuestMemory::ForgetTouched() const noexcept {
  // A shared mapping: the contents are the file's. Reserved huge pages refuse on older kernels, which costs nothing.
  for (const Mapping& mapping : mappings_) ::madvise(mapping.host, mapping.range.bytes, MADV_DONTNEED);
}

std::byte* GuestMemory::UnsafeHost(Gpa guest_gpa, uint64_t bytes) const noexcept {
  return FindInRam(mappings_, guest_gpa, bytes);
}

// Ranges are never adjacent, so a span inside RAM is inside one range.
bool GuestMemory::Contains(Gpa guest_gpa, uint64_t bytes) const noexcept { return UnsafeHost(guest_gpa, bytes) != nullptr; }

bool GuestMemory::Read(Gpa guest_gpa, std::span<std::byte> out) const noexcept {
  const std::byte* const host = UnsafeHost(guest_gpa, out.size());
  if (host == nullptr) return false;
  std::memcpy(out.data(), host, out.size());
  return true;
}

bool GuestMemory::Write(Gpa guest_gpa, std::span<const std::byte> data) const noexcept {
  std::byte* const host = UnsafeHost(guest_gpa, data.size());
  if (host == nullptr) return false;
  std::memcpy(host, data.data(), data.size());
  return true;
}

bool GuestMemory::Fill(Gpa guest_gpa, std::byte value, uint64_t bytes) const noexcept {
  std::byte* const host = UnsafeHost(guest_gpa, bytes);
  if (host == nullptr) return false;
  std::memset(host, static_cast<int>(value), bytes);
  return true;
}

}  // namespace vmm
