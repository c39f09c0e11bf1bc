// Registers of a PCI function's configuration space, as far as a root bus without bridges has them.
//
// Units    byte offsets.
// Source   PCI Local Bus Specification 3.0, "Configuration Space Organization", "MSI-X Capability and Table Structure".
#ifndef VMM_DEVICES_PCI_PCI_LAYOUT_H_
#define VMM_DEVICES_PCI_PCI_LAYOUT_H_

#include <cstdint>

namespace vmm::pci {

inline constexpr uint32_t kConfigBytes = 256;
inline constexpr uint32_t kSlots = 32;

inline constexpr uint8_t kVendorId = 0x00;
inline constexpr uint8_t kDeviceId = 0x02;
inline constexpr uint8_t kCommand = 0x04;
inline constexpr uint8_t kStatus = 0x06;
inline constexpr uint8_t kRevision = 0x08;
inline constexpr uint8_t kClassCode = 0x09;  // three bytes, the base class last
inline constexpr uint8_t kBar0 = 0x10;
inline constexpr uint8_t kSubsystemVendorId = 0x2c;
inline constexpr uint8_t kSubsystemId = 0x2e;
inline constexpr uint8_t kCapabilityPointer = 0x34;
inline constexpr uint8_t kFirstCapability = 0x40;

inline constexpr uint16_t kCommandMemory = 1 << 1;
inline constexpr uint16_t kCommandBusMaster = 1 << 2;
inline constexpr uint16_t kCommandInterruptDisable = 1 << 10;
inline constexpr uint16_t kStatusCapabilities = 1 << 4;

inline constexpr uint8_t kCapabilityVendor = 0x09;
inline constexpr uint8_t kCapabilityMsix = 0x11;

// The MSI-X capability, from its start.
inline constexpr uint8_t kMsixControl = 2;
inline constexpr uint16_t kMsixEnable = 1 << 15;
inline constexpr uint16_t kMsixFunctionMask = 1 << 14;
// An entry of its table.
inline constexpr uint32_t kMsixEntryBytes = 16;
inline constexpr uint32_t kMsixEntryData = 8;
inline constexpr uint32_t kMsixEntryControl = 12;
inline constexpr uint32_t kMsixEntryMasked = 1;
inline constexpr uint32_t kMsixMaxVectors = 2048;

// The configuration address port and the data port behind it.
inline constexpr uint16_t kConfigPorts = 0xcf8;
inline constexpr uint16_t kConfigPortCount = 8;
inline constexpr uint32_t kConfigEnable = 1u << 31;

}  // namespace vmm::pci

#endif  // VMM_DEVICES_PCI_PCI_LAYOUT_H_
