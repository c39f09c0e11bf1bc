// A KVM inside this process, behind KVM's own ioctls: for tests of what puts state into vCPUs and takes it out, without /dev/kvm.
// Testonly. What KVM makes of that state is KVM's: kvm/assumptions_test and the guests ask the real one.
//
// Shapes   ioctl(2) of this program is answered here for the descriptors that come from CreateVm, and goes to the kernel for all
//          others. A vCPU keeps what it is given. KVM_RUN loads dirty registers, plays the next of `runs`, and stores the registers.
// Threads  one at a time.
#ifndef VMM_KVM_FAKE_KVM_H_
#define VMM_KVM_FAKE_KVM_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "kvm/uapi.h"
#include "kvm/vm.h"

namespace vmm::kvm {

struct FakeVcpu {
  kvm_run* run = nullptr;
  kvm_regs regs{};
  kvm_sregs sregs{};
  kvm_xsave xsave{};
  kvm_debugregs debug{};
  kvm_xcrs xcrs{};
  kvm_vcpu_events events{};
  uint32_t mp_state = KVM_MP_STATE_RUNNABLE;
  std::map<uint32_t, uint64_t> msrs;  // those that there are
  std::vector<uint32_t> interrupts;   // KVM_INTERRUPT
  int nmis = 0;
  std::vector<uint64_t> prefaulted;  // KVM_PRE_FAULT_MEMORY: where from
  std::set<unsigned long> refused;  // requests that fail with EINVAL
  // The next KVM_RUNs: each fills the run page, and says the errno it fails with, or 0. None left: EINTR.
  std::deque<std::function<int(kvm_run&)>> runs;
  // What a KVM_RUN that only completes the last exit (immediate_exit) leaves in the run page.
  std::function<void(kvm_run&)> completion;
};

class FakeKvm final {
 public:
  FakeKvm();
  FakeKvm(const FakeKvm&) = delete;
  FakeKvm& operator=(const FakeKvm&) = delete;
  // All its VMs and vCPUs are gone.
  ~FakeKvm();

  std::unique_ptr<Vm> CreateVm();
  // Requires: `vm` has made that vCPU.
  FakeVcpu& vcpu(const Vm& vm, uint32_t index);

  // ioctl(2).
  int Answer(int vm_fd, unsigned long request, unsigned long argument);

 private:
  std::map<int, std::map<uint32_t, FakeVcpu>> vms_;  // by descriptor, by number
};

}  // namespace vmm::kvm

#endif  // VMM_KVM_FAKE_KVM_H_
