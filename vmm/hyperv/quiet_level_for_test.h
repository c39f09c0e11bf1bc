// A trust level to whom nothing happens but what a test says: where a scheduler needs one that is not looked at. Testonly.
// vtl_scheduler_test.cc has one that writes down what it is told.
#ifndef VMM_VMM_HYPERV_QUIET_LEVEL_FOR_TEST_H_
#define VMM_VMM_HYPERV_QUIET_LEVEL_FOR_TEST_H_

#include <array>
#include <cstddef>
#include <functional>

#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hypercall/hv_register_layout.h"
#include "devices/hyperv/hypercall/vsm_services.h"
#include "devices/hyperv/vsm/vsm_vp.h"
#include "memory/gpa.h"
#include "vmm/hyperv/scheduled_level.h"

namespace vmm {

class QuietLevel final : public ScheduledLevel {
 public:
  explicit QuietLevel(bool in_kernel) : in_kernel_(in_kernel) {}
  [[nodiscard]] std::byte* assist_page() noexcept override { return page_.data(); }
  [[nodiscard]] HvStatus GetOwnRegister(HvRegisterName, HvRegisterValue&) noexcept override { return HvStatus::kInvalidParameter; }
  [[nodiscard]] HvStatus SetOwnRegister(HvRegisterName, const HvRegisterValue&) noexcept override { return HvStatus::kInvalidParameter; }
  [[nodiscard]] bool AssertInterrupt(const VsmServices::Interrupt&) noexcept override { return false; }
  [[nodiscard]] bool WaitsInKernel() const noexcept override { return in_kernel_; }
  void Watch(bool) noexcept override {}
  void RunPending() noexcept override {}
  [[nodiscard]] bool IsPending() noexcept override { return pending; }
  [[nodiscard]] bool IsDeliverable() noexcept override { return pending; }
  [[nodiscard]] bool PrepareEntry() noexcept override {
    pending = false;
    if (on_prepare) on_prepare();
    return true;
  }
  [[nodiscard]] bool Arm(Use) noexcept override { return true; }
  void Disarm() noexcept override {}
  void AfterExit() noexcept override {}
  void OnRedirected() noexcept override {}
  void RaiseVina(const VinaInterrupt&) noexcept override {}

  bool pending = false;
  std::function<void()> on_prepare;

 private:
  const bool in_kernel_;
  alignas(kPageBytes) std::array<std::byte, kPageBytes> page_{};
};

}  // namespace vmm

#endif  // VMM_VMM_HYPERV_QUIET_LEVEL_FOR_TEST_H_
