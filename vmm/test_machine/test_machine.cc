#include "vmm/test_machine/test_machine.h"

#include <sys/mman.h>

#include "base/status_macros.h"
#include "devices/platform/test_machine/test_machine_layout.h"
#include "memory/ram_mapping.h"

namespace vmm {

absl::StatusOr<std::unique_ptr<TestMachine>> TestMachine::Create(const Environment& environment, FwCfg::Values values) {
  std::unique_ptr<TestMachine> machine(new TestMachine(environment, values));
  RETURN_IF_ERROR(machine->AddTo(environment.ports, environment.memory));
  return machine;
}

TestMachine::TestMachine(const Environment& environment, FwCfg::Values values)
    : vm_(environment.vm),
      view_(environment.view),
      fw_cfg_(values),
      debug_exit_(environment.control),
      shutdown_(environment.control),
      scratch_(kTestRegisterPorts),
      storage_(kTestStorageBytes),
      remap_(*this),
      lines_(*this) {}

absl::Status TestMachine::AddTo(IoBus& ports, IoBus& memory) {
  RETURN_IF_ERROR(ports.Add(kFwCfgPort, kFwCfgPorts, "fw_cfg", fw_cfg_));
  RETURN_IF_ERROR(ports.Add(kDebugExitPort, kDebugExitPorts, "debug exit", debug_exit_));
  RETURN_IF_ERROR(ports.Add(kShutdownPort, 1, "shutdown port", shutdown_));
  RETURN_IF_ERROR(ports.Add(kScratchPort, kTestRegisterPorts, "test scratch register", scratch_));
  RETURN_IF_ERROR(ports.Add(kScratchBytesPort, kTestRegisterPorts, "test scratch register by bytes", scratch_));
  RETURN_IF_ERROR(ports.Add(kRemapPort, kTestRegisterPorts, "test remap register", remap_));
  RETURN_IF_ERROR(ports.Add(kInterruptLinesPort, kInterruptLines, "test interrupt lines", lines_));
  return memory.Add(kTestStorageBase.raw(), kTestStorageBytes, "test storage", storage_);
}

void TestMachine::SetInterruptLevel(uint32_t line, bool high) noexcept {
  static_assert(kInterruptLines == kvm::kIoApicInputs, "a line is a route of kvm::Vm::CreateIrqChip");
  if (line >= kInterruptLines) return;
  // No route is missing, so it cannot fail; if it did, the guest would wait for its interrupt and say so.
  static_cast<void>(vm_.SetIrqLine(line, high));
}

void TestMachine::DropMapping(Gpa guest_gpa) noexcept {
  const Gpa page(guest_gpa.page());
  for (const RamMapping& mapping : view_.UnsafeMappings()) {
    if (page < mapping.range.start || page - mapping.range.start >= mapping.range.bytes) continue;
    // The mapping is shared: what goes is the host's page table entry, and KVM's by its notifier; the page stays in its file. A
    // locked page refuses, and then there is nothing to see.
    ::madvise(mapping.host + (page - mapping.range.start), kPageBytes, MADV_DONTNEED);
  }
}

}  // namespace vmm
