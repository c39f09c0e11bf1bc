// The devices of a TEST machine on its buses, and what they ask of KVM and of the mappings behind guest RAM.
//
// Threads  Create, destructor: the machine's owner, with no processor running. SetInterruptLevel, DropMapping: any.
// Trust    lines and addresses are the guest's: out of range, nothing happens.
// Errors   Create: Status, where a device of the configuration has one of the ports.
#ifndef VMM_VMM_TEST_MACHINE_TEST_MACHINE_H_
#define VMM_VMM_TEST_MACHINE_TEST_MACHINE_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "devices/io_bus.h"
#include "devices/machine_control.h"
#include "devices/platform/test_machine/end_ports.h"
#include "devices/platform/test_machine/fw_cfg.h"
#include "devices/platform/test_machine/test_machine_host.h"
#include "devices/platform/test_machine/test_registers.h"
#include "kvm/vm.h"
#include "memory/gpa.h"
#include "memory/guest_view.h"

namespace vmm {

class TestMachine final : private TestMachineHost {
 public:
  // All are borrowed. Buses are used in Create only, but keep the devices: this object outlives their last access.
  struct Environment {
    kvm::Vm& vm;
    const GuestView& view;  // whose mappings are KVM's memory slots
    MachineControl& control;
    IoBus& ports;
    IoBus& memory;
  };
  static absl::StatusOr<std::unique_ptr<TestMachine>> Create(const Environment& environment, FwCfg::Values values);
  TestMachine(const TestMachine&) = delete;
  TestMachine& operator=(const TestMachine&) = delete;

 private:
  TestMachine(const Environment& environment, FwCfg::Values values);
  absl::Status AddTo(IoBus& ports, IoBus& memory);
  void SetInterruptLevel(uint32_t line, bool high) noexcept override;
  void DropMapping(Gpa guest_gpa) noexcept override;

  kvm::Vm& vm_;
  const GuestView& view_;
  FwCfg fw_cfg_;
  DebugExit debug_exit_;
  ShutdownPort shutdown_;
  PlainStorage scratch_;
  PlainStorage storage_;
  RemapRegister remap_;
  InterruptLines lines_;
};

}  // namespace vmm

#endif  // VMM_VMM_TEST_MACHINE_TEST_MACHINE_H_
