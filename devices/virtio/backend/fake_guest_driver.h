// The driver's side of one split virtqueue, in RAM of its own: offers chains, takes used ones, and can write any nonsense. Testonly:
// for whatever pops from a BackendQueue, alone (Rings) or behind a server (FakeGuestRam's descriptor in a memory table).
#ifndef VMM_DEVICES_VIRTIO_BACKEND_FAKE_GUEST_DRIVER_H_
#define VMM_DEVICES_VIRTIO_BACKEND_FAKE_GUEST_DRIVER_H_

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/owned_fd.h"
#include "devices/virtio/backend/backend_memory.h"
#include "devices/virtio/backend/backend_queue.h"
#include "devices/virtio/vhost_user/vhost_user_layout.h"
#include "devices/virtio/virtio_layout.h"
#include "memory/gpa.h"

namespace vmm {

// 1 MiB at kBase, in a memfd.
class FakeGuestRam final {
 public:
  static constexpr uint64_t kBytes = 1 << 20;
  static constexpr Gpa kBase{0x10'0000};
  // Front ends give rings by addresses of their own.
  static constexpr uint64_t kUserBase = 0x7f00'0000'0000;

  FakeGuestRam() : fd_(::memfd_create("fake-guest-ram", MFD_CLOEXEC)) {
    (void)!::ftruncate(fd_.get(), kBytes);
    host_ = static_cast<std::byte*>(::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0));
  }
  // Over a file that holds a guest's memory from address 0 on, borrowed; that memory reaches beyond kBase + kBytes.
  explicit FakeGuestRam(int guest_memory_fd)
      : host_(static_cast<std::byte*>(::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, guest_memory_fd, kBase.raw()))) {}
  FakeGuestRam(const FakeGuestRam&) = delete;
  FakeGuestRam& operator=(const FakeGuestRam&) = delete;
  ~FakeGuestRam() { ::munmap(host_, kBytes); }

  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] static vhost_user::MemoryRegion region() { return {kBase.raw(), kBytes, kUserBase, 0}; }
  [[nodiscard]] std::byte* At(Gpa gpa) const { return host_ + (gpa - kBase); }
  void Put(Gpa gpa, std::string_view text) const { std::memcpy(At(gpa), text.data(), text.size()); }
  [[nodiscard]] std::string Get(Gpa gpa, size_t bytes) const { return std::string(reinterpret_cast<const char*>(At(gpa)), bytes); }
  template <typename T>
  [[nodiscard]] T& Word(Gpa gpa) const {
    return *reinterpret_cast<T*>(At(gpa));
  }

 private:
  OwnedFd fd_;
  std::byte* host_ = nullptr;
};

class FakeGuestDriver final {
 public:
  struct Segment {
    Gpa gpa;
    uint32_t bytes;
    bool writable = false;
  };

  // The rings lie from `at` on, a page each.
  FakeGuestDriver(FakeGuestRam& ram, uint16_t size, Gpa at = FakeGuestRam::kBase) : ram_(ram), size_(size), at_(at) {}
  // The same driver over a copy of its memory.
  FakeGuestDriver(const FakeGuestDriver& other, FakeGuestRam& ram)
      : ram_(ram), size_(other.size_), at_(other.at_), next_(other.next_), taken_(other.taken_) {}

  [[nodiscard]] Gpa descriptors() const { return at_; }
  [[nodiscard]] Gpa available() const { return at_ + 0x1000; }
  [[nodiscard]] Gpa used() const { return at_ + 0x2000; }
  [[nodiscard]] uint16_t size() const { return size_; }
  // For data: nobody else's.
  [[nodiscard]] Gpa data() const { return at_ + 0x3000; }
  [[nodiscard]] BackendQueue::Rings Rings(const BackendMemory& memory) const {
    return {memory.Find(descriptors(), virtio::DescriptorBytes(size_)), memory.Find(available(), virtio::AvailBytes(size_)),
            memory.Find(used(), virtio::UsedBytes(size_)), size_};
  }

  virtio::Descriptor& descriptor(uint16_t index) { return ram_.Word<virtio::Descriptor>(descriptors() + 16 * uint64_t{index}); }
  uint16_t& available_index() { return ram_.Word<uint16_t>(available() + 2); }
  uint16_t& available_flags() { return ram_.Word<uint16_t>(available()); }
  uint16_t& available_entry(uint16_t slot) { return ram_.Word<uint16_t>(available() + 4 + 2 * uint64_t{slot}); }
  uint16_t& used_event() { return ram_.Word<uint16_t>(available() + 4 + 2 * uint64_t{size_}); }
  uint16_t& used_index() { return ram_.Word<uint16_t>(used() + 2); }
  uint16_t& available_event() { return ram_.Word<uint16_t>(used() + 4 + 8 * uint64_t{size_}); }

  // A chain in the next free descriptors, which come round again: no more in flight than fit. Its head.
  uint16_t Offer(const std::vector<Segment>& segments) { return OfferAt(next_, segments); }
  // The same in the descriptors from `head` on: for whoever is given chains back in another order.
  uint16_t OfferAt(uint16_t head, const std::vector<Segment>& segments) {
    next_ = head;
    for (size_t i = 0; i < segments.size(); ++i) {
      const bool last = i + 1 == segments.size();
      const uint16_t index = next_;
      next_ = static_cast<uint16_t>((next_ + 1) % size_);
      descriptor(index) = {segments[i].gpa.raw(), segments[i].bytes,
                           static_cast<uint16_t>((segments[i].writable ? virtio::kDescriptorWrite : 0) | (last ? 0 : virtio::kDescriptorNext)),
                           next_};
    }
    Make(head);
    return head;
  }
  // Makes `head` available as it is.
  void Make(uint16_t head) {
    available_entry(available_index() % size_) = head;
    __atomic_store_n(&available_index(), static_cast<uint16_t>(available_index() + 1), __ATOMIC_RELEASE);
  }
  // An indirect table at `table`, and the descriptor that names it. Its head.
  uint16_t OfferIndirect(Gpa table, const std::vector<virtio::Descriptor>& entries) {
    std::memcpy(ram_.At(table), entries.data(), entries.size() * sizeof(virtio::Descriptor));
    const uint16_t head = next_;
    next_ = static_cast<uint16_t>((next_ + 1) % size_);
    descriptor(head) = {table.raw(), static_cast<uint32_t>(entries.size() * 16), virtio::kDescriptorIndirect, 0};
    Make(head);
    return head;
  }
  // The next one that the device has given back.
  std::optional<virtio::UsedElement> Take() {
    if (__atomic_load_n(&used_index(), __ATOMIC_ACQUIRE) == taken_) return std::nullopt;
    return ram_.Word<virtio::UsedElement>(used() + 4 + 8 * uint64_t{static_cast<uint16_t>(taken_++ % size_)});
  }

 private:
  FakeGuestRam& ram_;
  const uint16_t size_;
  const Gpa at_;
  uint16_t next_ = 0;
  uint16_t taken_ = 0;
};

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_BACKEND_FAKE_GUEST_DRIVER_H_
