// Messages that say whose they are, and a message slot from the guest's side.
//
// Shapes   a mark is a producer and a sequence number: 8 to 240 bytes of payload, every one of which depends on both.
// Threads  a slot: one taker at a time. The rest: any.
// Source   Hyper-V TLFS, "Inter-Partition Communication".
#ifndef VMM_TESTS_GUESTS_HYPERV_MARKED_MESSAGE_H_
#define VMM_TESTS_GUESTS_HYPERV_MARKED_MESSAGE_H_

#include <cstdint>

#include "devices/hyperv/synic/hv_message_layout.h"
#include "tests/guests/runtime/memory.h"

namespace guest {

inline constexpr uint32_t kMarkedType = 0x4d00;
inline constexpr uint32_t kProducers = 8;

constexpr uint32_t MarkedBytes(uint32_t producer, uint32_t sequence) { return 8 + (sequence * 37 + producer * 11) % 233; }
constexpr uint8_t MarkedByte(uint32_t producer, uint32_t sequence, uint32_t at) {
  return static_cast<uint8_t>(producer * 91 + sequence * 7 + at * 13 + 1);
}

// How many bytes it has.
inline uint32_t WriteMark(uint8_t (&payload)[vmm::kHvMessagePayloadBytes], uint32_t producer, uint32_t sequence) {
  const uint32_t bytes = MarkedBytes(producer, sequence);
  memcpy(payload, &producer, 4);
  memcpy(payload + 4, &sequence, 4);
  for (uint32_t at = 8; at < bytes; ++at) payload[at] = MarkedByte(producer, sequence, at);
  return bytes;
}

// False: torn, or not such a message.
inline bool ReadMark(const vmm::HvMessage& message, uint32_t& producer, uint32_t& sequence) {
  memcpy(&producer, message.payload, 4);
  memcpy(&sequence, message.payload + 4, 4);
  if (producer >= kProducers || static_cast<uint32_t>(message.header.type) != kMarkedType + producer) return false;
  if (message.header.payload_size != MarkedBytes(producer, sequence)) return false;
  for (uint32_t at = 8; at < message.header.payload_size; ++at) {
    if (message.payload[at] != MarkedByte(producer, sequence, at)) return false;
  }
  return true;
}

// As the specification has it: copy, clear the type, then read the flag. False: the slot is empty.
inline bool TakeFrom(vmm::HvMessage& slot, vmm::HvMessage& message, bool& more) {
  auto* const type = reinterpret_cast<uint32_t*>(&slot.header.type);
  const uint32_t seen = __atomic_load_n(type, __ATOMIC_ACQUIRE);
  more = false;
  if (seen == 0) return false;
  memcpy(static_cast<void*>(&message), &slot, sizeof(message));
  message.header.type = static_cast<vmm::HvMessageType>(seen);
  __atomic_store_n(type, 0u, __ATOMIC_SEQ_CST);
  more = (__atomic_load_n(&slot.header.flags, __ATOMIC_SEQ_CST) & vmm::kHvMessagePending) != 0;
  return true;
}

}  // namespace guest

#endif  // VMM_TESTS_GUESTS_HYPERV_MARKED_MESSAGE_H_
