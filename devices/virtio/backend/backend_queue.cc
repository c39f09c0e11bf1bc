#include "devices/virtio/backend/backend_queue.h"

#include <utility>

namespace vmm {

const char* QueueFaultText(QueueFault fault) {
  switch (fault) {
    case QueueFault::kNone: return "nothing";
    case QueueFault::kAvailableIndex: return "more chains are available than the queue has entries";
    case QueueFault::kHead: return "a chain starts outside of the table";
    case QueueFault::kNext: return "a descriptor links to outside of the table";
    case QueueFault::kTooLong: return "a chain is too long";
    case QueueFault::kAddress: return "a descriptor names memory that this device was not given";
    case QueueFault::kIndirect: return "an indirect table is malformed";
    case QueueFault::kOrder: return "a readable segment follows a writable one";
    case QueueFault::kBytes: return "a chain has 4 GiB or more";
    case QueueFault::kInflight: return "the in-flight region makes no sense";
  }
  return "?";
}

void BackendQueue::Start(const Rings& rings, uint32_t base, uint64_t features, const BackendMemory& memory, EventFd* call,
                         std::span<std::byte> inflight) {
  memory_ = &memory;
  call_ = call;
  running_ = true;
  size_ = rings.size;
  packed_ = (features & virtio::kFeatureRingPacked) != 0;
  const RingStart start{rings, base, features, memory, inflight};
  fault_ = packed_ ? packed_ring_.Start(start) : split_ring_.Start(start);
}

uint32_t BackendQueue::Stop() noexcept {
  running_ = false;
  size_ = 0;
  return packed_ ? packed_ring_.Stop() : split_ring_.Stop();
}

BackendQueue::PopResult BackendQueue::Pop(QueueChain& chain) noexcept {
  if (!running_) return PopResult::kEmpty;
  if (fault_ != Fault::kNone) return PopResult::kBroken;
  bool empty = false;
  fault_ = packed_ ? packed_ring_.Pop(chain, empty) : split_ring_.Pop(chain, empty);
  return fault_ != Fault::kNone ? PopResult::kBroken : empty ? PopResult::kEmpty : PopResult::kChain;
}

void BackendQueue::Unpop(const QueueChain& chain) noexcept { packed_ ? packed_ring_.Unpop(chain) : split_ring_.Unpop(chain); }

void BackendQueue::Push(const QueueChain& chain, uint32_t written) noexcept {
  const Used used{&chain, written};
  PushTogether(std::span(&used, 1));
}

void BackendQueue::PushTogether(std::span<const Used> used) noexcept {
  if (!running_ || fault_ != Fault::kNone || used.empty()) return;
  packed_ ? packed_ring_.Push(used) : split_ring_.Push(used);
}

void BackendQueue::Notify() noexcept {
  if (!running_) return;
  const bool wanted = packed_ ? packed_ring_.WantsInterrupt() : split_ring_.WantsInterrupt();
  if (wanted && call_ != nullptr) call_->Signal();
}

}  // namespace vmm
