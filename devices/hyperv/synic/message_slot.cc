#include "devices/hyperv/synic/message_slot.h"

#include <cstring>

namespace vmm {
namespace {

// The claim holder is the only writer, so that no locked access is needed.
void Count(std::atomic<uint64_t>& counter) noexcept {
  counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

}  // namespace

// --- GuestSlot ----------------------------------------------------------------------------------------------------------

HvMessageType GuestSlot::LoadType() noexcept {
  // seq_cst: pairs with the guest's store of 0, so that our writes come after its reads; and it stays behind SetPending.
  return std::atomic_ref<HvMessageType>(slot_.header.type).load(std::memory_order_seq_cst);
}

void GuestSlot::SetPending() noexcept {
  // seq_cst: we set the flag, then load the type; the guest stores the type, has a barrier, then loads the flag. Weaker, each
  // can miss the other: then no EOM is written, and the next message waits for ever. The byte alone: a wider write could undo
  // the guest's store of the type.
  std::atomic_ref<uint8_t>(slot_.header.flags).fetch_or(kHvMessagePending, std::memory_order_seq_cst);
}

void GuestSlot::Write(const HvMessage& message, uint8_t flags) noexcept {
  // No more than the payload: what lies behind it in the queue is not the guest's to see.
  const size_t payload = message.header.payload_size <= kHvMessagePayloadBytes ? message.header.payload_size : 0;
  std::memcpy(slot_.payload, message.payload, payload);
  slot_.header.payload_size = static_cast<uint8_t>(payload);
  slot_.header.reserved = 0;
  slot_.header.origination_id = message.header.origination_id;
  // relaxed: before the release below. Atomic because the flag is an atomic everywhere.
  std::atomic_ref<uint8_t>(slot_.header.flags).store(flags, std::memory_order_relaxed);
  // release: pairs with the guest's load of the type. The guest's processor keeps loads in order, as ours does stores.
  std::atomic_ref<HvMessageType>(slot_.header.type).store(message.header.type, std::memory_order_release);
}

// --- MessageSlot --------------------------------------------------------------------------------------------------------

bool MessageSlot::Enter() noexcept {
  // seq_cst throughout: a thread posts, then finds the claim held; the holder takes the mark away or leaves, then looks at the
  // queue, or looked before. Weaker, the mark could be seen as still to be taken away while that look misses the post.
  Claim seen = Claim::kFree;
  for (;;) {
    switch (seen) {
      case Claim::kFree:
        // acquire: pairs with the release of the last holder's leaving: its state is ours.
        if (claim_.compare_exchange_weak(seen, Claim::kHeld, std::memory_order_seq_cst)) return true;
        break;
      case Claim::kHeld:
        if (claim_.compare_exchange_weak(seen, Claim::kHeldLookAgain, std::memory_order_seq_cst)) {
          seen = Claim::kHeldLookAgain;
        }
        break;
      case Claim::kHeldLookAgain:
        elsewhere_.fetch_add(1, std::memory_order_relaxed);
        return false;
    }
  }
}

Delivery MessageSlot::LookAndLeave(Caller caller) noexcept {
  Delivery delivery{SlotState::kIdle};
  for (int look = 0; look < kLooks; ++look) {
    delivery.state = Look(caller);
    if (delivery.state == SlotState::kNotOurs) delivery.look_again = true;
    if (delivery.state == SlotState::kWritten && config_.interrupts) delivery.interrupt = true;
    Claim held = Claim::kHeld;
    // release: pairs with the next holder's acquire.
    if (claim_.compare_exchange_strong(held, Claim::kFree, std::memory_order_seq_cst)) return delivery;
    // Take the mark away, then look: whoever marks from here on is seen by the next compare-and-swap.
    claim_.exchange(Claim::kHeld, std::memory_order_seq_cst);
  }
  // Others post as fast as we look. Leaving drops a mark: look_again makes up for it.
  claim_.exchange(Claim::kFree, std::memory_order_seq_cst);
  delivery.look_again = true;
  return delivery;
}

SlotState MessageSlot::Look(Caller caller) noexcept {
  const HvMessage* const message = queue_.Front();
  if (message == nullptr) return SlotState::kIdle;
  // A poster that had set out before this was configured.
  if (config_.vp_only && caller != Caller::kVpThread) return SlotState::kNotOurs;
  if (config_.memory == nullptr || config_.paused) {
    Count(off_);
    return SlotState::kOff;
  }
  SlotMemory& slot = *config_.memory;
  if (slot.LoadType() != HvMessageType::kNone) {
    slot.SetPending();
    // Had the guest cleared the type before the flag was there, it would not write EOM: then the slot is free now.
    if (slot.LoadType() != HvMessageType::kNone) {
      Count(busy_);
      return SlotState::kBusy;
    }
  }
  slot.Write(*message, config_.always_pending || queue_.HasMore() ? kHvMessagePending : 0);
  queue_.PopFront();
  Count(written_);
  if (!config_.interrupts) Count(no_interrupt_);
  return SlotState::kWritten;
}

Delivery MessageSlot::TryDeliver(Caller caller) noexcept {
  if (!Enter()) return {SlotState::kElsewhere};
  return LookAndLeave(caller);
}

Delivery MessageSlot::TryConfigure(SlotConfig config) noexcept {
  if (!Enter()) return {SlotState::kElsewhere};
  config_ = config;
  // The message that is there: ours perhaps, of before. If the guest clears it this moment, the flag stays behind in a free slot,
  // where nobody looks, and the next message overwrites it.
  if (config_.always_pending && config_.memory != nullptr && config_.memory->LoadType() != HvMessageType::kNone) {
    config_.memory->SetPending();
  }
  return LookAndLeave(Caller::kVpThread);
}

MessageSlot::Stats MessageSlot::stats() const noexcept {
  return {.written = written_.load(std::memory_order_relaxed),
          .no_interrupt = no_interrupt_.load(std::memory_order_relaxed),
          .busy = busy_.load(std::memory_order_relaxed),
          .off = off_.load(std::memory_order_relaxed),
          .elsewhere = elsewhere_.load(std::memory_order_relaxed)};
}

}  // namespace vmm
