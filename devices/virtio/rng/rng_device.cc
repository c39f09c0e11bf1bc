#include "devices/virtio/rng/rng_device.h"

#include <algorithm>

namespace vmm {

bool RngDevice::Process(uint16_t, BackendQueue& queue) noexcept {
  for (int i = 0; i < kQuantum; ++i) {
    if (queue.Pop(chain_) != BackendQueue::PopResult::kChain) return false;
    size_t written = 0;
    for (const iovec& segment : chain_.writable) {
      const size_t bytes = std::min(segment.iov_len, kMaxBytes - written);
      if (bytes == 0 || !source_(std::span(static_cast<std::byte*>(segment.iov_base), bytes))) break;
      written += bytes;
    }
    queue.Push(chain_, static_cast<uint32_t>(written));
  }
  return true;
}

}  // namespace vmm
