#include "devices/virtio/backend/inflight_record.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

namespace vmm {
namespace {

namespace v = virtio;
namespace vu = vhost_user;

// What matters is the order in which the stores are made: who reads them comes after the process's end. Release, so that neither compiler
// nor processor moves one in front of another.
template <typename T>
void Store(T& word, T value) noexcept {
  std::atomic_ref<T>(word).store(value, std::memory_order_release);
}

struct Flight {
  uint64_t counter;
  uint16_t record;
};

void SortByAge(std::vector<Flight>& flights) {
  std::sort(flights.begin(), flights.end(), [](const Flight& a, const Flight& b) { return std::pair(a.counter, a.record) < std::pair(b.counter, b.record); });
}

}  // namespace

// ---- Split

bool SplitInflight::Attach(std::span<std::byte> region, uint16_t size, uint16_t used, std::vector<uint16_t>& again) {
  again.clear();
  header_ = nullptr;
  if (region.empty()) return true;
  auto* const header = reinterpret_cast<vu::InflightSplitHeader*>(region.data());
  auto* const entries = reinterpret_cast<vu::InflightSplitEntry*>(region.data() + sizeof(*header));
  counter_ = 0;
  last_ = 0;
  vu::InflightSplitHeader old;
  std::memcpy(&old, header, sizeof(old));
  if (old.version == 0) {
    std::memset(region.data(), 0, sizeof(*header) + sizeof(*entries) * size);
    header->desc_num = size;
    header->used_idx = used;
    // Last: half a region is none.
    Store(header->version, vu::kInflightVersion);
  } else {
    if (old.version != vu::kInflightVersion || old.desc_num != size) return false;
    // What was given back last is still down as in flight: the driver can see it, we could not strike it out any more.
    const auto batch = static_cast<uint16_t>(used - old.used_idx);
    if (batch > size) return false;
    uint16_t head = old.last_batch_head;
    for (uint16_t i = 0; i < batch; ++i) {
      if (head >= size) return false;
      Store<uint8_t>(entries[head].inflight, 0);
      head = std::atomic_ref(entries[head].next).load(std::memory_order_relaxed);
    }
    Store(header->used_idx, used);
    std::vector<Flight> flights;
    for (uint16_t i = 0; i < size; ++i) {
      if (std::atomic_ref(entries[i].inflight).load(std::memory_order_relaxed) == 0) continue;
      flights.push_back({std::atomic_ref(entries[i].counter).load(std::memory_order_relaxed), i});
    }
    SortByAge(flights);
    for (const Flight& flight : flights) again.push_back(flight.record);
    if (!flights.empty()) counter_ = flights.back().counter + 1;
    last_ = old.last_batch_head;
  }
  header_ = header;
  entries_ = entries;
  return true;
}

void SplitInflight::Detach() noexcept {
  if (header_ != nullptr) Store<uint16_t>(header_->version, 0);
  header_ = nullptr;
}

void SplitInflight::Taken(uint16_t head) noexcept {
  if (header_ == nullptr) return;
  Store(entries_[head].counter, counter_++);
  Store<uint8_t>(entries_[head].inflight, 1);
}

void SplitInflight::Untaken(uint16_t head) noexcept {
  if (header_ != nullptr) Store<uint8_t>(entries_[head].inflight, 0);
}

void SplitInflight::Completing(uint16_t head) noexcept {
  if (header_ == nullptr) return;
  Store(entries_[head].next, last_);
  Store(header_->last_batch_head, last_ = head);
}

void SplitInflight::Completed(std::span<const UsedChain> chains, uint16_t used) noexcept {
  if (header_ == nullptr) return;
  for (const UsedChain& done : chains) Store<uint8_t>(entries_[done.chain->head].inflight, 0);
  Store(header_->used_idx, used);
}

// ---- Packed

namespace {

template <typename T>
T& Joint(vu::InflightPackedHeader* header, size_t offset) noexcept {
  return *reinterpret_cast<T*>(reinterpret_cast<std::byte*>(header) + offset);
}

// Both free heads, and all positions, are one word each: they change together or not at all.
void StoreHeads(vu::InflightPackedHeader* header, uint16_t now, uint16_t old) noexcept {
  static_assert(offsetof(vu::InflightPackedHeader, free_head) == 12 && offsetof(vu::InflightPackedHeader, old_free_head) == 14);
  Store(Joint<uint32_t>(header, offsetof(vu::InflightPackedHeader, free_head)), now | uint32_t{old} << 16);
}

void StorePositions(vu::InflightPackedHeader* header, PackedInflight::Position now, PackedInflight::Position old) noexcept {
  static_assert(offsetof(vu::InflightPackedHeader, used_idx) == 16 && offsetof(vu::InflightPackedHeader, old_used_idx) == 18 &&
                offsetof(vu::InflightPackedHeader, used_wrap_counter) == 20 && offsetof(vu::InflightPackedHeader, old_used_wrap_counter) == 21);
  Store(Joint<uint64_t>(header, offsetof(vu::InflightPackedHeader, used_idx)),
        now.index | uint64_t{old.index} << 16 | uint64_t{now.wrap} << 32 | uint64_t{old.wrap} << 40);
}

}  // namespace

bool PackedInflight::Attach(std::span<std::byte> region, uint16_t size, const std::byte* descriptors, Position& used, std::vector<Chain>& again) {
  again.clear();
  header_ = nullptr;
  if (region.empty()) return true;
  auto* const header = reinterpret_cast<vu::InflightPackedHeader*>(region.data());
  auto* const entries = reinterpret_cast<vu::InflightPackedEntry*>(region.data() + sizeof(*header));
  vu::InflightPackedHeader old;
  std::memcpy(&old, header, sizeof(old));
  std::vector<bool> is_free(size, old.version == 0);
  counter_ = 0;
  next_.assign(size, size);
  last_.assign(size, 0);
  if (old.version == 0) {
    std::memset(region.data(), 0, sizeof(*header) + sizeof(*entries) * size);
    header->desc_num = size;
  } else {
    if (old.version != vu::kInflightVersion || old.desc_num != size || old.used_idx >= size || old.old_used_idx >= size) return false;
    used = {old.old_used_idx, old.old_used_wrap_counter != 0};
    uint16_t head = old.old_free_head;
    if (const Position after{old.used_idx, old.used_wrap_counter != 0}; used != after) {
      // A chain was being given back. Its first descriptor is as the driver made it available, or the driver can see it as used.
      if (!v::PackedIsAvailable(v::LoadPackedFlags(descriptors, used.index), used.wrap)) {
        used = after;
        head = old.free_head;
      }
    }
    // What is on the free list is not in flight, whatever else is said of it: a chain whose taking or giving back did not get to its end.
    for (; head < size && !is_free[head]; head = std::atomic_ref(entries[head].next).load(std::memory_order_relaxed)) {
      is_free[head] = true;
      Store<uint8_t>(entries[head].inflight, 0);
    }
    // From here on the entries' own words hold, also for whoever comes after us.
    if (!Collect(entries, size, is_free, again)) return false;
  }
  free_ = size;
  for (uint16_t i = size; i-- != 0;) {
    if (!is_free[i]) continue;
    Store(entries[i].next, next_[i] = free_);
    free_ = i;
  }
  StoreHeads(header, free_, shown_free_ = free_);
  StorePositions(header, used, used);
  Store(header->version, vu::kInflightVersion);
  header_ = header;
  entries_ = entries;
  used_ = used;
  return true;
}

// The chains in flight, oldest first; what belongs to none is free.
bool PackedInflight::Collect(const vu::InflightPackedEntry* entries, uint16_t size, std::vector<bool>& is_free, std::vector<Chain>& again) {
  std::vector<vu::InflightPackedEntry> copies(size);
  std::memcpy(copies.data(), entries, sizeof(*entries) * size);
  std::vector<Flight> flights;
  for (uint16_t i = 0; i < size; ++i) {
    if (copies[i].inflight != 0 && !is_free[i]) flights.push_back({copies[i].counter, i});
  }
  SortByAge(flights);
  std::vector<bool> is_taken(size, false);
  for (const Flight& flight : flights) {
    const uint16_t count = copies[flight.record].num;
    if (count == 0) return false;
    Chain chain{.record = flight.record, .descriptors = {}};
    uint16_t at = flight.record;
    for (uint16_t i = 0; i < count; ++i, at = copies[at].next) {
      // None twice: so there are no more of them than the ring has.
      if (at >= size || is_taken[at]) return false;
      is_taken[at] = true;
      const vu::InflightPackedEntry& entry = copies[at];
      chain.descriptors.push_back({entry.addr, entry.len, entry.id, entry.flags});
      next_[at] = entry.next;
      last_[flight.record] = at;
    }
    counter_ = flight.counter + 1;
    again.push_back(std::move(chain));
  }
  for (uint16_t i = 0; i < size; ++i) is_free[i] = !is_taken[i];
  return true;
}

void PackedInflight::Detach() noexcept {
  if (header_ != nullptr) Store<uint16_t>(header_->version, 0);
  header_ = nullptr;
}

uint16_t PackedInflight::Taken(std::span<const v::PackedDescriptor> descriptors) noexcept {
  if (header_ == nullptr) return 0;
  // As many are free as there are descriptors of the ring that are in no chain.
  const uint16_t record = free_;
  uint16_t at = free_, last = free_;
  for (const v::PackedDescriptor& descriptor : descriptors) {
    vu::InflightPackedEntry& entry = entries_[at];
    entry.id = descriptor.id;
    entry.flags = descriptor.flags;
    entry.len = descriptor.bytes;
    entry.addr = descriptor.address;
    last = at;
    at = next_[at];
  }
  last_[record] = last;
  vu::InflightPackedEntry& first = entries_[record];
  first.last = last;
  first.num = static_cast<uint16_t>(descriptors.size());
  first.counter = counter_++;
  // On the free list and in flight means free; off it, in flight.
  Store<uint8_t>(first.inflight, 1);
  free_ = at;
  ShowFree();
  return record;
}

void PackedInflight::Untaken(uint16_t record) noexcept {
  if (header_ == nullptr) return;
  Store(entries_[last_[record]].next, next_[last_[record]] = free_);
  free_ = record;
  ShowFree();
  Store<uint8_t>(entries_[record].inflight, 0);
}

void PackedInflight::Completing(uint16_t record) noexcept {
  if (header_ == nullptr) return;
  Store(entries_[last_[record]].next, next_[last_[record]] = free_);
  free_ = record;
}

void PackedInflight::CompletingUpTo(Position used) noexcept {
  if (header_ == nullptr) return;
  StoreHeads(header_, free_, shown_free_);
  StorePositions(header_, used, used_);
}

void PackedInflight::Completed(std::span<const UsedChain> chains, Position used) noexcept {
  if (header_ == nullptr) return;
  for (const UsedChain& done : chains) Store<uint8_t>(entries_[done.chain->record].inflight, 0);
  ShowFree();
  StorePositions(header_, used, used);
  used_ = used;
}

void PackedInflight::ShowFree() noexcept { StoreHeads(header_, free_, shown_free_ = free_); }

}  // namespace vmm
