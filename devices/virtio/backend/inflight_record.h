// What a queue writes down of the chains that it has taken and not given back, so that another process can do exactly those again.
//
// Shapes   one region of the in-flight memory (inflight_layout.h) each; none attached: nothing is kept, all calls do nothing.
// Threads  confined.
// Trust    the memory is shared with the front end, which may have put anything there: it is read when it is attached, every number is
//          checked then, and from then on it is only written.
// Errors   Attach: false for what no back end can have left there.
//
// Invariants, after each single store (the process may be killed between any two; what it has stored stays):
//  1. A chain that the driver can see as used is not done again.
//  2. A chain that was taken and that the driver cannot see as used is done again, in the order in which they were taken.
//  3. Where to go on taking follows from 1 and 2 alone: behind what is used and what is in flight.
// A chain is written down before the device does anything with it, and struck out after the driver can see it as used. Between these
// two last stores the record says more than is true: the ring then tells the last batch apart: the chains that one store shows.
#ifndef VMM_DEVICES_VIRTIO_BACKEND_INFLIGHT_RECORD_H_
#define VMM_DEVICES_VIRTIO_BACKEND_INFLIGHT_RECORD_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "devices/virtio/backend/inflight_layout.h"
#include "devices/virtio/backend/queue_chain.h"
#include "devices/virtio/virtio_layout.h"

namespace vmm {

class SplitInflight final {
 public:
  // `used`: the used ring's index now. `again`: heads that were in flight, oldest first. `region` may be empty, or has InflightStride(size).
  [[nodiscard]] bool Attach(std::span<std::byte> region, uint16_t size, uint16_t used, std::vector<uint16_t>& again);
  // Nothing is in flight: whoever comes next begins with a region as good as new.
  void Detach() noexcept;
  void Taken(uint16_t head) noexcept;
  void Untaken(uint16_t head) noexcept;
  // Each before the store that shows all of them to the driver; and all of them after it.
  void Completing(uint16_t head) noexcept;
  void Completed(std::span<const UsedChain> chains, uint16_t used) noexcept;

 private:
  vhost_user::InflightSplitHeader* header_ = nullptr;
  vhost_user::InflightSplitEntry* entries_ = nullptr;
  uint64_t counter_ = 0;
  uint16_t last_ = 0;
};

// A packed ring's descriptors are overwritten where chains are given back out of order: so their contents are kept too.
class PackedInflight final {
 public:
  struct Position {
    uint16_t index = 0;
    bool wrap = true;
    constexpr bool operator==(const Position&) const = default;
  };
  struct Chain {
    uint16_t record = 0;
    std::vector<virtio::PackedDescriptor> descriptors;  // at least one, and of all chains no more than the ring has
  };
  // `used`: where the next chain is used; the region's word of it, where there is one, replaces the caller's. `descriptors`: the ring.
  [[nodiscard]] bool Attach(std::span<std::byte> region, uint16_t size, const std::byte* descriptors, Position& used, std::vector<Chain>& again);
  void Detach() noexcept;
  // The chain's record, which it keeps until it is completed. All chains in flight have no more descriptors than the ring.
  [[nodiscard]] uint16_t Taken(std::span<const virtio::PackedDescriptor> descriptors) noexcept;
  void Untaken(uint16_t record) noexcept;
  // Each, then that these are all, before the store that shows them to the driver; and all of them after it. `used`: where the next chain
  // will be used.
  void Completing(uint16_t record) noexcept;
  void CompletingUpTo(Position used) noexcept;
  void Completed(std::span<const UsedChain> chains, Position used) noexcept;

 private:
  void ShowFree() noexcept;
  bool Collect(const vhost_user::InflightPackedEntry* entries, uint16_t size, std::vector<bool>& is_free, std::vector<Chain>& again);
  vhost_user::InflightPackedHeader* header_ = nullptr;
  vhost_user::InflightPackedEntry* entries_ = nullptr;
  uint64_t counter_ = 0;
  Position used_;
  // Ours: the region's are only written. Of a chain's first entry its last one.
  uint16_t free_ = 0;
  uint16_t shown_free_ = 0;  // the region's old one
  std::vector<uint16_t> next_, last_;
};

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_BACKEND_INFLIGHT_RECORD_H_
