#include "vmm/hyperv/string_targets.h"

#include <algorithm>
#include <cstdint>

namespace vmm {

void LoadStringTargets(AccessRegisters registers, const GuestMemory& memory, const LevelView& view, size_t bytes,
                       std::span<std::byte> data) noexcept {
  constexpr size_t kRdi = 7;
  constexpr uint64_t kRflagsDirection = 1 << 10;
  const uint64_t step = (registers.rflags & kRflagsDirection) != 0 ? uint64_t{0} - bytes : bytes;
  std::ranges::fill(data, std::byte{0});
  for (; bytes != 0 && data.size() >= bytes; data = data.subspan(bytes)) {
    // False: what cannot be read cannot be written either, and stays.
    (void)LoadTarget(registers, memory, view, data.first(bytes));
    registers.gpr[kRdi] += step;
  }
}

}  // namespace vmm
