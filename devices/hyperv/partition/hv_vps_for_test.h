// A partition of three VPs with everything around them faked, and a guest's hands on their registers. Testonly: for tests of HvVp.
#ifndef VMM_DEVICES_HYPERV_PARTITION_HV_VPS_FOR_TEST_H_
#define VMM_DEVICES_HYPERV_PARTITION_HV_VPS_FOR_TEST_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "devices/hyperv/cpuid/hv_cpuid.h"
#include "devices/hyperv/fake_overlay_space.h"
#include "devices/hyperv/fake_reference_clock.h"
#include "devices/hyperv/hv_cpuid_layout.h"
#include "devices/hyperv/hv_msr_layout.h"
#include "devices/hyperv/hypercall/fake_hypercall_services.h"
#include "devices/hyperv/partition/hv_partition.h"
#include "devices/hyperv/partition/hv_vp.h"
#include "devices/hyperv/synic/connections.h"
#include "devices/hyperv/synic/synic_for_test.h"
#include "devices/hyperv/timers/fake_timer_host.h"
#include "devices/fake_machine_control.h"
#include "devices/machine_control.h"
#include "memory/guest_memory.h"
#include "memory/guest_ram.h"
#include "memory/layout.h"
#include "memory/level_memory.h"

namespace vmm {

// Takes every value and gives it back.
class FakeKernelTimers final : public KernelTimers {
 public:
  [[nodiscard]] bool SetMsr(uint32_t msr, uint64_t value) noexcept override {
    values[msr] = value;
    ++sets;
    return !refuses;
  }
  [[nodiscard]] bool GetMsr(uint32_t msr, uint64_t& value) noexcept override {
    value = values[msr];
    return !refuses;
  }
  std::map<uint32_t, uint64_t> values;
  int sets = 0;
  bool refuses = false;
};

class FakeVpStarter final : public VpStarter {
 public:
  [[nodiscard]] HvStatus Start(VpIndex vp, const HvInitialVpContext& context) noexcept override {
    started = vp;
    rip = context.rip;
    return status;
  }
  std::optional<VpIndex> started;
  uint64_t rip = 0;
  HvStatus status = HvStatus::kSuccess;
};

class HvVpsForTest final : private SynicDirectory, private HvVpDirectory {
 public:
  static constexpr uint32_t kVps = 3;
  static constexpr uint64_t kRamBytes = 16 << 20;  // FakeOverlaySpace::kRamPages

  enum class Timers : uint8_t { kOwn, kKernel };
  explicit HvVpsForTest(Timers timers = Timers::kOwn) : HvVpsForTest(timers, StandardHvOffer({.max_vps = kVps})) {}
  HvVpsForTest(Timers timers, const HvOffer& offer) : offer_(offer), connections(*this) {
    const auto layout = MemoryLayout::Create(kRamBytes).value();
    memory = GuestMemory::Create(*GuestRam::Create({.bytes = kRamBytes}).value(), layout).value();
    level_memory = std::make_unique<LevelMemory>(*memory);
    clock.parameters = ReferenceTscParameters{.scale = 1, .offset = 2};
    shared_ = std::make_unique<HvSharedRegisters>(HvSharedRegisters::Environment{clock, control, *level_memory},
                                                  HvSharedRegisters::Frequencies{.tsc_hz = 3'000'000'000, .apic_hz = 1'000'000'000});
    partition = HvPartition::Create(offer, *shared_, overlays).value();
    host.count = kVps;
    for (uint32_t n = 0; n < kVps; ++n) {
      around_.push_back(std::make_unique<Around>());
      Around& a = *around_.back();
      vps_.push_back(HvVp::Create(VpIndex(n), kVtl0, offer,
                                  {.partition = *partition,
                                   .connections = connections,
                                   .vps = *this,
                                   .host = host,
                                   .starter = starter,
                                   .clock = clock,
                                   .memory = *level_memory,
                                   .overlays = overlays,
                                   .sints = a.sints,
                                   .vectors = a.vectors,
                                   .deadline = a.deadline,
                                   .kick = a.kick,
                                   .kernel_timers = timers == Timers::kKernel ? &a.kernel : nullptr})
                         .value());
    }
  }

  // What is around one VP.
  struct Around {
    FakeSintInterrupts sints;
    FakeVectorInterrupts vectors;
    FakeDeadlineTimer deadline;
    FakeVpKick kick;
    FakeKernelTimers kernel;
  };
  HvVp& vp(uint32_t n) { return *vps_.at(n); }
  Around& around(uint32_t n) { return *around_.at(n); }
  // VP n's pages are made in this order.
  FakeOverlayPage& assist_page(uint32_t n) { return overlays.page(2 + 3 * n); }
  FakeOverlayPage& message_page(uint32_t n) { return overlays.page(3 + 3 * n); }

  std::optional<uint64_t> Get(uint32_t n, uint32_t msr) {
    uint64_t value = 0xbad;
    return vp(n).ReadMsr(msr, value) ? std::optional(value) : std::nullopt;
  }
  bool Set(uint32_t n, uint32_t msr, uint64_t value) { return vp(n).WriteMsr(msr, value); }

 private:
  [[nodiscard]] Synic* Find(VpIndex vp, Vtl vtl) noexcept override {
    return vtl == kVtl0 && vp.raw() < vps_.size() ? &vps_[vp.raw()]->synic() : nullptr;
  }
  [[nodiscard]] uint32_t vp_count() const noexcept override { return kVps; }
  [[nodiscard]] HvVp* FindVp(VpIndex vp) noexcept override { return vp.raw() < vps_.size() ? vps_[vp.raw()].get() : nullptr; }

  const HvOffer offer_;

 public:
  std::unique_ptr<GuestMemory> memory;
  std::unique_ptr<LevelMemory> level_memory;
  FakeReferenceClock clock;
  FakeMachineControl control;
  FakeOverlaySpace overlays;
  FakePartitionHost host;
  FakeVpStarter starter;
  ConnectionTable connections;
  std::unique_ptr<HvPartition> partition;

 private:
  std::unique_ptr<HvSharedRegisters> shared_;
  std::vector<std::unique_ptr<Around>> around_;
  std::vector<std::unique_ptr<HvVp>> vps_;
};

}  // namespace vmm

#endif  // VMM_DEVICES_HYPERV_PARTITION_HV_VPS_FOR_TEST_H_
