#include "memory/ram_mapping.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <fstream>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "base/errno_status.h"

namespace vmm {
namespace {

constexpr uint64_t kTransparentHugeBytes = 2 * kMiB;

// Maps at an address aligned to huge pages: reserved ones demand it, transparent ones (ours and KVM's) are of use only so.
absl::StatusOr<std::byte*> MapAligned(const std::vector<RamPiece>& pieces, uint64_t bytes, uint64_t alignment, bool populate) {
  const uint64_t reserve_bytes = bytes + alignment;
  void* const reserve = ::mmap(nullptr, reserve_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserve == MAP_FAILED) return ErrnoStatus(errno, absl::StrCat("reserve ", bytes, " bytes of address space for guest RAM"));
  const auto start = reinterpret_cast<uintptr_t>(reserve);
  const uintptr_t aligned = (start + alignment - 1) / alignment * alignment;
  int error = 0;
  for (const RamPiece& piece : pieces) {
    const uintptr_t at = aligned + (piece.part.ram_offset - pieces.front().part.ram_offset);
    if (::mmap(reinterpret_cast<void*>(at), piece.part.bytes, PROT_READ | PROT_WRITE,
               MAP_SHARED | MAP_FIXED | MAP_NORESERVE | (populate ? MAP_POPULATE : 0), piece.fd,
               static_cast<off_t>(piece.fd_offset)) == MAP_FAILED) {
      error = errno;
      break;
    }
  }
  if (error != 0) {
    ::munmap(reserve, reserve_bytes);
    return ErrnoStatus(error, absl::StrCat("map ", bytes, " bytes of guest RAM"));
  }
  // What is left of the reservation on either side goes.
  if (aligned != start) ::munmap(reserve, aligned - start);
  const uintptr_t end = aligned + bytes;
  if (start + reserve_bytes != end) ::munmap(reinterpret_cast<void*>(end), start + reserve_bytes - end);
  return reinterpret_cast<std::byte*>(aligned);
}

}  // namespace

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
    auto host = MapAligned(ram.files()->Cut({range.ram_offset, range.bytes}), range.bytes, alignment, guest && options.prefault);
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

bool MapRamAgain(const RamFiles& files, const GuestRamOptions& options, RamUse use, std::byte* host, uint64_t ram_offset, uint64_t bytes,
                 int protection) noexcept {
  for (uint64_t done = 0; done < bytes;) {
    const RamFiles::Place place = files.PlaceOf(ram_offset + done, bytes - done);
    if (::mmap(host + done, place.bytes, protection, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, place.fd,
               static_cast<off_t>(place.fd_offset)) == MAP_FAILED) {
      return false;
    }
    AdviseRam(host + done, place.bytes, options);
    // Within the limit: as many bytes were locked before, and the file's page is in memory.
    if (use == RamUse::kGuest && options.lock) ::mlock(host + done, place.bytes);
    done += place.bytes;
  }
  return true;
}

// The kernel's own default where it does not say.
uint64_t MappingsOfAProcess() {
  uint64_t count = 0;
  std::ifstream file("/proc/sys/vm/max_map_count");
  return file >> count ? count : 65'530;
}

std::vector<DeviceRam> RamForDevices(const RamFiles& files, const MemoryLayout& layout) {
  std::vector<DeviceRam> given;
  for (const RamRange& range : layout.ram()) {
    for (const RamPiece& piece : files.Cut({range.ram_offset, range.bytes})) {
      if (piece.reserved) continue;
      given.push_back({range.start + (piece.part.ram_offset - range.ram_offset), piece.part.bytes, piece.fd, piece.fd_offset});
    }
  }
  return given;
}

void UnmapRam(const std::vector<RamMapping>& mappings) noexcept {
  for (const RamMapping& mapping : mappings) ::munmap(mapping.host, mapping.range.bytes);
}

RamSpot SpotOf(const std::vector<RamMapping>& mappings, Gpa guest_gpa) noexcept {
  const auto mapping = std::find_if(mappings.begin(), mappings.end(), [&](const RamMapping& candidate) {
    return guest_gpa.raw() - candidate.range.start.raw() < candidate.range.bytes;
  });
  const uint64_t distance = guest_gpa - mapping->range.start;
  return {mapping->host + distance, mapping->range.ram_offset + distance};
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
