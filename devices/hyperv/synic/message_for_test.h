// Messages that tests can tell apart, and memory for queues: shared, so that it survives a fork.
//
// Use SharedRegion for every queue and lane of a test; MakeMessage and IdentityOf wherever it matters which message came and
// whether all of it did. Testonly.
#ifndef VMM_DEVICES_HYPERV_SYNIC_MESSAGE_FOR_TEST_H_
#define VMM_DEVICES_HYPERV_SYNIC_MESSAGE_FOR_TEST_H_

#include <sys/mman.h>

#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <ostream>
#include <span>

#include "devices/hyperv/synic/hv_message_layout.h"

namespace vmm {

struct MessageIdentity {
  uint32_t producer;
  uint32_t sequence;
  auto operator<=>(const MessageIdentity&) const = default;
};
inline std::ostream& operator<<(std::ostream& out, const MessageIdentity& id) {
  return out << "producer " << id.producer << " message " << id.sequence;
}

// Sizes vary from 8 to 240 bytes, and every byte depends on the identity: a torn message is not taken for a whole one.
inline HvMessage MakeMessage(uint32_t producer, uint32_t sequence, HvMessageType type = HvMessageType::kVmBus) {
  HvMessage message{};
  message.header.type = type;
  message.header.payload_size = static_cast<uint8_t>(8 + (sequence * 29 + producer * 7) % (kHvMessagePayloadBytes - 7));
  std::memcpy(message.payload, &producer, 4);
  std::memcpy(message.payload + 4, &sequence, 4);
  for (uint32_t at = 8; at < message.header.payload_size; ++at) {
    message.payload[at] = static_cast<uint8_t>(producer * 31 + sequence * 17 + at);
  }
  return message;
}

// Nothing if the message is not exactly one that MakeMessage made.
inline std::optional<MessageIdentity> IdentityOf(const HvMessage& message) {
  MessageIdentity id{};
  std::memcpy(&id.producer, message.payload, 4);
  std::memcpy(&id.sequence, message.payload + 4, 4);
  const HvMessage whole = MakeMessage(id.producer, id.sequence, message.header.type);
  if (whole.header.payload_size != message.header.payload_size) return std::nullopt;
  if (std::memcmp(whole.payload, message.payload, whole.header.payload_size) != 0) return std::nullopt;
  return id;
}

class SharedRegion final {
 public:
  explicit SharedRegion(size_t bytes)
      : bytes_(bytes),
        data_(static_cast<std::byte*>(::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {}
  ~SharedRegion() { ::munmap(data_, bytes_); }
  SharedRegion(const SharedRegion&) = delete;
  SharedRegion& operator=(const SharedRegion&) = delete;
  [[nodiscard]] std::span<std::byte> bytes() const { return {data_, bytes_}; }
  // `T` at an offset.
  template <typename T>
  [[nodiscard]] T& at(size_t offset) const {
    return *reinterpret_cast<T*>(data_ + offset);
  }

 private:
  size_t bytes_;
  std::byte* data_;
};

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_SYNIC_MESSAGE_FOR_TEST_H_
