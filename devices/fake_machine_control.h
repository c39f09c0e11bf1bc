// Writes down who asked for the end of the machine. Testonly: use it wherever a device or a register may end it, on one thread.
#ifndef VMM_DEVICES_FAKE_MACHINE_CONTROL_H_
#define VMM_DEVICES_FAKE_MACHINE_CONTROL_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "devices/machine_control.h"

namespace vmm {

class FakeMachineControl final : public MachineControl {
 public:
  void RequestEnd(MachineEnd end, absl::string_view detail) noexcept override {
    if (!reason) reason = end;
    ++requests;
    last = end;
    text = std::string(detail);
  }
  void RequestDebugExit(uint32_t exit_value) noexcept override {
    if (!reason) value = exit_value;
    RequestEnd(MachineEnd::kDebugExit, "");
  }

  std::optional<MachineEnd> reason;  // the first: what counts
  MachineEnd last = MachineEnd::kInternalError;
  std::string text;  // of the last
  uint32_t value = 0;
  int requests = 0;
};

}  // namespace vmm

#endif  // VMM_DEVICES_FAKE_MACHINE_CONTROL_H_
