// What is around a local APIC, as a test wants it: a bus that writes down, a clock that stands, a deadline, a kick. Testonly.
#ifndef VMM_VCPU_LOCAL_APIC_FAKE_APIC_HOST_H_
#define VMM_VCPU_LOCAL_APIC_FAKE_APIC_HOST_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "devices/guest_interface.h"
#include "vcpu/local_apic/apic_bus.h"
#include "vcpu/local_apic/apic_timer.h"
#include "vcpu/local_apic/local_apic.h"

namespace vmm {

class FakeApicBus final : public ApicBus {
 public:
  void Send(const ApicMessage& message) noexcept override { messages.push_back(message); }
  void BroadcastEoi(uint8_t vector) noexcept override { eois.push_back(vector); }
  std::vector<ApicMessage> messages;
  std::vector<uint8_t> eois;
};

class FakeApicClock final : public ApicClock {
 public:
  [[nodiscard]] uint64_t Ticks() noexcept override { return ticks; }
  [[nodiscard]] uint64_t Tsc() noexcept override { return tsc; }
  uint64_t ticks = 1000;
  uint64_t tsc = 50'000;
};

class FakeApicDeadline final : public ApicDeadline {
 public:
  void SetTicks(uint64_t at) noexcept override {
    ticks = at;
    tsc.reset();
    ++sets;
  }
  void SetTsc(uint64_t at) noexcept override {
    tsc = at;
    ticks.reset();
    ++sets;
  }
  void Cancel() noexcept override {
    ticks.reset();
    tsc.reset();
  }
  [[nodiscard]] bool is_set() const { return ticks || tsc; }
  std::optional<uint64_t> ticks;
  std::optional<uint64_t> tsc;
  int sets = 0;
};

class FakeKick final : public VpKick {
 public:
  void Kick() noexcept override { ++kicks; }
  int kicks = 0;
};

class FakeEoiObserver final : public EoiObserver {
 public:
  void OnEoi(uint8_t vector) noexcept override { vectors.push_back(vector); }
  std::vector<uint8_t> vectors;
};

// One local APIC with its fakes, and the guest's ways to its registers.
struct FakeApicHost {
  FakeApicHost() : FakeApicHost(LocalApic::Options{}) {}
  explicit FakeApicHost(const LocalApic::Options& options) : apic(options, bus, clock, deadline, kick) {}

  uint32_t Read(ApicRegister reg) {
    uint8_t data[4];
    apic.ReadMmio(Address(reg), data);
    return data[0] | data[1] << 8 | data[2] << 16 | uint32_t{data[3]} << 24;
  }
  void Write(ApicRegister reg, uint32_t value) {
    const uint8_t data[4] = {static_cast<uint8_t>(value), static_cast<uint8_t>(value >> 8), static_cast<uint8_t>(value >> 16),
                             static_cast<uint8_t>(value >> 24)};
    apic.WriteMmio(Address(reg), data);
  }
  static uint64_t Address(ApicRegister reg) { return kApicDefaultPage + static_cast<uint64_t>(reg) * 16; }

  static uint32_t Msr(ApicRegister reg) { return kMsrX2apicFirst + static_cast<uint32_t>(reg); }
  [[nodiscard]] std::optional<uint64_t> ReadMsr(uint32_t msr) {
    uint64_t value = 0;
    if (!apic.ReadMsr(msr, value)) return std::nullopt;
    return value;
  }
  [[nodiscard]] std::optional<uint64_t> ReadX2(ApicRegister reg) { return ReadMsr(Msr(reg)); }
  [[nodiscard]] bool WriteX2(ApicRegister reg, uint64_t value) { return apic.WriteMsr(Msr(reg), value); }

  void Enable() { Write(ApicRegister::kSvr, 0x1ff); }
  // x2APIC mode, enabled by software.
  [[nodiscard]] bool EnableX2apic() {
    return apic.WriteMsr(kMsrApicBase, apic.apic_base() | kApicBaseX2apic) && WriteX2(ApicRegister::kSvr, 0x1ff);
  }
  void PostFixed(uint8_t vector, bool level = false) { apic.Post(ApicDeliveryMode::kFixed, vector, level); }
  // As a run loop does whose guest takes interrupts.
  std::optional<uint8_t> TakeInterrupt() {
    const std::optional<uint8_t> vector = apic.NextInterrupt();
    if (vector) apic.Accept(*vector);
    return vector;
  }
  void Eoi() { Write(ApicRegister::kEoi, 0); }

  FakeApicBus bus;
  FakeApicClock clock;
  FakeApicDeadline deadline;
  FakeKick kick;
  LocalApic apic;
};

}  // namespace vmm

#endif  // VMM_VCPU_LOCAL_APIC_FAKE_APIC_HOST_H_
