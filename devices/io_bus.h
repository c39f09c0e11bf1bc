// Finds the device behind a port or a memory address.
//
// Shapes   sorted, disjoint ranges; one bus for ports, one for memory.
// Threads  Add: before any VP runs. Read and Write: any thread, no lock (the map is immutable by then).
// Trust    addresses and sizes are the guest's. An access that leaves its device's range in the middle reaches nothing.
// Errors   Add: ALREADY_EXISTS for an overlap, INVALID_ARGUMENT for an empty or wrapping range.
#ifndef VMM_DEVICES_IO_BUS_H_
#define VMM_DEVICES_IO_BUS_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "devices/io_device.h"

namespace vmm {

class IoBus final {
 public:
  IoBus() = default;
  IoBus(const IoBus&) = delete;
  IoBus& operator=(const IoBus&) = delete;

  // `device` outlives the bus; `name` is for errors and statistics.
  absl::Status Add(uint64_t start, uint64_t bytes, absl::string_view name, IoDevice& device);

  // `data` becomes ones where nobody answers. False: nobody did.
  bool Read(uint64_t guest_address, std::span<std::byte> data) noexcept;
  bool Write(uint64_t guest_address, std::span<const std::byte> data) noexcept;

 private:
  struct Entry {
    uint64_t start;
    uint64_t bytes;
    IoDevice* device;
    absl::string_view name;
  };
  [[nodiscard]] const Entry* Find(uint64_t address, uint64_t bytes) const noexcept;
  std::vector<Entry> entries_;
};

}  // namespace vmm

#endif  // VMM_DEVICES_IO_BUS_H_
