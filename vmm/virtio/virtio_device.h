// One virtio device of a machine with its backend: a sandboxed process of ours, or somebody else's socket; and what happens when it
// fails.
//
// Shapes   the PCI function and the front end live as long as the device; backends come and go.
// Units    milliseconds.
// Threads  Create, Shutdown, the destructor: the loop's thread, and all that happens when a backend fails. function(): the bus's.
// Trust    the backend is under the guest's control as soon as the guest runs (vhost_user_frontend.h). What it says is escaped, and
//          bounded in number.
// Errors   Create: Status "device 'x': ...", nothing is left running. Later failures go by the policy: the machine ends (STOP), or goes
//          on without the device (DETACH: it needs a reset, and never comes back), or another backend is started (RESTART): after
//          100 ms, twice that each further time, 10 s at most, from the start again after a minute without failure.
#ifndef VMM_VMM_VIRTIO_VIRTIO_DEVICE_H_
#define VMM_VMM_VIRTIO_VIRTIO_DEVICE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/event_loop.h"
#include "base/log.h"
#include "base/owned_fd.h"
#include "devices/machine_control.h"
#include "devices/pci/msi_router.h"
#include "devices/virtio/backend/backend_spawn.h"
#include "devices/virtio/transport/doorbells.h"
#include "devices/virtio/transport/virtio_pci.h"
#include "devices/virtio/vhost_user/vhost_user_frontend.h"
#include "memory/guest_memory.h"
#include "sandbox/child_process.h"
#include "sandbox/spawner.h"
#include "vmm/config/vm_config.h"

namespace vmm {

class VirtioDevice final {
 public:
  static constexpr int kShutdownGraceMs = 1500;
  static constexpr int kFirstBackOffMs = 100;
  static constexpr int kLongestBackOffMs = 10'000;
  static constexpr int kHealthyMs = 60'000;

  struct Environment {
    EventLoop& loop;
    const GuestMemory& memory;
    MsiRouter& router;
    Doorbells& doorbells;
    MachineControl& control;
    Spawner* spawner = nullptr;  // for devices that are started again once the loop's thread is confined; null: it will not be
  };
  struct Options {
    VhostUserFrontendOptions frontend;
    OnFailure on_failure = OnFailure::kStop;
    std::string socket;          // of somebody else's backend; empty: ours
    OwnedFd connection;          // to the one backend that there will be, which runs already
    BackendSpawnOptions spawn;   // ours; its descriptors are the ones below
    std::vector<OwnedFd> fds;    // kept for restarts
    std::vector<OwnedFd> kept;   // only held open
    OwnedFd control;             // the monitor's end of what it tells the device by, where it does
    OwnedFd quit;                // an eventfd by which the device says that the person wants the machine to end
    ChildProcess helper;         // a trusted process beside it, which dies with it
  };

  static absl::StatusOr<std::unique_ptr<VirtioDevice>> Create(const Environment& environment, Options options);
  VirtioDevice(const VirtioDevice&) = delete;
  VirtioDevice& operator=(const VirtioDevice&) = delete;
  ~VirtioDevice();

  [[nodiscard]] VirtioPci& function() noexcept { return *function_; }
  [[nodiscard]] const std::string& name() const noexcept { return options_.frontend.name; }
  [[nodiscard]] int pid() const noexcept { return process_.pid(); }
  struct Stats {
    uint64_t restarts = 0;
    uint64_t queue_faults = 0;  // queues that its backend stopped for what the guest put into them
  };
  // Any thread.
  [[nodiscard]] Stats stats() const noexcept { return {restarts_.load(std::memory_order_relaxed), frontend_->queue_faults()}; }
  // The processors have ended: the backend is told by the end of its connection, and killed after the grace period.
  void Shutdown();

 private:
  VirtioDevice(const Environment& environment, Options options) : environment_(environment), options_(std::move(options)) {}
  [[nodiscard]] Spawner* spawner() const noexcept { return options_.on_failure == OnFailure::kRestart ? environment_.spawner : nullptr; }
  absl::StatusOr<OwnedFd> StartBackend();
  absl::Status ConnectBackend();
  void OnLost(const absl::Status& why);
  void Retry();
  void OnMessages();
  std::string CompanionsEnd();
  void DropBackend();

  const Environment environment_;
  Options options_;
  GuestLog messages_log_{"device"};
  ChildProcess process_;
  ChildProcess companion_;  // after the device, whose end ends it
  OwnedFd messages_;
  OwnedFd timer_;
  int back_off_ms_ = kFirstBackOffMs;
  int64_t connected_ms_ = 0;
  std::atomic<uint64_t> restarts_{0};
  // The function before the front end that it calls.
  std::unique_ptr<VhostUserFrontend> frontend_;
  std::unique_ptr<VirtioPci> function_;
};

}  // namespace vmm

#endif  // VMM_VMM_VIRTIO_VIRTIO_DEVICE_H_
