// Guest memory in a backend's process: what the front end said is there, mapped, and the only way to an address in it.
//
// Shapes   up to 32 regions; none overlap in guest physical space.
// Units    bytes.
// Threads  confined.
// Trust    the front end's table and every address are checked: no answer reaches outside of a mapping, whatever sums wrap to. A file
//          that is cut after it was mapped ends this process by SIGBUS when it is touched: whoever cut it loses the device.
// Errors   Replace, Add: INVALID_ARGUMENT for a table that makes no sense, errno's where it cannot be mapped; what was mapped before
//          Replace is gone then. Find: nullptr.
#ifndef VMM_DEVICES_VIRTIO_BACKEND_BACKEND_MEMORY_H_
#define VMM_DEVICES_VIRTIO_BACKEND_BACKEND_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "base/owned_fd.h"
#include "devices/virtio/vhost_user/vhost_user_layout.h"
#include "memory/gpa.h"

namespace vmm {

class BackendMemory final {
 public:
  static constexpr size_t kMaxRegions = 32;

  BackendMemory() = default;
  BackendMemory(const BackendMemory&) = delete;
  BackendMemory& operator=(const BackendMemory&) = delete;
  ~BackendMemory();

  // One descriptor a region; they may be closed afterwards.
  absl::Status Replace(std::span<const vhost_user::MemoryRegion> regions, std::span<const OwnedFd> fds);
  // One that is there already is there until it has been removed as often: older QEMUs name each region once for each queue pair.
  absl::Status Add(const vhost_user::MemoryRegion& region, int fd);
  absl::Status Remove(const vhost_user::MemoryRegion& region);

  // All of [gpa, gpa + bytes), where one region holds it.
  [[nodiscard]] std::byte* Find(Gpa gpa, uint64_t bytes) const noexcept;
  // The same by an address of the front end's, as rings are given.
  [[nodiscard]] std::byte* FindUser(uint64_t user_address, uint64_t bytes) const noexcept;

 private:
  struct Region {
    vhost_user::MemoryRegion region;
    std::byte* mapping;
    uint64_t mapping_bytes;
    std::byte* start;
    uint32_t uses;  // how often it was added
  };
  void Clear() noexcept;
  std::vector<Region> regions_;
};

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_BACKEND_BACKEND_MEMORY_H_
