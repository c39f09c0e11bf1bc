// The monitor's side of a trapped device that lives in a process of its own.
//
// Shapes   Write is posted: queued and forgotten. Read is a request and its reply, or a published register without either.
// Units    `deadline_ms` bounds one access from its first instruction, the wait for other VPs' accesses included.
// Threads  Read and Write: any VP thread; accesses go one at a time. Callback: the thread that found the failure, no lock held.
// Trust    the peer may be dead, stuck or lying (trapped_protocol.h). Whatever it does costs a VP at most `deadline_ms`, once.
// Errors   the first missed deadline, end of file or wrong message makes the device *failed*, for ever: on_failed is called
//          exactly once, reads are ones, writes are dropped, and nothing waits any more.
#ifndef VMM_DEVICES_PLATFORM_TRAPPED_DEVICE_PROXY_H_
#define VMM_DEVICES_PLATFORM_TRAPPED_DEVICE_PROXY_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <span>
#include <string>

#include "base/owned_fd.h"
#include "devices/io_device.h"
#include "devices/platform/trapped_protocol.h"

namespace vmm {

class TrappedDeviceProxy final : public IoDevice {
 public:
  static constexpr int kDefaultDeadlineMs = 500;  // CLOCK_MONOTONIC: a step of the wall clock must not fail a device
  // `reason` is for people: "no reply to a read within 500 ms".
  using FailureCallback = std::function<void(const std::string& reason)>;

  // `page` is null, or outlives the proxy.
  TrappedDeviceProxy(OwnedFd socket, const PublishedPage* page, FailureCallback on_failed,
                     int deadline_ms = kDefaultDeadlineMs);
  TrappedDeviceProxy(const TrappedDeviceProxy&) = delete;
  TrappedDeviceProxy& operator=(const TrappedDeviceProxy&) = delete;

  void Read(uint64_t offset, std::span<std::byte> data) noexcept override;
  void Write(uint64_t offset, std::span<const std::byte> data) noexcept override;
  // Several posted writes in one message each 64; for port writes that the kernel has collected.
  void WriteBytes(std::span<const TrappedByteWrite> writes) noexcept;

  // Orderly end: no further access is sent, the device finds the end of the file after the last one. Not a failure.
  void Close() noexcept;
  // Called every half of deadline_ms by one thread that is no VP's: fails the device if for two calls it took none of the
  // messages that wait for it (one: the whole monitor may have been stopped). A guest that waits for a stuck device's
  // interrupt makes no access that would find out.
  void CheckProgress() noexcept;
  [[nodiscard]] bool failed() const noexcept { return failed_.load(std::memory_order_acquire); }

 private:
  // Empty: all is well.
  using Failure = std::string;

  [[nodiscard]] bool Begin() noexcept;
  void End(Failure failure) noexcept;
  Failure Send(const TrappedMessage& message, int64_t deadline_ns) noexcept;
  Failure ReceiveReply(uint32_t sequence, size_t bytes, int64_t deadline_ns, uint64_t& value) noexcept;
  [[nodiscard]] bool ReadPublished(uint64_t offset, std::span<std::byte> data) noexcept;
  void CountWrites(uint64_t offset, size_t bytes, uint32_t count) noexcept;
  void Fail(Failure failure) noexcept;

  const OwnedFd socket_;
  const PublishedPage* const page_;
  const FailureCallback on_failed_;
  const int deadline_ms_;

  // A turn, not a lock: whoever has it may wait in poll(2) while others wait for it with a deadline of their own.
  // std::, because its timed wait counts CLOCK_MONOTONIC, and because TSan sees through it (Debian's abseil is built without).
  std::mutex mutex_;
  std::condition_variable turn_;
  bool busy_ = false;  // guarded by mutex_
  // Set once. release/acquire: who sees it set sees the failure's cause reported or being reported.
  std::atomic<bool> failed_{false};

  // Messages sent. Written by whoever has the turn, read by CheckProgress; relaxed: it is compared with itself alone.
  std::atomic<uint32_t> sent_{0};
  // CheckProgress's own.
  uint32_t sent_before_ = 0;
  int waiting_before_ = 0;
  int stuck_calls_ = 0;

  // Of whoever has the turn.
  uint32_t sequence_ = 0;
  // The last access that a published value must take account of: everything but byte writes to offset 0.
  uint32_t barrier_sequence_ = 0;
};

}  // namespace vmm

#endif  // VMM_DEVICES_PLATFORM_TRAPPED_DEVICE_PROXY_H_
