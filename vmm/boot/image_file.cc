#include "vmm/boot/image_file.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "base/errno_status.h"

namespace vmm {

absl::StatusOr<ImageFile> ImageFile::Open(int fd, absl::string_view role, absl::string_view name) {
  std::string prefix = absl::StrCat("load ", role, " '", name, "'");
  struct stat info;
  if (::fstat(fd, &info) != 0) return ErrnoStatus(errno, prefix);
  if (!S_ISREG(info.st_mode)) return absl::InvalidArgumentError(absl::StrCat(prefix, ": not a regular file"));
  return ImageFile(fd, static_cast<uint64_t>(info.st_size), std::move(prefix));
}

absl::Status ImageFile::Refuse(absl::string_view why) const {
  return absl::InvalidArgumentError(absl::StrCat(prefix_, ": ", why));
}

absl::Status ImageFile::RefuseSize(absl::string_view why) const {
  return absl::ResourceExhaustedError(absl::StrCat(prefix_, ": ", why));
}

absl::Status ImageFile::Read(uint64_t offset, std::span<std::byte> out, absl::string_view what) const {
  if (!Holds(offset, out.size())) {
    return Refuse(absl::StrCat(what, " is ", out.size(), " bytes at offset ", offset, ", the file has ", bytes_, " bytes"));
  }
  size_t done = 0;
  while (done < out.size()) {
    // One call moves 2 GiB at most, whatever it is asked for.
    const ssize_t got = ::pread(fd_, out.data() + done, std::min<size_t>(out.size() - done, size_t{1} << 30),
                                static_cast<off_t>(offset + done));
    const int error = errno;
    if (got < 0 && error == EINTR) continue;
    if (got < 0) return ErrnoStatus(error, absl::StrCat(prefix_, ": read ", what));
    if (got == 0) {
      return Refuse(absl::StrCat(what, " is ", out.size(), " bytes at offset ", offset, ", the file was cut to ",
                                 offset + done, " bytes meanwhile"));
    }
    done += static_cast<size_t>(got);
  }
  return absl::OkStatus();
}

absl::Status ImageFile::ReadIntoGuest(uint64_t offset, const GuestMemory& memory, Gpa gpa, uint64_t bytes,
                                      absl::string_view what) const {
  std::byte* const host = memory.UnsafeHost(gpa, bytes);
  if (host == nullptr) {
    return RefuseSize(absl::StrCat(what, " needs ", bytes, " bytes at 0x", absl::Hex(gpa.raw()), ", which are not all RAM"));
  }
  // One call for all pages in place of a fault for each. Where the kernel does not know it (before 5.14), they fault.
  const uintptr_t first = reinterpret_cast<uintptr_t>(host) & ~(kPageBytes - 1);
  ::madvise(reinterpret_cast<void*>(first), reinterpret_cast<uintptr_t>(host) + bytes - first, MADV_POPULATE_WRITE);
  return Read(offset, {host, bytes}, what);
}

}  // namespace vmm
