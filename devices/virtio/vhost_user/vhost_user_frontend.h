// The front end of vhost-user: makes any backend at the other end of a Unix socket a virtio device.
//
// Shapes   one connection at a time. A lost backend may be replaced (Connect again) while the driver goes on: queues resume where the
//          guest's used rings are, interrupts and kicks use the same eventfds.
// Units    milliseconds. Ring addresses are given as guest physical ones: the backend learns no address of this process.
// Threads  VirtioEndpoint: VP threads; Connect, Detach, the destructor and the callback: the loop's thread. Guarded by mutex_, which is
//          held while the backend is waited for: a call takes `deadline_ms` at most, and so does whoever waits for the mutex.
// Trust    the backend may be hostile. Every reply is checked for its request, size, descriptors and values; it has no other way to
//          reach us but its own socket for requests (bounded in number) and the eventfds. It can write all memory that it was given.
// Errors   whatever is wrong with a backend ends its connection and is told once (on_lost) by a Status "device 'x': ...". Until
//          another one is connected the guest's requests wait; after Detach the device needs a reset, and cannot be started.
// Source   QEMU, "Vhost-user Protocol" (docs/interop/vhost-user.rst).
//
// A backend that stops a queue for what the guest put into it (a descriptor that names memory which the device was not given, first of
// all) says so by the queue's error event: the device then needs a reset, as the specification has it, and it is counted.
//
// A backend that completes requests out of order must have the in-flight region (INFLIGHT_SHMFD) to be replaced without losing or
// repeating any; ours has it. A packed ring can be resumed by such a backend alone; a queue that is reset while there is none needs a reset
// of the whole device.
#ifndef VMM_DEVICES_VIRTIO_VHOST_USER_VHOST_USER_FRONTEND_H_
#define VMM_DEVICES_VIRTIO_VHOST_USER_VHOST_USER_FRONTEND_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/event_fd.h"
#include "base/event_loop.h"
#include "base/mutex.h"
#include "base/owned_fd.h"
#include "devices/virtio/vhost_user/vhost_user_channel.h"
#include "devices/virtio/vhost_user/vhost_user_layout.h"
#include "devices/virtio/virtio_endpoint.h"
#include "memory/gpa.h"
#include "memory/guest_memory.h"

namespace vmm {

// Guest memory that the backend is given; `fd` is borrowed for the front end's life.
struct VhostUserMemory {
  Gpa gpa;
  uint64_t bytes = 0;
  int fd = -1;
  uint64_t fd_offset = 0;
};

struct VhostUserFrontendOptions {
  std::string name;  // for errors
  virtio::DeviceId device_id = virtio::DeviceId::kRng;
  uint16_t queues = 1;  // the backend must have as many
  uint16_t max_queue_size = 256;
  uint32_t config_bytes = 0;  // at most 256; not 0: the backend must have configuration space
  // For backends that have none of their own, as other projects' network backends: the configuration, config_bytes of it, read only.
  std::vector<std::byte> own_config;
  uint64_t own_features = 0;       // offered whatever the backend says, which is told of them only where it offers them
  uint64_t withheld_features = 0;  // not offered, whatever the backend says
  int deadline_ms = 5000;
  std::vector<VhostUserMemory> memory;  // at most 8
};

class VhostUserFrontend final : public VirtioEndpoint {
 public:
  // `loop` and `memory` outlive it. `on_lost` is called on the loop's thread, once for each backend that had been connected.
  static absl::StatusOr<std::unique_ptr<VhostUserFrontend>> Create(EventLoop& loop, const GuestMemory& memory,
                                                                   VhostUserFrontendOptions options,
                                                                   std::function<void(const absl::Status&)> on_lost);
  VhostUserFrontend(const VhostUserFrontend&) = delete;
  VhostUserFrontend& operator=(const VhostUserFrontend&) = delete;
  ~VhostUserFrontend() override;

  // The first backend settles what the device is; a later one must offer as much. An error: it was not connected, on_lost is not called.
  absl::Status Connect(OwnedFd socket);
  // No backend any more, now and for ever.
  void Detach();
  // The end of the machine: the connection is closed, nobody is called.
  void Close();

  // Queues that a backend has stopped for what was in them. Any thread.
  [[nodiscard]] uint64_t queue_faults() const noexcept { return queue_faults_.load(std::memory_order_relaxed); }

  [[nodiscard]] virtio::DeviceId device_id() const noexcept override { return options_.device_id; }
  // Valid after the first Connect.
  [[nodiscard]] uint64_t features() const noexcept override { return features_; }
  [[nodiscard]] uint16_t queue_count() const noexcept override { return options_.queues; }
  [[nodiscard]] uint16_t max_queue_size() const noexcept override { return options_.max_queue_size; }
  [[nodiscard]] uint32_t config_bytes() const noexcept override { return options_.config_bytes; }
  [[nodiscard]] int kick_fd(uint16_t queue) const noexcept override { return queues_[queue].kick.fd(); }
  [[nodiscard]] int call_fd(uint16_t queue) const noexcept override { return queues_[queue].call.fd(); }
  void Kick(uint16_t queue) noexcept override { queues_[queue].kick.Signal(); }
  void SetEvents(VirtioEvents* events) noexcept override { events_.store(events); }
  void ReadConfig(uint32_t offset, std::span<std::byte> data) noexcept override;
  void WriteConfig(uint32_t offset, std::span<const std::byte> data) noexcept override;
  [[nodiscard]] bool Start(uint64_t features, std::span<const VirtioQueueSetup> queues) noexcept override;
  [[nodiscard]] bool StartQueue(const VirtioQueueSetup& queue) noexcept override;
  [[nodiscard]] bool StopQueue(uint16_t queue) noexcept override;
  void Stop() noexcept override;

 private:
  struct Queue {
    mutable EventFd kick{OwnedFd()};
    mutable EventFd call{OwnedFd()};
    std::optional<VirtioQueueSetup> setup;  // while it runs, or would if there were a backend
  };

  VhostUserFrontend(EventLoop& loop, const GuestMemory& memory, VhostUserFrontendOptions options,
                    std::function<void(const absl::Status&)> on_lost)
      : loop_(loop), memory_(memory), options_(std::move(options)), on_lost_(std::move(on_lost)) {}

  template <typename T>
  absl::Status SendLocked(vhost_user::Request request, const T& payload, std::span<const int> fds = {}, uint32_t flags = 0)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status SendEmptyLocked(vhost_user::Request request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status AwaitReplyLocked(vhost_user::Request request, size_t fds = 0) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  template <typename T>
  absl::StatusOr<T> GetLocked(vhost_user::Request request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // After all that was sent has been taken, and accepted where the backend can say so.
  absl::Status SyncLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status SetStatusLocked(uint8_t status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  absl::Status HandshakeLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status SendMemoryLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status OpenBackendRequestsLocked(OwnedFd& ours) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status FetchConfigLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status PrepareInflightLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status RunLocked(bool resume) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status RunQueueLocked(const VirtioQueueSetup& queue, bool resume) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status HaltQueueLocked(uint16_t queue) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Ends the connection; the loop's thread does the rest.
  void LoseLocked(const absl::Status& why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether all three rings lie in memory that the backend is given: one that is told of others would give up.
  [[nodiscard]] bool RingsAreInMemory(uint64_t features, const VirtioQueueSetup& queue) const;
  [[nodiscard]] bool IsGiven(Gpa gpa, uint64_t bytes) const;
  void BeginCallLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Explain(const absl::Status& status) const;

  // The loop's thread.
  absl::Status WatchConnection();
  void UnwatchConnection();
  void OnHangUp();
  void OnBackendRequest();
  void OnQueueFault();
  // False: this backend asks for too much.
  [[nodiscard]] bool AdmitFromBackend(int64_t now_ms);

  EventLoop& loop_;
  const GuestMemory& memory_;
  const VhostUserFrontendOptions options_;
  const std::function<void(const absl::Status&)> on_lost_;
  std::shared_ptr<VhostUserFrontend*> alive_ = std::make_shared<VhostUserFrontend*>(this);
  std::atomic<VirtioEvents*> events_{nullptr};  // set before any VP runs, taken back after the last
  uint64_t features_ = 0;                       // settled by the first Connect, before any VP runs
  std::vector<Queue> queues_;                   // eventfds are immutable; setup is guarded by mutex_
  EventFd error_{OwnedFd()};                    // of all queues; immutable
  std::atomic<uint64_t> queue_faults_{0};

  Mutex mutex_;
  std::optional<VhostUserChannel> channel_ ABSL_GUARDED_BY(mutex_);
  VhostUserMessage reply_ ABSL_GUARDED_BY(mutex_);
  int64_t call_deadline_ms_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t generation_ ABSL_GUARDED_BY(mutex_) = 0;  // of connections
  bool settled_ ABSL_GUARDED_BY(mutex_) = false;
  bool detached_ ABSL_GUARDED_BY(mutex_) = false;
  bool started_ ABSL_GUARDED_BY(mutex_) = false;
  bool ran_ ABSL_GUARDED_BY(mutex_) = false;  // a backend may have begun since
  uint64_t backend_features_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t protocol_features_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t driver_features_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<std::byte> config_ ABSL_GUARDED_BY(mutex_);
  OwnedFd inflight_fd_ ABSL_GUARDED_BY(mutex_);
  vhost_user::Inflight inflight_ ABSL_GUARDED_BY(mutex_){};

  // The loop's thread alone.
  int watched_ = -1;
  OwnedFd backend_requests_;
  int64_t request_window_ms_ = 0;
  uint32_t requests_in_window_ = 0;
};

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_VHOST_USER_VHOST_USER_FRONTEND_H_
