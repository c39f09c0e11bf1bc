// Names, numbers and structures of virtio that transport, backends and tests share.
//
// Units    little endian, as the guest's driver of a modern device writes it.
// Source   Virtual I/O Device (VIRTIO) Version 1.2, "Device Status Field", "Feature Bits", "Split Virtqueues", "Packed
//          Virtqueues".
#ifndef VMM_DEVICES_VIRTIO_VIRTIO_LAYOUT_H_
#define VMM_DEVICES_VIRTIO_VIRTIO_LAYOUT_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace vmm::virtio {

inline constexpr uint16_t kPciVendor = 0x1af4;
inline constexpr uint16_t kPciDeviceBase = 0x1040;

enum class DeviceId : uint16_t { kNet = 1, kBlock = 2, kConsole = 3, kRng = 4, kBalloon = 5, kFs = 26, kVsock = 19 };

// Device status.
inline constexpr uint8_t kStatusAcknowledge = 1;
inline constexpr uint8_t kStatusDriver = 2;
inline constexpr uint8_t kStatusDriverOk = 4;
inline constexpr uint8_t kStatusFeaturesOk = 8;
inline constexpr uint8_t kStatusNeedsReset = 64;
inline constexpr uint8_t kStatusFailed = 128;

// Feature bits that are not of one device type.
constexpr uint64_t Feature(unsigned bit) { return uint64_t{1} << bit; }
inline constexpr uint64_t kFeatureIndirectDesc = Feature(28);
inline constexpr uint64_t kFeatureEventIdx = Feature(29);
inline constexpr uint64_t kFeatureVersion1 = Feature(32);
inline constexpr uint64_t kFeatureRingPacked = Feature(34);
inline constexpr uint64_t kFeatureRingReset = Feature(40);

inline constexpr uint16_t kMaxQueueSize = 32768;

struct Descriptor {
  uint64_t address;
  uint32_t bytes;
  uint16_t flags;
  uint16_t next;
};
static_assert(sizeof(Descriptor) == 16 && offsetof(Descriptor, flags) == 12);
inline constexpr uint16_t kDescriptorNext = 1;
inline constexpr uint16_t kDescriptorWrite = 2;
inline constexpr uint16_t kDescriptorIndirect = 4;

// Of a packed ring. A descriptor is available where AVAIL is the driver's wrap counter and USED is not; used where both are the device's.
struct PackedDescriptor {
  uint64_t address;
  uint32_t bytes;
  uint16_t id;
  uint16_t flags;
};
static_assert(sizeof(PackedDescriptor) == 16 && offsetof(PackedDescriptor, flags) == 14);
inline constexpr uint16_t kPackedAvail = 1 << 7;
inline constexpr uint16_t kPackedUsed = 1 << 15;
constexpr bool PackedIsAvailable(uint16_t flags, bool wrap) {
  return ((flags & kPackedAvail) != 0) == wrap && ((flags & kPackedUsed) != 0) != wrap;
}
inline uint16_t LoadPackedFlags(const std::byte* descriptors, uint16_t index) {
  auto* const flags = reinterpret_cast<uint16_t*>(const_cast<std::byte*>(descriptors) + sizeof(PackedDescriptor) * size_t{index} + 14);
  // acquire: pairs with the driver's release of the flags, so the rest of the descriptors behind it is visible.
  return std::atomic_ref(*flags).load(std::memory_order_acquire);
}
// Event suppression: an offset and its wrap counter in the lower half, one of these in the upper.
inline constexpr uint16_t kPackedEventEnable = 0;
inline constexpr uint16_t kPackedEventDisable = 1;
inline constexpr uint16_t kPackedEventDescriptor = 2;
inline constexpr uint16_t kPackedWrap = 1 << 15;

struct UsedElement {
  uint32_t id;
  uint32_t bytes;
  constexpr bool operator==(const UsedElement&) const = default;
};
static_assert(sizeof(UsedElement) == 8);

// The available ring: flags, idx, ring[size], used_event. The used ring: flags, idx, elements[size], avail_event.
inline constexpr uint64_t kRingIndex = 2;
inline constexpr uint64_t kRingEntries = 4;
inline constexpr uint16_t kAvailNoInterrupt = 1;
inline constexpr uint16_t kUsedNoNotify = 1;
constexpr uint64_t DescriptorBytes(uint16_t size) { return uint64_t{16} * size; }
constexpr uint64_t AvailBytes(uint16_t size) { return kRingEntries + uint64_t{2} * size + 2; }
constexpr uint64_t UsedBytes(uint16_t size) { return kRingEntries + uint64_t{8} * size + 2; }

// Whether an index that went from `before` to `now` has passed what the other side asked to be told of.
constexpr bool PassedEvent(uint16_t event, uint16_t now, uint16_t before) {
  return static_cast<uint16_t>(now - event - 1) < static_cast<uint16_t>(now - before);
}

}  // namespace vmm::virtio

#endif  // VMM_DEVICES_VIRTIO_VIRTIO_LAYOUT_H_
