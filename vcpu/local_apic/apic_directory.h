// The local APICs of all virtual processors at one trust level: the way of a message to those that it names.
//
// Lowest-priority delivery goes to the APIC of the lowest processor priority among those that are named and receive, as each last
// published it; among equals, to the next in turn.
//
// Shapes   APIC n has id n.
// Threads  Add: set-up. Send, BroadcastEoi: any, never block; immutable then, but for the turn.
// Trust    destinations and vectors are the guest's.
// Errors   Add: Status. A message that names nobody is dropped.
// Source   Intel SDM volume 3, "Determining IPI Destination", "Lowest Priority Delivery Mode".
#ifndef VMM_VCPU_LOCAL_APIC_APIC_DIRECTORY_H_
#define VMM_VCPU_LOCAL_APIC_APIC_DIRECTORY_H_

#include <atomic>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "vcpu/local_apic/apic_bus.h"
#include "vcpu/local_apic/local_apic.h"

namespace vmm {

// An I/O APIC's side of level-triggered interrupts.
class EoiBroadcastSink {
 public:
  virtual ~EoiBroadcastSink() = default;
  // Any VP's thread.
  virtual void OnEoiBroadcast(uint8_t vector) noexcept = 0;
};

class ApicDirectory final : public ApicBus {
 public:
  // `io_apic` outlives this; null: there is none.
  explicit ApicDirectory(EoiBroadcastSink* io_apic = nullptr) noexcept : io_apic_(io_apic) {}
  ApicDirectory(const ApicDirectory&) = delete;
  ApicDirectory& operator=(const ApicDirectory&) = delete;

  // In the order of their ids, before any VP runs. `apic` outlives the last Send.
  absl::Status Add(LocalApic& apic);

  // Also for messages that no APIC sends: hypercalls' and devices', whose sender is nobody.
  void Send(const ApicMessage& message) noexcept override;
  void BroadcastEoi(uint8_t vector) noexcept override;

 private:
  void SendToLowest(const ApicMessage& message) noexcept;

  EoiBroadcastSink* const io_apic_;
  std::vector<LocalApic*> apics_;
  std::atomic<uint32_t> turn_{0};  // relaxed: any order is fair
};

}  // namespace vmm

#endif  // VMM_VCPU_LOCAL_APIC_APIC_DIRECTORY_H_
