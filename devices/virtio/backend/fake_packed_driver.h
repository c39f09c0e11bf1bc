// The driver's side of one packed virtqueue: FakeGuestDriver's twin, for what must hold for both forms. Testonly.
#ifndef VMM_DEVICES_VIRTIO_BACKEND_FAKE_PACKED_DRIVER_H_
#define VMM_DEVICES_VIRTIO_BACKEND_FAKE_PACKED_DRIVER_H_

#include <atomic>
#include <cstdint>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "devices/virtio/backend/backend_memory.h"
#include "devices/virtio/backend/backend_queue.h"
#include "devices/virtio/backend/fake_guest_driver.h"
#include "devices/virtio/virtio_layout.h"
#include "memory/gpa.h"

namespace vmm {

class FakePackedDriver final {
 public:
  using Segment = FakeGuestDriver::Segment;

  // The ring and the two words of event suppression lie from `at` on, a page each.
  FakePackedDriver(FakeGuestRam& ram, uint16_t size, Gpa at = FakeGuestRam::kBase) : ram_(&ram), size_(size), at_(at), entries_(size, 0) {
    for (uint16_t id = size; id-- != 0;) free_.push_back(id);
  }
  // The same driver over a copy of its memory.
  FakePackedDriver(const FakePackedDriver& other, FakeGuestRam& ram) : FakePackedDriver(other) { ram_ = &ram; }

  [[nodiscard]] Gpa descriptors() const { return at_; }
  [[nodiscard]] Gpa available() const { return at_ + 0x1000; }
  [[nodiscard]] Gpa used() const { return at_ + 0x2000; }
  [[nodiscard]] Gpa data() const { return at_ + 0x3000; }
  [[nodiscard]] uint16_t size() const { return size_; }
  [[nodiscard]] BackendQueue::Rings Rings(const BackendMemory& memory) const {
    return {memory.Find(descriptors(), virtio::DescriptorBytes(size_)), memory.Find(available(), 4), memory.Find(used(), 4), size_};
  }
  // What a device starts with that has seen nothing of this ring.
  static constexpr uint32_t kFirstBase = 1u << 31 | 1u << 15;

  virtio::PackedDescriptor& descriptor(uint16_t index) const { return ram_->Word<virtio::PackedDescriptor>(at_ + 16 * uint64_t{index}); }
  // Offset and wrap below, kind above.
  [[nodiscard]] uint32_t& driver_event() const { return ram_->Word<uint32_t>(available()); }
  [[nodiscard]] uint32_t& device_event() const { return ram_->Word<uint32_t>(used()); }
  [[nodiscard]] uint16_t next() const { return next_; }
  [[nodiscard]] bool wrap() const { return wrap_; }

  // A chain; no more in flight than fit. Its id.
  uint16_t Offer(const std::vector<Segment>& segments) {
    std::vector<virtio::PackedDescriptor> chain;
    for (const Segment& segment : segments) {
      chain.push_back({segment.gpa.raw(), segment.bytes, 0, static_cast<uint16_t>(segment.writable ? virtio::kDescriptorWrite : 0)});
    }
    return Make(chain);
  }
  // Their place in the ring is not the driver's to choose.
  uint16_t OfferAt(uint16_t /*head*/, const std::vector<Segment>& segments) { return Offer(segments); }
  uint16_t OfferIndirect(Gpa table, const std::vector<virtio::PackedDescriptor>& entries) {
    std::memcpy(ram_->At(table), entries.data(), entries.size() * sizeof(virtio::PackedDescriptor));
    return Make({{table.raw(), static_cast<uint32_t>(entries.size() * 16), 0, virtio::kDescriptorIndirect}});
  }
  // Links the descriptors, whatever else they say, and makes them available.
  uint16_t Make(std::vector<virtio::PackedDescriptor> chain) {
    const uint16_t id = free_.back();
    free_.pop_back();
    entries_[id] = static_cast<uint16_t>(chain.size());
    const uint16_t head = next_;
    uint16_t head_flags = 0;
    for (size_t i = 0; i < chain.size(); ++i) {
      virtio::PackedDescriptor& entry = chain[i];
      entry.id = id;
      if (i + 1 != chain.size()) entry.flags |= virtio::kDescriptorNext;
      entry.flags |= wrap_ ? virtio::kPackedAvail : virtio::kPackedUsed;
      // The first one's flags come last.
      if (i == 0) {
        head_flags = entry.flags;
        entry.flags = descriptor(head).flags;
      }
      descriptor(next_) = entry;
      if (++next_ == size_) {
        next_ = 0;
        wrap_ = !wrap_;
      }
    }
    std::atomic_ref(descriptor(head).flags).store(head_flags, std::memory_order_seq_cst);
    return id;
  }
  // The next one that the device has given back: its id, which must be one that is in flight, and its bytes.
  std::optional<virtio::UsedElement> Take() {
    const uint16_t flags = std::atomic_ref(descriptor(taken_).flags).load(std::memory_order_seq_cst);
    if (((flags & virtio::kPackedAvail) != 0) != taken_wrap_ || ((flags & virtio::kPackedUsed) != 0) != taken_wrap_) return std::nullopt;
    const virtio::UsedElement used{descriptor(taken_).id, descriptor(taken_).bytes};
    const uint16_t count = used.id < size_ ? std::exchange(entries_[used.id], uint16_t{0}) : uint16_t{0};
    if (count == 0) return virtio::UsedElement{0xffff'ffff, 0};
    free_.push_back(static_cast<uint16_t>(used.id));
    taken_ = static_cast<uint16_t>(taken_ + count);
    if (taken_ >= size_) {
      taken_ = static_cast<uint16_t>(taken_ - size_);
      taken_wrap_ = !taken_wrap_;
    }
    return used;
  }

 private:
  FakePackedDriver(const FakePackedDriver&) = default;
  FakeGuestRam* ram_;
  const uint16_t size_;
  const Gpa at_;
  uint16_t next_ = 0, taken_ = 0;
  bool wrap_ = true, taken_wrap_ = true;
  std::vector<uint16_t> entries_;  // by id
  std::vector<uint16_t> free_;
};

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_BACKEND_FAKE_PACKED_DRIVER_H_
