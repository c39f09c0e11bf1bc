// How a device or a virtual processor asks for the end of the machine.
//
// Units    the value of a debug exit is what the guest wrote, 1 to 4 bytes of it; 0 for every other end.
// Threads  any; never blocks. The first request wins, later ones are dropped.
// Errors   none.
#ifndef VMM_DEVICES_MACHINE_CONTROL_H_
#define VMM_DEVICES_MACHINE_CONTROL_H_

#include <cstdint>

#include "absl/strings/string_view.h"

namespace vmm {

enum class MachineEnd : uint8_t {
  kPoweredOff,     // the guest asked, by ACPI S5
  kRebooted,       // the guest asked, by the reset register
  kTripleFault,    // the processor gave up
  kPanicked,       // the guest's kernel said so
  kDeviceFailed,   // a device process died or stopped answering, and its policy is to stop
  kInternalError,  // KVM could not go on
  kStopped,        // the person or the embedding program asked
  kDebugExit,      // the guest of a TEST machine wrote a value to its debug-exit port
  kGuestCrash,     // the guest reported a crash by the Hyper-V crash registers
};

class MachineControl {
 public:
  virtual ~MachineControl() = default;
  // `detail` is for the log; it may quote the guest.
  virtual void RequestEnd(MachineEnd end, absl::string_view detail) noexcept = 0;
  // The end kDebugExit, with its value. Nobody but a TEST machine's device asks for it.
  virtual void RequestDebugExit(uint32_t /*value*/) noexcept {
    RequestEnd(MachineEnd::kDebugExit, "the guest ended the test machine");
  }
};

}  // namespace vmm

#endif  // VMM_DEVICES_MACHINE_CONTROL_H_
