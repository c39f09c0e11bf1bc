// The virtio balloon: gives memory that the guest does not use back to the host.
//
// Shapes   inflate, deflate and statistics queue; two that are free page reporting's (balloon_layout.h).
// Units    pages of 4 KiB; milliseconds.
// Threads  confined to its process's loop.
// Trust    a guest can give away its own memory only: page numbers and ranges are looked up in what this device was given, so pages that
//          are reserved from it are refused, and counted. A guest that lies about what is free loses what it held there. How often it
//          inflates is bounded by its own processors; the monitor hears of it at most every kReportMs.
// Errors   values. A page that the host does not take stays what it was.
// Source   Virtual I/O Device (VIRTIO) Version 1.2, "Traditional Memory Balloon Device".
//
// Invariants: a reported page is discarded only where it may read as zero afterwards: PAGE_POISON is not negotiated, or poison_val is known
// to be 0. An inflated page may hold anything. Nothing outside of whole pages of a request is touched.
#ifndef VMM_DEVICES_VIRTIO_BALLOON_BALLOON_DEVICE_H_
#define VMM_DEVICES_VIRTIO_BALLOON_BALLOON_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "devices/virtio/backend/backend_device.h"
#include "devices/virtio/backend/backend_queue.h"
#include "devices/virtio/balloon/balloon_layout.h"

namespace vmm {

// What its process does for it.
class BalloonHost {
 public:
  virtual ~BalloonHost() = default;
  // The pages' memory goes back to the host; they read as zero afterwards. False: not done.
  [[nodiscard]] virtual bool Discard(std::byte* start, uint64_t bytes) noexcept = 0;
  // False: not now, tried again after kReportMs.
  [[nodiscard]] virtual bool Send(const virtio_balloon::Report& report) noexcept = 0;
  [[nodiscard]] virtual uint64_t NowMs() noexcept = 0;
  // OnTimer is called then, once; replaces an earlier wish.
  virtual void WakeAt(uint64_t ms) noexcept = 0;
};

struct BalloonOptions {
  uint32_t target_pages = 0;
  uint32_t stats_seconds = 0;  // how often the guest is asked for its statistics; 0: never
  bool deflate_on_oom = true;
  bool reporting = true;
};

class BalloonDevice : public BackendDevice {
 public:
  static constexpr int kQuantum = 16;
  // Page numbers of one request that are looked at: 256 MiB. Linux sends 256 at a time.
  static constexpr size_t kMaxPfns = 65536;
  static constexpr uint64_t kReportMs = 100;

  // `host` outlives it.
  BalloonDevice(BalloonHost& host, const BalloonOptions& options);

  [[nodiscard]] uint64_t features() const noexcept override;
  [[nodiscard]] uint16_t queue_count() const noexcept override { return virtio_balloon::kQueues; }
  [[nodiscard]] std::span<const std::byte> config() const noexcept override { return std::as_bytes(std::span(&config_, 1)); }
  [[nodiscard]] bool WriteConfig(uint32_t offset, std::span<const std::byte> data) noexcept override;
  void OnHost(BackendHost& host) override;
  void OnFeatures(uint64_t features) noexcept override { accepted_ = features; }
  [[nodiscard]] bool Process(uint16_t index, BackendQueue& queue) noexcept override;
  void OnQueueStopped(uint16_t index) noexcept override;

  void OnCommand(const virtio_balloon::Command& command);
  void OnTimer();

 private:
  void Inflate(BackendQueue& queue) noexcept;
  void DiscardPages(BackendQueue& queue, std::span<uint32_t> pfns) noexcept;
  void DiscardReported() noexcept;
  void Discard(std::byte* start, uint64_t bytes) noexcept;
  // True: the request at hand is kept.
  bool TakeStats() noexcept;
  void Changed() noexcept;
  void SendReport() noexcept;
  void Schedule() noexcept;

  BalloonHost& host_;
  const BalloonOptions options_;
  BackendHost* backend_ = nullptr;
  virtio_balloon::Config config_{};
  uint64_t accepted_ = 0;
  bool actual_known_ = false;  // from the driver, or an earlier process
  bool poison_known_ = false;

  QueueChain chain_;
  std::vector<uint32_t> pfns_;
  // The driver's buffer, kept until the next statistics are wanted. It is in the ring still: a stopped queue forgets it.
  QueueChain stats_chain_;
  bool has_stats_chain_ = false;
  bool stats_wanted_ = false;
  std::optional<uint64_t> stats_due_ms_;

  virtio_balloon::Report report_{};
  bool changed_ = false;
  uint64_t report_due_ms_ = 0;
};

[[nodiscard]] std::vector<std::string> BalloonDeviceArguments(const BalloonOptions& options);

// `vmm device balloon`; descriptor of a jailed one that has a monitor: its socket for commands. argv as main has it.
int RunBalloonDevice(int argc, char** argv);

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_BALLOON_BALLOON_DEVICE_H_
