#include "memory/ram_mapping.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "base/errno_status.h"

namespace vmm {
namespace {

constexpr uint64_t kTransparentHugeBytes = 2 * kMiB;

// Maps at an address aligned to huge pages: reserved ones demand it, transparent ones (ours and KVM's) are of use only so.
absl::StatusOr<std::byte*> MapAligned(int fd, uint64_t bytes, uint64_t offset, uint64_t alignment, bool populate) {
  const uint64_t reserve_bytes = bytes + alignment;
  void* const reserve = ::mmap(nullptr, reserve_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserve == MAP_FAILED) return ErrnoStatus(errno, absl::StrCat("reserve ", bytes, " bytes of address space for guest RAM"));
  const auto start = reinterpret_cast<uintptr_t>(reserve);
  const uintptr_t aligned = (start + alignment - 1) / alignment * alignment;
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

uint64_t RamPageBytes(const GuestRamOptions& options) noexcept {
  switch (options.huge_pages) {
    case HugePages::kNone:
    case HugePages::kTransparent:
      break;
    case HugePages::k2MiB:
      return 2 * kMiB;
    case HugePages::k1GiB:
      return kGiB;
  }
  return kPageBytes;
}

void AdviseRam(std::byte* host, uint64_t bytes, const GuestRamOptions& options) noexcept {
  // The host's secrets and the guest's stay apart: no core dump and no same-page merging unless asked for.
  ::madvise(host, bytes, MADV_DONTDUMP);
  ::madvise(host, bytes, options.mergeable ? MADV_MERGEABLE : MADV_UNMERGEABLE);
  if (options.huge_pages == HugePages::kTransparent) ::madvise(host, bytes, MADV_HUGEPAGE);
}

absl::Status MapRam(const GuestRam& ram, const MemoryLayout& layout, RamUse use, std::vector<RamMapping>& out) {
  const GuestRamOptions& options = ram.options();
  const bool guest = use == RamUse::kGuest;
  const uint64_t alignment = std::max(kTransparentHugeBytes, RamPageBytes(options));
  for (const RamRange& range : layout.ram()) {
    auto host = MapAligned(ram.fd(), range.bytes, range.ram_offset, alignment, guest && options.prefault);
    if (!host.ok()) return host.status();
    out.push_back({range, *host});
    AdviseRam(*host, range.bytes, options);
    if (guest && options.lock && ::mlock(*host, range.bytes) != 0) {
      // EPERM, ENOMEM or EAGAIN, by how RLIMIT_MEMLOCK falls short: one thing to whoever reads it.
      const int error = errno;
      return absl::ResourceExhaustedError(
          ErrnoStatus(error, absl::StrCat("lock ", range.bytes, " bytes of guest RAM in memory (RLIMIT_MEMLOCK)")).message());
    }
  }
  return absl::OkStatus();
}

void UnmapRam(const std::vector<RamMapping>& mappings) noexcept {
  for (const RamMapping& mapping : mappings) ::munmap(mapping.host, mapping.range.bytes);
}

std::byte* FindInRam(const std::vector<RamMapping>& mappings, Gpa guest_gpa, uint64_t bytes) noexcept {
  for (const RamMapping& mapping : mappings) {
    // Unsigned distance: an address below the range gives a huge one.
    const uint64_t offset = guest_gpa.raw() - mapping.range.start.raw();
    if (offset < mapping.range.bytes && bytes <= mapping.range.bytes - offset) return mapping.host + offset;
  }
  return nullptr;
}

}  // namespace vmm
