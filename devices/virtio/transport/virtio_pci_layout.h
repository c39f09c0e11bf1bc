// Registers of the virtio-pci transport, and where they lie in BAR 0.
//
// Source   Virtual I/O Device (VIRTIO) Version 1.2, "Virtio Over PCI Bus".
#ifndef VMM_DEVICES_VIRTIO_TRANSPORT_VIRTIO_PCI_LAYOUT_H_
#define VMM_DEVICES_VIRTIO_TRANSPORT_VIRTIO_PCI_LAYOUT_H_

#include <cstddef>
#include <cstdint>

namespace vmm::virtio_pci {

// Which structure a vendor capability tells of.
inline constexpr uint8_t kCommonCfg = 1;
inline constexpr uint8_t kNotifyCfg = 2;
inline constexpr uint8_t kIsrCfg = 3;
inline constexpr uint8_t kDeviceCfg = 4;
inline constexpr uint8_t kPciCfg = 5;

// struct virtio_pci_cap after cap_vndr and cap_next.
struct CapabilityBody {
  uint8_t cap_len;
  uint8_t cfg_type;
  uint8_t bar;
  uint8_t id;
  uint8_t padding[2];
  uint32_t offset;
  uint32_t length;
};
static_assert(offsetof(CapabilityBody, offset) == 8 && sizeof(CapabilityBody) == 16);
// In the capability, that is two bytes further.
inline constexpr uint8_t kCapabilityBar = 4;
inline constexpr uint8_t kCapabilityOffset = 8;
inline constexpr uint8_t kCapabilityLength = 12;
inline constexpr uint8_t kCapabilityBytes = 16;
inline constexpr uint8_t kPciCfgData = 16;

// BAR 0.
inline constexpr uint32_t kCommonOffset = 0x0000;
inline constexpr uint32_t kCommonBytes = 0x3c;
inline constexpr uint32_t kIsrOffset = 0x0800;
inline constexpr uint32_t kIsrBytes = 4;
inline constexpr uint32_t kDeviceOffset = 0x1000;
inline constexpr uint32_t kDeviceBytes = 0x1000;
inline constexpr uint32_t kNotifyOffset = 0x2000;
inline constexpr uint32_t kNotifyMultiplier = 4;
inline constexpr uint32_t kNotifyBytes = 0x1000;
inline constexpr uint32_t kMaxQueues = kNotifyBytes / kNotifyMultiplier;
inline constexpr uint32_t kMsixTableOffset = 0x4000;
inline constexpr uint32_t kMsixTableBytes = 0x3000;
inline constexpr uint32_t kMsixPendingOffset = 0x7000;
inline constexpr uint32_t kBarBytes = 0x8000;

// struct virtio_pci_common_cfg.
inline constexpr uint32_t kDeviceFeatureSelect = 0x00;
inline constexpr uint32_t kDeviceFeature = 0x04;
inline constexpr uint32_t kDriverFeatureSelect = 0x08;
inline constexpr uint32_t kDriverFeature = 0x0c;
inline constexpr uint32_t kConfigMsixVector = 0x10;
inline constexpr uint32_t kNumQueues = 0x12;
inline constexpr uint32_t kDeviceStatus = 0x14;
inline constexpr uint32_t kConfigGeneration = 0x15;
inline constexpr uint32_t kQueueSelect = 0x16;
inline constexpr uint32_t kQueueSize = 0x18;
inline constexpr uint32_t kQueueMsixVector = 0x1a;
inline constexpr uint32_t kQueueEnable = 0x1c;
inline constexpr uint32_t kQueueNotifyOff = 0x1e;
inline constexpr uint32_t kQueueDesc = 0x20;
inline constexpr uint32_t kQueueDriver = 0x28;
inline constexpr uint32_t kQueueDevice = 0x30;
inline constexpr uint32_t kQueueNotifyData = 0x38;
inline constexpr uint32_t kQueueReset = 0x3a;

inline constexpr uint8_t kIsrQueue = 1;
inline constexpr uint8_t kIsrConfig = 2;

}  // namespace vmm::virtio_pci

#endif  // VMM_DEVICES_VIRTIO_TRANSPORT_VIRTIO_PCI_LAYOUT_H_
