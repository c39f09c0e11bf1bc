// What a network device is plugged into on the host: a TAP interface (tap_wire.h), or a stream of frames (stream_wire.h).
//
// Shapes   a packet is a header (net_layout.h) and an Ethernet frame, in vectors.
// Threads  confined to the device process's loop.
// Trust    what is sent comes from the guest, its header checked by the device (net_device.h), the frame by nobody. What is received comes
//          from the network.
// Errors   values. A wire that is gone calls OnGone, once.
#ifndef VMM_DEVICES_VIRTIO_NET_NET_WIRE_H_
#define VMM_DEVICES_VIRTIO_NET_NET_WIRE_H_

#include <sys/types.h>
#include <sys/uio.h>

#include <cstdint>
#include <span>

namespace vmm {

class NetWireUser {
 public:
  virtual ~NetWireUser() = default;
  virtual void OnReadable(uint16_t pair) = 0;
  virtual void OnWritable(uint16_t pair) = 0;
};

class NetWire {
 public:
  enum class SendResult : uint8_t {
    kSent,
    kBusy,     // not now: nothing of it went
    kRefused,  // never: the host does not take such a packet
  };
  // One packet has at most so many vectors.
  static constexpr size_t kMaxVectors = 1000;

  virtual ~NetWire() = default;
  // Features of the device type that it can do; constant.
  [[nodiscard]] virtual uint64_t features() const noexcept = 0;
  // What the driver accepted of them, and takes (kGuestOffloads).
  virtual void SetOffloads(uint64_t features) noexcept = 0;
  // Queue pairs: how many there are, constant; whether packets come to a pair: to the first, always.
  [[nodiscard]] virtual uint16_t pairs() const noexcept = 0;
  [[nodiscard]] virtual bool active(uint16_t pair) const noexcept = 0;
  virtual void SetActive(uint16_t pair, bool active) noexcept = 0;

  // `packet`: its first vector is the header, in memory of the device's own. May change both.
  [[nodiscard]] virtual SendResult Send(uint16_t pair, std::span<iovec> packet) noexcept = 0;
  // One packet. How much of `room` it took; 0: there is none now. More than `room` has: it did not fit, and is lost. The header's
  // num_buffers is not written.
  [[nodiscard]] virtual size_t Receive(uint16_t pair, std::span<iovec> room) noexcept = 0;
  // Whether to call OnReadable, OnWritable when Receive, Send would do something again. At first: neither.
  virtual void WantInput(uint16_t pair, bool wanted) noexcept = 0;
  virtual void WantOutput(uint16_t pair, bool wanted) noexcept = 0;
};

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_NET_NET_WIRE_H_
