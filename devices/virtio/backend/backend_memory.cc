#include "devices/virtio/backend/backend_memory.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/errno_status.h"
#include "base/status_macros.h"

namespace vmm {
namespace {

namespace vu = vhost_user;

constexpr uint32_t kMaxUses = 256;

bool Wraps(uint64_t start, uint64_t bytes) { return bytes > std::numeric_limits<uint64_t>::max() - start; }

// Whether [a, a + a_bytes) and [b, b + b_bytes), which do not wrap, have a byte in common.
bool Overlap(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes) { return a < b + b_bytes && b < a + a_bytes; }

}  // namespace

BackendMemory::~BackendMemory() { Clear(); }

void BackendMemory::Clear() noexcept {
  for (const Region& region : regions_) ::munmap(region.mapping, region.mapping_bytes);
  regions_.clear();
}

absl::Status BackendMemory::Add(const vu::MemoryRegion& region, int fd) {
  for (Region& other : regions_) {
    if (std::memcmp(&other.region, &region, sizeof(region)) != 0 || other.uses == kMaxUses) continue;
    ++other.uses;
    return absl::OkStatus();
  }
  if (regions_.size() == kMaxRegions) return absl::InvalidArgumentError("map guest memory: more regions than there are slots");
  if (region.bytes == 0 || Wraps(region.gpa, region.bytes) || Wraps(region.user_address, region.bytes) ||
      Wraps(region.fd_offset, region.bytes)) {
    return absl::InvalidArgumentError(absl::StrCat("map guest memory: ", region.bytes, " bytes at 0x", absl::Hex(region.gpa), " are no region"));
  }
  for (const Region& other : regions_) {
    if (Overlap(other.region.gpa, other.region.bytes, region.gpa, region.bytes)) {
      return absl::InvalidArgumentError(absl::StrCat("map guest memory: the region at 0x", absl::Hex(region.gpa), " overlaps another"));
    }
  }
  struct stat about {};
  if (::fstat(fd, &about) != 0) return ErrnoStatus(errno, "examine the file of guest memory");
  if (S_ISREG(about.st_mode) && region.fd_offset + region.bytes > static_cast<uint64_t>(about.st_size)) {
    return absl::InvalidArgumentError(absl::StrCat("map guest memory: the file of ", about.st_size, " bytes is shorter than the region"));
  }
  const uint64_t skipped = region.fd_offset % kPageBytes;
  const uint64_t mapping_bytes = region.bytes + skipped;
  void* const mapping = ::mmap(nullptr, mapping_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd,
                               static_cast<off_t>(region.fd_offset - skipped));
  if (mapping == MAP_FAILED) return ErrnoStatus(errno, absl::StrCat("map ", region.bytes, " bytes of guest memory"));
  auto* const bytes = static_cast<std::byte*>(mapping);
  regions_.push_back({region, bytes, mapping_bytes, bytes + skipped, 1});
  return absl::OkStatus();
}

absl::Status BackendMemory::Replace(std::span<const vu::MemoryRegion> regions, std::span<const OwnedFd> fds) {
  Clear();
  for (size_t i = 0; i < regions.size(); ++i) RETURN_IF_ERROR(Add(regions[i], fds[i].get()));
  return absl::OkStatus();
}

absl::Status BackendMemory::Remove(const vu::MemoryRegion& region) {
  for (size_t i = 0; i < regions_.size(); ++i) {
    const vu::MemoryRegion& ours = regions_[i].region;
    if (ours.gpa != region.gpa || ours.bytes != region.bytes || ours.user_address != region.user_address) continue;
    if (--regions_[i].uses != 0) return absl::OkStatus();
    ::munmap(regions_[i].mapping, regions_[i].mapping_bytes);
    regions_.erase(regions_.begin() + static_cast<ptrdiff_t>(i));
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("unmap guest memory: there is no region at 0x", absl::Hex(region.gpa)));
}

std::byte* BackendMemory::Find(Gpa gpa, uint64_t bytes) const noexcept {
  for (const Region& region : regions_) {
    const uint64_t at = gpa.raw() - region.region.gpa;  // wraps to something large below the region
    if (at < region.region.bytes && bytes <= region.region.bytes - at) return region.start + at;
  }
  return nullptr;
}

std::byte* BackendMemory::FindUser(uint64_t user_address, uint64_t bytes) const noexcept {
  for (const Region& region : regions_) {
    const uint64_t at = user_address - region.region.user_address;
    if (at < region.region.bytes && bytes <= region.region.bytes - at) return region.start + at;
  }
  return nullptr;
}

}  // namespace vmm
