// The virtio block device over a Disk.
//
// Units    bytes, sectors of 512 bytes, nanoseconds.
// Threads  confined to its process's loop. Requests are done one at a time, in order: a completion is final when the driver sees it, and
//          a device that is killed has completed exactly what the used index says.
// Trust    headers and ranges are copied, then checked: whole sectors, inside the disk, no larger than kMaxRequestBytes. Data goes
//          straight between guest memory and the disk.
// Errors   a request that makes no sense, or that the host could not do: VIRTIO_BLK_S_IOERR; a type that is not known: S_UNSUPP.
// Source   Virtual I/O Device (VIRTIO) Version 1.2, "Block Device".
//
// Durability: the device has a write-back cache, the host's, and says so (VIRTIO_BLK_F_FLUSH): a flush is fdatasync(2). A driver that did
// not accept FLUSH must have each write durable when it completes: then every write is followed by one.
#ifndef VMM_DEVICES_VIRTIO_BLOCK_BLOCK_DEVICE_H_
#define VMM_DEVICES_VIRTIO_BLOCK_BLOCK_DEVICE_H_

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
#include "devices/virtio/token_bucket.h"

namespace vmm {

struct BlockOptions {
  bool read_only = false;
  std::string serial;  // at most 20 bytes
  uint16_t queues = 1;
  // 0: no limit. Bursts are a tenth of a second's worth.
  uint64_t bytes_per_second = 0;
  uint64_t operations_per_second = 0;
};

class BlockDevice final : public BackendDevice {
 public:
  static constexpr uint32_t kMaxSegments = 254;  // what a driver is told; the queue takes more
  static constexpr uint64_t kMaxRequestBytes = 64u << 20;
  static constexpr uint32_t kMaxRanges = 16;
  static constexpr int kQuantum = 64;
  // The driver is told of completions at the latest so long after the first of them.
  static constexpr uint64_t kNotifyNs = 50'000;

  // What waits for its tokens: `wake` is called once with the time until there are enough, and calls Resume then.
  using Sleeper = std::function<void(uint64_t ns)>;
  using Clock = std::function<uint64_t()>;
  BlockDevice(std::unique_ptr<Disk> disk, const BlockOptions& options, Clock clock, Sleeper sleeper);

  [[nodiscard]] uint64_t features() const noexcept override { return features_; }
  [[nodiscard]] uint16_t queue_count() const noexcept override { return options_.queues; }
  [[nodiscard]] std::span<const std::byte> config() const noexcept override {
    return std::as_bytes(std::span(&config_, 1)).first(virtio_blk::kConfigBytes);
  }
  void OnHost(BackendHost& host) override { host_ = &host; }
  void OnFeatures(uint64_t features) noexcept override { flush_accepted_ = (features & virtio_blk::kFeatureFlush) != 0; }
  [[nodiscard]] bool Process(uint16_t index, BackendQueue& queue) noexcept override;
  // The time that the sleeper was given has passed.
  void Resume();

 private:
  // The status byte; how much of the writable part holds data is put into `written`.
  uint8_t Do(const virtio_blk::RequestHeader& header, uint64_t& written) noexcept;
  uint8_t ReadOrWrite(const virtio_blk::RequestHeader& header, bool write, uint64_t& written) noexcept;
  uint8_t DoRanges(bool zeroes) noexcept;
  uint8_t GetId(uint64_t& written) noexcept;
  // The chain's data without header or status, as vectors_.
  void SliceVectors(const std::vector<iovec>& from, uint64_t skip, uint64_t bytes);
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
  QueueChain chain_;
  std::vector<iovec> vectors_;
};

// `vmm device block --path FILE [--read-only] ... [--socket PATH | --fd N]`; argv as main has it.
int RunBlockDevice(int argc, char** argv);

// How the monitor gives the options to the process that it starts; the disk is the first descriptor.
std::vector<std::string> BlockDeviceArguments(const BlockOptions& options);

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_BLOCK_BLOCK_DEVICE_H_
