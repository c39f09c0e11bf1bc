// Packets, commands and configuration of the virtio network device.
//
// Units    bytes; little endian.
// Source   Virtual I/O Device (VIRTIO) Version 1.2, "Network Device".
#ifndef VMM_DEVICES_VIRTIO_NET_NET_LAYOUT_H_
#define VMM_DEVICES_VIRTIO_NET_NET_LAYOUT_H_

#include <cstddef>
#include <cstdint>

namespace vmm::virtio_net {

constexpr uint64_t Feature(unsigned bit) { return uint64_t{1} << bit; }
inline constexpr uint64_t kFeatureCsum = Feature(0);
inline constexpr uint64_t kFeatureGuestCsum = Feature(1);
inline constexpr uint64_t kFeatureCtrlGuestOffloads = Feature(2);
inline constexpr uint64_t kFeatureMtu = Feature(3);
inline constexpr uint64_t kFeatureMac = Feature(5);
inline constexpr uint64_t kFeatureGuestTso4 = Feature(7);
inline constexpr uint64_t kFeatureGuestTso6 = Feature(8);
inline constexpr uint64_t kFeatureGuestEcn = Feature(9);
inline constexpr uint64_t kFeatureGuestUfo = Feature(10);
inline constexpr uint64_t kFeatureHostTso4 = Feature(11);
inline constexpr uint64_t kFeatureHostTso6 = Feature(12);
inline constexpr uint64_t kFeatureHostEcn = Feature(13);
inline constexpr uint64_t kFeatureHostUfo = Feature(14);
inline constexpr uint64_t kFeatureMrgRxbuf = Feature(15);
inline constexpr uint64_t kFeatureStatus = Feature(16);
inline constexpr uint64_t kFeatureCtrlVq = Feature(17);
inline constexpr uint64_t kFeatureCtrlRx = Feature(18);
inline constexpr uint64_t kFeatureMq = Feature(22);
inline constexpr uint64_t kFeatureCtrlMacAddr = Feature(23);
inline constexpr uint64_t kFeatureGuestUso4 = Feature(54);
inline constexpr uint64_t kFeatureGuestUso6 = Feature(55);
inline constexpr uint64_t kFeatureHostUso = Feature(56);
// What a driver lets the device send it, and may change later by a command.
inline constexpr uint64_t kGuestOffloads = kFeatureGuestCsum | kFeatureGuestTso4 | kFeatureGuestTso6 | kFeatureGuestEcn |
                                           kFeatureGuestUfo | kFeatureGuestUso4 | kFeatureGuestUso6;

// In front of each packet, both ways.
struct Header {
  uint8_t flags;
  uint8_t gso_type;
  uint16_t hdr_len;
  uint16_t gso_size;
  uint16_t csum_start;
  uint16_t csum_offset;
  uint16_t num_buffers;
};
static_assert(sizeof(Header) == 12 && offsetof(Header, num_buffers) == 10);
inline constexpr uint8_t kFlagNeedsCsum = 1;
inline constexpr uint8_t kGsoNone = 0;
inline constexpr uint8_t kGsoTcpV4 = 1;
inline constexpr uint8_t kGsoUdp = 3;
inline constexpr uint8_t kGsoTcpV6 = 4;
inline constexpr uint8_t kGsoUdpL4 = 5;
inline constexpr uint8_t kGsoEcn = 0x80;

// A frame: an Ethernet header, perhaps a VLAN's, and what a segmentation offload makes of 64 KiB.
inline constexpr uint32_t kEthernetBytes = 14;
inline constexpr uint32_t kLinkBytes = kEthernetBytes + 4;
inline constexpr uint32_t kMaxFrameBytes = kLinkBytes + 65535;
inline constexpr uint16_t kMinMtu = 68;
inline constexpr uint16_t kUsualMtu = 1500;

struct Config {
  uint8_t mac[6];
  uint16_t status;
  uint16_t max_virtqueue_pairs;
  uint16_t mtu;
};
static_assert(sizeof(Config) == 12);
inline constexpr uint16_t kStatusLinkUp = 1;

// Class, command, data; one byte to write the answer to.
inline constexpr uint8_t kClassRx = 0;
inline constexpr uint8_t kRxPromisc = 0;
inline constexpr uint8_t kRxAllMulti = 1;
inline constexpr uint8_t kClassMac = 1;
inline constexpr uint8_t kMacTableSet = 0;
inline constexpr uint8_t kMacAddrSet = 1;
inline constexpr uint8_t kClassMq = 4;
inline constexpr uint8_t kMqVqPairsSet = 0;
inline constexpr uint8_t kClassGuestOffloads = 5;
inline constexpr uint8_t kGuestOffloadsSet = 0;
inline constexpr uint8_t kAckOk = 0;
inline constexpr uint8_t kAckError = 1;

}  // namespace vmm::virtio_net

#endif  // VMM_DEVICES_VIRTIO_NET_NET_LAYOUT_H_
