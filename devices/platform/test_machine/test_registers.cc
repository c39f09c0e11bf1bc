#include "devices/platform/test_machine/test_registers.h"

#include <cstdint>

namespace vmm {

void PlainStorage::Read(uint64_t offset, std::span<std::byte> data) noexcept {
  for (size_t i = 0; i < data.size(); ++i) data[i] = bytes_[offset + i].load(std::memory_order_relaxed);
}

void PlainStorage::Write(uint64_t offset, std::span<const std::byte> data) noexcept {
  for (size_t i = 0; i < data.size(); ++i) bytes_[offset + i].store(data[i], std::memory_order_relaxed);
}

void RemapRegister::Read(uint64_t, std::span<std::byte> data) noexcept {
  for (std::byte& byte : data) byte = std::byte{0};
}

void RemapRegister::Write(uint64_t, std::span<const std::byte> data) noexcept {
  if (data.size() != sizeof(uint32_t)) return;
  uint64_t address = 0;
  for (size_t i = 0; i < data.size(); ++i) address |= std::to_integer<uint64_t>(data[i]) << (8 * i);
  host_.DropMapping(Gpa(address));
}

void InterruptLines::Read(uint64_t, std::span<std::byte> data) noexcept {
  for (std::byte& byte : data) byte = std::byte{0};
}

void InterruptLines::Write(uint64_t offset, std::span<const std::byte> data) noexcept {
  // A wider access is several lines.
  for (size_t i = 0; i < data.size(); ++i) {
    host_.SetInterruptLevel(static_cast<uint32_t>(offset + i), data[i] != std::byte{0});
  }
}

}  // namespace vmm
