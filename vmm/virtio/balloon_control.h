// The monitor's end of the balloon: sets its target while the machine runs, and hears what became of it.
//
// Units    MiB; pages of 4 KiB.
// Threads  Create and the destructor: the loop's thread. SetTarget and stats: any, guarded.
// Trust    reports come from the device's process and, behind it, from the guest: numbers of the right length, no more. Reports are read
//          one a turn of the loop; the device sends ten a second, and a hostile one is held up by its socket's buffer.
// Errors   SetTarget: INVALID_ARGUMENT for a target as large as the machine's memory; errno's where the device does not take it now: it
//          is told again with its next report.
//
// A device that was started again reports at its start, and is answered by the target and by what the one before knew of the driver.
#ifndef VMM_VMM_VIRTIO_BALLOON_CONTROL_H_
#define VMM_VMM_VIRTIO_BALLOON_CONTROL_H_

#include <cstdint>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/event_loop.h"
#include "base/mutex.h"
#include "base/owned_fd.h"
#include "devices/virtio/balloon/balloon_layout.h"

namespace vmm {

class BalloonControl final {
 public:
  [[nodiscard]] static constexpr uint32_t PagesOf(uint64_t mib) noexcept {
    return static_cast<uint32_t>(mib * ((1 << 20) / virtio_balloon::kPageBytes));
  }

  // `socket`: of packets. `loop` outlives it.
  static absl::StatusOr<std::unique_ptr<BalloonControl>> Create(EventLoop& loop, OwnedFd socket, uint64_t target_mib, uint64_t memory_mib);
  BalloonControl(const BalloonControl&) = delete;
  BalloonControl& operator=(const BalloonControl&) = delete;
  ~BalloonControl();

  // How much the guest is asked to give up.
  absl::Status SetTarget(uint64_t mib);
  struct Stats {
    uint32_t target_pages = 0;
    virtio_balloon::Report last{};  // as the device last said
  };
  [[nodiscard]] Stats stats() const;

 private:
  BalloonControl(EventLoop& loop, OwnedFd socket, uint64_t target_mib, uint64_t memory_mib)
      : loop_(loop), socket_(std::move(socket)), memory_mib_(memory_mib), target_pages_(PagesOf(target_mib)) {}
  absl::Status TellLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnReport();

  EventLoop& loop_;
  const OwnedFd socket_;
  const uint64_t memory_mib_;
  mutable Mutex mutex_;
  uint32_t target_pages_ ABSL_GUARDED_BY(mutex_);
  virtio_balloon::Report last_ ABSL_GUARDED_BY(mutex_){};
};

}  // namespace vmm

#endif  // VMM_VMM_VIRTIO_BALLOON_CONTROL_H_
