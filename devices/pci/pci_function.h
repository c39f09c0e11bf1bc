// One device on the root bus, as the bus reaches it.
//
// Shapes   `data` is 1, 2, 4 or 8 bytes, little endian.
// Units    offsets are from the start of configuration space, or of BAR 0.
// Threads  any VP thread, several at once: a function locks for itself.
// Trust    offsets and data are the guest's; an access to the BAR lies inside of it.
// Errors   none: what means nothing reads as ones and is not written.
#ifndef VMM_DEVICES_PCI_PCI_FUNCTION_H_
#define VMM_DEVICES_PCI_PCI_FUNCTION_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "memory/gpa.h"

namespace vmm {

class PciFunction {
 public:
  virtual ~PciFunction() = default;
  virtual void ReadConfig(uint32_t offset, std::span<std::byte> data) noexcept = 0;
  virtual void WriteConfig(uint32_t offset, std::span<const std::byte> data) noexcept = 0;

  // 0: it has none. Constant.
  [[nodiscard]] virtual uint32_t bar_bytes() const noexcept = 0;
  // Where it answers now.
  [[nodiscard]] virtual std::optional<Gpa> bar() const noexcept = 0;
  // Before any VP runs: where firmware would have put it.
  virtual void PlaceBar(uint32_t address) noexcept = 0;
  virtual void ReadBar(uint32_t offset, std::span<std::byte> data) noexcept = 0;
  virtual void WriteBar(uint32_t offset, std::span<const std::byte> data) noexcept = 0;
};

}  // namespace vmm

#endif  // VMM_DEVICES_PCI_PCI_FUNCTION_H_
