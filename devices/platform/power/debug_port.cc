#include "devices/platform/power/debug_port.h"

#include <utility>

#include "devices/platform/power/power_registers.h"

namespace vmm {

DebugPort::~DebugPort() {
  if (const std::string rest = pending(); !rest.empty()) log_.Write(LogLevel::kInfo, rest);
}

std::string DebugPort::pending() {
  MutexLock lock(mutex_);
  return line_;
}

void DebugPort::Read(uint64_t, std::span<std::byte> data) noexcept {
  for (std::byte& byte : data) byte = std::byte{kDebugPortPresent};
}

void DebugPort::Write(uint64_t, std::span<const std::byte> data) noexcept {
  for (const std::byte byte : data) {
    const char c = std::to_integer<char>(byte);
    std::string full;
    {
      MutexLock lock(mutex_);
      if (c != '\n') line_.push_back(c);
      if (c != '\n' && line_.size() < kMaxLine) continue;
      full = std::exchange(line_, {});
    }
    log_.Write(LogLevel::kInfo, full);
  }
}

}  // namespace vmm
