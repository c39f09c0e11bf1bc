// A virtual processor of two trust levels over a fake KVM, stopped: for tests of what looks at its registers, or changes them. Testonly.
// It has no thread; who calls is its thread. What looks at its memory and accesses as well: stopped_level_for_test.h.
#ifndef VMM_VMM_HYPERV_TWO_LEVELS_FOR_TEST_H_
#define VMM_VMM_HYPERV_TWO_LEVELS_FOR_TEST_H_

#include <array>
#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "devices/fake_machine_control.h"
#include "devices/guest_interface.h"
#include "devices/io_bus.h"
#include "kvm/fake_kvm.h"
#include "kvm/vcpu.h"
#include "kvm/vm.h"
#include "vcpu/level_scheduler.h"
#include "vcpu/virtual_processor.h"

namespace vmm {

class TwoLevelsForTest final {
 public:
  // In place of one that does nothing; it outlives this.
  struct Parts {
    GuestInterface* vtl1 = nullptr;
    LevelScheduler* scheduler = nullptr;
  };
  TwoLevelsForTest() : TwoLevelsForTest(Parts{}) {}
  explicit TwoLevelsForTest(Parts parts) {
    if (parts.vtl1 == nullptr) parts.vtl1 = &guests_[1];
    if (parts.scheduler == nullptr) parts.scheduler = &scheduler_;
    for (auto& vm : vms) vm = kvm.CreateVm();
    std::vector<VirtualProcessor::UpperLevel> above;
    above.push_back({vms[1]->CreateVcpu(0).value(), parts.vtl1});
    processor = VirtualProcessor::Create(vms[0]->CreateVcpu(0).value(),
                                         {.ports = ports,
                                          .memory = memory_,
                                          .control = control,
                                          .guest = &guests_[0],
                                          .scheduler = parts.scheduler},
                                         std::move(above))
                    .value();
  }

  // What KVM has of a level.
  kvm::FakeVcpu& state(size_t level) { return kvm.vcpu(*vms.at(level), 0); }
  kvm::Vcpu& vcpu(size_t level) { return processor->vcpu(level); }
  // As after an exit of both: what was put into `state` is in the run pages.
  bool Fetch() { return vcpu(0).FetchSyncedRegs() && vcpu(1).FetchSyncedRegs(); }

  kvm::FakeKvm kvm;
  std::array<std::unique_ptr<kvm::Vm>, 2> vms;
  FakeMachineControl control;
  IoBus ports;

 private:
  class NoGuest final : public GuestInterface {
   public:
    [[nodiscard]] bool ReadMsr(uint32_t, uint64_t&) noexcept override { return false; }
    [[nodiscard]] bool WriteMsr(uint32_t, uint64_t) noexcept override { return false; }
    [[nodiscard]] HypercallOutcome Hypercall(HypercallRegisters&, XmmAccess&) noexcept override { return HypercallOutcome::kNotOffered; }
    [[nodiscard]] bool OnInaccessibleMemory() noexcept override { return false; }
    void PrepareToEnter() noexcept override {}
  };
  class NoScheduler final : public LevelScheduler {
   public:
    [[nodiscard]] Turn BeforeEntry() noexcept override { return Turn::kWait; }
    void AfterExit() noexcept override {}
  };
  IoBus memory_;
  std::array<NoGuest, 2> guests_;
  NoScheduler scheduler_;

 public:
  std::unique_ptr<VirtualProcessor> processor;
};

}  // namespace vmm

#endif  // VMM_VMM_HYPERV_TWO_LEVELS_FOR_TEST_H_
