// What a local APIC sends: messages to the local APICs of other virtual processors, and ends of interrupt to an I/O APIC.
//
// Threads  implementations: any, never block.
// Trust    destinations are the guest's: one that nobody has is dropped. Vectors too: a receiver checks them.
// Errors   none.
// Source   Intel SDM volume 3, "Determining IPI Destination"; AMD APM volume 2, "Interprocessor Interrupts".
#ifndef VMM_VCPU_LOCAL_APIC_APIC_BUS_H_
#define VMM_VCPU_LOCAL_APIC_APIC_BUS_H_

#include <cstdint>

#include "vcpu/local_apic/apic_layout.h"

namespace vmm {

// Whom a message names. Broadcast is a field of its own, since its number differs by the sender's mode.
struct ApicDestination {
  uint32_t number = 0;  // an APIC id, or a logical one
  bool is_logical = false;
  bool is_broadcast = false;
  // As a register holds it: 8 bits of xAPIC mode, 32 of x2APIC mode; all ones are everybody, logical or physical.
  [[nodiscard]] static constexpr ApicDestination From(uint32_t number, bool is_logical, bool is_x2apic) noexcept {
    return {number, is_logical, number == (is_x2apic ? 0xffff'ffff : 0xff)};
  }
  bool operator==(const ApicDestination&) const = default;
};

// Always an edge: levels are an I/O APIC's.
struct ApicMessage {
  ApicDeliveryMode mode = ApicDeliveryMode::kFixed;
  uint8_t vector = 0;
  ApicDestination destination;
  bool but_sender = false;
  uint32_t sender = 0;  // an APIC id
  bool operator==(const ApicMessage&) const = default;
};

class ApicBus {
 public:
  virtual ~ApicBus() = default;
  // Visible to the receivers before the call returns.
  virtual void Send(const ApicMessage& message) noexcept = 0;
  // A level-triggered vector was ended, on a VP's thread.
  virtual void BroadcastEoi(uint8_t vector) noexcept = 0;
};

}  // namespace vmm

#endif  // VMM_VCPU_LOCAL_APIC_APIC_BUS_H_
