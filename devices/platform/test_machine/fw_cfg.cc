#include "devices/platform/test_machine/fw_cfg.h"

#include "devices/platform/test_machine/test_machine_layout.h"

namespace vmm {
namespace {

constexpr uint64_t kDataOffset = 1;
constexpr uint64_t kSignature = 0x554d'4551;  // "QEMU"

struct Item {
  uint64_t value;
  size_t bytes;
};

}  // namespace

void FwCfg::Write(uint64_t offset, std::span<const std::byte> data) noexcept {
  if (offset != 0 || data.size() != sizeof(uint16_t)) return;
  MutexLock lock(mutex_);
  key_ = static_cast<uint16_t>(std::to_integer<unsigned>(data[0]) | std::to_integer<unsigned>(data[1]) << 8);
  position_ = 0;
}

void FwCfg::Read(uint64_t offset, std::span<std::byte> data) noexcept {
  if (offset != kDataOffset || data.size() != 1) {
    for (std::byte& byte : data) byte = std::byte{0};
    return;
  }
  MutexLock lock(mutex_);
  data[0] = NextLocked();
}

std::byte FwCfg::NextLocked() noexcept {
  Item item{0, 0};
  switch (key_) {
    case kFwCfgSignature: item = {kSignature, 4}; break;
    case kFwCfgRamBytes: item = {values_.ram_bytes, 8}; break;
    case kFwCfgProcessors:
    case kFwCfgMaxProcessors: item = {values_.processors, 2}; break;
    default: break;
  }
  if (position_ >= item.bytes) return std::byte{0};
  return static_cast<std::byte>(item.value >> (8 * position_++) & 0xff);
}

}  // namespace vmm
