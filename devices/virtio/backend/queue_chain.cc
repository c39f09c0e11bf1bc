#include "devices/virtio/backend/queue_chain.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "devices/virtio/virtio_layout.h"
#include "memory/gpa.h"

namespace vmm {

size_t QueueChain::Read(uint64_t offset, std::span<std::byte> out) const noexcept {
  size_t done = 0;
  for (const iovec& segment : readable) {
    if (done == out.size()) break;
    if (offset >= segment.iov_len) {
      offset -= segment.iov_len;
      continue;
    }
    const size_t bytes = std::min<size_t>(segment.iov_len - offset, out.size() - done);
    std::memcpy(out.data() + done, static_cast<const std::byte*>(segment.iov_base) + offset, bytes);
    done += bytes;
    offset = 0;
  }
  return done;
}

size_t QueueChain::Write(uint64_t offset, std::span<const std::byte> data) const noexcept {
  size_t done = 0;
  for (const iovec& segment : writable) {
    if (done == data.size()) break;
    if (offset >= segment.iov_len) {
      offset -= segment.iov_len;
      continue;
    }
    const size_t bytes = std::min<size_t>(segment.iov_len - offset, data.size() - done);
    std::memcpy(static_cast<std::byte*>(segment.iov_base) + offset, data.data() + done, bytes);
    done += bytes;
    offset = 0;
  }
  return done;
}

void QueueChain::Clear() noexcept {
  head = entries = record = 0;
  again = false;
  readable.clear();
  writable.clear();
  readable_bytes = writable_bytes = 0;
}

QueueFault QueueChain::Append(const BackendMemory& memory, uint64_t address, uint32_t bytes, bool is_writable) noexcept {
  if (!is_writable && !writable.empty()) return QueueFault::kOrder;
  if (bytes == 0) return QueueFault::kNone;
  std::byte* const host = memory.Find(Gpa(address), bytes);
  if (host == nullptr) return QueueFault::kAddress;
  (is_writable ? writable : readable).push_back({host, bytes});
  (is_writable ? writable_bytes : readable_bytes) += bytes;
  if (readable_bytes + writable_bytes > std::numeric_limits<uint32_t>::max()) return QueueFault::kBytes;
  return QueueFault::kNone;
}

QueueFault FindIndirectTable(const BackendMemory& memory, uint64_t address, uint32_t bytes, const std::byte*& table) noexcept {
  if (bytes == 0 || bytes % sizeof(virtio::Descriptor) != 0 || address % alignof(virtio::Descriptor) != 0) return QueueFault::kIndirect;
  table = memory.Find(Gpa(address), bytes);
  return table == nullptr ? QueueFault::kAddress : QueueFault::kNone;
}

}  // namespace vmm
