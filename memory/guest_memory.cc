#include "memory/guest_memory.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/errno_status.h"

namespace vmm {
namespace {

constexpr uint64_t kHugeAlignment = 2 * kMiB;

// Maps at an address aligned to 2 MiB, so that transparent huge pages (ours and KVM's) can be used.
absl::StatusOr<std::byte*> MapAligned(int fd, uint64_t bytes, uint64_t offset, bool populate) {
  const uint64_t reserve_bytes = bytes + kHugeAlignment;
  void* const reserve = ::mmap(nullptr, reserve_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserve == MAP_FAILED) return ErrnoStatus(errno, absl::StrCat("reserve ", bytes, " bytes of address space for guest RAM"));
  const auto start = reinterpret_cast<uintptr_t>(reserve);
  const uintptr_t aligned = (start + kHugeAlignment - 1) / kHugeAlignment * kHugeAlignment;
  void* const map = ::mmap(reinterpret_cast<void*>(aligned), bytes, PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_FIXED | MAP_NORESERVE | (populate ? MAP_POPULATE : 0), fd,
                           static_cast<off_t>(offset));
  const int error = errno;
  // What is left of the reservation on either side goes.
  if (aligned != start) ::munmap(reserve, aligned - start);
  const uintptr_t end = aligned + bytes;
  if (start + reserve_bytes != end) ::munmap(reinterpret_cast<void*>(end), start + reserve_bytes - end);
  if (map == MAP_FAILED) return ErrnoStatus(error, absl::StrCat("map ", bytes, " bytes of guest RAM"));
  return static_cast<std::byte*>(map);
}

}  // namespace

absl::StatusOr<std::unique_ptr<GuestMemory>> GuestMemory::Create(const GuestRam& ram, const MemoryLayout& layout) {
  std::unique_ptr<GuestMemory> memory(new GuestMemory());
  const GuestRamOptions& options = ram.options();
  for (const RamRange& range : layout.ram()) {
    auto host = MapAligned(ram.fd(), range.bytes, range.ram_offset, options.prefault);
    if (!host.ok()) return host.status();
    memory->mappings_.push_back({range, *host});
    // The host's secrets and the guest's stay apart: no core dump and no same-page merging unless asked for.
    ::madvise(*host, range.bytes, MADV_DONTDUMP);
    ::madvise(*host, range.bytes, options.mergeable ? MADV_MERGEABLE : MADV_UNMERGEABLE);
    if (options.huge_pages == HugePages::kTransparent) ::madvise(*host, range.bytes, MADV_HUGEPAGE);
    if (options.lock && ::mlock(*host, range.bytes) != 0) {
      // EPERM, ENOMEM or EAGAIN, by how RLIMIT_MEMLOCK falls short: one thing to whoever reads it.
      const int error = errno;
      return absl::ResourceExhaustedError(
          ErrnoStatus(error, absl::StrCat("lock ", range.bytes, " bytes of guest RAM in memory (RLIMIT_MEMLOCK)")).message());
    }
  }
  return memory;
}

GuestMemory::~GuestMemory() {
  for (const Mapping& mapping : mappings_) ::munmap(mapping.host, mapping.range.bytes);
}

std::byte* GuestMemory::UnsafeHost(Gpa guest_gpa, uint64_t bytes) const noexcept {
  for (const Mapping& mapping : mappings_) {
    // Unsigned distance: an address below the range gives a huge one.
    const uint64_t offset = guest_gpa.raw() - mapping.range.start.raw();
    if (offset < mapping.range.bytes && bytes <= mapping.range.bytes - offset) return mapping.host + offset;
  }
  return nullptr;
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
