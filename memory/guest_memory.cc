#include "memory/guest_memory.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_macros.h"

namespace vmm {

GuestMemory::GuestMemory(const GuestRam& ram)
    : files_(ram.files()), options_(ram.options()), writes_(options_.withdrawable ? std::make_unique<AccessGate>() : nullptr) {}

absl::StatusOr<std::unique_ptr<GuestMemory>> GuestMemory::Create(const GuestRam& ram, const MemoryLayout& layout) {
  std::unique_ptr<GuestMemory> memory(new GuestMemory(ram));
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
  const AccessGate::MaybeSection writing(writes_.get());
  std::memcpy(host, data.data(), data.size());
  return true;
}

bool GuestMemory::Fill(Gpa guest_gpa, std::byte value, uint64_t bytes) const noexcept {
  std::byte* const host = UnsafeHost(guest_gpa, bytes);
  if (host == nullptr) return false;
  const AccessGate::MaybeSection writing(writes_.get());
  std::memset(host, static_cast<int>(value), bytes);
  return true;
}

bool GuestMemory::Move(Gpfn first, uint64_t pages, absl::FunctionRef<bool()> move) const noexcept {
  const AccessGate::Closed closed(*writes_);
  if (!move()) return false;
  const RamSpot spot = SpotOf(mappings_, Gpa(first));
  if (MapRamAgain(*files_, options_, RamUse::kMonitor, spot.host, spot.ram_offset, pages * kPageBytes, PROT_READ | PROT_WRITE)) return true;
  // There are mappings enough: WithdrawnPages::Create has seen to that. Going on would give the monitor other memory than the guest has.
  Log(LogLevel::kError, "memory", absl::StrCat("map the new place of page 0x", absl::Hex(first.raw())));
  std::abort();
}

}  // namespace vmm
