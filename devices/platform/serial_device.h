// The serial port's process, started: what it inherits, and its terminal, pipe or file.
//
// Threads, trust, errors: trapped_device.h.
#ifndef VMM_DEVICES_PLATFORM_SERIAL_DEVICE_H_
#define VMM_DEVICES_PLATFORM_SERIAL_DEVICE_H_

#include <memory>

#include "absl/status/statusor.h"
#include "base/event_loop.h"
#include "devices/platform/trapped_device.h"
#include "sandbox/jail_options.h"

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

// Before it ends the process writes out what the guest wrote, for kSerialDrainMs of the grace period at most. on_quit: the user typed the
// escape sequence; only where `interactive`.
absl::StatusOr<std::unique_ptr<TrappedDevice>> LaunchSerialDevice(EventLoop& loop, const SerialDeviceOptions& options,
                                                                  TrappedDeviceCallbacks callbacks);

}  // namespace vmm

#endif  // VMM_DEVICES_PLATFORM_SERIAL_DEVICE_H_
