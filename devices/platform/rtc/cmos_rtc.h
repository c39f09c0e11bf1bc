// The real-time clock: the wall clock of guests that have not kvmclock's, which is those on the Hyper-V interface.
//
// Two registers and a calendar, in a process of its own (rtc_process.h). No alarm and no periodic interrupt: it has no
// interrupt line, and the ACPI tables say so.
//
// Shapes   index and data port, bytes; wider accesses are all ones and ignored.
// Units    the host's clock in nanoseconds since 1970, UTC; the guest sees UTC.
// Threads  any: guarded.
// Trust    the guest may set any time: that is an offset of this machine, and never the host's clock. Values that are no date
//          are kept as they are until the guest ends SET, and then count as if the calendar went on (the 40th is the 9th).
// Errors   none.
// Source   Motorola, "MC146818A Real-Time Clock".
#ifndef VMM_DEVICES_PLATFORM_RTC_CMOS_RTC_H_
#define VMM_DEVICES_PLATFORM_RTC_CMOS_RTC_H_

#include <array>
#include <cstdint>
#include <functional>

#include "absl/base/thread_annotations.h"
#include "base/mutex.h"
#include "devices/io_device.h"
#include "devices/platform/rtc/cmos_layout.h"

namespace vmm {

class CmosRtc final : public IoDevice {
 public:
  using Clock = std::function<int64_t()>;  // nanoseconds since 1970
  explicit CmosRtc(Clock clock = &HostClock) : clock_(std::move(clock)) {}

  void Read(uint64_t offset, std::span<std::byte> data) noexcept override;
  void Write(uint64_t offset, std::span<const std::byte> data) noexcept override;

  [[nodiscard]] static int64_t HostClock() noexcept;

 private:
  // Registers 0 to 9 and the century, in the form that register B asks for.
  void ShowTimeLocked(int64_t seconds) noexcept ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The reverse.
  [[nodiscard]] int64_t TimeLocked() const noexcept ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The guest's time: whole seconds, and nanoseconds into the present one.
  struct Moment {
    int64_t seconds;
    int64_t nanoseconds;
  };
  [[nodiscard]] Moment NowLocked() const noexcept ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // A second that begins now.
  void BeginLocked(int64_t seconds) noexcept ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] uint8_t ReadLocked() noexcept ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WriteLocked(uint8_t value) noexcept ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] uint8_t Form(unsigned value) const noexcept ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] unsigned Number(uint8_t form) const noexcept ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Clock clock_;
  Mutex mutex_;
  uint8_t index_ ABSL_GUARDED_BY(mutex_) = 0;
  // Ahead of the host. Apart, because a guest may set years that nanoseconds do not reach.
  int64_t offset_seconds_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t offset_nanoseconds_ ABSL_GUARDED_BY(mutex_) = 0;  // below a second
  std::array<uint8_t, kCmosBytes> bytes_ ABSL_GUARDED_BY(mutex_) = [] {
    std::array<uint8_t, kCmosBytes> bytes{};
    bytes[kCmosRegisterA] = kCmosDividerRunning;
    bytes[kCmosRegisterB] = kCmos24Hours;
    return bytes;
  }();
};

}  // namespace vmm

#endif  // VMM_DEVICES_PLATFORM_RTC_CMOS_RTC_H_
