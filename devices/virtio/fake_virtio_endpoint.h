// A device that remembers what its transport asked. Testonly: for tests of transports, on one thread.
#ifndef VMM_DEVICES_VIRTIO_FAKE_VIRTIO_ENDPOINT_H_
#define VMM_DEVICES_VIRTIO_FAKE_VIRTIO_ENDPOINT_H_

#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/event_fd.h"
#include "devices/virtio/virtio_endpoint.h"

namespace vmm {

class FakeVirtioEndpoint final : public VirtioEndpoint {
 public:
  explicit FakeVirtioEndpoint(uint16_t queues) {
    for (uint16_t i = 0; i < queues; ++i) {
      kicks.push_back(*EventFd::Create());
      calls.push_back(*EventFd::Create());
    }
  }
  virtio::DeviceId device_id() const noexcept override { return virtio::DeviceId::kRng; }
  uint64_t features() const noexcept override { return offered; }
  uint16_t queue_count() const noexcept override { return static_cast<uint16_t>(kicks.size()); }
  uint16_t max_queue_size() const noexcept override { return 256; }
  uint32_t config_bytes() const noexcept override { return static_cast<uint32_t>(config.size()); }
  int kick_fd(uint16_t queue) const noexcept override { return kicks[queue].fd(); }
  int call_fd(uint16_t queue) const noexcept override { return calls[queue].fd(); }
  void Kick(uint16_t queue) noexcept override { kicks[queue].Signal(); }
  void SetEvents(VirtioEvents* to) noexcept override { events = to; }
  void ReadConfig(uint32_t offset, std::span<std::byte> data) noexcept override {
    if (offset + data.size() <= config.size()) std::memcpy(data.data(), config.data() + offset, data.size());
  }
  void WriteConfig(uint32_t offset, std::span<const std::byte> data) noexcept override {
    if (offset + data.size() <= config.size()) std::memcpy(config.data() + offset, data.data(), data.size());
  }
  bool Start(uint64_t features, std::span<const VirtioQueueSetup> queues) noexcept override {
    accepted = features;
    started.assign(queues.begin(), queues.end());
    running = works;
    return works;
  }
  bool StartQueue(const VirtioQueueSetup& queue) noexcept override {
    started.push_back(queue);
    return works;
  }
  bool StopQueue(uint16_t queue) noexcept override {
    stopped.push_back(queue);
    return works;
  }
  void Stop() noexcept override {
    ++stops;
    running = false;
  }

  uint64_t offered = virtio::kFeatureVersion1 | virtio::kFeatureEventIdx | virtio::kFeatureRingReset | 5;
  std::vector<EventFd> kicks, calls;
  std::string config = "config";
  VirtioEvents* events = nullptr;
  uint64_t accepted = 0;
  std::vector<VirtioQueueSetup> started;
  std::vector<uint16_t> stopped;
  bool running = false;
  bool works = true;
  int stops = 0;
};

}  // namespace vmm

#endif  // VMM_DEVICES_VIRTIO_FAKE_VIRTIO_ENDPOINT_H_
