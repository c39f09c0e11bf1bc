#include "devices/platform/power/pvpanic.h"

#include "devices/platform/power/power_registers.h"

namespace vmm {

void Pvpanic::Read(uint64_t, std::span<std::byte> data) noexcept {
  for (std::byte& byte : data) byte = std::byte{kPvpanicPanicked | kPvpanicCrashLoaded};
}

void Pvpanic::Write(uint64_t, std::span<const std::byte> data) noexcept {
  if (data.empty()) return;
  const auto events = std::to_integer<uint8_t>(data[0]);
  if ((events & kPvpanicPanicked) != 0) {
    control_.RequestEnd(MachineEnd::kPanicked, "the guest's kernel panicked");
  } else if ((events & kPvpanicCrashLoaded) != 0) {
    log_.Write(LogLevel::kWarning, "the guest's kernel panicked and goes on in its crash kernel");
  }
}

}  // namespace vmm
