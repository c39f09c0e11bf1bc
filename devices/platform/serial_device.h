// The serial port as the monitor has it: a sandboxed process and the IoDevice that speaks with it.
//
// Threads  Start, Shutdown, the destructor and both callbacks: the loop's thread (Start may come before Run, on the thread
//          that will call it: the process dies with the thread that started it). device(): any VP thread.
// Trust    the process is under the guest's control as soon as the guest runs (trapped_protocol.h).
// Errors   Start: Status "start device 'serial': ..." with the reason that the process gave, and nothing is left running.
//          Afterwards on_failed is called exactly once, whichever finds it first: a processor's access or the process's
//          end. Stopping or going on without the device (reads are ones) is the caller's decision.
#ifndef VMM_DEVICES_PLATFORM_SERIAL_DEVICE_H_
#define VMM_DEVICES_PLATFORM_SERIAL_DEVICE_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/event_loop.h"
#include "base/owned_fd.h"
#include "devices/io_device.h"
#include "devices/platform/trapped_device_proxy.h"
#include "devices/platform/trapped_protocol.h"
#include "sandbox/child_process.h"
#include "sandbox/jail_options.h"
#include "sandbox/words_watch.h"

namespace vmm {

struct SerialDeviceOptions {
  // Descriptors are borrowed for the call.
  int executable_fd = -1;  // static, dispatches "device serial" to RunSerialDevice; -1: /proc/self/exe
  int interrupt_fd = -1;   // eventfd, the guest's edge-triggered input (irqfd)
  int output_fd = -1;
  int input_fd = -1;         // -1: none
  bool interactive = false;  // Ctrl-A is the escape key
  int deadline_ms = TrappedDeviceProxy::kDefaultDeadlineMs;
  JailOptions jail;
};

struct SerialDeviceCallbacks {
  // "device 'serial' (pid 71) ended by signal 9 (Killed)"
  std::function<void(const std::string& message)> on_failed;
  // The user typed the escape sequence: at most once, and only where SerialDeviceOptions::interactive.
  std::function<void()> on_quit;
};

class SerialDevice final {
 public:
  static constexpr int kShutdownGraceMs = 1500;  // the process drains its output for kSerialDrainMs of it

  // `loop` outlives the device.
  static absl::StatusOr<std::unique_ptr<SerialDevice>> Start(EventLoop& loop, const SerialDeviceOptions& options,
                                                             SerialDeviceCallbacks callbacks);
  SerialDevice(const SerialDevice&) = delete;
  SerialDevice& operator=(const SerialDevice&) = delete;
  // Kills the process unless Shutdown has ended it. No VP may be in device() any more.
  ~SerialDevice();

  [[nodiscard]] TrappedDeviceProxy& device() noexcept { return *proxy_; }
  [[nodiscard]] pid_t pid() const noexcept { return child_.pid(); }

  // Orderly end: what the guest wrote is written out, then the process ends; killed after the grace period. Calls nobody. How the
  // process ended: by code 0, if all went well.
  absl::StatusOr<ExitStatus> Shutdown(int grace_ms = kShutdownGraceMs);

 private:
  SerialDevice(EventLoop& loop, SerialDeviceCallbacks callbacks) : loop_(loop), callbacks_(std::move(callbacks)) {}
  absl::Status Launch(const SerialDeviceOptions& options);
  absl::Status AwaitReady();
  absl::Status WatchProgress(int period_ms);
  void OnEvent();
  void OnProcessEnd();
  void OnProxyFailure(const std::string& reason);
  void Report(const std::string& what);
  void Unwatch();

  EventLoop& loop_;
  SerialDeviceCallbacks callbacks_;
  // What a task posted by a VP thread holds weakly: it may run after this is gone.
  std::shared_ptr<SerialDevice*> alive_ = std::make_shared<SerialDevice*>(this);
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

#endif  // VMM_DEVICES_PLATFORM_SERIAL_DEVICE_H_
