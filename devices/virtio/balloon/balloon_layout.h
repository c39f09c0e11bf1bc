// Configuration space, queues and statistics of the virtio balloon, and what the device's process and its monitor tell each other.
//
// Units    pages of 4 KiB, whatever the guest's are.
// Source   Virtual I/O Device (VIRTIO) Version 1.2, "Traditional Memory Balloon Device".
#ifndef VMM_DEVICES_VIRTIO_BALLOON_BALLOON_LAYOUT_H_
#define VMM_DEVICES_VIRTIO_BALLOON_BALLOON_LAYOUT_H_

#include <array>
#include <cstddef>
#include <cstdint>

namespace vmm::virtio_balloon {

inline constexpr uint64_t kPageBytes = 4096;

// VIRTIO_BALLOON_F_MUST_TELL_HOST is not offered: a page that is taken back works at once. Nor is FREE_PAGE_HINT, which is migration's.
inline constexpr uint64_t kFeatureStatsVq = 1 << 1;
inline constexpr uint64_t kFeatureDeflateOnOom = 1 << 2;
inline constexpr uint64_t kFeaturePagePoison = 1 << 4;
inline constexpr uint64_t kFeatureReporting = 1 << 5;

struct Config {
  uint32_t num_pages;  // how many the balloon is to hold
  uint32_t actual;     // how many it holds, says the driver
  uint32_t free_page_hint_cmd_id;
  uint32_t poison_val;  // what free pages hold, where they are poisoned
};
static_assert(sizeof(Config) == 16 && offsetof(Config, poison_val) == 12);

inline constexpr uint16_t kInflate = 0;
inline constexpr uint16_t kDeflate = 1;
inline constexpr uint16_t kStats = 2;
// Queue 4 by the specification, 3 for drivers that count only the queues that there are (Linux, in some versions). Without
// FREE_PAGE_HINT, whose queue 3 is, both are free page reporting's.
inline constexpr uint16_t kReportingOr = 3;
inline constexpr uint16_t kReporting = 4;
inline constexpr uint16_t kQueues = 5;

struct Stat {
  uint16_t tag;
  uint64_t value;
} __attribute__((packed));
static_assert(sizeof(Stat) == 10);
// VIRTIO_BALLOON_S_SWAP_IN, SWAP_OUT, MAJFLT, MINFLT, MEMFREE, MEMTOT, AVAIL, CACHES, HTLB_PGALLOC, HTLB_PGFAIL; later ones are left out.
inline constexpr size_t kStatCount = 10;
inline constexpr uint16_t kStatMemFree = 4;
inline constexpr uint16_t kStatMemTotal = 5;
inline constexpr uint16_t kStatAvailable = 6;

// The monitor to the device. Each is answered by a report.
struct Command {
  uint32_t target_pages;
  // What an earlier process of this device knew of the driver; taken by one that has not heard the driver itself.
  uint32_t actual_pages;
  uint32_t poison_val;
  uint32_t poison_known;
};
static_assert(sizeof(Command) == 16);

// The device to the monitor: at its start, and at most every kReportMs when something has changed.
struct Report {
  uint32_t target_pages;
  uint32_t actual_pages;
  uint32_t poison_val;
  uint32_t poison_known;
  uint64_t discarded_bytes;  // given back to the host, by either way, since the process started
  uint64_t refused_pages;    // that are not memory of this device, or that the host would not take
  uint64_t fresh;            // 1: it has heard neither a command nor the driver yet
  uint64_t stats_given;      // a bit for each tag that is in here
  std::array<uint64_t, kStatCount> stats;
};
static_assert(sizeof(Report) == 48 + 8 * kStatCount);

}  // namespace vmm::virtio_balloon

#endif  // VMM_DEVICES_VIRTIO_BALLOON_BALLOON_LAYOUT_H_
