// What a block device stands on: bytes that can be read, written, made durable, and given up.
//
// Units    bytes; whole sectors, inside the disk, as the caller has checked.
// Threads  any, at the same time; requests that are in flight together have no order.
// Errors   false: the host could not; the request is answered by an I/O error.
#ifndef VMM_DEVICES_VIRTIO_BLOCK_DISK_H_
#define VMM_DEVICES_VIRTIO_BLOCK_DISK_H_

#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/statusor.h"
#include "base/owned_fd.h"

namespace vmm {

class Disk {
 public:
  virtual ~Disk() = default;
  [[nodiscard]] virtual uint64_t bytes() const noexcept = 0;
  // What the host writes at once: a power of two from 512 on. Less costs it a read and a write.
  [[nodiscard]] virtual uint32_t block_bytes() const noexcept { return 512; }
  // Of memory: reads and writes never wait for a medium.
  [[nodiscard]] virtual bool in_memory() const noexcept { return false; }
  // May change `vectors`.
  [[nodiscard]] virtual bool Read(uint64_t offset, std::span<iovec> vectors) noexcept = 0;
  [[nodiscard]] virtual bool Write(uint64_t offset, std::span<iovec> vectors) noexcept = 0;
  // The same for what is there without waiting. False: it is not, or not all of it; `vectors` are as they were.
  [[nodiscard]] virtual bool ReadNow(uint64_t offset, std::span<iovec> vectors) noexcept { return Read(offset, vectors); }
  // All that was written before is on the medium when it returns.
  [[nodiscard]] virtual bool Flush() noexcept = 0;
  // What is read there afterwards is not told. Where the host cannot, nothing happens, and that is no error.
  [[nodiscard]] virtual bool Discard(uint64_t offset, uint64_t bytes) noexcept = 0;
  [[nodiscard]] virtual bool WriteZeroes(uint64_t offset, uint64_t bytes, bool may_unmap) noexcept = 0;
};

// A raw image: a regular file or a block device, whose size is taken now; what is left of a sector at its end is out of reach.
absl::StatusOr<std::unique_ptr<Disk>> OpenRawDisk(OwnedFd fd);

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_BLOCK_DISK_H_
