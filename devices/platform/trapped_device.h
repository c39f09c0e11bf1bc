// A trapped device as the monitor has it: a sandboxed process, and the IoDevice that speaks with it (trapped_protocol.h).
//
// Shapes   Launch starts the process, AwaitReady waits until it serves: between the two others can be launched. What a device needs beyond
//          the protocol's descriptors (kTrapped*Fd) is in the request that its owner makes (serial_device.h).
// Threads  Launch, AwaitReady, Shutdown, the destructor and both callbacks: the loop's thread (Launch may come before Run, on the thread
//          that will call it: the process dies with the thread that started it). device(): any VP thread.
// Trust    the process is under the guest's control as soon as the guest runs.
// Errors   Launch, AwaitReady: Status "start device 'NAME': ..." with the reason that the process gave, and nothing is left running once
//          the object is gone. Afterwards on_failed is called exactly once, whichever finds it first: a processor's access or the
//          process's end. Stopping or going on without the device (reads are ones) is the caller's decision.
#ifndef VMM_DEVICES_PLATFORM_TRAPPED_DEVICE_H_
#define VMM_DEVICES_PLATFORM_TRAPPED_DEVICE_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/event_loop.h"
#include "base/owned_fd.h"
#include "devices/platform/trapped_device_proxy.h"
#include "devices/platform/trapped_protocol.h"
#include "sandbox/child_process.h"
#include "sandbox/spawn.h"
#include "sandbox/words_watch.h"

namespace vmm {

struct TrappedDeviceOptions {
  // Name, jail, program and limits are the owner's, and so are descriptors and arguments behind "vmm", "device", NAME, jail options.
  SpawnRequest request;
  bool publishes = false;  // it has a page of published registers
  int deadline_ms = TrappedDeviceProxy::kDefaultDeadlineMs;
};

struct TrappedDeviceCallbacks {
  // "device 'serial' (pid 71) ended by signal 9 (Killed)"
  std::function<void(const std::string& message)> on_failed;
  // The user asked for the end: at most once. None: from this device that is a lie.
  std::function<void()> on_quit;
};

class TrappedDevice final {
 public:
  static constexpr int kShutdownGraceMs = 1500;

  // `loop` outlives the device. Descriptors of the request are borrowed for the call.
  static absl::StatusOr<std::unique_ptr<TrappedDevice>> Launch(EventLoop& loop, TrappedDeviceOptions options,
                                                               TrappedDeviceCallbacks callbacks);
  absl::Status AwaitReady();
  TrappedDevice(const TrappedDevice&) = delete;
  TrappedDevice& operator=(const TrappedDevice&) = delete;
  // Kills the process unless Shutdown has ended it. No VP may be in device() any more.
  ~TrappedDevice();

  [[nodiscard]] TrappedDeviceProxy& device() noexcept { return *proxy_; }
  [[nodiscard]] pid_t pid() const noexcept { return child_.pid(); }

  // Orderly end: what the guest wrote is worked off, then the process ends; killed after the grace period. Calls nobody. How the
  // process ended: by code 0, if all went well.
  absl::StatusOr<ExitStatus> Shutdown(int grace_ms = kShutdownGraceMs);

 private:
  TrappedDevice(EventLoop& loop, std::string name, int deadline_ms, TrappedDeviceCallbacks callbacks)
      : loop_(loop), name_(std::move(name)), deadline_ms_(deadline_ms), callbacks_(std::move(callbacks)) {}
  absl::Status Start(TrappedDeviceOptions& options);
  absl::Status Hear();
  absl::Status Watch();
  absl::Status WatchProgress();
  void OnEvent();
  void OnProcessEnd();
  void OnProxyFailure(const std::string& reason);
  void Report(const std::string& what);
  void Unwatch();

  EventLoop& loop_;
  const std::string name_;
  const int deadline_ms_;
  bool log_only_ = false;
  TrappedDeviceCallbacks callbacks_;
  // What a task posted by a VP thread holds weakly: it may run after this is gone.
  std::shared_ptr<TrappedDevice*> alive_ = std::make_shared<TrappedDevice*>(this);
  OwnedFd event_;
  std::unique_ptr<const PublishedPage, void (*)(const PublishedPage*)> page_{nullptr, nullptr};
  std::unique_ptr<TrappedDeviceProxy> proxy_;
  ChildProcess child_;
  std::unique_ptr<WordsWatch> words_;  // only where violations are let through: else what it says is for its end
  OwnedFd timer_;  // for CheckProgress
  bool watching_timer_ = false;
  bool watching_event_ = false;
  bool watching_process_ = false;
  bool reported_ = false;
};

}  // namespace vmm

#endif  // VMM_DEVICES_PLATFORM_TRAPPED_DEVICE_H_
