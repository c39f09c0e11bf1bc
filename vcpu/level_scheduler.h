// Which trust level of a virtual processor runs next, where it has more than one.
//
// Threads  the VP's thread, outside the guest.
// Errors   none: what ends the machine is told to MachineControl by who finds it.
#ifndef VMM_VCPU_LEVEL_SCHEDULER_H_
#define VMM_VCPU_LEVEL_SCHEDULER_H_

#include <cstdint>

namespace vmm {

class LevelScheduler {
 public:
  enum class Turn : uint8_t {
    kRun,   // the active level
    kWait,  // none, till the next kick
  };

  virtual ~LevelScheduler() = default;
  // In place of GuestInterface::PrepareToEnter, which it calls for each level; VirtualProcessor::SwitchTo and Settle may be called in
  // here. From its return on a kick comes for whatever comes later.
  [[nodiscard]] virtual Turn BeforeEntry() noexcept = 0;
  // The active level has left the guest; nothing of its exit has been looked at.
  virtual void AfterExit() noexcept = 0;
};

}  // namespace vmm

#endif  // VMM_VCPU_LEVEL_SCHEDULER_H_
