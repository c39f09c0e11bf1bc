// The virtio block device over a Disk.
//
// Units    bytes, sectors of 512 bytes, nanoseconds.
// Threads  confined to its process's loop. What may have to wait for the host's disk is done by workers (disk_workers.h), and completes in
//          any order; the rest at once. A request is one thread's at a time.
// Trust    headers and ranges are copied, then checked: whole sectors, inside the disk, no larger than kMaxRequestBytes. Data goes
//          straight between guest memory and the disk.
// Errors   a request that makes no sense, or that the host could not do: VIRTIO_BLK_S_IOERR; a type that is not known: S_UNSUPP.
// Source   Virtual I/O Device (VIRTIO) Version 1.2, "Block Device".
//
// Durability: the device has a write-back cache, the host's, and says so (VIRTIO_BLK_F_FLUSH): a flush is fdatasync(2). A driver that did
// not accept FLUSH must have each write durable when it completes: then every write is followed by one. A flush covers what had completed
// when it was taken from the queue, as the specification wants it; it does not wait for writes that are in flight beside it.
//
// What a killed process leaves behind. Everything goes through the host's page cache, by calls that are over when their thread is: nothing
// of it happens after the process has been reaped. A request in flight may have been done, in part or not at all; it is done again by the
// next process from the same guest memory, which the driver may not touch before it is completed, so that once more is no different.
#ifndef VMM_DEVICES_VIRTIO_BLOCK_BLOCK_DEVICE_H_
#define VMM_DEVICES_VIRTIO_BLOCK_BLOCK_DEVICE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "devices/virtio/backend/backend_device.h"
#include "devices/virtio/backend/backend_queue.h"
#include "devices/virtio/block/block_layout.h"
#include "devices/virtio/block/disk.h"
#include "devices/virtio/block/disk_workers.h"
#include "devices/virtio/token_bucket.h"

namespace vmm {

struct BlockOptions {
  bool read_only = false;
  std::string serial;  // at most 20 bytes
  uint16_t queues = 1;
  // 0: no limit. Bursts are a tenth of a second's worth.
  uint64_t bytes_per_second = 0;
  uint64_t operations_per_second = 0;
  bool packed = true;  // VIRTIO_F_RING_PACKED is offered too
  // Threads for what has to wait; 0: one request at a time.
  uint16_t workers = 4;
};

class BlockDevice final : public BackendDevice {
 public:
  static constexpr uint32_t kMaxSegments = 254;  // what a driver is told; the queue takes more
  static constexpr uint64_t kMaxRequestBytes = 64u << 20;
  static constexpr uint32_t kMaxRanges = 16;
  static constexpr int kQuantum = 64;
  // Of all queues. What is behind them stays in its queue.
  static constexpr size_t kMaxInFlight = 64;
  // A write that took so long, and a nanosecond a byte, was held back, as the host does with whoever makes too much dirty: the next ones
  // are the workers'. Far above what copying takes, also on a slow machine.
  static constexpr uint64_t kSlowWriteNs = 5'000'000;
  static constexpr int kSlowWrites = 64;
  // The driver is told of completions at the latest so long after the first of them.
  static constexpr uint64_t kNotifyNs = 50'000;

  // What waits for its tokens: `wake` is called once with the time until there are enough, and calls Resume then.
  using Sleeper = std::function<void(uint64_t ns)>;
  using Clock = std::function<uint64_t()>;
  // `workers`: none: everything is done at once, and in order.
  BlockDevice(std::unique_ptr<Disk> disk, const BlockOptions& options, Clock clock, Sleeper sleeper,
              std::unique_ptr<DiskWorkers> workers = nullptr);

  [[nodiscard]] uint64_t features() const noexcept override { return features_; }
  [[nodiscard]] uint16_t queue_count() const noexcept override { return options_.queues; }
  [[nodiscard]] std::span<const std::byte> config() const noexcept override {
    return std::as_bytes(std::span(&config_, 1)).first(virtio_blk::kConfigBytes);
  }
  void OnHost(BackendHost& host) override { host_ = &host; }
  void OnFeatures(uint64_t features) noexcept override { flush_accepted_ = (features & virtio_blk::kFeatureFlush) != 0; }
  [[nodiscard]] bool Process(uint16_t index, BackendQueue& queue) noexcept override;
  void OnQueueStopped(uint16_t index) noexcept override;
  // The time that the sleeper was given has passed.
  void Resume();
  // The workers' done_fd is readable.
  void OnDone();

 private:
  // One chain on its way.
  struct Request final : DiskWorkers::Job {
    explicit Request(BlockDevice& of) : device(of) {}
    void Run() noexcept override { status = device.Do(*this); }

    BlockDevice& device;
    uint16_t queue = 0;
    QueueChain chain;
    virtio_blk::RequestHeader header{};
    // The data: the chain's spans without header or status. Of ranges, the copy that was checked.
    std::vector<iovec> vectors;
    std::array<virtio_blk::Range, kMaxRanges> ranges;
    size_t range_count = 0;
    uint64_t written = 0;
    uint8_t status = 0;
    bool durable = false;  // at its completion, because the driver knows of no flushes
  };
  struct Queue {
    BackendQueue* ring = nullptr;  // while it runs
    size_t in_flight = 0;
    bool waits = false;  // for a free request
  };
  // Checks the request and does what can be done without waiting. False: a worker has it.
  [[nodiscard]] bool Begin(Request& request, bool whole) noexcept;
  // Whether the request makes sense; its vectors and ranges are there then. Else its status.
  [[nodiscard]] bool Prepare(Request& request) noexcept;
  [[nodiscard]] bool PrepareData(Request& request, bool write) noexcept;
  [[nodiscard]] bool PrepareRanges(Request& request, bool zeroes) noexcept;
  // The disk's part of a prepared one, on any thread: its status.
  [[nodiscard]] uint8_t Do(Request& request) noexcept;
  [[nodiscard]] bool DoRanges(Request& request) noexcept;
  void Finish(Request& request) noexcept;
  // All that the workers have done.
  void Reap() noexcept;
  void GetId(Request& request) noexcept;
  [[nodiscard]] bool Admit(uint64_t bytes, uint64_t now_ns);
  [[nodiscard]] bool InDisk(uint64_t sector, uint64_t bytes) const noexcept;

  const std::unique_ptr<Disk> disk_;
  const BlockOptions options_;
  const Clock clock_;
  const Sleeper sleeper_;
  BackendHost* host_ = nullptr;
  uint64_t features_ = 0;
  virtio_blk::Config config_{};
  bool flush_accepted_ = false;
  bool sleeping_ = false;
  TokenBucket bytes_bucket_;
  TokenBucket operations_bucket_;
  std::vector<Queue> queues_;
  std::vector<std::unique_ptr<Request>> requests_;
  std::vector<Request*> free_;
  int slow_writes_ = 0;
  // Before what its jobs use.
  std::unique_ptr<DiskWorkers> workers_;
};

// `vmm device block --path FILE [--read-only] ... [--socket PATH | --fd N]`; argv as main has it.
int RunBlockDevice(int argc, char** argv);

// How the monitor gives the options to the process that it starts; the disk is the first descriptor.
std::vector<std::string> BlockDeviceArguments(const BlockOptions& options);

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_BLOCK_BLOCK_DEVICE_H_
