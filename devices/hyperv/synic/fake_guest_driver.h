// The guest's side of a slot, as the specification has a driver do it. Testonly: use it wherever a slot is filled.
#ifndef VMM_DEVICES_HYPERV_SYNIC_FAKE_GUEST_DRIVER_H_
#define VMM_DEVICES_HYPERV_SYNIC_FAKE_GUEST_DRIVER_H_

#include <atomic>
#include <cstring>
#include <optional>

#include "devices/hyperv/synic/hv_message_layout.h"

namespace vmm {

struct alignas(64) FakeGuestDriver {
  // Nothing: the slot is empty. `eom`: the driver must write EOM now.
  struct Read {
    HvMessage message;
    bool eom;
  };
  std::optional<Read> TakeMessage() {
    Read read{};
    read.message.header.type = Type();
    if (read.message.header.type == HvMessageType::kNone) return std::nullopt;
    read.message.header.payload_size = slot.header.payload_size;
    read.message.header.reserved = slot.header.reserved;
    read.message.header.origination_id = slot.header.origination_id;
    std::memcpy(read.message.payload, slot.payload, sizeof(slot.payload));
    // The flag only after the type, with a barrier between.
    ClearType();
    read.eom = (Flags() & kHvMessagePending) != 0;
    return read;
  }
  HvMessageType Type() { return std::atomic_ref(slot.header.type).load(std::memory_order_acquire); }
  void ClearType() { std::atomic_ref(slot.header.type).store(HvMessageType::kNone, std::memory_order_seq_cst); }
  uint8_t Flags() { return std::atomic_ref(slot.header.flags).load(std::memory_order_seq_cst); }

  HvMessage slot{};
};

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_SYNIC_FAKE_GUEST_DRIVER_H_
