#include "devices/io_bus.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace vmm {

absl::Status IoBus::Add(uint64_t start, uint64_t bytes, absl::string_view name, IoDevice& device) {
  if (bytes == 0 || start + bytes < start) {
    return absl::InvalidArgumentError(
        absl::StrCat("add ", name, " to bus: range 0x", absl::Hex(start), "+0x", absl::Hex(bytes), " is empty or wraps"));
  }
  const auto next = std::upper_bound(entries_.begin(), entries_.end(), start,
                                     [](uint64_t address, const Entry& entry) { return address < entry.start; });
  const Entry* overlap = nullptr;
  if (next != entries_.end() && next->start - start < bytes) overlap = &*next;
  if (next != entries_.begin() && start - std::prev(next)->start < std::prev(next)->bytes) overlap = &*std::prev(next);
  if (overlap != nullptr) {
    return absl::AlreadyExistsError(absl::StrCat("add ", name, " to bus: range 0x", absl::Hex(start), "+0x",
                                                 absl::Hex(bytes), " overlaps ", overlap->name));
  }
  entries_.insert(next, Entry{start, bytes, &device, name});
  return absl::OkStatus();
}

const IoBus::Entry* IoBus::Find(uint64_t address, uint64_t bytes) const noexcept {
  const auto next = std::upper_bound(entries_.begin(), entries_.end(), address,
                                     [](uint64_t wanted, const Entry& entry) { return wanted < entry.start; });
  if (next == entries_.begin()) return nullptr;
  const Entry& entry = *std::prev(next);
  const uint64_t offset = address - entry.start;
  return offset < entry.bytes && bytes <= entry.bytes - offset ? &entry : nullptr;
}

bool IoBus::Read(uint64_t guest_address, std::span<std::byte> data) noexcept {
  std::memset(data.data(), 0xff, data.size());
  const Entry* const entry = Find(guest_address, data.size());
  if (entry == nullptr) return false;
  entry->device->Read(guest_address - entry->start, data);
  return true;
}

bool IoBus::Write(uint64_t guest_address, std::span<const std::byte> data) noexcept {
  const Entry* const entry = Find(guest_address, data.size());
  if (entry == nullptr) return false;
  entry->device->Write(guest_address - entry->start, data);
  return true;
}

}  // namespace vmm
