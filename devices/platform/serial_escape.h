// The escape key of an interactive terminal: Ctrl-A x stops, Ctrl-A a and Ctrl-A Ctrl-A send one Ctrl-A.
//
// Threads  confined.
// Errors   none: Ctrl-A before any other key sends both.
#ifndef VMM_DEVICES_PLATFORM_SERIAL_ESCAPE_H_
#define VMM_DEVICES_PLATFORM_SERIAL_ESCAPE_H_

#include <cstddef>
#include <cstdint>
#include <span>

namespace vmm {

class SerialEscape final {
 public:
  struct Result {
    size_t bytes = 0;  // written to `to`
    bool quit = false;
  };
  // `to` has room for one byte more than `from`: a Ctrl-A kept back from last time.
  Result Filter(std::span<const uint8_t> from, std::span<uint8_t> to) noexcept {
    Result result;
    for (const uint8_t byte : from) {
      if (!pending_) {
        pending_ = byte == kCtrlA;
        if (!pending_) to[result.bytes++] = byte;
        continue;
      }
      pending_ = false;
      if (byte == 'x') {
        result.quit = true;
        continue;
      }
      to[result.bytes++] = kCtrlA;
      if (byte != 'a' && byte != kCtrlA) to[result.bytes++] = byte;
    }
    return result;
  }

 private:
  static constexpr uint8_t kCtrlA = 0x01;
  bool pending_ = false;
};

}  // namespace vmm

#endif  // VMM_DEVICES_PLATFORM_SERIAL_ESCAPE_H_
