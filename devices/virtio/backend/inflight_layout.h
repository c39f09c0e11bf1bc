// The in-flight region: what a back end writes down of the requests that it has taken, in memory that outlives its process.
//
// Shapes   for each queue a header and an entry a descriptor; the next queue's follows at a distance of InflightStride.
// Units    native byte order, as both writers are on one host.
// Source   QEMU, "Vhost-user Protocol" (docs/interop/vhost-user.rst), "Inflight I/O tracking".
#ifndef VMM_DEVICES_VIRTIO_BACKEND_INFLIGHT_LAYOUT_H_
#define VMM_DEVICES_VIRTIO_BACKEND_INFLIGHT_LAYOUT_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace vmm::vhost_user {

// 0: nothing has been written yet.
inline constexpr uint16_t kInflightVersion = 1;

struct InflightSplitHeader {
  uint64_t features;
  uint16_t version;
  uint16_t desc_num;
  uint16_t last_batch_head;
  uint16_t used_idx;
};
static_assert(sizeof(InflightSplitHeader) == 16);

struct InflightSplitEntry {
  uint8_t inflight;
  uint8_t padding[5];
  uint16_t next;
  uint64_t counter;
};
static_assert(sizeof(InflightSplitEntry) == 16 && offsetof(InflightSplitEntry, next) == 6);

struct InflightPackedHeader {
  uint64_t features;
  uint16_t version;
  uint16_t desc_num;
  uint16_t free_head, old_free_head;
  uint16_t used_idx, old_used_idx;
  uint8_t used_wrap_counter, old_used_wrap_counter;
  uint8_t padding[10];  // the entries are aligned
};
static_assert(sizeof(InflightPackedHeader) == 32 && offsetof(InflightPackedHeader, used_wrap_counter) == 20);

struct InflightPackedEntry {
  uint8_t inflight;
  uint8_t padding;
  uint16_t next;
  uint16_t last;
  uint16_t num;
  uint64_t counter;
  uint16_t id;
  uint16_t flags;
  uint32_t len;
  uint64_t addr;
};
static_assert(sizeof(InflightPackedEntry) == 32 && offsetof(InflightPackedEntry, addr) == 24);

// Enough for either form.
constexpr uint64_t InflightStride(uint16_t queue_size) {
  static_assert(sizeof(InflightPackedHeader) >= sizeof(InflightSplitHeader) && sizeof(InflightPackedEntry) >= sizeof(InflightSplitEntry));
  return (sizeof(InflightPackedHeader) + sizeof(InflightPackedEntry) * uint64_t{queue_size} + 63) / 64 * 64;
}

}  // namespace vmm::vhost_user

#endif  // VMM_DEVICES_VIRTIO_BACKEND_INFLIGHT_LAYOUT_H_
