// Rings, packets and commands that hold garbage, in front of the network device with one pair and a control queue.
//
// Shapes   the first byte: features and what the wire does; then for each of the three queues descriptor table, available ring and used ring
//          (8 entries), then an indirect table, and data. Most addresses are bent into memory, so that what they name is looked at.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

#include "base/event_fd.h"
#include "base/owned_fd.h"
#include "devices/virtio/backend/backend_device.h"
#include "devices/virtio/backend/backend_memory.h"
#include "devices/virtio/backend/backend_queue.h"
#include "devices/virtio/backend/fake_guest_driver.h"
#include "devices/virtio/net/net_device.h"
#include "devices/virtio/net/net_layout.h"
#include "devices/virtio/net/net_wire.h"
#include "devices/virtio/virtio_layout.h"
#include "memory/gpa.h"

namespace {

using namespace vmm;
namespace vn = virtio_net;

constexpr uint64_t kWireFeatures = vn::kFeatureCsum | vn::kGuestOffloads | vn::kFeatureHostTso4 | vn::kFeatureHostTso6 | vn::kFeatureHostUso;

// Aborts for what the device must not ask, and looks at every byte.
class CheckedWire final : public NetWire {
 public:
  explicit CheckedWire(uint8_t kind) : kind_(kind) {}
  uint64_t features() const noexcept override { return kWireFeatures; }
  void SetOffloads(uint64_t features) noexcept override {
    if ((features & ~vn::kGuestOffloads) != 0) std::abort();
  }
  uint16_t pairs() const noexcept override { return 1; }
  bool active(uint16_t) const noexcept override { return true; }
  void SetActive(uint16_t, bool) noexcept override { std::abort(); }
  SendResult Send(uint16_t pair, std::span<iovec> packet) noexcept override {
    if (pair != 0 || packet.empty() || packet.size() > kMaxVectors || packet[0].iov_len != sizeof(vn::Header)) std::abort();
    std::vector<std::byte> all;
    for (const iovec& vector : packet) {
      const auto* const bytes = static_cast<const std::byte*>(vector.iov_base);
      all.insert(all.end(), bytes, bytes + vector.iov_len);
    }
    vn::Header header;
    std::memcpy(&header, all.data(), sizeof(header));
    const size_t frame = all.size() - sizeof(header);
    if (frame < vn::kEthernetBytes || frame > vn::kMaxFrameBytes || header.num_buffers != 0 || !IsSendable(header, kWireFeatures, frame)) std::abort();
    return kind_ % 3 == 0 ? SendResult::kRefused : SendResult::kSent;
  }
  size_t Receive(uint16_t, std::span<iovec> room) noexcept override {
    // Room may be nothing: buffers without any.
    if (room.size() > kMaxVectors || left_ == 0) return 0;
    --left_;
    static constexpr std::array<size_t, 4> kFrames = {14, 60, 1514, vn::kMaxFrameBytes};
    const size_t bytes = sizeof(vn::Header) + kFrames[(kind_ + left_) % kFrames.size()];
    size_t at = 0;
    for (const iovec& vector : room) {
      const size_t part = std::min(vector.iov_len, bytes - at);
      std::memset(vector.iov_base, 0x5a, part);
      at += part;
    }
    return bytes;
  }
  void WantInput(uint16_t, bool) noexcept override {}
  void WantOutput(uint16_t, bool) noexcept override {}

 private:
  const uint8_t kind_;
  int left_ = 6;
};

class NoHost final : public BackendHost {
 public:
  void ConfigChanged() override {}
  void Wake(uint16_t) override {}
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  constexpr uint16_t kSize = 8;
  constexpr size_t kQueues = 3;
  constexpr uint64_t kDataBytes = 4096;
  FakeGuestRam ram;
  std::vector<FakeGuestDriver> drivers;
  for (size_t i = 0; i < kQueues; ++i) drivers.emplace_back(ram, kSize, FakeGuestRam::kBase + 0x1'0000 * uint64_t{i});
  BackendMemory memory;
  if (!memory.Add(FakeGuestRam::region(), ram.fd()).ok()) return 0;
  const uint8_t options = data[0];
  ++data;
  --size;
  const auto take = [&](Gpa to, size_t bytes) {
    const size_t part = std::min(bytes, size);
    if (part != 0) std::memcpy(ram.At(to), data, part);
    data += part;
    size -= part;
  };
  const Gpa indirect = FakeGuestRam::kBase + 0x8'0000;
  const Gpa content = FakeGuestRam::kBase + 0x9'0000;
  for (FakeGuestDriver& driver : drivers) {
    take(driver.descriptors(), virtio::DescriptorBytes(kSize));
    take(driver.available(), virtio::AvailBytes(kSize));
    take(driver.used(), virtio::UsedBytes(kSize));
  }
  take(indirect, 16 * 16);
  take(content, kDataBytes);
  const auto bend = [&](Gpa table, size_t count) {
    for (size_t i = 0; i < count; ++i) {
      auto& descriptor = ram.Word<virtio::Descriptor>(table + 16 * i);
      // One in eight stays what it was.
      if ((descriptor.flags & 0x7000) == 0) continue;
      const bool is_table = (descriptor.flags & virtio::kDescriptorIndirect) != 0;
      descriptor.address = (is_table ? indirect : content).raw() + (is_table ? 0 : descriptor.address & 0x7ff0);
      descriptor.bytes &= is_table ? 0xf0 : 0x1'ffff;
    }
  };
  for (FakeGuestDriver& driver : drivers) bend(driver.descriptors(), kSize);
  bend(indirect, 16);

  EventFd call = *EventFd::Create();
  uint64_t now = 1'000'000'000;
  CheckedWire wire(options >> 4);
  NetDevice device(wire, {.mtu = 1500, .pairs = 1, .packets_per_second = (options & 4) != 0 ? 100u : 0u}, [&] { return now += 1000; },
                   [](uint64_t) {});
  NoHost host;
  device.OnHost(host);
  device.OnFeatures(device.features() & ((options & 1) != 0 ? ~uint64_t{0} : ~vn::kFeatureMrgRxbuf));
  std::array<BackendQueue, kQueues> queues;
  const uint64_t features = ((options & 2) != 0 ? virtio::kFeatureEventIdx : 0) | virtio::kFeatureIndirectDesc;
  for (size_t i = 0; i < kQueues; ++i) queues[i].Start(drivers[i].Rings(memory), 0, features, memory, &call);
  // Packets may write over the rings, and so go on for as long as they like: a bounded look.
  for (int turn = 0; turn < 3; ++turn) {
    for (uint16_t i = 0; i < kQueues; ++i) {
      (void)device.Process(i, queues[i]);
      queues[i].Notify();
    }
  }
  for (uint16_t i = 0; i < kQueues; ++i) {
    device.OnQueueStopped(i);
    (void)queues[i].Stop();
  }
  return 0;
}
