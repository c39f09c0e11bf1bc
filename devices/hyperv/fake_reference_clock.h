// Reference time that stands where a test puts it. Testonly.
#ifndef VMM_DEVICES_HYPERV_FAKE_REFERENCE_CLOCK_H_
#define VMM_DEVICES_HYPERV_FAKE_REFERENCE_CLOCK_H_

#include <optional>

#include "devices/hyperv/hv_host.h"

namespace vmm {

class FakeReferenceClock final : public ReferenceClock {
 public:
  [[nodiscard]] HvTicks Now() noexcept override { return now; }
  [[nodiscard]] std::optional<ReferenceTscParameters> tsc_parameters() const noexcept override { return parameters; }

  HvTicks now;
  std::optional<ReferenceTscParameters> parameters;
};

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_FAKE_REFERENCE_CLOCK_H_
