// Rings and requests that hold garbage, in front of the block device over a disk in memory.
//
// Shapes   the first byte: features; then the descriptor table, the available ring, the used ring (16 entries), an indirect table, and
//          data. Most addresses are bent into memory, so that what they name is looked at.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/event_fd.h"
#include "base/owned_fd.h"
#include "devices/virtio/backend/backend_device.h"
#include "devices/virtio/backend/backend_memory.h"
#include "devices/virtio/backend/backend_queue.h"
#include "devices/virtio/backend/fake_guest_driver.h"
#include "devices/virtio/backend/inflight_layout.h"
#include "devices/virtio/block/block_device.h"
#include "devices/virtio/block/disk.h"
#include "devices/virtio/virtio_layout.h"
#include "memory/gpa.h"

namespace {

using namespace vmm;

// Aborts for what the device must not ask.
class CheckedDisk final : public Disk {
 public:
  uint64_t bytes() const noexcept override { return content_.size(); }
  bool Read(uint64_t offset, std::span<iovec> vectors) noexcept override {
    for (const iovec& vector : vectors) {
      std::memcpy(vector.iov_base, At(offset, vector.iov_len), vector.iov_len);
      offset += vector.iov_len;
    }
    return true;
  }
  bool Write(uint64_t offset, std::span<iovec> vectors) noexcept override {
    for (const iovec& vector : vectors) {
      // The driver may change it meanwhile: only read.
      std::memcpy(At(offset, vector.iov_len), vector.iov_base, vector.iov_len);
      offset += vector.iov_len;
    }
    return true;
  }
  bool Flush() noexcept override { return true; }
  bool Discard(uint64_t offset, uint64_t bytes) noexcept override { return At(offset, bytes) != nullptr; }
  bool WriteZeroes(uint64_t offset, uint64_t bytes, bool) noexcept override {
    std::memset(At(offset, bytes), 0, bytes);
    return true;
  }

 private:
  std::byte* At(uint64_t offset, uint64_t bytes) {
    if (offset > content_.size() || bytes > content_.size() - offset) std::abort();
    return content_.data() + offset;
  }
  std::vector<std::byte> content_{64 * 512};
};

class NoHost final : public BackendHost {
 public:
  void ConfigChanged() override {}
  void Wake(uint16_t) override {}
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  constexpr uint16_t kSize = 16;
  FakeGuestRam ram;
  FakeGuestDriver driver(ram, kSize);
  BackendMemory memory;
  if (!memory.Add(FakeGuestRam::region(), ram.fd()).ok()) return 0;
  const uint8_t options = data[0];
  ++data;
  --size;
  const auto take = [&](Gpa to, size_t bytes) {
    const size_t part = std::min(bytes, size);
    std::memcpy(ram.At(to), data, part);
    data += part;
    size -= part;
  };
  take(driver.descriptors(), virtio::DescriptorBytes(kSize));
  take(driver.available(), virtio::AvailBytes(kSize));
  take(driver.used(), virtio::UsedBytes(kSize));
  take(driver.data(), 4096);
  const auto bend = [&](Gpa table, size_t count) {
    for (size_t i = 0; i < count; ++i) {
      auto& descriptor = ram.Word<virtio::Descriptor>(table + 16 * i);
      // One in eight stays what it was.
      if ((descriptor.flags & 0x7000) != 0) {
        descriptor.address = FakeGuestRam::kBase.raw() + 0x3000 + (descriptor.address & 0x1ff0);
        descriptor.bytes &= 0x7fff;
      }
    }
  };
  bend(driver.descriptors(), kSize);
  if ((options & 4) != 0) bend(driver.data(), 64);

  EventFd call = *EventFd::Create();
  uint64_t now = 1'000'000'000;
  BlockDevice device(std::make_unique<CheckedDisk>(), {.read_only = (options & 8) != 0, .serial = "fuzz"}, [&] { return now += 1000; }, [](uint64_t) {});
  NoHost host;
  device.OnHost(host);
  device.OnFeatures((options & 1) != 0 ? device.features() : 0);
  const bool packed = (options & 32) != 0;
  const uint64_t features = ((options & 2) != 0 ? virtio::kFeatureEventIdx : 0) | ((options & 16) == 0 ? virtio::kFeatureIndirectDesc : 0) |
                            (packed ? virtio::kFeatureRingPacked : 0);
  const uint32_t base = packed ? 1u << 31 | 1u << 15 : 0;
  // A front end's, so as hostile as a guest's rings; and out of the reach of the bent descriptors.
  const Gpa region = FakeGuestRam::kBase + 0x8'0000;
  take(region, vhost_user::InflightStride(kSize));
  const auto inflight = (options & 64) != 0 ? std::span(ram.At(region), vhost_user::InflightStride(kSize)) : std::span<std::byte>();
  // The second process comes after the first was killed.
  for (int process = 0; process < 2; ++process) {
    BackendQueue queue;
    queue.Start(driver.Rings(memory), base, features, memory, &call, inflight);
    // Requests may write over the rings, and so go on for as long as they like: a bounded look.
    for (int turn = 0; turn < 4 && device.Process(0, queue); ++turn) queue.Notify();
    queue.Notify();
    device.OnQueueStopped(0);
  }
  return 0;
}
