// Any sequence of register accesses and host activity: bounds, no lost bytes while LSR says THRE, no stuck level.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "devices/platform/serial16550.h"

namespace {

class NullLine final : public vmm::InterruptLine {
 public:
  void Pulse() noexcept override {}
};

uint8_t In(vmm::Serial16550& serial, uint64_t offset) {
  std::byte value{};
  serial.Read(offset, std::span(&value, 1));
  return std::to_integer<uint8_t>(value);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  NullLine line;
  vmm::Serial16550 serial(line, nullptr);
  size_t accepted = 0;
  size_t taken = 0;
  for (size_t i = 0; i + 1 < size; i += 2) {
    const uint8_t operation = data[i];
    const uint8_t argument = data[i + 1];
    const uint64_t offset = operation & 7;
    switch (operation >> 6) {
      case 0:
        (void)In(serial, offset);
        break;
      case 1: {
        const bool sends = offset == vmm::uart::kThr && (In(serial, vmm::uart::kLcr) & vmm::uart::kLcrDlab) == 0 &&
                           (In(serial, vmm::uart::kMcr) & vmm::uart::kMcrLoop) == 0 &&
                           (In(serial, vmm::uart::kLsr) & vmm::uart::kLsrThre) != 0;
        const std::byte byte{argument};
        serial.Write(offset, std::span(&byte, 1));
        if (sends) ++accepted;
        break;
      }
      case 2: {
        const size_t available = serial.Output().size();
        const size_t bytes = argument < available ? argument : available;
        taken += bytes;
        serial.ConsumeOutput(bytes);
        break;
      }
      default: {
        const size_t room = serial.InputRoom();
        if (room > vmm::Serial16550::kFifoBytes) std::abort();
        const uint8_t bytes[4] = {argument, argument, argument, argument};
        serial.GiveInput(std::span(bytes).first(room < 4 ? room : 4));
        break;
      }
    }
  }
  while (!serial.Output().empty()) {
    const size_t bytes = serial.Output().size();
    taken += bytes;
    serial.ConsumeOutput(bytes);
  }
  // Writes against THRE 0 may or may not have fitted; announced room must have been real.
  if (taken < accepted) std::abort();
  return 0;
}
