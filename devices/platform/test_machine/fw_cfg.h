// The machine's numbers for its kernel, by QEMU's firmware configuration interface in its legacy form.
//
// Shapes   a 16-bit write to the first port selects a key, byte reads of the second give its bytes one after the other.
// Units    values are little endian; behind their end, and for unknown keys, there are zeros.
// Threads  any; guarded. Two processors that select at once read each other's key, as on any such machine.
// Trust    any key, any number of reads.
// Source   QEMU, "docs/specs/fw_cfg".
#ifndef VMM_DEVICES_PLATFORM_TEST_MACHINE_FW_CFG_H_
#define VMM_DEVICES_PLATFORM_TEST_MACHINE_FW_CFG_H_

#include <cstddef>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "base/mutex.h"
#include "devices/io_device.h"

namespace vmm {

class FwCfg final : public IoDevice {
 public:
  struct Values {
    uint64_t ram_bytes;
    uint16_t processors;
  };
  explicit FwCfg(Values values) : values_(values) {}
  void Read(uint64_t offset, std::span<std::byte> data) noexcept override;
  void Write(uint64_t offset, std::span<const std::byte> data) noexcept override;

 private:
  [[nodiscard]] std::byte NextLocked() noexcept ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Values values_;
  Mutex mutex_;
  uint16_t key_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t position_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace vmm

#endif  // VMM_DEVICES_PLATFORM_TEST_MACHINE_FW_CFG_H_
