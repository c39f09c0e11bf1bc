#include "memory/guest_ram.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "base/errno_status.h"

#ifndef MFD_HUGE_2MB
#define MFD_HUGE_2MB (21U << 26)
#define MFD_HUGE_1GB (30U << 26)
#endif

namespace vmm {

absl::StatusOr<std::unique_ptr<GuestRam>> GuestRam::Create(const GuestRamOptions& options) {
  // fallocate on a memfd takes pages until the host has none left and kills something: ask before.
  const uint64_t host_bytes =
      static_cast<uint64_t>(::sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  if ((options.prefault || options.lock) && options.bytes >= host_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat("back guest RAM with ", options.bytes,
                                                     " bytes of memory: the host has ", host_bytes, " in all"));
  }
  unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  if (options.huge_pages == HugePages::k2MiB) flags |= MFD_HUGETLB | MFD_HUGE_2MB;
  if (options.huge_pages == HugePages::k1GiB) flags |= MFD_HUGETLB | MFD_HUGE_1GB;
  const int raw = ::memfd_create("guest-ram", flags);
  if (raw < 0) return ErrnoStatus(errno, "create guest RAM file");
  OwnedFd fd(raw);
  if (::ftruncate(fd.get(), static_cast<off_t>(options.bytes)) != 0) {
    return ErrnoStatus(errno, absl::StrCat("size guest RAM to ", options.bytes, " bytes"));
  }
  // Huge pages are reserved when mapped, and a missing one is a SIGBUS later: take them now or refuse.
  if (options.prefault || options.lock || (flags & MFD_HUGETLB) != 0) {
    if (::fallocate(fd.get(), 0, 0, static_cast<off_t>(options.bytes)) != 0) {
      const int error = errno;
      return absl::ResourceExhaustedError(
          ErrnoStatus(error, absl::StrCat("back guest RAM with ", options.bytes, " bytes of memory")).message());
    }
  }
  if (::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return ErrnoStatus(errno, "seal guest RAM file");
  }
  return std::unique_ptr<GuestRam>(new GuestRam(std::move(fd), options));
}

}  // namespace vmm
