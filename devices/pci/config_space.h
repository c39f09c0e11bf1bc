// The configuration space of one PCI function: header, one memory BAR, capabilities. Bytes, and which bits of them a guest may write.
//
// Shapes   256 bytes, type 0 header, little endian. BAR 0 is 32-bit memory, not prefetchable; no other BAR, no ROM, no INTx.
// Units    bytes.
// Threads  confined, or under the owner's lock.
// Trust    offsets and data are the guest's. What lies beyond reads as ones and is not written.
// Errors   values. AddCapability and SetBar: CHECK, what they are given is ours.
// Source   PCI Local Bus Specification 3.0, "Configuration Space Organization".
#ifndef VMM_DEVICES_PCI_CONFIG_SPACE_H_
#define VMM_DEVICES_PCI_CONFIG_SPACE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "devices/pci/pci_layout.h"
#include "memory/gpa.h"

namespace vmm {

struct PciIdentity {
  uint16_t vendor = 0;
  uint16_t device = 0;
  uint16_t subsystem_vendor = 0;
  uint16_t subsystem = 0;
  uint32_t class_code = 0;  // base class, subclass, interface: 24 bits
  uint8_t revision = 0;
};

class PciConfigSpace final {
 public:
  explicit PciConfigSpace(const PciIdentity& identity);

  // `body` follows the capability's id and link; `writable` has as many bytes, a bit for each that a guest may write. Where it lies.
  uint8_t AddCapability(uint8_t id, std::span<const uint8_t> body, std::span<const uint8_t> writable = {});
  // A power of two, 16 at least. It lies nowhere before SetBarAddress, as after a reset.
  void SetBar(uint32_t bytes);
  // Where firmware would have put it.
  void SetBarAddress(uint32_t address);

  void Read(uint32_t offset, std::span<std::byte> data) const noexcept;
  void Write(uint32_t offset, std::span<const std::byte> data) noexcept;

  [[nodiscard]] uint16_t Read16(uint32_t offset) const noexcept;
  [[nodiscard]] uint32_t Read32(uint32_t offset) const noexcept;
  // For registers whose bits are ours.
  void Set16(uint32_t offset, uint16_t value) noexcept;

  [[nodiscard]] uint32_t bar_bytes() const noexcept { return bar_bytes_; }
  // Where the BAR answers: nowhere while memory decoding is off.
  [[nodiscard]] std::optional<Gpa> bar() const noexcept;

 private:
  std::array<uint8_t, pci::kConfigBytes> bytes_{};
  std::array<uint8_t, pci::kConfigBytes> writable_{};
  uint32_t bar_bytes_ = 0;
  uint8_t next_capability_ = pci::kFirstCapability;
  uint8_t last_link_ = pci::kCapabilityPointer;
};

}  // namespace vmm

#endif  // VMM_DEVICES_PCI_CONFIG_SPACE_H_
