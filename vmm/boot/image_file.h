// A file that is to be loaded into guest RAM: a name for the messages, and reads that say what was missing.
//
// Units    offsets and sizes in bytes.
// Threads  confined to the caller.
// Trust    the file is hostile, and may shrink or change between two reads: read a header once, check the copy, use the copy.
// Errors   "load kernel 'x': ...": INVALID_ARGUMENT for what the file says, errno's code for what the system says.
#ifndef VMM_VMM_BOOT_IMAGE_FILE_H_
#define VMM_VMM_BOOT_IMAGE_FILE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "memory/gpa.h"
#include "memory/guest_memory.h"

namespace vmm {

class ImageFile final {
 public:
  // `fd` is borrowed and must be a regular file. `role` is what messages call it: "kernel", "initramfs".
  static absl::StatusOr<ImageFile> Open(int fd, absl::string_view role, absl::string_view name);

  // As it was at Open.
  [[nodiscard]] uint64_t bytes() const { return bytes_; }
  [[nodiscard]] absl::Status Refuse(absl::string_view why) const;
  // Not the file's fault: it does not fit this machine. RESOURCE_EXHAUSTED.
  [[nodiscard]] absl::Status RefuseSize(absl::string_view why) const;

  // All of `out`, or an error that says which part of the file (`what`) was missing.
  [[nodiscard]] absl::Status Read(uint64_t offset, std::span<std::byte> out, absl::string_view what) const;
  // The same, straight into guest RAM: a kernel is never held in the monitor's own memory.
  [[nodiscard]] absl::Status ReadIntoGuest(uint64_t offset, const GuestMemory& memory, Gpa gpa, uint64_t bytes,
                                           absl::string_view what) const;
  // Whether [offset, offset + bytes) was in the file at Open, whatever the sum wraps to.
  [[nodiscard]] bool Holds(uint64_t offset, uint64_t bytes) const { return offset <= bytes_ && bytes <= bytes_ - offset; }

 private:
  ImageFile(int fd, uint64_t bytes, std::string prefix) : fd_(fd), bytes_(bytes), prefix_(std::move(prefix)) {}
  int fd_;
  uint64_t bytes_;
  std::string prefix_;
};

}  // namespace vmm

#endif  // VMM_VMM_BOOT_IMAGE_FILE_H_
