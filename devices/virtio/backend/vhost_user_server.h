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
// Protocol features: MQ, REPLY_ACK, BACKEND_REQ, CONFIG, INFLIGHT_SHMFD, RESET_DEVICE, STATUS, CONFIGURE_MEM_SLOTS. No LOG_SHMFD (migration).
// The region of INFLIGHT_SHMFD is made by Create, before a process gives up the means for it; the front end keeps it for the next process.
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
#include "devices/virtio/backend/inflight_layout.h"
#include "devices/virtio/vhost_user/vhost_user_channel.h"
#include "devices/virtio/vhost_user/vhost_user_layout.h"
#include "devices/virtio/virtio_layout.h"

namespace vmm {

class VhostUserServer final : public BackendHost {
 public:
  static constexpr int kMessageMs = 2000;

  struct Callbacks {
    std::function<void(const absl::Status&)> on_end;
    // A queue broke: once each time it was started.
    std::function<void(uint16_t queue, BackendQueue::Fault fault)> on_fault;
  };
  // What the region can grow to: room for the largest queues, of which only what is used takes memory.
  static constexpr uint64_t InflightBytes(uint16_t queues) { return vhost_user::InflightStride(virtio::kMaxQueueSize) * queues; }

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
    uint32_t base = 0;
    std::optional<vhost_user::VringAddr> addresses;
    EventFd kick{OwnedFd()};
    EventFd call{OwnedFd()};
    EventFd error{OwnedFd()};
    bool enabled = false;
    bool told = false;
  };

  // A mapping of a file; given up with it.
  struct Mapping {
    ~Mapping();
    void* start = nullptr;
    uint64_t bytes = 0;
  };

  VhostUserServer(EventLoop& loop, OwnedFd socket, BackendDevice& device, Callbacks callbacks);
  void OnMessage();
  absl::Status Handle();
  absl::Status HandleMemory(vhost_user::Request request);
  absl::Status ChangeMemory(vhost_user::Request request);
  absl::Status HandleVring(vhost_user::Request request);
  absl::Status HandleVringFd(vhost_user::Request request);
  absl::Status HandleConfig(vhost_user::Request request);
  absl::Status GetInflight();
  absl::Status SetInflight();
  absl::StatusOr<vhost_user::Inflight> InflightPayload() const;
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
  [[nodiscard]] bool AnyRuns() const;
  void Process(uint16_t index);
  void End(const absl::Status& status);

  EventLoop& loop_;
  BackendDevice& device_;
  const Callbacks callbacks_;
  VhostUserChannel channel_;
  VhostUserMessage message_;
  BackendMemory memory_;
  OwnedFd inflight_fd_;  // ours, to be given to a front end
  std::unique_ptr<Mapping> inflight_;
  uint64_t inflight_offset_ = 0;  // of the first queue in the mapping
  uint16_t inflight_queues_ = 0;
  uint16_t inflight_queue_size_ = 0;
  // Before the queues, which write to what is above.
  std::vector<std::unique_ptr<Queue>> queues_;
  std::optional<VhostUserChannel> requests_;
  uint64_t features_ = 0;
  uint64_t protocol_features_ = 0;
  uint64_t status_ = 0;
  bool ended_ = false;
};

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_BACKEND_VHOST_USER_SERVER_H_
