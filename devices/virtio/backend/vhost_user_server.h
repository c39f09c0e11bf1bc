// The back end of vhost-user: serves one device to one front end, any that speaks the protocol.
//
// Shapes   one connection for its whole life; the process ends with it.
// Threads  confined to the loop's thread.
// Trust    the front end is a VMM, and may be hostile to this process all the same: messages are checked for size, descriptors and
//          values, queues for their addresses. Half a message holds up this device only, and for kMessageMs at most.
// Errors   a message that the protocol does not have, or not now, ends the connection: on_end gets the reason, OK for an orderly end.
//          What the guest does wrong in a queue stops that queue (its error eventfd is signalled), is counted, and told once.
// Source   QEMU, "Vhost-user Protocol" (docs/interop/vhost-user.rst).
//
// Protocol features: MQ, REPLY_ACK, BACKEND_REQ, CONFIG, RESET_DEVICE, STATUS, CONFIGURE_MEM_SLOTS. No INFLIGHT_SHMFD: devices complete
// in order, so the used index says all. No LOG_SHMFD (migration).
#ifndef VMM_DEVICES_VIRTIO_BACKEND_VHOST_USER_SERVER_H_
#define VMM_DEVICES_VIRTIO_BACKEND_VHOST_USER_SERVER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/event_fd.h"
#include "base/event_loop.h"
#include "base/owned_fd.h"
#include "devices/virtio/backend/backend_device.h"
#include "devices/virtio/backend/backend_memory.h"
#include "devices/virtio/backend/backend_queue.h"
#include "devices/virtio/vhost_user/vhost_user_channel.h"
#include "devices/virtio/vhost_user/vhost_user_layout.h"

namespace vmm {

class VhostUserServer final : public BackendHost {
 public:
  static constexpr int kMessageMs = 2000;

  struct Callbacks {
    std::function<void(const absl::Status&)> on_end;
    // A queue broke: once each time it was started.
    std::function<void(uint16_t queue, BackendQueue::Fault fault)> on_fault;
  };
  // `loop` and `device` outlive it. Callbacks may not destroy it.
  static absl::StatusOr<std::unique_ptr<VhostUserServer>> Create(EventLoop& loop, OwnedFd socket, BackendDevice& device,
                                                                 Callbacks callbacks);
  VhostUserServer(const VhostUserServer&) = delete;
  VhostUserServer& operator=(const VhostUserServer&) = delete;
  ~VhostUserServer() override;

  void ConfigChanged() override;
  void Wake(uint16_t queue) override;

 private:
  struct Queue {
    BackendQueue ring;
    uint16_t size = 0;
    uint16_t base = 0;
    std::optional<vhost_user::VringAddr> addresses;
    EventFd kick{OwnedFd()};
    EventFd call{OwnedFd()};
    EventFd error{OwnedFd()};
    bool enabled = false;
    bool told = false;
  };

  VhostUserServer(EventLoop& loop, OwnedFd socket, BackendDevice& device, Callbacks callbacks);
  void OnMessage();
  absl::Status Handle();
  absl::Status HandleMemory(vhost_user::Request request);
  absl::Status ChangeMemory(vhost_user::Request request);
  absl::Status HandleVring(vhost_user::Request request);
  absl::Status HandleVringFd(vhost_user::Request request);
  absl::Status HandleConfig(vhost_user::Request request);
  template <typename T>
  absl::Status Reply(const T& payload);
  template <typename T>
  absl::StatusOr<T> Payload() const;
  absl::StatusOr<Queue*> QueueOf(uint32_t index);
  absl::Status NeedFds(size_t count) const;
  [[nodiscard]] uint64_t offered() const;

  absl::Status StartQueue(uint16_t index);
  void StopQueue(uint16_t index);
  void StopAll();
  void OnKick(uint16_t index);
  void Process(uint16_t index);
  void End(const absl::Status& status);

  EventLoop& loop_;
  BackendDevice& device_;
  const Callbacks callbacks_;
  VhostUserChannel channel_;
  VhostUserMessage message_;
  BackendMemory memory_;
  std::vector<std::unique_ptr<Queue>> queues_;
  std::optional<VhostUserChannel> requests_;
  uint64_t features_ = 0;
  uint64_t protocol_features_ = 0;
  uint64_t status_ = 0;
  bool ended_ = false;
};

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_BACKEND_VHOST_USER_SERVER_H_
