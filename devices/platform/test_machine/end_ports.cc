#include "devices/platform/test_machine/end_ports.h"

#include <cstdint>

#include "devices/platform/test_machine/test_machine_layout.h"

namespace vmm {

void DebugExit::Read(uint64_t, std::span<std::byte> data) noexcept {
  for (std::byte& byte : data) byte = std::byte{0};
}

void DebugExit::Write(uint64_t, std::span<const std::byte> data) noexcept {
  uint32_t value = 0;
  for (size_t i = 0; i < data.size() && i < sizeof(value); ++i) value |= std::to_integer<uint32_t>(data[i]) << (8 * i);
  control_.RequestDebugExit(value);
}

void ShutdownPort::Read(uint64_t, std::span<std::byte> data) noexcept {
  for (std::byte& byte : data) byte = std::byte{0};
}

void ShutdownPort::Write(uint64_t, std::span<const std::byte> data) noexcept {
  constexpr size_t kLength = sizeof(kShutdownText) - 1;
  bool complete = false;
  {
    MutexLock lock(mutex_);
    for (const std::byte byte : data) {
      const auto c = std::to_integer<char>(byte);
      // No letter but the first begins the word, so that starting over is this simple.
      matched_ = c == kShutdownText[matched_] ? matched_ + 1 : c == kShutdownText[0] ? 1 : 0;
      if (matched_ == kLength) {
        complete = true;
        matched_ = 0;
      }
    }
  }
  if (complete) control_.RequestEnd(MachineEnd::kPoweredOff, "the guest powered off by the shutdown port");
}

}  // namespace vmm
