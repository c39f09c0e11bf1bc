#include "memory/guest_ram.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "base/errno_status.h"
#include "base/status_macros.h"
#include "memory/gpa.h"

#ifndef MFD_HUGE_2MB
#define MFD_HUGE_2MB (21U << 26)
#define MFD_HUGE_1GB (30U << 26)
#endif

namespace vmm {
namespace {

absl::StatusOr<OwnedFd> MakeFile(const char* name, uint64_t bytes, const GuestRamOptions& options) {
  unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  if (options.huge_pages == HugePages::k2MiB) flags |= MFD_HUGETLB | MFD_HUGE_2MB;
  if (options.huge_pages == HugePages::k1GiB) flags |= MFD_HUGETLB | MFD_HUGE_1GB;
  OwnedFd fd(::memfd_create(name, flags));
  if (!fd.valid()) return ErrnoStatus(errno, "create guest RAM file");
  if (::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) {
    return ErrnoStatus(errno, absl::StrCat("size guest RAM to ", bytes, " bytes"));
  }
  // Huge pages are reserved when mapped, and a missing one is a SIGBUS later: take them now or refuse.
  if (options.prefault || options.lock || (flags & MFD_HUGETLB) != 0) {
    if (::fallocate(fd.get(), 0, 0, static_cast<off_t>(bytes)) != 0) {
      const int error = errno;
      return absl::ResourceExhaustedError(
          ErrnoStatus(error, absl::StrCat("back guest RAM with ", bytes, " bytes of memory")).message());
    }
  }
  if (::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return ErrnoStatus(errno, "seal guest RAM file");
  }
  return fd;
}

absl::Status CheckReserved(const GuestRamOptions& options) {
  const uint64_t page_bytes = RamPageBytes(options);
  uint64_t free_from = 0;
  for (const RamPart& part : options.reserved) {
    const bool whole = part.bytes != 0 && part.ram_offset % page_bytes == 0 && part.bytes % page_bytes == 0;
    if (!whole || part.ram_offset < free_from || part.ram_offset > options.bytes || part.bytes > options.bytes - part.ram_offset) {
      return absl::InvalidArgumentError(absl::StrCat("reserve ", part.bytes, " bytes of guest RAM at ", part.ram_offset,
                                                     ": not ascending, apart, whole pages of RAM"));
    }
    free_from = part.ram_offset + part.bytes;
  }
  return absl::OkStatus();
}

}  // namespace

uint64_t RamPageBytes(const GuestRamOptions& options) noexcept {
  constexpr uint64_t kMebibyte = 1024 * 1024;
  switch (options.huge_pages) {
    case HugePages::kNone:
    case HugePages::kTransparent:
      break;
    case HugePages::k2MiB:
      return 2 * kMebibyte;
    case HugePages::k1GiB:
      return 1024 * kMebibyte;
  }
  return kPageBytes;
}

RamFiles::RamFiles(std::vector<OwnedFd> files, std::vector<RamPiece> pieces, int withdrawn_fd)
    : files_(std::move(files)),
      pieces_(std::move(pieces)),
      withdrawn_fd_(withdrawn_fd),
      withdrawn_(withdrawn_fd < 0 ? 0 : bytes() / kPageBytes) {}

RamFiles::Place RamFiles::PlaceOf(uint64_t ram_offset, uint64_t bytes) const noexcept {
  const RamPiece& piece = At(ram_offset);
  const uint64_t distance = ram_offset - piece.part.ram_offset;
  bytes = std::min(bytes, piece.part.bytes - distance);
  const bool withdrawn = IsWithdrawn(ram_offset);
  uint64_t same = std::min(bytes, kPageBytes - ram_offset % kPageBytes);
  if (withdrawn_fd_ < 0) same = bytes;
  while (same < bytes && IsWithdrawn(ram_offset + same) == withdrawn) same += std::min(bytes - same, kPageBytes);
  return {withdrawn ? withdrawn_fd_ : piece.fd, piece.fd_offset + distance, same};
}

const RamPiece& RamFiles::At(uint64_t ram_offset) const noexcept {
  const auto after = std::upper_bound(pieces_.begin(), pieces_.end(), ram_offset,
                                      [](uint64_t offset, const RamPiece& piece) { return offset < piece.part.ram_offset; });
  return *(after - 1);
}

std::vector<RamPiece> RamFiles::Cut(const RamPart& part) const {
  std::vector<RamPiece> cut;
  for (const RamPiece& piece : pieces_) {
    const uint64_t start = std::max(piece.part.ram_offset, part.ram_offset);
    const uint64_t end = std::min(piece.part.ram_offset + piece.part.bytes, part.ram_offset + part.bytes);
    if (start >= end) continue;
    cut.push_back({{start, end - start}, piece.fd, piece.fd_offset + (start - piece.part.ram_offset), piece.reserved});
  }
  return cut;
}

int GuestRam::fd() const noexcept {
  const std::vector<RamPiece>& pieces = files_->pieces();
  return std::find_if(pieces.begin(), pieces.end(), [](const RamPiece& piece) { return !piece.reserved; })->fd;
}

absl::StatusOr<std::unique_ptr<GuestRam>> GuestRam::Create(const GuestRamOptions& options) {
  // fallocate on a memfd takes pages until the host has none left and kills something: ask before.
  const uint64_t host_bytes =
      static_cast<uint64_t>(::sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  if ((options.prefault || options.lock) && options.bytes >= host_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat("back guest RAM with ", options.bytes,
                                                     " bytes of memory: the host has ", host_bytes, " in all"));
  }
  RETURN_IF_ERROR(CheckReserved(options));
  if (options.withdrawable && RamPageBytes(options) != kPageBytes) {
    return absl::InvalidArgumentError("make guest RAM whose pages can be withdrawn: it is of reserved huge pages, of which no part can be");
  }
  uint64_t reserved_bytes = 0;
  for (const RamPart& part : options.reserved) reserved_bytes += part.bytes;
  // By RamPiece::reserved. There is always some RAM for devices to work on.
  if (reserved_bytes == options.bytes) return absl::InvalidArgumentError("reserve guest RAM: all of it");
  std::vector<OwnedFd> files(1);
  ASSIGN_OR_RETURN(files[0], MakeFile("guest-ram", options.bytes - reserved_bytes, options));
  if (reserved_bytes != 0) {
    files.emplace_back();
    ASSIGN_OR_RETURN(files[1], MakeFile("guest-ram-reserved", reserved_bytes, options));
  }
  int withdrawn_fd = -1;
  if (options.withdrawable) {
    GuestRamOptions empty = options;
    empty.prefault = empty.lock = false;
    ASSIGN_OR_RETURN(OwnedFd file, MakeFile("guest-ram-withdrawn", options.bytes - reserved_bytes, empty));
    withdrawn_fd = file.get();
    files.push_back(std::move(file));
  }
  std::vector<RamPiece> pieces;
  uint64_t at = 0;
  uint64_t used[2] = {0, 0};
  const auto add = [&](uint64_t end, bool reserved) {
    if (end == at) return;
    pieces.push_back({{at, end - at}, files[reserved].get(), used[reserved], reserved});
    used[reserved] += end - at;
    at = end;
  };
  for (const RamPart& part : options.reserved) {
    add(part.ram_offset, false);
    add(part.ram_offset + part.bytes, true);
  }
  add(options.bytes, false);
  return std::unique_ptr<GuestRam>(new GuestRam(std::make_shared<RamFiles>(std::move(files), std::move(pieces), withdrawn_fd), options));
}

}  // namespace vmm
