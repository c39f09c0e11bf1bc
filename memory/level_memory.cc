#include "memory/level_memory.h"

namespace vmm {
namespace {

constexpr PageRights kToRead(PageRights::kRead);
constexpr PageRights kToWrite(PageRights::kRead | PageRights::kWrite);

}  // namespace

bool LevelMemory::Allows(Gpa guest_gpa, uint64_t bytes, PageRights needed) const noexcept {
  if (!memory_.Contains(guest_gpa, bytes)) return false;  // from here on no sum wraps
  if (map_ == nullptr || bytes == 0) return true;
  const uint64_t last = (guest_gpa + (bytes - 1)).page().raw();
  for (uint64_t page = guest_gpa.page().raw(); page <= last; ++page) {
    if ((map_->Rights(level_, Gpfn(page)) & needed) != needed) return false;
  }
  return true;
}

bool LevelMemory::Read(Gpa guest_gpa, std::span<std::byte> out) const noexcept {
  const AccessGate::MaybeSection section(gate_);  // from look-up to the end of the copy
  return Allows(guest_gpa, out.size(), kToRead) && memory_.Read(guest_gpa, out);
}

bool LevelMemory::Write(Gpa guest_gpa, std::span<const std::byte> data) const noexcept {
  const AccessGate::MaybeSection section(gate_);  // from look-up to the end of the copy
  return Allows(guest_gpa, data.size(), kToWrite) && memory_.Write(guest_gpa, data);
}

bool LevelMemory::CanRead(Gpa guest_gpa, uint64_t bytes) const noexcept { return Allows(guest_gpa, bytes, kToRead); }
bool LevelMemory::CanWrite(Gpa guest_gpa, uint64_t bytes) const noexcept { return Allows(guest_gpa, bytes, kToWrite); }

}  // namespace vmm
