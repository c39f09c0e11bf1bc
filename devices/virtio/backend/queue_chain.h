// A chain of descriptors as a device gets it: checked spans of guest memory, what the driver wrote first, then what the device may write.
//
// Threads  confined. The driver goes on changing what the spans hold.
// Trust    descriptors are the guest's, already copied: a span is inside memory that this device was given, or there is a fault.
// Errors   QueueFault.
// Source   Virtual I/O Device (VIRTIO) Version 1.2, "Split Virtqueues", "Packed Virtqueues".
#ifndef VMM_DEVICES_VIRTIO_BACKEND_QUEUE_CHAIN_H_
#define VMM_DEVICES_VIRTIO_BACKEND_QUEUE_CHAIN_H_

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "devices/virtio/backend/backend_memory.h"

namespace vmm {

enum class QueueFault : uint8_t {
  kNone,
  kAvailableIndex,  // more available than the queue has entries, or a start outside of it
  kHead,            // a chain that starts outside of the table
  kNext,            // a link to outside of the table
  kTooLong,         // more segments than kMaxSegments, or more than the table has
  kAddress,         // memory that this device was not given
  kIndirect,        // a table of descriptors that is empty, no whole number of them, or inside another
  kOrder,           // a readable segment behind a writable one
  kBytes,           // 4 GiB or more
  kInflight,        // the front end's: an in-flight region that no back end can have written
};

// What Pop found. Reused from call to call: after the first few it allocates nothing.
struct QueueChain {
  static constexpr size_t kMaxSegments = 1024;

  uint16_t head = 0;    // by what the driver knows it: a split ring's first descriptor, a packed ring's buffer id
  uint16_t entries = 0;  // of a packed ring
  uint16_t record = 0;   // of a packed ring's in-flight region
  bool again = false;    // another process had taken it
  std::vector<iovec> readable, writable;
  uint64_t readable_bytes = 0;
  uint64_t writable_bytes = 0;

  // Copies from the readable part, as far as it and `out` go, starting at `offset`. How much.
  size_t Read(uint64_t offset, std::span<std::byte> out) const noexcept;
  size_t Write(uint64_t offset, std::span<const std::byte> data) const noexcept;

  void Clear() noexcept;
  [[nodiscard]] QueueFault Append(const BackendMemory& memory, uint64_t address, uint32_t bytes, bool is_writable) noexcept;
};

// A chain to be given back; `written`: bytes of the writable part, from its start, that now hold something.
struct UsedChain {
  const QueueChain* chain;
  uint32_t written;
};

// The table of an indirect descriptor: its start, or a fault; always a whole number of descriptors.
[[nodiscard]] QueueFault FindIndirectTable(const BackendMemory& memory, uint64_t address, uint32_t bytes, const std::byte*& table) noexcept;

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_BACKEND_QUEUE_CHAIN_H_
