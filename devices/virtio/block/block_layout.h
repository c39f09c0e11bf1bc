// Requests and configuration of the virtio block device.
//
// Units    sectors of 512 bytes.
// Source   Virtual I/O Device (VIRTIO) Version 1.2, "Block Device".
#ifndef VMM_DEVICES_VIRTIO_BLOCK_BLOCK_LAYOUT_H_
#define VMM_DEVICES_VIRTIO_BLOCK_BLOCK_LAYOUT_H_

#include <cstddef>
#include <cstdint>

namespace vmm::virtio_blk {

inline constexpr uint64_t kSectorBytes = 512;
inline constexpr size_t kIdBytes = 20;

inline constexpr uint64_t kFeatureSegMax = 1 << 2;
inline constexpr uint64_t kFeatureReadOnly = 1 << 5;
inline constexpr uint64_t kFeatureBlockSize = 1 << 6;
inline constexpr uint64_t kFeatureFlush = 1 << 9;
inline constexpr uint64_t kFeatureTopology = 1 << 10;
inline constexpr uint64_t kFeatureMq = 1 << 12;
inline constexpr uint64_t kFeatureDiscard = 1 << 13;
inline constexpr uint64_t kFeatureWriteZeroes = 1 << 14;

inline constexpr uint32_t kIn = 0;
inline constexpr uint32_t kOut = 1;
inline constexpr uint32_t kFlush = 4;
inline constexpr uint32_t kGetId = 8;
inline constexpr uint32_t kDiscard = 11;
inline constexpr uint32_t kWriteZeroes = 13;

inline constexpr uint8_t kStatusOk = 0;
inline constexpr uint8_t kStatusError = 1;
inline constexpr uint8_t kStatusUnsupported = 2;

struct RequestHeader {
  uint32_t type;
  uint32_t reserved;
  uint64_t sector;
};
static_assert(sizeof(RequestHeader) == 16);

// Of discard and write zeroes.
struct Range {
  uint64_t sector;
  uint32_t sectors;
  uint32_t flags;
};
static_assert(sizeof(Range) == 16);
inline constexpr uint32_t kRangeUnmap = 1;

struct Config {
  uint64_t capacity;
  uint32_t size_max;
  uint32_t seg_max;
  struct {
    uint16_t cylinders;
    uint8_t heads, sectors;
  } geometry;
  uint32_t blk_size;
  struct {
    uint8_t physical_block_exp, alignment_offset;
    uint16_t min_io_size;
    uint32_t opt_io_size;
  } topology;
  uint8_t writeback;
  uint8_t unused0;
  uint16_t num_queues;
  uint32_t max_discard_sectors;
  uint32_t max_discard_seg;
  uint32_t discard_sector_alignment;
  uint32_t max_write_zeroes_sectors;
  uint32_t max_write_zeroes_seg;
  uint8_t write_zeroes_may_unmap;
  uint8_t unused1[3];
};
static_assert(offsetof(Config, blk_size) == 20 && offsetof(Config, num_queues) == 34 && offsetof(Config, max_discard_sectors) == 36 &&
              offsetof(Config, write_zeroes_may_unmap) == 56 && sizeof(Config) == 64);
inline constexpr uint32_t kConfigBytes = 60;  // without the last padding

}  // namespace vmm::virtio_blk

#endif  // VMM_DEVICES_VIRTIO_BLOCK_BLOCK_LAYOUT_H_
