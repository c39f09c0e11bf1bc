// Packets, configuration space and events of the virtio socket device.
//
// Units    bytes, native (little endian) order.
// Source   Virtual I/O Device (VIRTIO) Version 1.2, "Socket Device".
#ifndef VMM_DEVICES_VIRTIO_VSOCK_VSOCK_LAYOUT_H_
#define VMM_DEVICES_VIRTIO_VSOCK_VSOCK_LAYOUT_H_

#include <cstddef>
#include <cstdint>

namespace vmm::virtio_vsock {

inline constexpr uint64_t kFeatureStream = 1 << 0;

inline constexpr uint16_t kRx = 0;  // to the guest
inline constexpr uint16_t kTx = 1;
inline constexpr uint16_t kEvent = 2;
inline constexpr uint16_t kQueues = 3;

inline constexpr uint64_t kHostCid = 2;

struct Config {
  uint64_t guest_cid;  // the upper half is reserved, and 0
};
static_assert(sizeof(Config) == 8);

enum class Op : uint16_t {
  kInvalid = 0,
  kRequest = 1,
  kResponse = 2,
  kRst = 3,
  kShutdown = 4,
  kRw = 5,
  kCreditUpdate = 6,
  kCreditRequest = 7,
};
inline constexpr uint16_t kTypeStream = 1;
// Flags of kShutdown: the sender of it takes, or sends, no more data.
inline constexpr uint32_t kShutdownReceive = 1;
inline constexpr uint32_t kShutdownSend = 2;

struct Header {
  uint64_t src_cid;
  uint64_t dst_cid;
  uint32_t src_port;
  uint32_t dst_port;
  uint32_t len;  // of the payload behind it
  uint16_t type;
  uint16_t op;
  uint32_t flags;
  uint32_t buf_alloc;  // the sender's room for this connection, and what it has passed on of what it got
  uint32_t fwd_cnt;
} __attribute__((packed));
static_assert(sizeof(Header) == 44 && offsetof(Header, buf_alloc) == 36);

struct Event {
  uint32_t id;
};
inline constexpr uint32_t kEventTransportReset = 0;

}  // namespace vmm::virtio_vsock

#endif  // VMM_DEVICES_VIRTIO_VSOCK_VSOCK_LAYOUT_H_
