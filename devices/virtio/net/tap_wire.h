// A TAP interface of the host as the wire of a network device: one descriptor for each queue pair.
//
// Shapes   IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, with IFF_MULTI_QUEUE for more than one pair; headers of 12 bytes. The first pair is always
//          attached; the kernel remembers which others are, for whoever uses the descriptors next.
// Threads  OpenTap, CheckTap: any. TapWire: confined to the device process's loop.
// Trust    packets are the guest's; the kernel checks headers again.
// Errors   Status naming the interface. A packet that the kernel refuses, or an interface that is down: kRefused. An interface that is
//          removed: on_gone, once.
#ifndef VMM_DEVICES_VIRTIO_NET_TAP_WIRE_H_
#define VMM_DEVICES_VIRTIO_NET_TAP_WIRE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/event_loop.h"
#include "base/owned_fd.h"
#include "devices/virtio/net/net_wire.h"

namespace vmm {

// The interface of that name, `pairs` times. One that is not there is made, and goes with its last descriptor: that needs CAP_NET_ADMIN,
// as does one that was made for somebody else. All but the first pair are detached.
absl::StatusOr<std::vector<OwnedFd>> OpenTap(const std::string& name, uint16_t pairs);
// The same for descriptors that somebody else opened, and passed on: whether they are pairs of one usable interface.
absl::Status CheckTap(std::span<const int> fds);

class TapWire final : public NetWire {
 public:
  // `fds` are borrowed for the wire's life; non-blocking is made of them. Needs calls that the process's filter does not have.
  static absl::StatusOr<std::unique_ptr<TapWire>> Create(EventLoop& loop, std::vector<int> fds, std::function<void()> on_gone);
  TapWire(const TapWire&) = delete;
  TapWire& operator=(const TapWire&) = delete;
  ~TapWire() override;
  // Before packets come; outlives all calls.
  void Serve(NetWireUser& user) { user_ = &user; }

  [[nodiscard]] uint64_t features() const noexcept override { return features_; }
  void SetOffloads(uint64_t features) noexcept override;
  [[nodiscard]] uint16_t pairs() const noexcept override { return static_cast<uint16_t>(queues_.size()); }
  [[nodiscard]] bool active(uint16_t pair) const noexcept override { return queues_[pair].active; }
  void SetActive(uint16_t pair, bool active) noexcept override;
  [[nodiscard]] SendResult Send(uint16_t pair, std::span<iovec> packet) noexcept override;
  [[nodiscard]] size_t Receive(uint16_t pair, std::span<iovec> room) noexcept override;
  void WantInput(uint16_t pair, bool wanted) noexcept override { Want(pair, wanted, queues_[pair].wants_output); }
  void WantOutput(uint16_t pair, bool wanted) noexcept override { Want(pair, queues_[pair].wants_input, wanted); }

 private:
  struct Queue {
    int fd = -1;
    bool active = true;
    bool watched = false;
    bool wants_input = false;
    bool wants_output = false;
  };
  TapWire(EventLoop& loop, std::function<void()> on_gone) : loop_(loop), on_gone_(std::move(on_gone)) {}
  void Want(uint16_t pair, bool input, bool output) noexcept;
  void OnEvents(uint16_t pair, uint32_t events);

  EventLoop& loop_;
  const std::function<void()> on_gone_;
  NetWireUser* user_ = nullptr;
  uint64_t features_ = 0;
  std::vector<Queue> queues_;
  std::vector<iovec> vectors_;
};

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_NET_TAP_WIRE_H_
