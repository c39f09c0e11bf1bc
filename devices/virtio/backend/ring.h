// What both forms of a ring are started with.
#ifndef VMM_DEVICES_VIRTIO_BACKEND_RING_H_
#define VMM_DEVICES_VIRTIO_BACKEND_RING_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "devices/virtio/backend/backend_memory.h"

namespace vmm {

struct RingPlaces {
  // Each aligned and as large as `size` needs, for as long as the queue runs. Of a packed ring the last two are the driver's and the
  // device's event suppression.
  std::byte* descriptors = nullptr;
  std::byte* available = nullptr;
  std::byte* used = nullptr;
  uint16_t size = 0;
};

struct RingStart {
  RingPlaces places;
  // Where to go on. Split: the next entry of the available ring. Packed: as VHOST_USER_SET_VRING_BASE has it, both offsets with their wraps.
  uint32_t base = 0;
  uint64_t features = 0;
  const BackendMemory& memory;
  std::span<std::byte> inflight;  // this queue's part of the in-flight region; empty: none
};

// A word of a ring, aligned, shared with the driver.
template <typename T>
std::atomic_ref<T> RingWord(const std::byte* at) noexcept {
  return std::atomic_ref<T>(*reinterpret_cast<T*>(const_cast<std::byte*>(at)));
}

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_BACKEND_RING_H_
