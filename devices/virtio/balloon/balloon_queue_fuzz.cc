// Rings, page numbers, reported ranges and statistics that hold garbage, in front of the balloon device.
//
// Shapes   the first byte: features; then for each of the five queues descriptor table, available ring and used ring (8 entries), then an
//          indirect table, and data. Most addresses are bent into memory, so that what they name is looked at.
// Checks   what goes back to the host is whole pages of memory that the device was given.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

#include "base/event_fd.h"
#include "devices/virtio/backend/backend_device.h"
#include "devices/virtio/backend/backend_memory.h"
#include "devices/virtio/backend/backend_queue.h"
#include "devices/virtio/backend/fake_guest_driver.h"
#include "devices/virtio/balloon/balloon_device.h"
#include "devices/virtio/balloon/balloon_layout.h"
#include "devices/virtio/virtio_layout.h"
#include "memory/gpa.h"

namespace {

using namespace vmm;
namespace vb = virtio_balloon;

constexpr uint16_t kSize = 8;
constexpr uint64_t kDataBytes = 2048;

class Host final : public BalloonHost, public BackendHost {
 public:
  bool Discard(std::byte* start, uint64_t bytes) noexcept override {
    if (bytes == 0 || bytes % kPageBytes != 0 || reinterpret_cast<uintptr_t>(start) % kPageBytes != 0) std::abort();
    std::memset(start, 0, bytes);  // a fault where it is nobody's
    return ++discarded_ % 5 != 0;
  }
  bool Send(const vb::Report&) noexcept override { return ++sent_ % 3 != 0; }
  uint64_t NowMs() noexcept override { return now_ += 40; }
  void WakeAt(uint64_t) noexcept override {}
  void ConfigChanged() override {}
  void Wake(uint16_t) override {}

 private:
  int discarded_ = 0;
  int sent_ = 0;
  uint64_t now_ = 1;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  FakeGuestRam ram;
  std::vector<FakeGuestDriver> drivers;
  for (uint64_t i = 0; i < vb::kQueues; ++i) drivers.emplace_back(ram, kSize, FakeGuestRam::kBase + 0x1'0000 * i);
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
  take(content, kDataBytes / 2);
  for (FakeGuestDriver& driver : drivers) {
    take(driver.descriptors(), virtio::DescriptorBytes(kSize));
    take(driver.available(), virtio::AvailBytes(kSize));
    take(driver.used(), virtio::UsedBytes(kSize));
  }
  take(indirect, 16 * 16);
  take(content + kDataBytes / 2, kDataBytes / 2);
  // Page numbers near the memory that there is, most of them.
  for (uint64_t at = 0; at < kDataBytes; at += sizeof(uint32_t)) {
    auto& pfn = ram.Word<uint32_t>(content + at);
    if ((pfn >> 28) != 0) pfn = static_cast<uint32_t>(FakeGuestRam::kBase.raw() / kPageBytes) + pfn % 0x110;
  }
  const auto bend = [&](Gpa table, size_t count) {
    for (size_t i = 0; i < count; ++i) {
      auto& descriptor = ram.Word<virtio::Descriptor>(table + 16 * i);
      // One in eight stays what it was.
      if ((descriptor.flags & 0x7000) == 0) continue;
      const bool is_table = (descriptor.flags & virtio::kDescriptorIndirect) != 0;
      descriptor.address = (is_table ? indirect : content).raw() + (is_table ? 0 : descriptor.address & 0x3'7ffc);
      descriptor.bytes &= is_table ? 0xf0 : 0x1'ffff;
    }
  };
  for (FakeGuestDriver& driver : drivers) bend(driver.descriptors(), kSize);
  bend(indirect, 16);

  Host host;
  BalloonDevice device(host, {.target_pages = 16, .stats_seconds = (options & 4) != 0 ? 1u : 0u});
  device.OnHost(host);
  device.OnFeatures(device.features() & ((options & 1) != 0 ? ~uint64_t{0} : ~uint64_t{vb::kFeaturePagePoison}));
  for (uint32_t offset = 0; offset < 4 * (options >> 5u); offset += 3) {
    (void)device.WriteConfig(offset, std::as_bytes(std::span(&options, 1)));
  }
  EventFd call = *EventFd::Create();
  std::array<BackendQueue, vb::kQueues> queues;
  const uint64_t features = ((options & 2) != 0 ? virtio::kFeatureEventIdx : 0) | virtio::kFeatureIndirectDesc;
  for (size_t i = 0; i < vb::kQueues; ++i) queues[i].Start(drivers[i].Rings(memory), 0, features, memory, &call);
  // Pages that are given away may hold the rings: a bounded look.
  for (int turn = 0; turn < 3; ++turn) {
    for (uint16_t i = 0; i < vb::kQueues; ++i) {
      (void)device.Process(i, queues[i]);
      queues[i].Notify();
    }
    device.OnTimer();
  }
  for (uint16_t i = 0; i < vb::kQueues; ++i) {
    device.OnQueueStopped(i);
    (void)queues[i].Stop();
  }
  return 0;
}
