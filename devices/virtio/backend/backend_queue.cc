#include "devices/virtio/backend/backend_queue.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>

namespace vmm {
namespace {

namespace v = virtio;

// Words of the rings, aligned, shared with the driver.
template <typename T>
std::atomic_ref<T> Word(const std::byte* at) noexcept {
  return std::atomic_ref<T>(*reinterpret_cast<T*>(const_cast<std::byte*>(at)));
}

size_t CopyOut(const std::vector<iovec>& from, uint64_t offset, std::span<std::byte> out) noexcept {
  size_t done = 0;
  for (const iovec& segment : from) {
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

}  // namespace

size_t QueueChain::Read(uint64_t offset, std::span<std::byte> out) const noexcept { return CopyOut(readable, offset, out); }

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

const char* QueueFaultText(BackendQueue::Fault fault) {
  switch (fault) {
    case BackendQueue::Fault::kNone: return "nothing";
    case BackendQueue::Fault::kAvailableIndex: return "more chains are available than the queue has entries";
    case BackendQueue::Fault::kHead: return "a chain starts outside of the table";
    case BackendQueue::Fault::kNext: return "a descriptor links to outside of the table";
    case BackendQueue::Fault::kTooLong: return "a chain is too long";
    case BackendQueue::Fault::kAddress: return "a descriptor names memory that this device was not given";
    case BackendQueue::Fault::kIndirect: return "an indirect table is malformed";
    case BackendQueue::Fault::kOrder: return "a readable segment follows a writable one";
    case BackendQueue::Fault::kBytes: return "a chain has 4 GiB or more";
  }
  return "?";
}

void BackendQueue::Start(const Rings& rings, uint16_t base, uint64_t features, const BackendMemory& memory, EventFd* call) noexcept {
  rings_ = rings;
  memory_ = &memory;
  call_ = call;
  event_index_ = (features & v::kFeatureEventIdx) != 0;
  indirect_ = (features & v::kFeatureIndirectDesc) != 0;
  next_available_ = base;
  // Ours to write, the guest's to scribble over: after that only its own requests are lost.
  next_used_ = notified_used_ = Word<uint16_t>(rings.used + v::kRingIndex).load(std::memory_order_relaxed);
  fault_ = Fault::kNone;
}

uint16_t BackendQueue::Stop() noexcept {
  rings_ = Rings{};
  return next_available_;
}

BackendQueue::PopResult BackendQueue::Break(Fault fault) noexcept {
  fault_ = fault;
  return PopResult::kBroken;
}

uint16_t BackendQueue::LoadAvailableIndex() const noexcept {
  // acquire: pairs with the driver's release of the index, so the entry and the descriptors it names are visible.
  return Word<uint16_t>(rings_.available + v::kRingIndex).load(std::memory_order_acquire);
}

BackendQueue::PopResult BackendQueue::Pop(QueueChain& chain) noexcept {
  if (fault_ != Fault::kNone) return PopResult::kBroken;
  if (rings_.size == 0) return PopResult::kEmpty;
  uint16_t index = LoadAvailableIndex();
  if (index == next_available_ && event_index_) {
    // "Tell me of the next one." seq_cst twice: we store the event, then load the index; the driver does the reverse. Weaker, each can
    // miss the other, and the queue sleeps with a request in it.
    Word<uint16_t>(rings_.used + v::kRingEntries + 8 * uint64_t{rings_.size}).store(next_available_, std::memory_order_seq_cst);
    index = Word<uint16_t>(rings_.available + v::kRingIndex).load(std::memory_order_seq_cst);
  }
  if (index == next_available_) return PopResult::kEmpty;
  if (static_cast<uint16_t>(index - next_available_) > rings_.size) return Break(Fault::kAvailableIndex);
  const uint16_t slot = next_available_ % rings_.size;
  const uint16_t head = Word<uint16_t>(rings_.available + v::kRingEntries + 2 * uint64_t{slot}).load(std::memory_order_relaxed);
  if (head >= rings_.size) return Break(Fault::kHead);
  if (const Fault fault = Walk(head, chain); fault != Fault::kNone) return Break(fault);
  ++next_available_;
  return PopResult::kChain;
}

v::Descriptor BackendQueue::LoadDescriptor(const Table& table, uint32_t index) noexcept {
  const std::byte* const at = table.descriptors + sizeof(v::Descriptor) * uint64_t{index};
  // One load each, relaxed: the index has been acquired, and the driver may write what it likes meanwhile.
  return {Word<uint64_t>(at).load(std::memory_order_relaxed), Word<uint32_t>(at + 8).load(std::memory_order_relaxed),
          Word<uint16_t>(at + 12).load(std::memory_order_relaxed), Word<uint16_t>(at + 14).load(std::memory_order_relaxed)};
}

BackendQueue::Fault BackendQueue::AddSegment(const v::Descriptor& descriptor, QueueChain& chain) const noexcept {
  const bool writable = (descriptor.flags & v::kDescriptorWrite) != 0;
  if (!writable && !chain.writable.empty()) return Fault::kOrder;
  if (descriptor.bytes == 0) return Fault::kNone;
  std::byte* const host = memory_->Find(Gpa(descriptor.address), descriptor.bytes);
  if (host == nullptr) return Fault::kAddress;
  (writable ? chain.writable : chain.readable).push_back({host, descriptor.bytes});
  (writable ? chain.writable_bytes : chain.readable_bytes) += descriptor.bytes;
  if (chain.readable_bytes + chain.writable_bytes > std::numeric_limits<uint32_t>::max()) return Fault::kBytes;
  return Fault::kNone;
}

BackendQueue::Fault BackendQueue::Walk(uint16_t head, QueueChain& chain) const noexcept {
  chain.head = head;
  chain.readable.clear();
  chain.writable.clear();
  chain.readable_bytes = chain.writable_bytes = 0;
  Table table{rings_.descriptors, rings_.size};
  bool inside = false;  // an indirect table
  uint32_t index = head;
  // A table that links in a circle is a chain longer than itself.
  uint32_t left = table.count;
  size_t segments = 0;
  while (true) {
    if (left-- == 0 || ++segments > kMaxSegments) return Fault::kTooLong;
    const v::Descriptor descriptor = LoadDescriptor(table, index);
    if ((descriptor.flags & v::kDescriptorIndirect) != 0) {
      const bool linked = (descriptor.flags & v::kDescriptorNext) != 0;
      if (!indirect_ || inside || linked || descriptor.bytes == 0 || descriptor.bytes % sizeof(v::Descriptor) != 0 ||
          descriptor.address % alignof(v::Descriptor) != 0) {
        return Fault::kIndirect;
      }
      const std::byte* const host = memory_->Find(Gpa(descriptor.address), descriptor.bytes);
      if (host == nullptr) return Fault::kAddress;
      table = {host, static_cast<uint32_t>(descriptor.bytes / sizeof(v::Descriptor))};
      inside = true;
      index = 0;
      left = table.count;
      continue;
    }
    if (const Fault fault = AddSegment(descriptor, chain); fault != Fault::kNone) return fault;
    if ((descriptor.flags & v::kDescriptorNext) == 0) return Fault::kNone;
    index = descriptor.next;
    if (index >= table.count) return Fault::kNext;
  }
}

void BackendQueue::Push(const QueueChain& chain, uint32_t written) noexcept {
  const Used used{&chain, written};
  PushTogether(std::span(&used, 1));
}

void BackendQueue::PushTogether(std::span<const Used> used) noexcept {
  if (rings_.size == 0 || fault_ != Fault::kNone) return;
  for (const auto& [chain, written] : used) {
    std::byte* const element = rings_.used + v::kRingEntries + 8 * uint64_t{static_cast<uint16_t>(next_used_++ % rings_.size)};
    Word<uint32_t>(element).store(chain->head, std::memory_order_relaxed);
    Word<uint32_t>(element + 4).store(written, std::memory_order_relaxed);
  }
  // release: the driver that sees the index sees the elements, and the data in front of them. Never read back: next_used_ is ours.
  Word<uint16_t>(rings_.used + v::kRingIndex).store(next_used_, std::memory_order_release);
}

void BackendQueue::Notify() noexcept {
  if (rings_.size == 0 || next_used_ == notified_used_) return;
  const uint16_t before = notified_used_;
  notified_used_ = next_used_;
  // seq_cst twice: we store the used index (once more), then load what the driver waits for; the driver does the reverse. Weaker, each
  // can miss the other, and the driver waits for an interrupt that does not come.
  Word<uint16_t>(rings_.used + v::kRingIndex).store(next_used_, std::memory_order_seq_cst);
  if (event_index_) {
    const uint16_t event = Word<uint16_t>(rings_.available + v::kRingEntries + 2 * uint64_t{rings_.size}).load(std::memory_order_seq_cst);
    if (!v::PassedEvent(event, next_used_, before)) return;
  } else if ((Word<uint16_t>(rings_.available).load(std::memory_order_seq_cst) & v::kAvailNoInterrupt) != 0) {
    return;
  }
  if (call_ != nullptr) call_->Signal();
}

}  // namespace vmm
