// Frames over a Unix stream socket, as QEMU's socket backend and passt speak it: four bytes of length, big endian, then an Ethernet
// frame. One queue pair, no offloads: whoever sends computes checksums.
//
// Threads  confined to the device process's loop.
// Trust    the other end may send anything: a length that no frame has ends the wire. What it does not take waits, one frame at most.
// Errors   on_gone, once, with the reason: the other end closed, or sent nonsense.
// Source   QEMU, "Network emulation" (docs/system/devices/net.rst: `-netdev stream`); passt(1).
#ifndef VMM_DEVICES_VIRTIO_NET_STREAM_WIRE_H_
#define VMM_DEVICES_VIRTIO_NET_STREAM_WIRE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "base/event_loop.h"
#include "devices/virtio/net/net_wire.h"

namespace vmm {

class StreamWire final : public NetWire {
 public:
  // `fd`, borrowed for the wire's life, is a stream socket.
  static absl::StatusOr<std::unique_ptr<StreamWire>> Create(EventLoop& loop, int fd, std::function<void(const char* why)> on_gone);
  StreamWire(const StreamWire&) = delete;
  StreamWire& operator=(const StreamWire&) = delete;
  ~StreamWire() override;
  // Before packets come; outlives all calls.
  void Serve(NetWireUser& user) { user_ = &user; }

  [[nodiscard]] uint64_t features() const noexcept override { return 0; }
  void SetOffloads(uint64_t /*features*/) noexcept override {}
  [[nodiscard]] uint16_t pairs() const noexcept override { return 1; }
  [[nodiscard]] bool active(uint16_t /*pair*/) const noexcept override { return true; }
  void SetActive(uint16_t /*pair*/, bool /*active*/) noexcept override {}
  [[nodiscard]] SendResult Send(uint16_t pair, std::span<iovec> packet) noexcept override;
  [[nodiscard]] size_t Receive(uint16_t pair, std::span<iovec> room) noexcept override;
  void WantInput(uint16_t pair, bool wanted) noexcept override;
  void WantOutput(uint16_t pair, bool wanted) noexcept override;

 private:
  static constexpr size_t kBufferBytes = 128 * 1024;

  StreamWire(EventLoop& loop, int fd, std::function<void(const char*)> on_gone)
      : loop_(loop), fd_(fd), on_gone_(std::move(on_gone)), buffer_(kBufferBytes) {}
  void OnEvents(uint32_t events);
  // False: there is still something of a frame that has not gone.
  bool Flush() noexcept;
  // The next whole frame of the buffer; null: there is none.
  [[nodiscard]] const std::byte* NextFrame(size_t& bytes) noexcept;
  // False: nothing came.
  bool Fill() noexcept;
  void Rearm() noexcept;
  void Gone(const char* why) noexcept;

  EventLoop& loop_;
  const int fd_;
  const std::function<void(const char*)> on_gone_;
  NetWireUser* user_ = nullptr;
  std::vector<std::byte> buffer_;  // received; [begin_, end_)
  size_t begin_ = 0, end_ = 0;
  std::vector<std::byte> unsent_;  // the rest of a frame, from sent_ on
  size_t sent_ = 0;
  bool wants_input_ = false;
  bool wants_output_ = false;
  uint32_t armed_ = 0;
  bool gone_ = false;
};

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_NET_STREAM_WIRE_H_
