// One virtqueue as a device has it: takes descriptor chains, gives them back, and tells the driver when it wants to be told.
//
// Shapes   split ring, indirect descriptors, event indices. A chain is checked spans of guest memory: what the driver wrote first, then
//          what the device may write.
// Threads  confined. The driver runs meanwhile, on other processors, in another process.
// Trust    every index, length, address and flag is the guest's: each is loaded once, checked, and the copy used. A chain has at most
//          kMaxSegments segments, whatever it links to; no descriptor is followed twice as often.
// Errors   Pop: kBroken once and from then on, until Start: the driver broke the rules, and fault() says how. Nothing is written to a
//          broken queue.
// Source   Virtual I/O Device (VIRTIO) Version 1.2, "Split Virtqueues".
//
// Chains may be pushed in any order, but a device that pushes in the order of Pop can be killed and started again without losing or
// repeating a completion: the next one begins at the used index.
#ifndef VMM_DEVICES_VIRTIO_BACKEND_BACKEND_QUEUE_H_
#define VMM_DEVICES_VIRTIO_BACKEND_BACKEND_QUEUE_H_

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/event_fd.h"
#include "devices/virtio/backend/backend_memory.h"
#include "devices/virtio/virtio_layout.h"
#include "memory/gpa.h"

namespace vmm {

// What Pop found. Reused from call to call: after the first few it allocates nothing.
struct QueueChain {
  uint16_t head = 0;
  std::vector<iovec> readable, writable;
  uint64_t readable_bytes = 0;
  uint64_t writable_bytes = 0;

  // Copies from the readable part, as far as it and `out` go, starting at `offset`. How much.
  size_t Read(uint64_t offset, std::span<std::byte> out) const noexcept;
  size_t Write(uint64_t offset, std::span<const std::byte> data) const noexcept;
};

class BackendQueue final {
 public:
  static constexpr size_t kMaxSegments = 1024;

  enum class PopResult : uint8_t { kChain, kEmpty, kBroken };
  enum class Fault : uint8_t {
    kNone,
    kAvailableIndex,  // more available than the queue has entries
    kHead,            // a chain that starts outside of the table
    kNext,            // a link to outside of the table
    kTooLong,         // more segments than kMaxSegments, or more than the table has
    kAddress,         // memory that this device was not given
    kIndirect,        // a table of descriptors that is empty, no whole number of them, or inside another
    kOrder,           // a readable segment behind a writable one
    kBytes,           // 4 GiB or more
  };

  BackendQueue() = default;
  BackendQueue(const BackendQueue&) = delete;
  BackendQueue& operator=(const BackendQueue&) = delete;

  struct Rings {
    std::byte* descriptors = nullptr;  // each aligned and as large as `size` needs, for as long as the queue runs
    std::byte* available = nullptr;
    std::byte* used = nullptr;
    uint16_t size = 0;
  };
  // `base`: the next entry of the available ring to take. `memory` and `call` outlive the queue's running.
  void Start(const Rings& rings, uint16_t base, uint64_t features, const BackendMemory& memory, EventFd* call) noexcept;
  // The base to start again from.
  uint16_t Stop() noexcept;
  [[nodiscard]] bool running() const noexcept { return rings_.size != 0; }
  [[nodiscard]] uint16_t size() const noexcept { return rings_.size; }

  [[nodiscard]] PopResult Pop(QueueChain& chain) noexcept;
  // Undoes the last Pop, whose chain has not been pushed; again: the one before.
  void Unpop() noexcept { --next_available_; }
  // `written`: bytes of the writable part, from its start, that now hold something.
  void Push(const QueueChain& chain, uint32_t written) noexcept;
  // The same for several, at most as many as the queue has entries: the driver sees all of them or none, as does who starts after a kill.
  struct Used {
    const QueueChain* chain;
    uint32_t written;
  };
  void PushTogether(std::span<const Used> used) noexcept;
  // Interrupts the driver if it wants to know of what was pushed since the last call.
  void Notify() noexcept;

  // All of [gpa, gpa + bytes), for an address that stands inside a request; nullptr: not memory of this device.
  [[nodiscard]] std::byte* Find(Gpa gpa, uint64_t bytes) const noexcept { return memory_ != nullptr ? memory_->Find(gpa, bytes) : nullptr; }

  [[nodiscard]] Fault fault() const noexcept { return fault_; }

 private:
  struct Table {
    const std::byte* descriptors;
    uint32_t count;
  };
  PopResult Break(Fault fault) noexcept;
  [[nodiscard]] uint16_t LoadAvailableIndex() const noexcept;
  [[nodiscard]] static virtio::Descriptor LoadDescriptor(const Table& table, uint32_t index) noexcept;
  [[nodiscard]] Fault Walk(uint16_t head, QueueChain& chain) const noexcept;
  [[nodiscard]] Fault AddSegment(const virtio::Descriptor& descriptor, QueueChain& chain) const noexcept;

  Rings rings_;
  const BackendMemory* memory_ = nullptr;
  EventFd* call_ = nullptr;
  bool event_index_ = false;
  bool indirect_ = false;
  uint16_t next_available_ = 0;
  uint16_t next_used_ = 0;
  uint16_t notified_used_ = 0;
  Fault fault_ = Fault::kNone;
};

[[nodiscard]] const char* QueueFaultText(BackendQueue::Fault fault);

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_BACKEND_BACKEND_QUEUE_H_
