// Messages of the vhost-user protocol that front end and back end share.
//
// Shapes   a header of 12 bytes, then `size` bytes of payload; descriptors come with the first byte.
// Units    native byte order, as both sides are on one host.
// Source   QEMU, "Vhost-user Protocol" (docs/interop/vhost-user.rst).
#ifndef VMM_DEVICES_VIRTIO_VHOST_USER_VHOST_USER_LAYOUT_H_
#define VMM_DEVICES_VIRTIO_VHOST_USER_VHOST_USER_LAYOUT_H_

#include <cstddef>
#include <cstdint>

namespace vmm::vhost_user {

enum class Request : uint32_t {
  kGetFeatures = 1,
  kSetFeatures = 2,
  kSetOwner = 3,
  kResetOwner = 4,
  kSetMemTable = 5,
  kSetVringNum = 8,
  kSetVringAddr = 9,
  kSetVringBase = 10,
  kGetVringBase = 11,
  kSetVringKick = 12,
  kSetVringCall = 13,
  kSetVringErr = 14,
  kGetProtocolFeatures = 15,
  kSetProtocolFeatures = 16,
  kGetQueueNum = 17,
  kSetVringEnable = 18,
  kSetBackendReqFd = 21,
  kGetConfig = 24,
  kSetConfig = 25,
  kGetInflightFd = 31,
  kSetInflightFd = 32,
  kResetDevice = 34,
  kGetMaxMemSlots = 36,
  kAddMemReg = 37,
  kRemMemReg = 38,
  kSetStatus = 39,
  kGetStatus = 40,
};

// From the back end, on a socket of its own.
enum class BackendRequest : uint32_t { kConfigChange = 2 };

struct Header {
  uint32_t request;
  uint32_t flags;
  uint32_t size;
};
static_assert(sizeof(Header) == 12);
inline constexpr uint32_t kVersion = 1;
inline constexpr uint32_t kVersionMask = 3;
inline constexpr uint32_t kFlagReply = 1 << 2;
inline constexpr uint32_t kFlagNeedReply = 1 << 3;

// Far above any message of ours.
inline constexpr uint32_t kMaxPayloadBytes = 4096;
inline constexpr size_t kMaxFds = 8;

// Virtio feature bit that opens the protocol features.
inline constexpr uint64_t kFeatureProtocolFeatures = uint64_t{1} << 30;

constexpr uint64_t ProtocolFeature(unsigned bit) { return uint64_t{1} << bit; }
inline constexpr uint64_t kProtocolMq = ProtocolFeature(0);
inline constexpr uint64_t kProtocolReplyAck = ProtocolFeature(3);
inline constexpr uint64_t kProtocolBackendReq = ProtocolFeature(5);
inline constexpr uint64_t kProtocolConfig = ProtocolFeature(9);
inline constexpr uint64_t kProtocolInflightShmfd = ProtocolFeature(12);
inline constexpr uint64_t kProtocolResetDevice = ProtocolFeature(13);
inline constexpr uint64_t kProtocolConfigureMemSlots = ProtocolFeature(15);
inline constexpr uint64_t kProtocolStatus = ProtocolFeature(16);

struct VringState {
  uint32_t index;
  uint32_t num;
};
static_assert(sizeof(VringState) == 8);

struct VringAddr {
  uint32_t index;
  uint32_t flags;
  uint64_t descriptors, used, available, log;
};
static_assert(sizeof(VringAddr) == 40 && offsetof(VringAddr, available) == 24);

// SetVringKick, Call, Err: a queue, and whether a descriptor came along.
inline constexpr uint64_t kVringIndexMask = 0xff;
inline constexpr uint64_t kVringNoFd = 1 << 8;

struct MemoryRegion {
  uint64_t gpa;
  uint64_t bytes;
  uint64_t user_address;  // in the front end; rings are given by such addresses
  uint64_t fd_offset;
};
static_assert(sizeof(MemoryRegion) == 32);
struct MemoryTableHeader {
  uint32_t regions;
  uint32_t padding;
};
static_assert(sizeof(MemoryTableHeader) == 8);
inline constexpr uint32_t kMaxRegions = 8;
struct SingleMemoryRegion {
  uint64_t padding;
  MemoryRegion region;
};
static_assert(sizeof(SingleMemoryRegion) == 40);

struct ConfigHeader {
  uint32_t offset;
  uint32_t size;
  uint32_t flags;
};
static_assert(sizeof(ConfigHeader) == 12);
inline constexpr uint32_t kMaxConfigBytes = 256;

struct Inflight {
  uint64_t mmap_size;
  uint64_t mmap_offset;
  uint16_t queues;
  uint16_t queue_size;
  uint32_t padding;
};
static_assert(sizeof(Inflight) == 24);

}  // namespace vmm::vhost_user

#endif  // VMM_DEVICES_VIRTIO_VHOST_USER_VHOST_USER_LAYOUT_H_
