// Copies of messages: as little as is used, and, where the other side may write meanwhile, word by word.
//
// Shapes   HvMessage on both sides.
// Units    bytes.
// Threads  CopyUsed: both sides are the caller's alone. CopyFromHostile: the source may change during the copy.
// Trust    CopyFromHostile: the copy is consistent only word by word; check it, not the source.
// Errors   none.
#ifndef VMM_DEVICES_HYPERV_SYNIC_MESSAGE_COPY_H_
#define VMM_DEVICES_HYPERV_SYNIC_MESSAGE_COPY_H_

#include <atomic>
#include <cstdint>
#include <cstring>

#include "devices/hyperv/synic/hv_message_layout.h"

namespace vmm {

// A message that a queue takes.
constexpr bool IsWellFormed(const HvMessageHeader& header) noexcept {
  return header.type != HvMessageType::kNone && header.payload_size <= kHvMessagePayloadBytes;
}

// Header and payload_size bytes of payload, rounded up to cache lines: constant sizes are a few wide moves, a variable one is a
// call. What lies behind the payload is whatever `from` had there: a slot's writer leaves it out.
inline void CopyUsed(HvMessage& to, const HvMessage& from) noexcept {
  if (from.header.payload_size <= 64 - kHvMessageHeaderBytes) {
    std::memcpy(static_cast<void*>(&to), &from, 64);
  } else if (from.header.payload_size <= 128 - kHvMessageHeaderBytes) {
    std::memcpy(static_cast<void*>(&to), &from, 128);
  } else {
    std::memcpy(static_cast<void*>(&to), &from, sizeof(to));
  }
}

// relaxed throughout: the words of a message that its sender may still write belong to no order but that of the index which
// published it, and that was read with acquire. Not more than a message is read, whatever the size says.
inline void CopyFromHostile(HvMessage& to, const HvMessage& from) noexcept {
  auto* const target = reinterpret_cast<unsigned char*>(&to);
  // std::atomic_ref wants a mutable object; this only loads.
  auto* const source = reinterpret_cast<uint64_t*>(const_cast<HvMessage*>(&from));
  const auto copy_word = [&](uint32_t at) {
    const uint64_t word = std::atomic_ref<uint64_t>(source[at]).load(std::memory_order_relaxed);
    std::memcpy(target + at * sizeof(word), &word, sizeof(word));
  };
  copy_word(0);
  copy_word(1);
  const uint32_t payload = to.header.payload_size <= kHvMessagePayloadBytes ? to.header.payload_size : 0;  // the copy's size
  const uint32_t words = (kHvMessageHeaderBytes + payload + 7) / 8;
  for (uint32_t at = 2; at < words; ++at) copy_word(at);
}

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_SYNIC_MESSAGE_COPY_H_
