// The trapped devices that have processes of their own: the serial port, and the real-time clock of guests without kvmclock.
//
// Shapes   Begin starts their processes on the loop's thread, all at once, and returns; Finish waits for them and puts them on the bus. Between
//          the two the owner loads the kernel.
// Threads  Begin, Finish: the owner's. Shutdown and the destructor: the loop's (MachineEventLoop::RunThere).
// Errors   Finish: the first Status of those of TrappedDevice. Afterwards on_failed, on the loop's thread, once for each device.
#ifndef VMM_VMM_MACHINE_TRAPPED_DEVICES_H_
#define VMM_VMM_MACHINE_TRAPPED_DEVICES_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/event_loop.h"
#include "base/notification.h"
#include "devices/io_bus.h"
#include "devices/platform/trapped_device.h"
#include "kvm/vm.h"
#include "vmm/config/vm_config.h"

namespace vmm {

// Who finds no kvmclock needs another clock.
[[nodiscard]] bool HasRtc(const VmConfig& config);

class TrappedDevices final {
 public:
  struct Environment {
    EventLoop& loop;
    kvm::Vm& vm;
    IoBus& ports;
    std::string device_executable;  // empty: this one
    bool interactive = false;
    std::function<void(OnFailure policy, const std::string& message)> on_failed;
    std::function<void()> on_quit;  // the user typed the escape sequence
  };

  // All that `environment` and `config` name outlive it.
  static absl::StatusOr<std::unique_ptr<TrappedDevices>> Begin(const VmConfig& config, Environment environment);
  TrappedDevices(const TrappedDevices&) = delete;
  TrappedDevices& operator=(const TrappedDevices&) = delete;

  // To be called whatever else failed: the loop's thread uses this object until then.
  absl::Status Finish();
  // Orderly; one that ends otherwise is told, unless on_failed has spoken of it.
  void Shutdown();

 private:
  struct Device {
    std::string name;
    uint16_t port;
    uint16_t ports;
    OnFailure on_failure;
    std::unique_ptr<TrappedDevice> process;
    bool failed = false;  // the loop's thread's
  };
  struct Files;

  TrappedDevices(const VmConfig& config, Environment environment) : config_(config), environment_(std::move(environment)) {}
  absl::StatusOr<std::shared_ptr<Files>> OpenFiles();
  absl::Status Start(const Files& files);
  TrappedDeviceCallbacks CallbacksOf(Device& device);

  const VmConfig& config_;
  const Environment environment_;
  // Made and destroyed on the loop's thread: who has waited for started_ sees them.
  std::vector<std::unique_ptr<Device>> devices_;
  absl::Status start_status_;
  Notification started_;
};

}  // namespace vmm

#endif  // VMM_VMM_MACHINE_TRAPPED_DEVICES_H_
