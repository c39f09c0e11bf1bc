// The two ports by which a test kernel ends its machine: the debug exit, and Bochs' shutdown port.
//
// Threads  any. The debug exit has no state; the shutdown port's is guarded.
// Trust    any value may be written.
#ifndef VMM_DEVICES_PLATFORM_TEST_MACHINE_END_PORTS_H_
#define VMM_DEVICES_PLATFORM_TEST_MACHINE_END_PORTS_H_

#include <cstddef>

#include "absl/base/thread_annotations.h"
#include "base/mutex.h"
#include "devices/io_device.h"
#include "devices/machine_control.h"

namespace vmm {

// Any write ends the machine with the value written, whatever its width and wherever in the four ports it begins.
class DebugExit final : public IoDevice {
 public:
  explicit DebugExit(MachineControl& control) : control_(control) {}
  void Read(uint64_t offset, std::span<std::byte> data) noexcept override;
  void Write(uint64_t offset, std::span<const std::byte> data) noexcept override;

 private:
  MachineControl& control_;
};

// The bytes of "Shutdown", one after the other, power the machine off. What does not fit begins anew.
class ShutdownPort final : public IoDevice {
 public:
  explicit ShutdownPort(MachineControl& control) : control_(control) {}
  void Read(uint64_t offset, std::span<std::byte> data) noexcept override;
  void Write(uint64_t offset, std::span<const std::byte> data) noexcept override;

 private:
  MachineControl& control_;
  Mutex mutex_;
  size_t matched_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace vmm

#endif  // VMM_DEVICES_PLATFORM_TEST_MACHINE_END_PORTS_H_
