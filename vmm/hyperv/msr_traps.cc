#include "vmm/hyperv/msr_traps.h"

#include <algorithm>
#include <array>
#include <utility>

#include "devices/hyperv/vsm/msr_intercepts.h"

namespace vmm {
namespace {

bool Wants(uint64_t events, std::optional<CrEvent> event) noexcept { return event && (events & CrEventBit(*event)) != 0; }

}  // namespace

MsrTraps::MsrTraps(uint32_t vp_count, std::span<const kvm::MsrRange> always,
                   std::function<bool(std::span<const kvm::MsrRange>)> replace)
    : always_(always.begin(), always.end()), replace_(std::move(replace)), events_(vp_count) {}

uint64_t MsrTraps::AllLocked() const noexcept {
  uint64_t all = 0;
  for (const uint64_t events : events_) all |= events;
  return all;
}

bool MsrTraps::Set(VpIndex vp, uint64_t events) noexcept {
  const MutexLock lock(mutex_);
  const uint64_t before = AllLocked();
  const uint64_t own_before = std::exchange(events_[vp.raw()], events);
  const uint64_t all = AllLocked();
  if (all == before) return true;
  std::array<kvm::MsrRange, kKvmRanges> ranges;
  size_t count = std::min(always_.size(), kKvmRanges - kMostRanges);
  std::copy_n(always_.begin(), count, ranges.begin());
  // Neighbours stay together, wanted or not: a range that is not wanted at all is left out at its end.
  const std::span<const InterceptedMsr> msrs = InterceptedMsrs();
  for (size_t first = 0; first < msrs.size() && count < kKvmRanges;) {
    kvm::MsrRange range{.base = msrs[first].msr, .count = 0, .read = false, .write = false};
    for (; first < msrs.size() && msrs[first].msr == range.base + range.count; ++first) {
      ++range.count;
      range.read = range.read || Wants(all, msrs[first].read);
      range.write = range.write || Wants(all, msrs[first].write);
    }
    if (range.read || range.write) ranges[count++] = range;
  }
  if (replace_(std::span(ranges).first(count))) return true;
  events_[vp.raw()] = own_before;
  return false;
}

}  // namespace vmm
