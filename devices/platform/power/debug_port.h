// A port whose bytes go to the log, a line at a time: for guest code that has no driver yet.
//
// Threads  any; guarded.
// Trust    a line is cut at kMaxLine, control characters are escaped by the log, and lines are rate-limited.
#ifndef VMM_DEVICES_PLATFORM_POWER_DEBUG_PORT_H_
#define VMM_DEVICES_PLATFORM_POWER_DEBUG_PORT_H_

#include <string>

#include "absl/base/thread_annotations.h"
#include "base/log.h"
#include "base/mutex.h"
#include "devices/io_device.h"

namespace vmm {

class DebugPort final : public IoDevice {
 public:
  static constexpr size_t kMaxLine = 256;

  DebugPort() = default;
  // Writes the line that was begun.
  ~DebugPort() override;
  void Read(uint64_t offset, std::span<std::byte> data) noexcept override;
  void Write(uint64_t offset, std::span<const std::byte> data) noexcept override;

  // The line begun so far, for tests.
  [[nodiscard]] std::string pending();

 private:
  Mutex mutex_;
  std::string line_ ABSL_GUARDED_BY(mutex_);
  GuestLog log_{"debug-port"};
};

}  // namespace vmm

#endif  // VMM_DEVICES_PLATFORM_POWER_DEBUG_PORT_H_
