#include "devices/pci/config_space.h"

#include <bit>
#include <cstdlib>
#include <cstring>

namespace vmm {
namespace {

void Check(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

PciConfigSpace::PciConfigSpace(const PciIdentity& identity) {
  Set16(pci::kVendorId, identity.vendor);
  Set16(pci::kDeviceId, identity.device);
  Set16(pci::kSubsystemVendorId, identity.subsystem_vendor);
  Set16(pci::kSubsystemId, identity.subsystem);
  bytes_[pci::kRevision] = identity.revision;
  for (uint32_t i = 0; i < 3; ++i) bytes_[pci::kClassCode + i] = static_cast<uint8_t>(identity.class_code >> (8 * i));
  constexpr uint16_t kCommandBits = pci::kCommandMemory | pci::kCommandBusMaster | pci::kCommandInterruptDisable;
  writable_[pci::kCommand] = kCommandBits & 0xff;
  writable_[pci::kCommand + 1] = kCommandBits >> 8;
  // Interrupt line: the guest's own note.
  writable_[0x3c] = 0xff;
}

uint8_t PciConfigSpace::AddCapability(uint8_t id, std::span<const uint8_t> body, std::span<const uint8_t> writable) {
  const uint8_t at = next_capability_;
  Check(at + 2 + body.size() <= bytes_.size() && (writable.empty() || writable.size() == body.size()));
  bytes_[last_link_] = at;
  last_link_ = at + 1;
  bytes_[at] = id;
  std::memcpy(&bytes_[at + 2], body.data(), body.size());
  if (!writable.empty()) std::memcpy(&writable_[at + 2], writable.data(), writable.size());
  next_capability_ = static_cast<uint8_t>((at + 2 + body.size() + 3) & ~size_t{3});
  bytes_[pci::kStatus] |= pci::kStatusCapabilities;
  return at;
}

void PciConfigSpace::SetBar(uint32_t bytes) {
  Check(std::has_single_bit(bytes) && bytes >= 16);
  bar_bytes_ = bytes;
  // All that a guest learns of the size is which bits stay: it writes ones and reads.
  const uint32_t mask = ~(bytes - 1);
  for (uint32_t i = 0; i < 4; ++i) writable_[pci::kBar0 + i] = static_cast<uint8_t>(mask >> (8 * i));
}

void PciConfigSpace::SetBarAddress(uint32_t address) {
  Check(bar_bytes_ != 0 && address % bar_bytes_ == 0);
  for (uint32_t i = 0; i < 4; ++i) bytes_[pci::kBar0 + i] = static_cast<uint8_t>(address >> (8 * i));
}

void PciConfigSpace::Read(uint32_t offset, std::span<std::byte> data) const noexcept {
  for (size_t i = 0; i < data.size(); ++i) {
    const uint64_t at = uint64_t{offset} + i;
    data[i] = at < bytes_.size() ? std::byte{bytes_[at]} : std::byte{0xff};
  }
}

void PciConfigSpace::Write(uint32_t offset, std::span<const std::byte> data) noexcept {
  for (size_t i = 0; i < data.size(); ++i) {
    const uint64_t at = uint64_t{offset} + i;
    if (at >= bytes_.size()) return;
    const uint8_t mask = writable_[at];
    bytes_[at] = static_cast<uint8_t>((bytes_[at] & ~mask) | (std::to_integer<uint8_t>(data[i]) & mask));
  }
}

uint16_t PciConfigSpace::Read16(uint32_t offset) const noexcept {
  return static_cast<uint16_t>(bytes_[offset] | bytes_[offset + 1] << 8);
}

uint32_t PciConfigSpace::Read32(uint32_t offset) const noexcept {
  return Read16(offset) | static_cast<uint32_t>(Read16(offset + 2)) << 16;
}

void PciConfigSpace::Set16(uint32_t offset, uint16_t value) noexcept {
  bytes_[offset] = static_cast<uint8_t>(value);
  bytes_[offset + 1] = static_cast<uint8_t>(value >> 8);
}

std::optional<Gpa> PciConfigSpace::bar() const noexcept {
  if (bar_bytes_ == 0 || (Read16(pci::kCommand) & pci::kCommandMemory) == 0) return std::nullopt;
  return Gpa(Read32(pci::kBar0));
}

}  // namespace vmm
