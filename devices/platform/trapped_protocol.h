// What a monitor and the process of a trapped device say to each other.
//
// Shapes   TrappedMessage, always 152 bytes, over a SOCK_SEQPACKET pair. Access socket: kRead, kWrite and kByteWrites from
//          the monitor, kReply from the device. Event socket: kReady, kFailed, kQuit from the device. PublishedPage: one
//          sealed memfd page that the device writes and the monitor reads.
// Order    the access socket is a queue: a read sees every write sent before it. `sequence` counts accesses: a message of
//          n byte writes advances it by n, any other by 1; a message carries the number of its last access and a reply
//          that of its request.
// Posted   writes have no reply: a write is done for the guest when it is queued.
// Trust    none, either way. The size is checked by recv, version, kind, bytes and sequence by the receiver, and values
//          are masked to the width of the access. What the monitor gets wrong ends the device process; what the device
//          gets wrong makes it a failed device (trapped_device_proxy.h).
//
// Published registers: a register whose read changes nothing can be answered without a round trip. Its word holds the value
// and the sequence number of the last access that the value takes account of. The monitor may use it only if
//   - every access sent is taken account of, or
//   - those still in the queue are all byte writes to offset 0, and not more than `credit`: so many of them the device
//     promises to swallow with the register unchanged (a UART with room in its transmit buffer).
// Else it asks by kRead. Writer: store the word, then raise the interrupt or send the reply that tells of it. One word, one
// atomic load: value and sequence cannot come from two updates. A lying device gains nothing here that it could not say in a
// reply.
#ifndef VMM_DEVICES_PLATFORM_TRAPPED_PROTOCOL_H_
#define VMM_DEVICES_PLATFORM_TRAPPED_PROTOCOL_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace vmm {

inline constexpr uint16_t kTrappedVersion = 1;

// Where a device's process has them.
inline constexpr int kTrappedAccessFd = 3;
inline constexpr int kTrappedPageFd = 5;  // of devices that publish
inline constexpr int kTrappedEventFd = 8;

enum class TrappedKind : uint8_t {
  kRead = 1,        // offset, bytes
  kWrite = 2,       // offset, bytes, value
  kByteWrites = 3,  // bytes: how many of `writes`
  kReply = 4,       // bytes, value
  kReady = 5,       // the device is in its sandbox and serves
  kFailed = 6,      // bytes: length of `text`; the device could not start
  kQuit = 7,        // the user asked for the end of the virtual machine
};

struct TrappedByteWrite {
  uint8_t offset;
  uint8_t value;
};
inline constexpr size_t kMaxByteWrites = 64;

struct TrappedMessage {
  uint16_t version;
  TrappedKind kind;
  uint8_t bytes;
  uint32_t sequence;
  uint64_t offset;
  uint64_t value;
  union {
    std::array<TrappedByteWrite, kMaxByteWrites> writes;
    std::array<char, 2 * kMaxByteWrites> text;  // not terminated; escaped before anybody prints it
  };
};
static_assert(sizeof(TrappedByteWrite) == 2);
static_assert(sizeof(TrappedMessage) == 152);
static_assert(offsetof(TrappedMessage, kind) == 2);
static_assert(offsetof(TrappedMessage, bytes) == 3);
static_assert(offsetof(TrappedMessage, sequence) == 4);
static_assert(offsetof(TrappedMessage, offset) == 8);
static_assert(offsetof(TrappedMessage, value) == 16);
static_assert(offsetof(TrappedMessage, writes) == 24);

[[nodiscard]] constexpr bool IsTrappedAccessSize(size_t bytes) {
  return bytes == 1 || bytes == 2 || bytes == 4 || bytes == 8;
}

// One published register: sequence in bits 0..31, value in 32..39, credit in 40..55, valid in 63.
struct PublishedWord {
  uint32_t sequence = 0;
  uint8_t value = 0;
  uint16_t credit = 0;
  bool valid = false;

  [[nodiscard]] constexpr uint64_t Pack() const {
    return uint64_t{sequence} | uint64_t{value} << 32 | uint64_t{credit} << 40 | uint64_t{valid} << 63;
  }
  [[nodiscard]] static constexpr PublishedWord Unpack(uint64_t raw) {
    return {static_cast<uint32_t>(raw), static_cast<uint8_t>(raw >> 32), static_cast<uint16_t>(raw >> 40), raw >> 63 != 0};
  }
};

// Byte registers at offsets 0..7.
inline constexpr size_t kPublishedRegisters = 8;
inline constexpr size_t kPublishedPageBytes = 4096;
struct PublishedPage {
  std::array<std::atomic<uint64_t>, kPublishedRegisters> registers;
};
static_assert(std::atomic<uint64_t>::is_always_lock_free && sizeof(std::atomic<uint64_t>) == 8);
static_assert(sizeof(PublishedPage) <= kPublishedPageBytes);

}  // namespace vmm

#endif  // VMM_DEVICES_PLATFORM_TRAPPED_PROTOCOL_H_
