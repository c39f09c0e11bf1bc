// A device that the guest reaches by port or memory access, trapped one access at a time.
//
// Shapes   `data` is 1, 2, 4 or 8 bytes for memory, 1, 2 or 4 for ports; little endian, as the guest's register holds it.
// Units    `offset` is from the start of the range that the device was added with.
// Threads  any VP thread, several at once: a device locks for itself, once per access.
// Trust    offset and data are the guest's; the bus guarantees offset + data.size() <= range size.
// Errors   none: a read that means nothing leaves all ones, a write that means nothing is dropped.
#ifndef VMM_DEVICES_IO_DEVICE_H_
#define VMM_DEVICES_IO_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <span>

namespace vmm {

class IoDevice {
 public:
  virtual ~IoDevice() = default;
  // `data` comes filled with ones.
  virtual void Read(uint64_t offset, std::span<std::byte> data) noexcept = 0;
  virtual void Write(uint64_t offset, std::span<const std::byte> data) noexcept = 0;
};

}  // namespace vmm

#endif  // VMM_DEVICES_IO_DEVICE_H_
