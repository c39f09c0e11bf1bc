#include "vmm/boot/reset_stub.h"

#include <array>
#include <cstdint>
#include <span>

#include "devices/platform/power/power_registers.h"
#include "vmm/boot/boot_layout.h"

namespace vmm {

absl::Status WriteResetStub(const GuestMemory& memory) {
  constexpr std::array<uint8_t, kResetStubBytes> kCode = {
      0xba, kAcpiResetPort & 0xff, kAcpiResetPort >> 8,  // mov dx, kAcpiResetPort
      0xb0, kResetValue,                                 // mov al, kResetValue
      0xee,                                              // out dx, al
      0xfa,                                              // cli
      0xf4,                                              // hlt
      0xeb, 0xfd,                                        // jmp to the hlt
  };
  if (!memory.Write(kResetStubBase, std::as_bytes(std::span(kCode)))) {
    return absl::InternalError("write the reset stub: no RAM below 1 MiB");
  }
  return absl::OkStatus();
}

}  // namespace vmm
