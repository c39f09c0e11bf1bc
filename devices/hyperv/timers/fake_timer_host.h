// A deadline that a test makes pass, and a local APIC that writes down its vectors. Testonly: use them wherever timers run.
#ifndef VMM_DEVICES_HYPERV_TIMERS_FAKE_TIMER_HOST_H_
#define VMM_DEVICES_HYPERV_TIMERS_FAKE_TIMER_HOST_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "devices/hyperv/hv_host.h"
#include "devices/hyperv/hv_types.h"

namespace vmm {

class FakeDeadlineTimer final : public DeadlineTimer {
 public:
  void Set(HvTicks at) noexcept override {
    deadline = at;
    ++sets;
  }
  void Cancel() noexcept override { deadline.reset(); }

  std::optional<HvTicks> deadline;
  int sets = 0;
};

class FakeVectorInterrupts final : public VectorInterrupts {
 public:
  void RaiseVector(uint8_t vector) noexcept override { vectors.push_back(vector); }
  std::vector<uint8_t> vectors;
};

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_TIMERS_FAKE_TIMER_HOST_H_
