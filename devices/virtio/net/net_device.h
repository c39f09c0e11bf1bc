// The virtio network device: moves packets between queues and a NetWire.
//
// Shapes   queue 2i receives for pair i, queue 2i + 1 transmits. Behind the last pair the control queue; where the driver did not accept
//          VIRTIO_NET_F_MQ, behind the first.
// Units    bytes, packets, nanoseconds.
// Threads  confined to its process's loop.
// Trust    a transmitted packet's header is copied, then checked against what the driver accepted and against the packet's size: what
//          makes no sense is dropped and counted, as a cable loses it. Its bytes go from guest memory to the wire as they are, and may
//          change on the way. A received packet goes straight into the guest's buffers. No packet is larger than kMaxFrameBytes.
// Errors   none: commands that make no sense are answered VIRTIO_NET_ERR.
// Source   Virtual I/O Device (VIRTIO) Version 1.2, "Network Device".
//
// Received: a packet over several buffers (VIRTIO_NET_F_MRG_RXBUF) is made visible at once. Buffers are taken before a packet is there, and
// kept until one fills them or the queue stops, so that a packet of any size can be read without asking for its size. A packet is read
// when there is room for the largest; with less, when the driver cannot be expected to give more (it has given half of the ring): one that
// then does not fit is lost.
//
// Sent: a device that is killed may send a packet again. Received packets that were not given to the guest yet are lost.
#ifndef VMM_DEVICES_VIRTIO_NET_NET_DEVICE_H_
#define VMM_DEVICES_VIRTIO_NET_NET_DEVICE_H_

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "devices/virtio/backend/backend_device.h"
#include "devices/virtio/backend/backend_queue.h"
#include "devices/virtio/net/mac_address.h"
#include "devices/virtio/net/net_layout.h"
#include "devices/virtio/net/net_wire.h"
#include "devices/virtio/token_bucket.h"

namespace vmm {

struct NetOptions {
  MacAddress mac{};
  uint16_t mtu = 0;  // 0: nothing is said of it
  uint16_t pairs = 1;
  // In each direction; 0: no limit. Bursts are a tenth of a second's worth.
  uint64_t bytes_per_second = 0;
  uint64_t packets_per_second = 0;
};

class NetDevice final : public BackendDevice, public NetWireUser {
 public:
  static constexpr uint16_t kMaxPairs = 8;
  // A turn of one queue; then others come.
  static constexpr int kQuantumPackets = 64;
  static constexpr size_t kQuantumBytes = 1 << 20;
  static constexpr size_t kMaxHeld = 256;  // buffers of one queue that are taken before a packet is there
  static constexpr size_t kMaxCommandBytes = 4096;

  struct Stats {
    uint64_t sent = 0;
    uint64_t received = 0;
    uint64_t bad_headers = 0;  // sent by the guest, and dropped
    uint64_t refused = 0;      // by the host
    uint64_t too_large = 0;    // received, with not enough room
  };

  // What waits for its tokens: `sleeper` is called with the time until Resume is to be called, again for an earlier one.
  using Sleeper = std::function<void(uint64_t ns)>;
  using Clock = std::function<uint64_t()>;
  // `wire` has options.pairs pairs, and outlives it.
  NetDevice(NetWire& wire, const NetOptions& options, Clock clock, Sleeper sleeper);

  [[nodiscard]] uint64_t features() const noexcept override { return offered_; }
  [[nodiscard]] uint16_t queue_count() const noexcept override { return static_cast<uint16_t>(2 * options_.pairs + 1); }
  [[nodiscard]] std::span<const std::byte> config() const noexcept override { return std::as_bytes(std::span(&config_, 1)); }
  void OnHost(BackendHost& host) override { host_ = &host; }
  void OnFeatures(uint64_t features) noexcept override;
  [[nodiscard]] bool Process(uint16_t index, BackendQueue& queue) noexcept override;
  void OnQueueStopped(uint16_t index) noexcept override;

  void OnReadable(uint16_t pair) override { host_->Wake(static_cast<uint16_t>(2 * pair)); }
  void OnWritable(uint16_t pair) override { host_->Wake(static_cast<uint16_t>(2 * pair + 1)); }
  // The time that the sleeper was given has passed.
  void Resume();

  [[nodiscard]] const Stats& stats() const noexcept { return stats_; }
  [[nodiscard]] uint16_t active_pairs() const noexcept { return active_pairs_; }

 private:
  struct Limit {
    explicit Limit(const NetOptions& options);
    TokenBucket bytes, packets;
  };
  // Buffers that are taken and not used yet: the first `count` of `chains`.
  struct Receiver {
    BackendQueue* queue = nullptr;
    std::vector<QueueChain> chains;
    size_t count = 0;
  };
  bool Receive(uint16_t pair, BackendQueue& queue) noexcept;
  bool Transmit(uint16_t pair, BackendQueue& queue) noexcept;
  bool Control(BackendQueue& queue) noexcept;
  // Whether there is room to read a packet into; vectors_ and room_ are it then.
  bool Gather(Receiver& receiver, BackendQueue& queue) noexcept;
  void Deliver(Receiver& receiver, BackendQueue& queue, size_t bytes) noexcept;
  NetWire::SendResult Send(uint16_t pair) noexcept;
  uint8_t Command(std::span<const std::byte> command) noexcept;
  uint8_t SetMac(uint8_t command, std::span<const std::byte> data) noexcept;
  // False: not yet; the sleeper has been told.
  [[nodiscard]] bool Admit(Limit& limit, uint64_t bytes) noexcept;
  [[nodiscard]] uint16_t control_index() const noexcept;

  NetWire& wire_;
  const NetOptions options_;
  const Clock clock_;
  const Sleeper sleeper_;
  BackendHost* host_ = nullptr;
  uint64_t offered_ = 0;
  uint64_t features_ = 0;
  bool negotiated_ = false;  // at least once
  uint16_t active_pairs_ = 1;
  uint64_t wake_at_ns_ = 0;  // 0: nobody sleeps
  virtio_net::Config config_{};
  Limit receive_limit_, transmit_limit_;
  std::vector<Receiver> receivers_;
  size_t room_ = 0;
  QueueChain chain_;
  std::vector<iovec> vectors_;
  std::vector<BackendQueue::Used> used_;
  std::vector<std::byte> command_;
  Stats stats_;
};

// Whether a driver that accepted `features` may send `frame_bytes` bytes with this header.
[[nodiscard]] bool IsSendable(const virtio_net::Header& header, uint64_t features, size_t frame_bytes) noexcept;

// `vmm device net ...` (net_process.cc says how); argv as main has it.
int RunNetDevice(int argc, char** argv);

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_NET_NET_DEVICE_H_
