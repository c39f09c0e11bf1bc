#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <utility>

#include "absl/status/status.h"
#include "base/errno_status.h"
#include "devices/virtio/block/disk.h"

namespace vmm {
namespace {

constexpr unsigned kMaxBlockBytes = 1 << 20;

class RawDisk final : public Disk {
 public:
  RawDisk(OwnedFd fd, uint64_t bytes, uint32_t block_bytes, bool is_device, bool in_memory)
      : fd_(std::move(fd)), bytes_(bytes), block_bytes_(block_bytes), is_device_(is_device), in_memory_(in_memory) {}

  uint64_t bytes() const noexcept override { return bytes_; }
  uint32_t block_bytes() const noexcept override { return block_bytes_; }
  bool in_memory() const noexcept override { return in_memory_; }

  bool Read(uint64_t offset, std::span<iovec> vectors) noexcept override {
    return Transfer(offset, vectors, [this](const iovec* first, int count, off_t at) { return ::preadv(fd_.get(), first, count, at); });
  }
  bool ReadNow(uint64_t offset, std::span<iovec> vectors) noexcept override {
    if (in_memory_) return Read(offset, vectors);
    if (vectors.size() > IOV_MAX) return false;
    size_t bytes = 0;
    for (const iovec& vector : vectors) bytes += vector.iov_len;
    // An error is for Read to find again.
    return ::preadv2(fd_.get(), vectors.data(), static_cast<int>(vectors.size()), static_cast<off_t>(offset), RWF_NOWAIT) ==
           static_cast<ssize_t>(bytes);
  }
  bool Write(uint64_t offset, std::span<iovec> vectors) noexcept override {
    return Transfer(offset, vectors, [this](const iovec* first, int count, off_t at) { return ::pwritev(fd_.get(), first, count, at); });
  }

  // The size of the file never changes, so its data is all there is to be made durable; a block device's cache is flushed by it too.
  bool Flush() noexcept override { return ::fdatasync(fd_.get()) == 0; }

  bool Discard(uint64_t offset, uint64_t bytes) noexcept override {
    if (is_device_) {
      uint64_t range[] = {offset, bytes};
      return ::ioctl(fd_.get(), BLKDISCARD, range) == 0 || NotSupported();
    }
    return ::fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset), static_cast<off_t>(bytes)) == 0 ||
           NotSupported();
  }

  bool WriteZeroes(uint64_t offset, uint64_t bytes, bool may_unmap) noexcept override {
    if (is_device_) {
      uint64_t range[] = {offset, bytes};
      return ::ioctl(fd_.get(), BLKZEROOUT, range) == 0 || (NotSupported() && WriteThem(offset, bytes));
    }
    const int mode = FALLOC_FL_KEEP_SIZE | (may_unmap ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE);
    return ::fallocate(fd_.get(), mode, static_cast<off_t>(offset), static_cast<off_t>(bytes)) == 0 ||
           (NotSupported() && WriteThem(offset, bytes));
  }

 private:
  static bool NotSupported() noexcept { return errno == EOPNOTSUPP || errno == ENOTTY || errno == EINVAL; }

  bool WriteThem(uint64_t offset, uint64_t bytes) noexcept {
    static const std::array<std::byte, 65536> kZeroes{};
    while (bytes != 0) {
      const size_t part = std::min<uint64_t>(bytes, kZeroes.size());
      const ssize_t done = ::pwrite(fd_.get(), kZeroes.data(), part, static_cast<off_t>(offset));
      if (done < 0 && errno == EINTR) continue;
      if (done <= 0) return false;
      offset += static_cast<uint64_t>(done);
      bytes -= static_cast<uint64_t>(done);
    }
    return true;
  }

  // All of it, however the kernel cuts it.
  template <typename Call>
  bool Transfer(uint64_t offset, std::span<iovec> vectors, const Call& call) noexcept {
    while (!vectors.empty()) {
      const ssize_t done = call(vectors.data(), static_cast<int>(std::min<size_t>(vectors.size(), IOV_MAX)), static_cast<off_t>(offset));
      if (done < 0 && errno == EINTR) continue;
      // 0: a file that somebody has cut since.
      if (done <= 0) return false;
      offset += static_cast<uint64_t>(done);
      size_t left = static_cast<size_t>(done);
      while (!vectors.empty() && left >= vectors.front().iov_len) {
        left -= vectors.front().iov_len;
        vectors = vectors.subspan(1);
      }
      if (left != 0) {
        vectors.front().iov_base = static_cast<std::byte*>(vectors.front().iov_base) + left;
        vectors.front().iov_len -= left;
      }
    }
    return true;
  }

  const OwnedFd fd_;
  const uint64_t bytes_;
  const uint32_t block_bytes_;
  const bool is_device_;
  const bool in_memory_;  // where a read never waits; such file systems do not know of RWF_NOWAIT
};

}  // namespace

absl::StatusOr<std::unique_ptr<Disk>> OpenRawDisk(OwnedFd fd) {
  struct stat about {};
  if (::fstat(fd.get(), &about) != 0) return ErrnoStatus(errno, "examine disk image");
  uint64_t bytes = 0;
  // The page cache's, or a device's own where that is larger.
  unsigned block_bytes = 4096;
  if (S_ISBLK(about.st_mode)) {
    if (::ioctl(fd.get(), BLKGETSIZE64, &bytes) != 0) return ErrnoStatus(errno, "get the size of the block device");
    unsigned physical = 0;
    if (::ioctl(fd.get(), BLKPBSZGET, &physical) == 0 && std::has_single_bit(physical) && physical <= kMaxBlockBytes) {
      block_bytes = std::max(block_bytes, physical);
    }
  } else if (S_ISREG(about.st_mode)) {
    bytes = static_cast<uint64_t>(about.st_size);
  } else {
    return absl::InvalidArgumentError("open disk image: it is neither a file nor a block device");
  }
  struct statfs system {};
  if (::fstatfs(fd.get(), &system) != 0) return ErrnoStatus(errno, "examine the file system of the disk image");
  const bool in_memory = S_ISREG(about.st_mode) && (system.f_type == TMPFS_MAGIC || system.f_type == RAMFS_MAGIC || system.f_type == HUGETLBFS_MAGIC);
  return std::make_unique<RawDisk>(std::move(fd), bytes, block_bytes, S_ISBLK(about.st_mode), in_memory);
}

}  // namespace vmm
